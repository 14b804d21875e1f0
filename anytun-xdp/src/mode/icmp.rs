//! ICMP errors about inner packets that go no further, for whoever sent them (RFC 792, RFC 1812 §4.3.2, RFC 4443 §2.4).

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, icmp, icmpv6, ipv4, ipv6};

use super::inner::{Ends, Inner};
use super::upper::{self, Upper};
use crate::table::Sources;

/// Octets of the longest error in IPv4 (RFC 1812 §4.3.2.3). In IPv6 it is what every link carries (RFC 4443 §2.4 c).
const LONGEST_V4: usize = 576;
/// Octets that every way takes in IPv4 (RFC 791 §3.2). Less is no size of a way that there is, and no sender heeds it (RFC 1191 §3).
const LEAST_V4: usize = 68;
/// What errors in IPv4 come from when the node has no address in the network (RFC 7600 §4.8).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Time to live and hop limit of errors.
const HOPS: u8 = 64;
/// Precedence or class of errors: internetwork control (RFC 1812 §4.3.2.5, RFC 2474 §4.2.2.2).
const INTERNETWORK_CONTROL: u8 = 6 << 5;
/// What of DSCP an error takes over from the packet it is about (RFC 1812 §4.3.2.5); the rest is precedence and ECN.
const SERVICE_BITS: u8 = 0b0001_1100;

const HEAD_V4: usize = ipv4::HEADER + icmp::HEADER;
const HEAD_V6: usize = ipv6::HEADER + icmpv6::HEADER;

/// Why a packet goes no further, as its sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The last hop is used up.
    HopLimit,
    /// There is no route.
    NoRoute,
    /// There is a route, but where it leads nobody can be reached now.
    NoHost,
    /// A rule of the node forbids it.
    Prohibited,
    /// It is larger than the way takes, and must not be fragmented.
    TooBig {
        /// Octets of the largest packet that the way takes.
        mtu: usize,
    },
}

impl Problem {
    /// The problem behind a verdict; `mtu` are the octets of the largest packet that the way takes. Nothing when the sender
    /// of a packet with this verdict is told nothing, as when the way has gone that it was too large for.
    #[inline]
    pub const fn of(verdict: Verdict, mtu: usize) -> Option<Self> {
        match verdict {
            Verdict::HopLimit => Some(Problem::HopLimit),
            Verdict::NoRoute | Verdict::NoWay => Some(Problem::NoRoute),
            Verdict::NoEndpoint | Verdict::NoNeighbour => Some(Problem::NoHost),
            // RFC 6888 §3, of mappings that cannot be made.
            Verdict::NatLimit | Verdict::NatPortsExhausted | Verdict::NatTableFull => Some(Problem::NoHost),
            Verdict::TooBig if mtu >= LEAST_V4 => Some(Problem::TooBig { mtu }),
            _ => None,
        }
    }

    /// Under what an error about it is counted.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self {
            Problem::HopLimit => Kind::TimeExceeded,
            Problem::NoRoute | Problem::NoHost | Problem::Prohibited => Kind::Unreachable,
            Problem::TooBig { .. } => Kind::TooBig,
        }
    }

    /// Type and code of ICMP.
    const fn v4(self) -> [u8; 2] {
        match self {
            Problem::HopLimit => [icmp::TIME_EXCEEDED, 0],
            Problem::NoRoute => [icmp::UNREACHABLE, icmp::NETWORK_UNREACHABLE],
            Problem::NoHost => [icmp::UNREACHABLE, icmp::HOST_UNREACHABLE],
            Problem::Prohibited => [icmp::UNREACHABLE, icmp::PROHIBITED],
            Problem::TooBig { .. } => [icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED],
        }
    }

    /// Type and code of ICMPv6.
    const fn v6(self) -> [u8; 2] {
        match self {
            Problem::HopLimit => [icmpv6::TIME_EXCEEDED, 0],
            Problem::NoRoute => [icmpv6::UNREACHABLE, icmpv6::NO_ROUTE],
            Problem::NoHost => [icmpv6::UNREACHABLE, icmpv6::ADDRESS_UNREACHABLE],
            Problem::Prohibited => [icmpv6::UNREACHABLE, icmpv6::PROHIBITED],
            Problem::TooBig { .. } => [icmpv6::PACKET_TOO_BIG, 0],
        }
    }
}

/// Under what errors are counted. The discriminant is the index of the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Time exceeded.
    TimeExceeded,
    /// Destination unreachable, but for fragmentation needed.
    Unreachable,
    /// Fragmentation needed, or packet too big.
    TooBig,
}

impl Kind {
    /// Every kind, in the order of the counters.
    pub const ALL: &[Kind] = &[Kind::TimeExceeded, Kind::Unreachable, Kind::TooBig];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name used in `status` and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::TimeExceeded => "time-exceeded",
            Kind::Unreachable => "unreachable",
            Kind::TooBig => "too-big",
        }
    }
}

