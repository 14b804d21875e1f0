//! ICMP errors about the node's own tunnel packets: a router on the way to a client says how large they may be (RFC 1191,
//! RFC 8201, RFC 2003 §4). Whoever knows the addresses can make such errors, so what they quote has to fit what is sent.

use anytun_common::map::ServiceKey;
use anytun_common::wire::satp::{self, Header};
use anytun_common::wire::{Bytes, checksum, icmp, icmpv6, ipv4, ipv6, mapped, udp};

use crate::table::{Endpoint, Tables};

/// Octets that every host takes in IPv4: no router that means well says less (RFC 791 §3.1, RFC 2923 §3).
pub const LEAST_V4: usize = 576;

/// What an error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    /// Octets of the largest packet that goes on.
    pub mtu: u16,
    /// Where the quoted packet came from: a service.
    pub service: ServiceKey,
    /// Where it was going, an IPv4 address mapped.
    pub address: [u8; 16],
    /// The port there.
    pub port: u16,
    /// The SATP header, if as much is quoted.
    pub header: Option<Header>,
}

impl TooBig {
    /// Reads an ICMP message. Nothing when it is damaged, or no error about a UDP packet that was too big.
    pub fn of_icmp(message: &[u8]) -> Option<Self> {
        let h: [u8; icmp::HEADER] = message.read(0)?;
        if h[..2] != [icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED] || checksum::of(message) != 0 {
            return None;
        }
        let quote = message.get(icmp::HEADER..)?;
        let ip: [u8; ipv4::HEADER] = quote.read(0)?;
        let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let header = usize::from(ip[0] & 0x0f) * 4;
        // The node writes no options, and what it sends is not a fragment when it meets a link that is too small.
        if ip[0] != 0x45 || ip[ipv4::PROTOCOL] != udp::PROTOCOL || word(ipv4::FLAGS) & ipv4::OFFSET_MASK != 0 {
            return None;
        }
        let address = |at: usize| mapped([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        let total = word(ipv4::TOTAL_LENGTH);
        let mtu = plausible(u32::from(u16::from_be_bytes([h[6], h[7]])), LEAST_V4, usize::from(total))?;
        Self::of_quote(quote.get(header..)?, mtu, address(ipv4::SOURCE), address(ipv4::DESTINATION))
    }

    /// Reads an ICMPv6 message whose checksum was found right. Nothing when it is no error about a UDP packet that was too
    /// big.
    pub fn of_icmpv6(message: &[u8]) -> Option<Self> {
        let h: [u8; icmpv6::HEADER] = message.read(0)?;
        if h[..2] != [icmpv6::PACKET_TOO_BIG, 0] {
            return None;
        }
        let quote = message.get(icmpv6::HEADER..)?;
        let ip: [u8; ipv6::HEADER] = quote.read(0)?;
        if ip[0] >> 4 != 6 || ip[ipv6::NEXT_HEADER] != udp::PROTOCOL {
            return None;
        }
        let total = ipv6::HEADER + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let mtu = plausible(u32::from_be_bytes([h[4], h[5], h[6], h[7]]), ipv6::LEAST_MTU, total)?;
        let address = |at: usize| quote.read(at);
        Self::of_quote(quote.get(ipv6::HEADER..)?, mtu, address(ipv6::SOURCE)?, address(ipv6::DESTINATION)?)
    }

    /// Reads the quoted UDP header and what is behind it.
    fn of_quote(datagram: &[u8], mtu: u16, source: [u8; 16], address: [u8; 16]) -> Option<Self> {
        let ports: [u8; udp::HEADER] = datagram.read(0)?;
        let [source_port, port] = [0, 2].map(|at| u16::from_be_bytes([ports[at], ports[at + 1]]));
        let header = (datagram.len() >= udp::HEADER + satp::HEADER).then(|| Header::read(datagram, udp::HEADER));
        Some(Self { mtu, service: ServiceKey::new(source, source_port), address, port, header: header.flatten() })
    }

    /// Notes the MTU for the client that the quoted packet was for, `now` milliseconds after the node started, if it can have
    /// been sent: to a client of that service and MUX, which is at that address and port, and with a number that the client
    /// was sent lately. Who is not on the way does not know that number (RFC 5927 §4.1 for TCP).
    pub fn learn(&self, tables: &Tables, now: u64) -> Heard {
        let Some(service) = tables.services.find(&self.service) else { return Heard::Foreign };
        let Some(header) = self.header else { return Heard::ShortQuote };
        let number = service.client(header.mux);
        let Some(client) = number.and_then(|client| tables.clients.get(client as usize)) else {
            return Heard::UnknownClient;
        };
        let is_there = |endpoint: Endpoint| (endpoint.address(), endpoint.port()) == (self.address, self.port);
        if !client.track.endpoint.load().is_some_and(is_there) {
            return Heard::Elsewhere;
        }
        if !client.sequences.iter().any(|sequence| sequence.was_taken_lately(header.sender, header.sequence)) {
            return Heard::NotSent;
        }
        if client.track.path.learn(self.address, self.mtu, now) { Heard::Accepted } else { Heard::Known }
    }
}

/// What becomes of an error about a packet that was too big. The discriminant is the index of the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It tells the MTU of the way to a client from now on.
    Accepted,
    /// A smaller MTU is known already.
    Known,
    /// It is damaged, or not about a packet of a service that was too big.
    Foreign,
    /// It quotes too little to be checked.
    ShortQuote,
    /// No client of the service has the MUX.
    UnknownClient,
    /// The client is not where the packet was going.
    Elsewhere,
    /// The client was not sent that number lately.
    NotSent,
}

impl Heard {
    /// All, in the order of the counters.
    pub const ALL: &[Heard] = &[
        Heard::Accepted,
        Heard::Known,
        Heard::Foreign,
        Heard::ShortQuote,
        Heard::UnknownClient,
        Heard::Elsewhere,
        Heard::NotSent,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name used in `status` and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Heard::Accepted => "accepted",
            Heard::Known => "known",
            Heard::Foreign => "foreign",
            Heard::ShortQuote => "short-quote",
            Heard::UnknownClient => "unknown-client",
            Heard::Elsewhere => "elsewhere",
            Heard::NotSent => "not-sent",
        }
    }
}

/// An MTU that is used in place of the one an error tells: never less than `least`; nothing when the quoted packet of
/// `total` octets would have fitted. A router older than RFC 1191 tells 0, and of the sizes it may have meant the least is
/// safe.
fn plausible(told: u32, least: usize, total: usize) -> Option<u16> {
    let mtu = usize::try_from(told).ok()?.max(least);
    u16::try_from(mtu).ok().filter(|_| mtu < total)
}

#[cfg(test)]
mod tests;
