//! A checked view over an IP packet or over what an ICMP error quotes of one: where the parts are that a NAT changes.

use anytun_common::wire::{Bytes, checksum, icmp, icmpv6, ipv4, ipv6, mapped, tcp, udp};

use super::change::Change;
use crate::table::nat::{End, Protocol, Refusal};

/// Extension headers that are looked behind. Three are usual at most (RFC 8200 §4.1).
const EXTENSIONS: usize = 6;

/// One of the two ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Source,
    Destination,
}

/// How much of a packet there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// As much as an error quotes.
    Quoted,
}

/// The part of a datagram that a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fragment {
    pub(super) identification: u32,
    /// Whether it has the ports.
    pub(super) is_first: bool,
}

/// What the headers of a packet say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct View {
    pub(super) is_v4: bool,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    /// Protocol number behind all headers of IP.
    pub(super) protocol: u8,
    /// Where its header starts.
    pub(super) transport: usize,
    /// Where the packet, or what there is of it, ends.
    pub(super) end: usize,
    pub(super) fragment: Option<Fragment>,
    extent: Extent,
}

/// What a packet is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    /// TCP or UDP.
    Ports { protocol: Protocol, source: u16, destination: u16, flags: u8 },
    /// An ICMP query with its identifier.
    Query(u16),
    /// The answer to one.
    Answer(u16),
    /// An ICMP error.
    Error,
}

/// Where the checksum is in a header of TCP or UDP.
#[inline]
pub(super) fn sum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        udp::PROTOCOL => Some(udp::CHECKSUM),
        tcp::PROTOCOL => Some(tcp::CHECKSUM),
        _ => None,
    }
}

/// A checksum after what it covers changed. A UDP datagram without one gets none, and a sum of zero is written as all ones
/// (RFC 768).
#[inline]
pub(super) fn mended(protocol: u8, old: u16, covered: Change) -> u16 {
    let is_udp = protocol == udp::PROTOCOL;
    match covered.repaired(old) {
        _ if is_udp && old == 0 => 0,
        0 if is_udp => 0xffff,
        new => new,
    }
}

impl View {
    /// Checks the headers of IP.
    pub(super) fn of(packet: &[u8], extent: Extent) -> Result<Self, Refusal> {
        let view = match packet.first().map(|first| first >> 4) {
            Some(4) => Self::of_v4(packet, extent),
            Some(6) => Self::of_v6(packet, extent),
            _ => None,
        };
        view.ok_or(Refusal::Malformed)
    }

