//! The two clients: forgers at the far ends of the wires, who check every octet that arrives.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use anytun_common::wire::checksum;
use anytun_common::wire::satp::{HEADER, Header};
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::{ANYCAST, Lab, PORT, Who};
use anytun_tests::node::Node;
use anytun_tests::wait::{PATIENCE, until};
use anytun_xdp::satp::Role;

/// Packets of a flood that leave in one system call, and octets of their inner payload.
const BURST: u32 = 60;
const FLOODING: u16 = 64;
/// The payload type of a packet with nothing inside.
const KEEP_ALIVE: u16 = 0;
/// Packets of a direction that are on their way at most: fewer than any ring holds, so that none may be lost however
/// slow the machine is.
const WINDOW: u32 = 32;
/// Where IPv4 has its TTL and its header checksum, and how long a header without options is (RFC 791).
const TTL: usize = 8;
const CHECKSUM: usize = 10;
const IP_HEADER: usize = 20;
/// IPv4 and UDP header.
const HEADERS: usize = IP_HEADER + 8;
/// Octets of a number that each packet carries, and the longest rest that still fits the MTU of the wire without a
/// fragment.
const NUMBER: u16 = 4;
const LONGEST_REST: u32 = 1420;

/// A client.
pub(crate) struct Client {
    who: Who,
    /// Seals what it sends.
    forger: Forger,
    outlet: Outlet,
    /// The next sequence number to send with.
    next: AtomicU32,
}

/// Both clients of a lab.
pub(crate) struct Clients([Client; 2]);

impl Clients {
    /// Puts them into place.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let client = |who: Who, outer: Ipv4Addr| {
            let outlet = Outlet::bind(lab.client(who), outer.into(), PORT)?;
            anyhow::Ok(Client { who, forger: forger(who), outlet, next: AtomicU32::new(0) })
        };
        let alice = client(Who::Alice, Ipv4Addr::new(198, 51, 100, 1))?;
        Ok(Self([alice, client(Who::Bob, Ipv4Addr::new(203, 0, 113, 1))?]))
    }

    /// Waits until the node hears both, who send packets that go no further. What is sent while a carrier is away or an
    /// address is resolved is lost.
    pub(crate) fn introduce(&self, node: &Node) -> Result<()> {
        let heard = || -> Result<[u64; 2]> {
            let status = node.status()?;
            let [alice, bob] = Who::BOTH.map(|who| status.client(who.name()).map(|client| client.rx.packets));
            Ok([alice?, bob?])
        };
        let before = heard()?;
        until("the node hears both clients", 3 * PATIENCE, || {
            self.0.iter().try_for_each(Client::keep_alive)?;
            Ok(heard()?.iter().zip(before).all(|(now, before)| *now > before).then_some(()))
        })
    }

    /// Sends `bursts` times 60 packets each way, without a look at what becomes of them. Whatever arrives late is checked by
    /// the next [`exchange`](Self::exchange).
    pub(crate) fn flood(&self, bursts: u32) -> Result<()> {
        let [alice, bob] = &self.0;
        thread::scope(|scope| {
            let there = scope.spawn(|| alice.flood(bursts));
            let back = bob.flood(bursts);
            let there = there.join().map_err(|_| anyhow!("alice panicked"))?;
            there.and(back)
        })?;
        // Sockets keep what fits them; what comes next needs the room.
        for client in &self.0 {
            // All that waits is read at once: sockets keep thousands.
            let silent = || {
                let mut is_silent = true;
                while client.outlet.waiting()?.is_some() {
                    is_silent = false;
                }
                Ok(is_silent.then_some(()))
            };
            until("a flooded socket is empty", PATIENCE, silent)?;
        }
        Ok(())
    }

    /// Sends `count` packets each way, of all sizes, and checks that each arrives: in order, sealed by the node with
    /// consecutive sequence numbers, and otherwise as it was sent.
    pub(crate) fn exchange(&self, count: u32) -> Result<()> {
        let [alice, bob] = &self.0;
        thread::scope(|scope| {
            let there = scope.spawn(|| alice.send_to(bob, count));
            let back = bob.send_to(alice, count);
            let there = there.join().map_err(|_| anyhow!("alice panicked"))?;
            there.and(back)
        })?;
        for client in &self.0 {
            ensure!(client.outlet.is_silent()?, "more than was sent has come to {}", client.who.name());
        }
        Ok(())
    }
}

impl Client {
    fn keep_alive(&self) -> Result<()> {
        self.send(KEEP_ALIVE, &[])
    }

