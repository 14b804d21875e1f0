//! Mappings and sessions of a NAT: which port outside stands for which address and port inside, who outside may use it, and
//! how long (RFC 4787 for UDP, RFC 5382 and RFC 7857 for TCP, RFC 5508 for ICMP, RFC 6888 for what clients share).
//!
//! A *mapping* is a port of the range, for one protocol, lent to one address and port of one client, whoever it talks to. A
//! *session* is a mapping and somebody outside that the client has sent to. Sessions have the timers; a mapping lasts as
//! long as it has a session, which it counts in its own word, so there is one kind of expiry and a mapping that is in use
//! cannot end. When its last session ends the port rests for a while and is then free.
//!
//! Both are kept in records of arrays that are made once: of mappings the array is the range, so packets from outside need
//! no search for theirs. Any worker may do anything at any time, as an answer arrives at any queue, and none ever waits:
//! `record` argues why what is read belongs together, `index` why no two records have one key, `pool` why no port has
//! two owners. That a refreshed session does not expire follows from the one word with its end: both replace it only if
//! it still is what they saw.
//!
//! | word of a record | mapping | session |
//! | --- | --- | --- |
//! | state | status, generation, sessions or end of rest | status, TCP state, generation, end in seconds |
//! | 1 | account, port inside | number of the mapping, port of the other end |
//! | 2, 3 | address inside | address of the other end |

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anytun_common::verdict::Verdict;
use anytun_common::wire::mapped;

use crate::satp::Pages;

mod account;
mod ahead;
mod fragment;
mod index;
mod inside;
mod outside;
mod pool;
mod record;
mod settings;
mod sweep;
mod tcp;

pub use account::{Account, Member};
use account::{Accounts, Part};
use fragment::Fragments;
pub use fragment::LIFE as FRAGMENT_LIFE;
use index::{Index, Seeds};
pub use outside::Inside;
use pool::Pool;
use record::Record;
use settings::Adjustable;
pub use settings::{Filtering, Limits, MOST_SESSIONS, Settings, Timers};
use sweep::Hand;
pub use sweep::ROUND as SWEEP_ROUND;
pub use tcp::{FIN, RST, SYN};
use tcp::{Tcp, Way};

/// What has ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// UDP: a session is silent for five minutes before it ends.
    Udp,
    /// TCP.
    Tcp,
    /// Queries of ICMP and ICMPv6, whose identifier takes the place of both ports.
    Icmp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Icmp];
}

/// An address, IPv4 in the form `::ffff:a.b.c.d`, and a port; of an ICMP query, its identifier on the side of the
/// client and 0 on the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct End {
    /// The address.
    pub address: [u8; 16],
    /// The port.
    pub port: u16,
}

impl End {
    /// The address as the two words in which records have it.
    fn words(&self) -> [u64; 2] {
        let number = u128::from_be_bytes(self.address);
        [(number >> 64) as u64, number as u64]
    }

    fn from_words(port: u64, [high, low]: [u64; 2]) -> Self {
        Self { address: (u128::from(high) << 64 | u128::from(low)).to_be_bytes(), port: port as u16 }
    }
}

/// A packet as far as the tables care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// What kind it is.
    pub protocol: Protocol,
    /// The end that is not the client's.
    pub remote: End,
    /// TCP flags as in the header; 0 for others.
    pub flags: u8,
}

/// Why a packet is not translated. It was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `nat-limit`: the client has as many ports or sessions as one may have.
    ClientLimit,
    /// `nat-ports-exhausted`: every port of the range is in use or at rest.
    PortsExhausted,
    /// `nat-table-full`: as many sessions in all as there may be.
    TableFull,
    /// `nat-no-mapping`: nobody has the port, or what the packet answers is not known here.
    NoMapping,
    /// `nat-filtered`: the client has not sent to where the packet comes from.
    Filtered,
    /// `nat-foreign-range`: for a port of the address that is not of this node's range.
    ForeignRange,
    /// `nat-protocol`: neither TCP, UDP nor a message of ICMP that a NAT translates.
    Protocol,
    /// `nat-fragment`: a later fragment whose first was not translated here in the last two seconds.
    Fragment,
    /// `malformed-inner`: a header that contradicts itself or is cut off, or an ICMP error with a wrong checksum.
    Malformed,
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ClientLimit => Self::NatLimit,
            Refusal::PortsExhausted => Self::NatPortsExhausted,
            Refusal::TableFull => Self::NatTableFull,
            Refusal::NoMapping => Self::NatNoMapping,
            Refusal::Filtered => Self::NatFiltered,
            Refusal::ForeignRange => Self::NatForeignRange,
            Refusal::Protocol => Self::NatProtocol,
            Refusal::Fragment => Self::NatFragment,
            Refusal::Malformed => Self::MalformedInner,
        }
    }
}

