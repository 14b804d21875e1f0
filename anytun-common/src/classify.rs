//! THE decoder: the octets of a frame become the place of an IP packet and of a UDP datagram, or the reason why there is
//! none. The XDP program runs it on packet memory, the user half on received frames, so the two can never disagree.

use crate::map::{FragmentKey, NO_PORT, ServiceKey};
use crate::verdict::Verdict;
use crate::wire::{Bytes, checksum, ethernet, icmp, icmpv6, ipv4, ipv6, mapped, tcp, udp};

// Both in this order and aligned, so that addresses are copied by words: without alignment BPF does so octet by octet.

/// A whole, unfragmented UDP datagram and where its parts lie. Offsets count octets from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Datagram {
    /// Source address, an IPv4 one mapped.
    pub source: [u8; 16],
    /// Destination address, an IPv4 one mapped.
    pub destination: [u8; 16],
    /// Offset of the IP header; the octets before it are Ethernet and its tags.
    pub network: usize,
    /// Offset of the UDP payload.
    pub payload: usize,
    /// Octets of the UDP payload, by the UDP length.
    pub length: usize,
    /// Whether the IP header is IPv4; if not it is IPv6.
    pub v4: bool,
    /// DSCP and ECN: the type of service (IPv4) or traffic class (IPv6).
    pub tos: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Datagram {
    /// The key under which the map of services would know this datagram.
    #[inline(always)]
    pub const fn service_key(&self) -> ServiceKey {
        ServiceKey::new(self.destination, self.destination_port)
    }
}

/// What an IP header says, and where it lies. Offsets count octets from the start of the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Network {
    /// Source address, an IPv4 one mapped.
    pub source: [u8; 16],
    /// Destination address, an IPv4 one mapped.
    pub destination: [u8; 16],
    /// Offset of the header; the octets before it are Ethernet and its tags.
    pub header: usize,
    /// Offset of what the header is followed by.
    pub transport: usize,
    /// Octets from there to the end of the IP packet.
    pub length: usize,
    /// Whether the header is IPv4; if not it is IPv6.
    pub v4: bool,
    /// DSCP and ECN: the type of service (IPv4) or traffic class (IPv6).
    pub tos: u8,
    /// Protocol (IPv4) or next header (IPv6).
    pub protocol: u8,
    /// Whether this is a fragment of a packet.
    pub fragment: bool,
}

/// Finds the UDP datagram of a frame. The verdict of a failure is one of those that pass to the kernel.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(frame: &B) -> Result<Datagram, Verdict> {
    datagram(frame, &network(frame)?)
}

/// Finds the IP packet of a frame. The verdict of a failure is one of those that pass to the kernel.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(frame: &B) -> Result<Network, Verdict> {
    // The one that reaches further first: it says whether the header is there.
    let ethertype = frame.read(ethernet::TYPE).ok_or(Verdict::Truncated)?;
    let [first] = frame.read(0).ok_or(Verdict::Truncated)?;
    if first & 1 != 0 {
        return Err(Verdict::GroupAddress);
    }
    let (ethertype, at) = untag(frame, u16::from_be_bytes(ethertype))?;
    match ethertype {
        ethernet::IPV4 => network_v4(frame, at),
        ethernet::IPV6 => network_v6(frame, at),
        _ => Err(Verdict::NotIp),
    }
}