/// Turns the packet at the start of `buffer`, of the protocol that `payload_type` (an EtherType) names, into the error about
/// it, which may need 48 octets more. Returns the octets of the error; nothing, and the packet as it was, when no error is
/// sent about it. Whether one more is `allowed` is asked last.
#[inline(never)]
pub fn answer(
    buffer: &mut [u8],
    payload_type: u16,
    problem: Problem,
    sources: Sources,
    allowed: impl FnOnce() -> bool,
) -> Option<usize> {
    let (inner, length) = Inner::new(payload_type, buffer).ok()?;
    let (ends, tos, must_not_fragment) = (inner.ends(), inner.tos(), inner.dont_fragment());
    let told = match problem {
        // A smaller packet would not be told what it does wrong, one that may be fragmented does nothing wrong.
        Problem::TooBig { mtu } => must_not_fragment && length > mtu.max(least(&ends)),
        _ => true,
    };
    let (total, has_source) = match ends {
        Ends::V4 { .. } => ((HEAD_V4 + length).min(LONGEST_V4), true),
        Ends::V6 { .. } => ((HEAD_V6 + length).min(ipv6::LEAST_MTU), sources.v6.is_some()),
    };
    if !told || !has_source || total > buffer.len() || !is_due(buffer.get(..length)?, &ends, problem) || !allowed() {
        return None;
    }
    let tos = INTERNETWORK_CONTROL | tos & SERVICE_BITS;
    match ends {
        Ends::V4 { source, .. } => {
            answer_v4(buffer.get_mut(..total)?, problem, tos, [sources.v4.unwrap_or(DUMMY), source])?;
        }
        Ends::V6 { source, .. } => answer_v6(buffer.get_mut(..total)?, problem, tos, [sources.v6?, source])?,
    }
    Some(total)
}

/// Octets of the packets that no sender makes smaller (RFC 8201 §4).
fn least(ends: &Ends) -> usize {
    match ends {
        Ends::V4 { .. } => 0,
        Ends::V6 { .. } => ipv6::LEAST_MTU,
    }
}

/// Whether an error may be sent about a packet (RFC 1812 §4.3.2.7, RFC 4443 §2.4 e).
fn is_due(packet: &[u8], ends: &Ends, problem: Problem) -> bool {
    let group = match ends {
        Ends::V4 { destination, .. } => destination.is_multicast() || destination.is_broadcast(),
        Ends::V6 { destination, .. } => destination.is_multicast() && !matches!(problem, Problem::TooBig { .. }),
    };
    if group || ends.source_is_of_link() {
        return false;
    }
    // A packet whose upper layer cannot be found may be an error, too.
    let Some(Upper { protocol, offset, later, .. }) = upper::find(packet) else { return false };
    let kind = packet.get(offset);
    !later
        && match (ends, protocol) {
            (Ends::V4 { .. }, icmp::PROTOCOL) => kind.is_some_and(|kind| icmp::is_query(*kind)),
            (Ends::V6 { .. }, icmpv6::PROTOCOL) => kind.is_some_and(|kind| !icmpv6::is_error(*kind)),
            _ => true,
        }
}

// Each gets the buffer cut to the error; as much of the packet as is quoted moves behind the headers.

fn answer_v4(error: &mut [u8], problem: Problem, tos: u8, [source, destination]: [Ipv4Addr; 2]) -> Option<()> {
    let total = error.len();
    error.copy_within(..total.checked_sub(HEAD_V4)?, HEAD_V4);
    let (h, message) = error.split_first_chunk_mut::<{ ipv4::HEADER }>()?;
    // It is small, so it is not fragmented, and needs no identification (RFC 6864 §4.1).
    h[..8].copy_from_slice(&[0x45, tos, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0]);
    h[8..12].copy_from_slice(&[HOPS, icmp::PROTOCOL, 0, 0]);
    h[ipv4::SOURCE..][..4].copy_from_slice(&source.octets());
    h[ipv4::DESTINATION..][..4].copy_from_slice(&destination.octets());
    let sum = checksum::of(h);
    h[ipv4::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    let i = message.first_chunk_mut::<{ icmp::HEADER }>()?;
    *i = [0; icmp::HEADER];
    i[..2].copy_from_slice(&problem.v4());
    if let Problem::TooBig { mtu } = problem {
        i[icmp::MTU..].copy_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    }
    let sum = checksum::of(message);
    message[icmp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn answer_v6(error: &mut [u8], problem: Problem, tos: u8, [source, destination]: [Ipv6Addr; 2]) -> Option<()> {
    error.copy_within(..error.len().checked_sub(HEAD_V6)?, HEAD_V6);
    let (h, message) = error.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let payload = u16::try_from(message.len()).ok()?;
    h[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    ipv6::set_traffic_class(h, tos);
    h[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&payload.to_be_bytes());
    (h[ipv6::NEXT_HEADER], h[ipv6::HOP_LIMIT]) = (icmpv6::PROTOCOL, HOPS);
    h[ipv6::SOURCE..][..16].copy_from_slice(&source.octets());
    h[ipv6::DESTINATION..][..16].copy_from_slice(&destination.octets());
    let i = message.first_chunk_mut::<{ icmpv6::HEADER }>()?;
    *i = [0; icmpv6::HEADER];
    i[..2].copy_from_slice(&problem.v6());
    if let Problem::TooBig { mtu } = problem {
        let mtu = u32::try_from(mtu.max(ipv6::LEAST_MTU)).unwrap_or(u32::MAX);
        i[icmpv6::MTU..].copy_from_slice(&mtu.to_be_bytes());
    }
    let pseudo = u64::from(payload) + u64::from(icmpv6::PROTOCOL);
    let sum = checksum::add(checksum::add(pseudo, &source.octets()), &destination.octets());
    let sum = !checksum::fold(checksum::add(sum, message));
    message[icmpv6::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests;
