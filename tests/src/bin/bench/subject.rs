//! Who is compared, under the names that the results have.

use std::fmt;
use std::str::FromStr;

use anytun_tests::daemon::Kind;
use anytun_xdp::satp::{AesCtr, Auth, Suite};

/// A way to relay packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Subject {
    /// The node.
    Node(Crypto, Shape),
    /// A bare AF_XDP relay.
    Reflector(Shape),
    /// A bare forwarder in an XDP program.
    Xdp,
    /// The kernel's IP forwarding.
    Kernel,
    /// The same with both addresses translated and connections tracked.
    NftNat,
    /// nginx, module stream.
    Nginx,
    /// socat.
    Socat,
    /// coturn: from a channel of a client to its peer.
    Coturn,
    /// A daemon in the place of the node.
    Daemon(Kind),
    /// The node in open tunnel mode: what a client sends comes out plain.
    Open(Way, Crypto),
}

/// What the node does to packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Crypto {
    /// The defaults of the protocol.
    Default,
    /// Nothing: no key derivation, no cipher, no tag.
    Null,
}

/// How packets leave an open network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Way {
    /// As they are.
    Routed,
    /// From an address and a port of the node.
    Nat,
}

/// On what a relay over AF_XDP stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Shape {
    /// Two interfaces of one queue, one worker.
    TwoInterfaces,
    /// Both clients behind the same interface.
    OneInterface,
    /// Two interfaces of two queues, two workers.
    TwoQueues,
    /// Two interfaces of one queue, one worker that never sleeps and has its processor to itself.
    Spinning,
}

impl Subject {
    /// All of them: the main ones, those of open tunnel mode, then those of other shapes.
    pub(crate) const ALL: [Subject; 24] = {
        use Shape::{OneInterface, Spinning, TwoInterfaces, TwoQueues};
        [
            Subject::Node(Crypto::Default, TwoInterfaces),
            Subject::Node(Crypto::Null, TwoInterfaces),
            Subject::Reflector(TwoInterfaces),
            Subject::Xdp,
            Subject::Kernel,
            Subject::NftNat,
            Subject::Nginx,
            Subject::Socat,
            Subject::Coturn,
            Subject::Daemon(Kind::Anytun),
            Subject::Daemon(Kind::Uanytun),
            Subject::Open(Way::Routed, Crypto::Default),
            Subject::Open(Way::Routed, Crypto::Null),
            Subject::Open(Way::Nat, Crypto::Default),
            Subject::Open(Way::Nat, Crypto::Null),
            Subject::Node(Crypto::Default, OneInterface),
            Subject::Node(Crypto::Null, OneInterface),
            Subject::Reflector(OneInterface),
            Subject::Node(Crypto::Default, TwoQueues),
            Subject::Node(Crypto::Null, TwoQueues),
            Subject::Reflector(TwoQueues),
            Subject::Node(Crypto::Default, Spinning),
            Subject::Node(Crypto::Null, Spinning),
            Subject::Reflector(Spinning),
        ]
    };

    /// On what it stands.
    pub(crate) const fn shape(self) -> Shape {
        match self {
            Subject::Node(_, shape) | Subject::Reflector(shape) => shape,
            _ => Shape::TwoInterfaces,
        }
    }

    /// Whether only its round trips are measured: its threads are not where those of the others are, so that packet rates and
    /// processor time could not be compared.
    pub(crate) fn is_for_latency(self) -> bool {
        self.shape() == Shape::Spinning
    }

    /// Whether every packet is checked at several loads.
    pub(crate) fn is_checked(self) -> bool {
        matches!(self, Subject::Node(..) | Subject::Open(..)) && !self.is_for_latency()
    }