    fn send(&self, kind: u16, inner: &[u8]) -> Result<()> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        self.outlet.send(&self.forger.seal(sequence, kind, inner), self.forger.service())
    }

    fn flood(&self, bursts: u32) -> Result<()> {
        let inner = flooding(self.who);
        for _ in 0..bursts {
            let first = self.next.fetch_add(BURST, Ordering::Relaxed);
            let packets: Vec<_> = (first..first + BURST).map(|number| self.forger.seal(number, IPV4, &inner)).collect();
            self.outlet.flood(&packets.concat(), packets[0].len() as u16, self.forger.service())?;
        }
        Ok(())
    }

    fn send_to(&self, other: &Client, count: u32) -> Result<()> {
        let mut arrivals = Arrivals {
            node: forger(other.who).with_role(Role::Left),
            last: HashMap::new(),
            flooding: forwarded(flooding(self.who)),
        };
        let mut sent = 0;
        for received in 0..count {
            while sent < count && sent - received < WINDOW {
                self.send(IPV4, &self.packet(sent))?;
                sent += 1;
            }
            let what = || format!("packet {received} of {count} from {} to {}", self.who.name(), other.who.name());
            let expected = forwarded(self.packet(received));
            loop {
                let got = other.outlet.receive().with_context(what)?;
                if arrivals.check(&got, &expected).with_context(what)? == Arrived::Expected {
                    break;
                }
            }
        }
        Ok(())
    }

    /// An inner packet for the other client that says which one it is.
    fn packet(&self, number: u32) -> Vec<u8> {
        // A step that visits every size before one comes again.
        let rest = (number * 997 % (LONGEST_REST + 1)) as u16;
        let mut packet = datagram(inner(self.who), inner(self.who.other()), NUMBER + rest);
        let payload = &mut packet[HEADERS..];
        for (at, octet) in payload.iter_mut().enumerate() {
            *octet = (at as u32 ^ number) as u8;
        }
        payload[..usize::from(NUMBER)].copy_from_slice(&number.to_be_bytes());
        packet
    }
}

/// What a client knows of the packets that the node sent it.
struct Arrivals {
    /// Seals as the node does.
    node: Forger,
    /// The last sequence number of each sender ID.
    last: HashMap<u16, u32>,
    /// The inner packet of a flood before.
    flooding: Vec<u8>,
}

/// What a packet was.
#[derive(PartialEq, Eq)]
enum Arrived {
    /// The one expected.
    Expected,
    /// One of a flood before.
    Late,
}

impl Arrivals {
    /// Checks that `got` is `inner`, or one of a flood, sealed by the node, with the number after the last of its sender.
    fn check(&mut self, got: &[u8], inner: &[u8]) -> Result<Arrived> {
        let header = Header::read(got, 0).with_context(|| format!("{} octets are no SATP packet", got.len()))?;
        ensure!(header.mux == self.node.mux, "{header:?} has another MUX");
        if let Some(last) = self.last.insert(header.sender, header.sequence) {
            ensure!(header.sequence == last + 1, "{header:?} follows the number {last}");
        }
        self.node.sender = header.sender;
        let expected = self.node.seal(header.sequence, IPV4, inner);
        if got != expected && got == self.node.seal(header.sequence, IPV4, &self.flooding) {
            return Ok(Arrived::Late);
        }
        if got != expected {
            let differs = got.iter().zip(&expected).position(|(got, expected)| got != expected);
            let at = differs.unwrap_or(got.len().min(expected.len()));
            let part = |octets: &[u8]| format!("{:02x?}", &octets[at..octets.len().min(at + HEADER)]);
            let (lengths, octets) = ([got.len(), expected.len()], [part(got), part(&expected)]);
            bail!("differs at octet {at}; got and expected: lengths {lengths:?}, octets {octets:?}");
        }
        Ok(Arrived::Expected)
    }
}

/// An inner packet of a flood.
fn flooding(from: Who) -> Vec<u8> {
    datagram(inner(from), inner(from.other()), FLOODING)
}

fn forger(who: Who) -> Forger {
    Forger::new(&crypto(who), who.mux(), (ANYCAST, PORT).into())
}

/// What a client and the node have agreed on.
pub(crate) fn crypto(who: Who) -> Crypto {
    Crypto::passphrase(who.passphrase())
}

fn inner(who: Who) -> Ipv4Addr {
    match who.inner()[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the first inner address is an IPv4 one"),
    }
}

/// An IPv4 packet as a router passes it on: one hop less to go (RFC 1812 §5.3.1).
fn forwarded(mut packet: Vec<u8>) -> Vec<u8> {
    packet[TTL] -= 1;
    packet[CHECKSUM..CHECKSUM + 2].fill(0);
    let checksum = checksum::of(&packet[..IP_HEADER]);
    packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}
