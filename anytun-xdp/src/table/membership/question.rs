//! What clients report of groups, where they are, and what they are asked.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::{self, Config};

/// Queries of which all but one may be lost (RFC 3376 §8.1, RFC 3810 §9.1).
pub const ROBUSTNESS: u32 = 2;

/// How long a client may take to answer a general query (RFC 3376 §8.3, RFC 3810 §9.3), and one about a group
/// (RFC 3376 §8.8, RFC 3810 §9.8); queries about a group follow each other after as long.
const RESPONSE: u64 = 10_000;
pub(super) const LAST_MEMBER: u64 = 1_000;

/// What holds for a network whose clients join groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snooped {
    pub(super) snooping: config::Snooping,
    /// Copies of one packet, at most.
    pub(super) copies: u32,
    /// The node's own address of IPv4 in the network.
    source: Option<Ipv4Addr>,
    /// Whether any client has addresses of IPv4, and of IPv6.
    pub(super) families: [bool; 2],
}

impl Snooped {
    /// That of the network of a configuration with this index; nothing when it does not learn.
    pub(in crate::table) fn of(config: &Config, index: usize) -> Option<Self> {
        let network = config.networks.get(index)?;
        let clients = || config.clients.iter().filter(|client| client.network == index);
        let has = |v4: bool| clients().flat_map(|client| &client.prefixes).any(|prefix| prefix.address.is_ipv4() == v4);
        let mut own = network.local.iter().flat_map(|local| &local.addresses);
        let source = own.find_map(|own| match own.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let families = [has(true), has(false)];
        Some(Self { snooping: network.snooping?, copies: network.copies, source, families })
    }

    /// Seconds between two general queries.
    pub fn query_interval(&self) -> u32 {
        self.snooping.query_interval
    }

    /// What queries of IGMP come from: the node's own address in the network; without one 0.0.0.0 (RFC 4541 §2.1.1).
    pub fn source(&self) -> Ipv4Addr {
        self.source.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The same in milliseconds.
    pub(super) fn interval(&self) -> u64 {
        u64::from(self.snooping.query_interval) * 1000
    }

    /// How long after the first question the next follows to a client that came back, in milliseconds (RFC 3376 §8.6,
    /// RFC 3810 §9.6).
    pub(super) fn startup(&self) -> u64 {
        self.interval() / 4
    }

    /// How long a client may take to answer a question: less than until the next one.
    pub fn response(&self, question: Question) -> u64 {
        match question {
            Question::AllV4 | Question::AllV6 => RESPONSE.min(self.interval() / 2),
            Question::Group(_) => LAST_MEMBER,
        }
    }

    /// How long a member is one that reports no more (RFC 3376 §8.4, RFC 3810 §9.4).
    pub(super) fn lifetime(&self) -> u64 {
        u64::from(ROBUSTNESS) * self.interval() + self.response(Question::AllV4)
    }
}

/// What a report says of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A host is a member.
    Join,
    /// A host is a member no more; others behind the same client may be.
    Leave,
}

/// What a client reports of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Number of the client.
    pub client: u32,
    /// Address of the group, an IPv4 one mapped.
    pub group: [u8; 16],
    /// What has become of it.
    pub kind: Kind,
}

/// When and where a client was heard last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whereabouts {
    /// When, in milliseconds since the node started.
    pub heard: u64,
    /// Outer address, an IPv4 one mapped, and port.
    pub endpoint: ([u8; 16], u16),
}

/// What a client is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Of which groups of IPv4 it is a member: a general query.
    AllV4,
    /// Of which groups of IPv6.
    AllV6,
    /// Whether it is a member of this group, an IPv4 one mapped.
    Group([u8; 16]),
}

/// A question and the client it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Number of the client.
    pub client: u32,
    /// Index of its network.
    pub network: u32,
    /// What it is asked.
    pub question: Question,
}