    /// Whether it is open tunnel mode.
    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Subject::Open(..))
    }

    /// Whether `--quick` measures it: four more rows would take more than two minutes.
    pub(crate) fn is_quick(self) -> bool {
        matches!(self.shape(), Shape::TwoInterfaces | Shape::Spinning) && !self.is_open()
    }

    /// Whether it is profiled.
    pub(crate) fn is_profiled(self) -> bool {
        matches!(self, Subject::Node(_, Shape::TwoInterfaces) | Subject::Open(..))
    }

    /// What it is told from by nothing but its shape.
    pub(crate) const fn with_shape(self, shape: Shape) -> Self {
        match self {
            Subject::Node(crypto, _) => Subject::Node(crypto, shape),
            Subject::Reflector(_) => Subject::Reflector(shape),
            other => other,
        }
    }

    /// Whether it is something that an operator would use instead of the node; the others are yardsticks.
    pub(crate) const fn is_peer(self) -> bool {
        !matches!(self, Subject::Node(..) | Subject::Open(..) | Subject::Reflector(_) | Subject::Xdp)
    }

    /// Packets a second that it should carry on any machine: where the search for its peak begins.
    pub(crate) const fn modest_rate(self) -> u64 {
        match self {
            Subject::Node(..)
            | Subject::Open(..)
            | Subject::Reflector(_)
            | Subject::Xdp
            | Subject::Kernel
            | Subject::NftNat => 200_000,
            Subject::Nginx | Subject::Socat | Subject::Coturn | Subject::Daemon(_) => 30_000,
        }
    }

    /// The programs it takes, apart from those of this workspace.
    pub(crate) const fn needs(self) -> &'static [&'static str] {
        match self {
            Subject::NftNat => &["nft"],
            Subject::Nginx => &["nginx"],
            Subject::Socat => &["socat"],
            Subject::Coturn => &["turnserver"],
            Subject::Daemon(Kind::Anytun) => &["anytun", "anytun-config", "anytun-controld"],
            Subject::Daemon(Kind::Uanytun) => &["uanytun", "nft"],
            _ => &[],
        }
    }

    /// What it is, in a few words.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Subject::Node(Crypto::Default, Shape::Spinning) => {
                "the node, `idle = \"spin\"`, with a processor of its own"
            }
            Subject::Node(Crypto::Null, Shape::Spinning) => {
                "the node without cryptography, `idle = \"spin\"`, with a processor of its own"
            }
            Subject::Reflector(Shape::Spinning) => {
                "the reflector, never sleeping, with a processor of its own (yardstick)"
            }
            Subject::Node(Crypto::Default, _) => "the node: authenticate, decrypt, route, encrypt, sign",
            Subject::Node(Crypto::Null, _) => "the node without cryptography: look up, route, rewrite",
            Subject::Open(Way::Routed, Crypto::Default) => {
                "the node, open network: authenticate, decrypt, route, plain out"
            }
            Subject::Open(Way::Routed, Crypto::Null) => "the node, open network without cryptography: route, plain out",
            Subject::Open(Way::Nat, Crypto::Default) => {
                "the node, open network behind NAT: authenticate, decrypt, route, translate, plain out"
            }
            Subject::Open(Way::Nat, Crypto::Null) => {
                "the node, open network behind NAT without cryptography: route, translate, plain out"
            }
            Subject::Reflector(_) => "bare AF_XDP relay that only sets Ethernet addresses (yardstick)",
            Subject::Xdp => "bare XDP program in the kernel that only sets Ethernet addresses (yardstick)",
            Subject::Kernel => "the kernel's IP forwarding",
            Subject::NftNat => "nftables, source and destination NAT, connections tracked",
            Subject::Nginx => "nginx stream, one worker",
            Subject::Socat => "socat, one flow",
            Subject::Coturn => "coturn, ChannelData to peer, one flow",
            Subject::Daemon(Kind::Anytun) => "the daemon anytun serving both clients, default cryptography",
            Subject::Daemon(Kind::Uanytun) => "two daemons uanytun, the kernel between them, default cryptography",
        }
    }
}

impl Shape {
    /// Queues of every interface, each with a worker.
    pub(crate) const fn queues(self) -> usize {
        match self {
            Shape::TwoInterfaces | Shape::OneInterface | Shape::Spinning => 1,
            Shape::TwoQueues => 2,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Shape::TwoInterfaces => "",
            Shape::OneInterface => "/1-interface",
            Shape::TwoQueues => "/2-queues",
            Shape::Spinning => "-spin",
        }
    }
}

impl Crypto {
    /// The choices of the clients.
    pub(crate) const fn suite(self) -> Suite {
        match self {
            Crypto::Default => Suite::DEFAULT,
            Crypto::Null => Suite { kd_prf: AesCtr::Null, cipher: AesCtr::Null, auth: Auth::Null, tag_length: 0 },
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Subject::Node(Crypto::Default, _) => "anytun-xdp/default",
            Subject::Node(Crypto::Null, _) => "anytun-xdp/null",
            Subject::Reflector(_) => "reflector",
            Subject::Xdp => "xdp",
            Subject::Kernel => "kernel",
            Subject::NftNat => "nft-nat",
            Subject::Nginx => "nginx",
            Subject::Socat => "socat",
            Subject::Coturn => "coturn",
            Subject::Daemon(kind) => kind.program(),
            Subject::Open(Way::Routed, Crypto::Default) => "anytun-xdp/routed",
            Subject::Open(Way::Routed, Crypto::Null) => "anytun-xdp/routed-null",
            Subject::Open(Way::Nat, Crypto::Default) => "anytun-xdp/nat",
            Subject::Open(Way::Nat, Crypto::Null) => "anytun-xdp/nat-null",
        };
        f.write_str(name)?;
        f.write_str(self.shape().suffix())
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Subject::ALL.map(|subject| subject.to_string());
        let found = Subject::ALL.into_iter().zip(names()).find(|(_, name)| name == text);
        found.map(|(subject, _)| subject).ok_or_else(|| format!("no subject {text}; there are {}", names().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readers of the results rely on these.
    #[test]
    fn names_are_those_that_were_agreed() {
        let names: Vec<_> = Subject::ALL.iter().take(11).map(Subject::to_string).collect();
        assert_eq!(
            names.join(" "),
            "anytun-xdp/default anytun-xdp/null reflector xdp kernel nft-nat nginx socat coturn anytun uanytun"
        );
        let open: Vec<_> = Subject::ALL.iter().skip(11).take(4).map(Subject::to_string).collect();
        assert_eq!(open.join(" "), "anytun-xdp/routed anytun-xdp/routed-null anytun-xdp/nat anytun-xdp/nat-null");
        let spinning: Vec<_> =
            Subject::ALL.iter().filter(|subject| subject.is_for_latency()).map(Subject::to_string).collect();
        assert_eq!(spinning.join(" "), "anytun-xdp/default-spin anytun-xdp/null-spin reflector-spin");
        assert!(Subject::ALL.iter().all(|subject| subject.to_string().parse() == Ok(*subject)));
    }
}