/// What [`network`] finds in a frame of the kind that most are: IPv4 with neither tags nor options, whole, and no fragment.
/// Nothing of any other. Whoever goes on from here knows all offsets.
#[inline(always)]
pub fn plain<B: Bytes + ?Sized>(frame: &B) -> Option<Network> {
    const HEADER: u32 = 0x45;
    let [first, second, third, source, destination] = rows(frame, ethernet::HEADER)?;
    let [group] = frame.read(0)?;
    let ethertype = frame.read(ethernet::TYPE).map(u16::from_be_bytes)?;
    let total = (first & 0xffff) as usize;
    let sum = first as u64 + second as u64 + third as u64 + source as u64 + destination as u64;
    // Together, as hardly one of them is ever missed.
    let is_plain = group & 1 == 0
        && ethertype == ethernet::IPV4
        && first >> 24 == HEADER
        && total >= ipv4::HEADER
        && second as u16 & ipv4::FRAGMENT_MASK == 0
        && frame.length() >= ethernet::HEADER + total
        && checksum::fold(sum) == 0xffff;
    if !is_plain {
        return None;
    }
    Some(Network {
        header: ethernet::HEADER,
        transport: ethernet::HEADER + ipv4::HEADER,
        length: total - ipv4::HEADER,
        v4: true,
        tos: (first >> 16) as u8,
        protocol: (third >> 16) as u8,
        fragment: false,
        source: mapped(source.to_be_bytes()),
        destination: mapped(destination.to_be_bytes()),
    })
}

/// Finds the UDP datagram of an IP packet. The verdict of a failure is one of those that pass to the kernel.
#[inline(always)]
pub fn datagram<B: Bytes + ?Sized>(frame: &B, network: &Network) -> Result<Datagram, Verdict> {
    let Udp { payload, length, source_port, destination_port } = udp(frame, network)?;
    let Network { header, v4, tos, source, destination, .. } = *network;
    Ok(Datagram { source, destination, network: header, payload, length, v4, tos, source_port, destination_port })
}

/// What the UDP header of a datagram says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udp {
    /// Offset of the payload from the start of the frame.
    pub payload: usize,
    /// Octets of the payload, by the UDP length.
    pub length: usize,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// Reads the UDP header of an IP packet. The verdict of a failure is one of those that pass to the kernel.
#[inline(always)]
pub fn udp<B: Bytes + ?Sized>(frame: &B, network: &Network) -> Result<Udp, Verdict> {
    if network.fragment {
        return Err(Verdict::Fragment);
    }
    if network.protocol != udp::PROTOCOL {
        return Err(Verdict::NotUdp);
    }
    let header = frame.read::<{ udp::HEADER }>(network.transport).ok_or(Verdict::Truncated)?;
    let length = u16::from_be_bytes([header[4], header[5]]) as usize;
    let source_port = u16::from_be_bytes([header[0], header[1]]);
    if length < udp::HEADER || length > network.length || source_port == 0 {
        return Err(Verdict::MalformedUdp);
    }
    Ok(Udp {
        payload: network.transport + udp::HEADER,
        length: length - udp::HEADER,
        source_port,
        destination_port: u16::from_be_bytes([header[2], header[3]]),
    })
}

/// By which port of its own side a NAT knows whom a packet for its address is for: the destination port, of an answer to a
/// query of ICMP the identifier, and of an ICMP error that of the sender of the packet it quotes. [`NO_PORT`] without one, and
/// of fragments, for which there is [`fragment`].
#[inline(always)]
pub fn port<B: Bytes + ?Sized>(frame: &B, network: &Network) -> u16 {
    if network.fragment { NO_PORT } else { port_at(frame, network.transport, network.protocol, network.v4) }
}

/// A fragment of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// What tells its datagram from others.
    pub key: FragmentKey,
    /// Of the first fragment what [`port`] is of a whole packet.
    pub port: Option<u16>,
}

/// What a packet that is a fragment says of its datagram. Nothing when it is cut off.
#[inline(always)]
pub fn fragment<B: Bytes + ?Sized>(frame: &B, network: &Network) -> Option<Fragment> {
    let Network { header, transport, v4, protocol, source, destination, .. } = *network;
    let (identification, offset, at, next) = if v4 {
        let [_, _, _, _, i0, i1, o0, o1] = frame.read::<8>(header)?;
        ([0, 0, i0, i1], u16::from_be_bytes([o0, o1]) & ipv4::OFFSET_MASK, transport, protocol)
    } else {
        let [next, _, o0, o1, i0, i1, i2, i3] = frame.read::<8>(transport)?;
        ([i0, i1, i2, i3], u16::from_be_bytes([o0, o1]) & ipv6::OFFSET_MASK, transport + 8, next)
    };
    let protocol = if v4 { protocol } else { 0 };
    let key = FragmentKey { source, destination, identification, protocol, reserved: [0; 3] };
    let port = if offset == 0 { Some(port_at(frame, at, next, v4)) } else { None };
    Some(Fragment { key, port })
}