/// No account is left: over a million clients are or were just members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a NAT can have 1048576 clients at once; move some to a network with a NAT of its own")]
pub struct NoAccount;

/// What there is, all clients together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Ports with a mapping.
    pub mappings: usize,
    /// Ports that rest.
    pub resting: usize,
    /// Sessions, those included that have ended but not been visited yet.
    pub sessions: usize,
}

/// What one client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Ports, those that rest included.
    pub ports: u32,
    /// Sessions.
    pub sessions: u32,
}

/// The tables of one address and range, for all workers and across snapshots.
///
/// Times are milliseconds since the node started. Clocks of workers may differ a little.
pub struct Nat {
    /// What it was made with.
    settings: Settings,
    /// What of that may have changed since.
    adjustable: Adjustable,
    /// The address outside.
    address: [u8; 16],
    /// UDP ports, then TCP ports, then ICMP identifiers, each from the first of the range to the last.
    mappings: Pages<Record>,
    /// Whose ports are taken, by protocol.
    ports: [Pool; 3],
    by_inside: Index,
    sessions: Pages<Record>,
    taken: Pool,
    by_remote: Index,
    accounts: Accounts,
    fragments: Fragments,
    seeds: Seeds,
    /// For what must not be foreseen or mistaken, and is not needed for every packet.
    hash: RandomState,
    draws: AtomicU64,
    hand: Hand,
}