    fn of_v4(packet: &[u8], extent: Extent) -> Option<Self> {
        let h = packet.first_chunk::<{ ipv4::HEADER }>()?;
        let header = usize::from(h[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
        let end = total.min(packet.len());
        if header < ipv4::HEADER || end < header || (extent == Extent::Whole && end < total) {
            return None;
        }
        let offset = u16::from_be_bytes([h[6], h[7]]) & ipv4::FRAGMENT_MASK;
        let identification = u32::from(u16::from_be_bytes([h[4], h[5]]));
        let fragment = (offset != 0).then_some(Fragment { identification, is_first: offset & 0x1fff == 0 });
        Some(Self {
            is_v4: true,
            source: mapped(packet.read(ipv4::SOURCE)?),
            destination: mapped(packet.read(ipv4::DESTINATION)?),
            protocol: h[ipv4::PROTOCOL],
            transport: header,
            end,
            fragment,
            extent,
        })
    }

    fn of_v6(packet: &[u8], extent: Extent) -> Option<Self> {
        let h = packet.first_chunk::<{ ipv6::HEADER }>()?;
        let total = ipv6::HEADER + usize::from(u16::from_be_bytes([h[4], h[5]]));
        let end = total.min(packet.len());
        if extent == Extent::Whole && end < total {
            return None;
        }
        let mut view = Self {
            is_v4: false,
            source: packet.read(ipv6::SOURCE)?,
            destination: packet.read(ipv6::DESTINATION)?,
            protocol: h[ipv6::NEXT_HEADER],
            transport: ipv6::HEADER,
            end,
            fragment: None,
            extent,
        };
        let packet = &packet[..end];
        for _ in 0..EXTENSIONS {
            let has_ports = view.fragment.is_none_or(|fragment| fragment.is_first);
            let octets = match view.protocol {
                ipv6::HOP_BY_HOP | ipv6::DESTINATION_OPTIONS if has_ports => {
                    let [_, length] = packet.read(view.transport)?;
                    (usize::from(length) + 1) * 8
                }
                ipv6::FRAGMENT if view.fragment.is_none() => {
                    let [_, _, o0, o1, i0, i1, i2, i3] = packet.read::<8>(view.transport)?;
                    let offset = u16::from_be_bytes([o0, o1]);
                    let identification = u32::from_be_bytes([i0, i1, i2, i3]);
                    // A packet in a single fragment is treated as if it were in none (RFC 8200 §4.5).
                    let is_one = offset & 0xfff9 == 0;
                    view.fragment = (!is_one).then_some(Fragment { identification, is_first: offset & 0xfff8 == 0 });
                    8
                }
                _ => break,
            };
            let [next, ..] = packet.read::<8>(view.transport)?;
            view.protocol = next;
            view.transport += octets;
            if view.transport > end {
                return None;
            }
        }
        Some(view)
    }

    /// Whether the ports are in another fragment.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.is_first)
    }

    /// Whether the datagram is one that has ports or an identifier, as far as any of its fragments says: in IPv6 options may
    /// stand before them in the first (RFC 8200 §4.5).
    pub(super) fn may_have_ports(&self) -> bool {
        match self.protocol {
            udp::PROTOCOL | tcp::PROTOCOL => true,
            ipv6::HOP_BY_HOP | ipv6::DESTINATION_OPTIONS => !self.is_v4,
            _ => self.is_icmp(),
        }
    }

    /// Whether it is ICMP of its family.
    pub(super) fn is_icmp(&self) -> bool {
        self.protocol == if self.is_v4 { icmp::PROTOCOL } else { icmpv6::PROTOCOL }
    }

    /// What it is about. Not for later fragments.
    pub(super) fn message(&self, packet: &[u8]) -> Result<Message, Refusal> {
        let transport = packet.get(self.transport..self.end).ok_or(Refusal::Malformed)?;
        let h = transport.first_chunk::<8>();
        let word = |h: &[u8; 8], at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let ports = |protocol, flags| {
            let h = h.ok_or(Refusal::Malformed)?;
            Ok(Message::Ports { protocol, source: word(h, 0), destination: word(h, 2), flags })
        };
        match self.protocol {
            udp::PROTOCOL => ports(Protocol::Udp, 0),
            tcp::PROTOCOL => {
                // A fragment that hides the flags is an attack (RFC 1858 §3).
                let is_cut = self.extent == Extent::Whole && transport.len() < tcp::HEADER;
                if is_cut { Err(Refusal::Malformed) } else { ports(Protocol::Tcp, *transport.get(13).unwrap_or(&0)) }
            }
            _ if self.is_icmp() => {
                let h = h.ok_or(Refusal::Malformed)?;
                let id = word(h, 4);
                // Echo and timestamp (RFC 792), and the errors that RFC 1122 §3.2.2 gives to the transport; RFC 4443.
                match (self.is_v4, h[0]) {
                    (true, 8 | 13) | (false, 128) => Ok(Message::Query(id)),
                    (true, 0 | 14) | (false, 129) => Ok(Message::Answer(id)),
                    (true, 3 | 11 | 12) | (false, 1..=4) => Ok(Message::Error),
                    _ => Err(Refusal::Protocol),
                }
            }
            _ => Err(Refusal::Protocol),
        }
    }

    /// Where the checksum of what is in the packet is, if the packet reaches that far.
    pub(super) fn checksum_at(&self) -> Option<usize> {
        let offset = if self.is_icmp() { 2 } else { sum_offset(self.protocol)? };
        let at = self.transport + offset;
        (at + 2 <= self.end && !self.is_later_fragment()).then_some(at)
    }

    /// Where a port is, or the identifier of an ICMP query.
    fn port_at(&self, side: Side) -> usize {
        let offset = match side {
            _ if self.is_icmp() => 4,
            Side::Source => 0,
            Side::Destination => 2,
        };
        self.transport + offset
    }

    /// Whether the checksum covers the addresses, as that of ICMP for IPv4 does not.
    fn is_sum_over_addresses(&self) -> bool {
        !(self.is_v4 && self.is_icmp())
    }

    /// Puts another address in the place of one, and repairs the header checksum of IPv4. Returns the change of the
    /// address, and that of all octets.
    fn put_address(&self, packet: &mut [u8], side: Side, address: &[u8; 16]) -> (Change, Change) {
        let mut change = Change::default();
        if !self.is_v4 {
            let at = if side == Side::Source { ipv6::SOURCE } else { ipv6::DESTINATION };
            change.put(packet, at, address);
            return (change, change);
        }
        let at = if side == Side::Source { ipv4::SOURCE } else { ipv4::DESTINATION };
        let [.., a, b, c, d] = *address;
        change.put(packet, at, &[a, b, c, d]);
        let mut all = change;
        if let Some(sum) = packet.read(ipv4::CHECKSUM).map(u16::from_be_bytes) {
            all.put(packet, ipv4::CHECKSUM, &change.repaired(sum).to_be_bytes());
        }
        (change, all)
    }

    /// Repairs the checksum of what is in the packet.
    fn repair(&self, packet: &mut [u8], covered: Change, all: &mut Change) {
        let Some(at) = self.checksum_at() else { return };
        let Some(old) = packet.read(at).map(u16::from_be_bytes) else { return };
        all.put(packet, at, &mended(self.protocol, old, covered).to_be_bytes());
    }

    /// Puts another end in the place of one: address and port, or identifier, of a later fragment the address alone. Returns
    /// the change of all octets.
    pub(super) fn put_end(&self, packet: &mut [u8], side: Side, end: &End) -> Change {
        let (address, mut all) = self.put_address(packet, side, &end.address);
        if self.is_later_fragment() {
            return all;
        }
        let mut port = Change::default();
        port.put(packet, self.port_at(side), &end.port.to_be_bytes());
        all += port;
        let mut covered = port;
        if self.is_sum_over_addresses() {
            covered += address;
        }
        self.repair(packet, covered, &mut all);
        all
    }

    /// Puts another address in the place of one in an ICMP error in which `quoted` changed already.
    pub(super) fn put_around(&self, packet: &mut [u8], side: Side, address: &[u8; 16], quoted: Change) {
        let (address, mut all) = self.put_address(packet, side, address);
        let mut covered = quoted;
        if self.is_sum_over_addresses() {
            covered += address;
        }
        self.repair(packet, covered, &mut all);
    }

    /// The sum of all that the checksum of a whole datagram covers, the checksum included: right is 0xffff.
    pub(super) fn sum(&self, packet: &[u8]) -> u16 {
        let datagram = packet.get(self.transport..self.end).unwrap_or_default();
        let mut sum = checksum::add(0, datagram);
        if self.is_sum_over_addresses() {
            // The prefix of a mapped address is no part of the pseudo-header.
            let from = if self.is_v4 { 12 } else { 0 };
            sum = checksum::add(checksum::add(sum, &self.source[from..]), &self.destination[from..]);
            sum += datagram.len() as u64 + u64::from(self.protocol);
        }
        checksum::fold(sum)
    }

    /// Reckons the checksum of a whole TCP segment or UDP datagram anew, whatever it was.
    pub(super) fn complete(&self, packet: &mut [u8]) {
        let Some(field) = self.checksum_at().and_then(|at| packet.get_mut(at..at + 2)) else { return };
        field.fill(0);
        let sum = match !self.sum(packet) {
            0 if self.protocol == udp::PROTOCOL => 0xffff,
            sum => sum,
        };
        if let Some(field) = self.checksum_at().and_then(|at| packet.get_mut(at..at + 2)) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}