/// The [`port`] of a packet whose transport header, of this protocol, is at `at`.
#[inline(always)]
fn port_at<B: Bytes + ?Sized>(frame: &B, at: usize, protocol: u8, v4: bool) -> u16 {
    let port = match (protocol, v4) {
        (tcp::PROTOCOL | udp::PROTOCOL, _) => frame.read(at + 2),
        (icmp::PROTOCOL, true) => match frame.read::<1>(at) {
            Some([icmp::ECHO_REPLY]) => identifier(frame, at, icmp::ECHO_REPLY),
            Some([icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM]) => {
                quoted_v4(frame, at + icmp::HEADER)
            }
            _ => None,
        },
        (icmpv6::PROTOCOL, false) => match frame.read::<1>(at) {
            Some([icmpv6::ECHO_REPLY]) => identifier(frame, at, icmpv6::ECHO_REPLY),
            Some([icmpv6::UNREACHABLE..=icmpv6::PARAMETER_PROBLEM]) => quoted_v6(frame, at + icmpv6::HEADER),
            _ => None,
        },
        _ => None,
    };
    // 0 stands for fragments where ports are looked up, and no NAT has it.
    port.map(u16::from_be_bytes).filter(|port| *port != 0).unwrap_or(NO_PORT)
}

/// The identifier of an echo message at `at`, if it is of this type. It lies alike in both families (RFC 792, RFC 4443 §4).
#[inline(always)]
fn identifier<B: Bytes + ?Sized>(frame: &B, at: usize, kind: u8) -> Option<[u8; 2]> {
    let h = frame.read::<{ icmp::IDENTIFIER + 2 }>(at)?;
    if h[0] == kind { Some([h[icmp::IDENTIFIER], h[icmp::IDENTIFIER + 1]]) } else { None }
}

/// The sender's port of the IPv4 packet that an error quotes.
#[inline(always)]
fn quoted_v4<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u8; 2]> {
    let h = frame.read::<{ ipv4::PROTOCOL + 1 }>(at)?;
    let transport = at + (h[0] & 0x0f) as usize * 4;
    match h[ipv4::PROTOCOL] {
        tcp::PROTOCOL | udp::PROTOCOL => frame.read(transport),
        icmp::PROTOCOL => identifier(frame, transport, icmp::ECHO),
        _ => None,
    }
}

/// The sender's port of the IPv6 packet that an error quotes.
#[inline(always)]
fn quoted_v6<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u8; 2]> {
    let transport = at + ipv6::HEADER;
    match frame.read::<1>(at + ipv6::NEXT_HEADER)? {
        [tcp::PROTOCOL | udp::PROTOCOL] => frame.read(transport),
        [icmpv6::PROTOCOL] => identifier(frame, transport, icmpv6::ECHO),
        _ => None,
    }
}

/// Steps over up to two tags: the EtherType behind them and the offset behind that.
#[inline(always)]
fn untag<B: Bytes + ?Sized>(frame: &B, first: u16) -> Result<(u16, usize), Verdict> {
    if !ethernet::is_tag(first) {
        return Ok((first, ethernet::HEADER));
    }
    let tag = frame.read::<{ ethernet::TAG }>(ethernet::HEADER).ok_or(Verdict::Truncated)?;
    let second = u16::from_be_bytes([tag[2], tag[3]]);
    if !ethernet::is_tag(second) {
        return Ok((second, ethernet::HEADER + ethernet::TAG));
    }
    let tag = frame.read::<{ ethernet::TAG }>(ethernet::HEADER + ethernet::TAG).ok_or(Verdict::Truncated)?;
    let third = u16::from_be_bytes([tag[2], tag[3]]);
    if ethernet::is_tag(third) {
        return Err(Verdict::VlanDepth);
    }
    Ok((third, ethernet::HEADER + 2 * ethernet::TAG))
}