impl Nat {
    /// All memory it ever takes but that of accounts.
    pub fn new(settings: Settings) -> Self {
        let ports = settings.ports.count();
        let sessions = settings.limits.sessions.clamp(1, MOST_SESSIONS);
        let records = |count: usize| (0..count).map(|_| Record::default()).collect::<Vec<_>>().into();
        let hash = RandomState::new();
        let address = match settings.address {
            IpAddr::V4(address) => mapped(address.octets()),
            IpAddr::V6(address) => address.octets(),
        };
        Self {
            adjustable: Adjustable::new(&settings),
            settings,
            address,
            mappings: records(Protocol::ALL.len() * ports),
            ports: Protocol::ALL.map(|_| Pool::new(ports)),
            by_inside: Index::new(Protocol::ALL.len() * ports),
            sessions: records(sessions),
            taken: Pool::new(sessions),
            by_remote: Index::new(sessions),
            accounts: Accounts::new(),
            fragments: Fragments::new(),
            seeds: Seeds::new(&hash),
            hash,
            draws: AtomicU64::new(0),
            hand: Hand::default(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes over from `settings` that [differ little](Settings::differ_little) how much a client may have and how long it
    /// lasts. Who has more keeps it; a session that had a packet before lasts as long as it was to then.
    pub fn adjust(&self, settings: &Settings) {
        self.adjustable.set(settings);
    }

    /// The address outside, IPv4 in the form `::ffff:a.b.c.d`.
    pub fn address(&self) -> [u8; 16] {
        self.address
    }

    /// Admits a client. Not for the packet path.
    ///
    /// # Errors
    /// When no account is left.
    pub fn admit(self: &Arc<Self>) -> Result<Member, NoAccount> {
        let account = self.accounts.open().ok_or(NoAccount)?;
        Ok(Member::new(self.clone(), account))
    }

    /// What a client has.
    pub fn usage(&self, account: Account) -> Usage {
        let used = |part| self.accounts.used(account, part);
        Usage { ports: used(Part::Ports), sessions: used(Part::Sessions) }
    }

    /// Counts what there is. Not for the packet path.
    pub fn totals(&self) -> Totals {
        let count =
            |records: &[Record], status| records.iter().filter(|record| record.state().status() == status).count();
        Totals {
            mappings: count(&self.mappings, record::Status::Live),
            resting: count(&self.mappings, record::Status::Held),
            sessions: count(&self.sessions, record::Status::Live),
        }
    }

    /// Names a datagram in fragments for the functions about those: what its fragments have in common. `sender` is the
    /// client that sends it, nobody when it comes from outside.
    pub fn fragment_key(
        &self,
        sender: Option<Account>,
        ends: [&[u8; 16]; 2],
        identification: u32,
        protocol: u8,
    ) -> u64 {
        let [a, b] = ends.map(|address| u128::from_be_bytes(*address));
        let sender = sender.map_or(0, |account| account.to_bits() | 1);
        let rest = u64::from(identification) << 8 | u64::from(protocol);
        self.hash.hash_one([sender, (a >> 64) as u64, a as u64, (b >> 64) as u64, b as u64, rest])
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Index of the mapping of a port, if it is of the range.
    fn number(&self, protocol: Protocol, port: u16) -> Option<usize> {
        let range = self.settings.ports;
        let place = range.contains(port).then(|| usize::from(port - range.first()))?;
        Some(protocol as usize * range.count() + place)
    }

    fn port(&self, number: usize) -> u16 {
        let range = self.settings.ports;
        range.first() + (number % range.count()) as u16
    }

    fn protocol(&self, number: usize) -> Protocol {
        let place = number / self.settings.ports.count();
        Protocol::ALL.get(place).copied().unwrap_or(Protocol::Icmp)
    }

    /// A number that nobody can foresee.
    fn draw(&self) -> u64 {
        self.hash.hash_one(self.draws.fetch_add(1, Ordering::Relaxed))
    }

    /// The words of a mapping and their hash.
    fn inside_key(&self, account: Account, protocol: Protocol, inside: &End) -> ([u64; 3], u64) {
        let [high, low] = inside.words();
        let words = [account.to_bits() | u64::from(inside.port), high, low];
        (words, self.inside_hash(protocol, &words))
    }

    fn inside_hash(&self, protocol: Protocol, words: &[u64; 3]) -> u64 {
        self.seeds.hash(words, protocol as u64)
    }

    /// The words of a session and their hash. As coarse as filtering is: then whoever is alike shares a session.
    fn remote_key(&self, number: usize, flow: &Flow) -> ([u64; 3], u64) {
        let [high, low] = flow.remote.words();
        let words = match (flow.protocol, self.settings.filtering) {
            (Protocol::Tcp, _) | (_, Filtering::AddressAndPortDependent) => {
                [(number as u64) << 16 | u64::from(flow.remote.port), high, low]
            }
            (_, Filtering::AddressDependent) => [(number as u64) << 16, high, low],
            (_, Filtering::EndpointIndependent) => [(number as u64) << 16, 0, 0],
        };
        (words, self.remote_hash(&words))
    }

    fn remote_hash(&self, words: &[u64; 3]) -> u64 {
        self.seeds.hash(words, 0)
    }

    /// When something that lasts `seconds` from `now` on ends: a second, not before its time.
    fn end(now: u64, seconds: u32) -> u32 {
        u32::try_from(now.div_ceil(1000)).unwrap_or(u32::MAX).saturating_add(seconds)
    }

    /// Whether that second has come.
    fn has_ended(end: u32, now: u64) -> bool {
        now / 1000 >= u64::from(end)
    }

    /// Seconds that a session lives without another packet.
    fn life(&self, protocol: Protocol, tcp: Tcp) -> u32 {
        let timers = &self.settings.timers;
        match protocol {
            Protocol::Udp => self.adjustable.udp(),
            Protocol::Icmp => timers.icmp,
            Protocol::Tcp if tcp.is_established() => timers.tcp_established,
            Protocol::Tcp => timers.tcp_transitory,
        }
    }
}

impl std::fmt::Debug for Nat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nat").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