#[inline(always)]
fn network_v4<B: Bytes + ?Sized>(frame: &B, at: usize) -> Result<Network, Verdict> {
    // Row by row of the header's picture (RFC 791 §3.1), so that few loads tell all.
    let [first, second, third, source, destination] = rows(frame, at).ok_or(Verdict::Truncated)?;
    let header = (first >> 24 & 0x0f) as usize * 4;
    let total = (first & 0xffff) as usize;
    if first >> 28 != 4 || header < ipv4::HEADER || total < header {
        return Err(Verdict::MalformedIp);
    }
    if frame.length() < at + total {
        return Err(Verdict::Truncated);
    }
    let mut sum = if header == ipv4::HEADER { 0 } else { options_sum(frame, at, header)? };
    sum += first as u64 + second as u64 + third as u64 + source as u64 + destination as u64;
    if checksum::fold(sum) != 0xffff {
        return Err(Verdict::IpChecksum);
    }
    Ok(Network {
        header: at,
        transport: at + header,
        length: total - header,
        v4: true,
        tos: (first >> 16) as u8,
        protocol: (third >> 16) as u8,
        fragment: second as u16 & ipv4::FRAGMENT_MASK != 0,
        source: mapped(source.to_be_bytes()),
        destination: mapped(destination.to_be_bytes()),
    })
}

/// The IPv4 header without options at `at` as the numbers of its rows, read in portions that registers take.
#[inline(always)]
fn rows<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<[u32; 5]> {
    let last = u32::from_be_bytes(frame.read(at + ipv4::DESTINATION)?);
    let others = u128::from_be_bytes(frame.read(at)?);
    Some([(others >> 96) as u32, (others >> 64) as u32, (others >> 32) as u32, others as u32, last])
}

/// The checksum's share of the options of an IPv4 header of `header` octets at `at`.
#[inline(always)]
fn options_sum<B: Bytes + ?Sized>(frame: &B, at: usize, header: usize) -> Result<u64, Verdict> {
    const MAX_WORDS: usize = (60 - ipv4::HEADER) / 4;
    let mut sum = 0;
    // A fixed number of turns, because the verifier has to see the end.
    for word in 0..MAX_WORDS {
        let offset = ipv4::HEADER + word * 4;
        if offset >= header {
            break;
        }
        let octets = frame.read::<4>(at + offset).ok_or(Verdict::Truncated)?;
        sum += u64::from(u32::from_be_bytes(octets));
    }
    Ok(sum)
}

#[inline(always)]
fn network_v6<B: Bytes + ?Sized>(frame: &B, at: usize) -> Result<Network, Verdict> {
    let h = frame.read::<{ ipv6::HEADER }>(at).ok_or(Verdict::Truncated)?;
    if h[0] >> 4 != 6 {
        return Err(Verdict::MalformedIp);
    }
    let length = u16::from_be_bytes([h[4], h[5]]) as usize;
    if frame.length() < at + ipv6::HEADER + length {
        return Err(Verdict::Truncated);
    }
    let mut source = [0; 16];
    source.copy_from_slice(&h[8..24]);
    let mut destination = [0; 16];
    destination.copy_from_slice(&h[24..40]);
    Ok(Network {
        header: at,
        transport: at + ipv6::HEADER,
        length,
        v4: false,
        tos: ipv6::traffic_class(h[0], h[1]),
        protocol: h[6],
        fragment: h[6] == ipv6::FRAGMENT,
        source,
        destination,
    })
}
