//! SATP: what the clients of a node configuration send to each other, or to a host outside of an open network.

mod pair;

use std::net::{IpAddr, SocketAddr};

use anytun_common::classify::Datagram;
use anytun_common::generate::Slot;
use anytun_common::stamp::Stamp;
use anytun_common::wire::{checksum, ethernet, ipv4, ipv6, udp};
use anytun_xdp::config::Config;
use anytun_xdp::kernel::Link;
use anytun_xdp::satp::{AesCtr, HEADER, Header, PAYLOAD_TYPE};

use self::pair::{Client, Pair};
use super::headers::{Ends, udp_checksum};
use super::{Arrival, Bad, Prepared, Side, ethernet_header, payload};
use crate::error::Error;
use crate::size::Sizes;

/// What the largest of a mix becomes where the tunnel has no room for it.
const LARGEST_OF_MIX: usize = 1400;

/// Clients behind the interface that send, each to one behind the sink that receives, or all to one host outside.
pub struct Satp {
    pairs: Vec<Pair>,
    sizes: Sizes,
    /// Octets of the largest frame.
    largest: usize,
    /// The port of the first sending client, and of the first receiving one or of the host outside.
    ports: [u16; 2],
    /// The address of the host outside, an IPv4 one mapped.
    outside: Option<[u8; 16]>,
    service: SocketAddr,
    /// The sender ID of all clients.
    sender: u16,
    /// Ethernet headers of what leaves the interface, and the sink.
    ethernet: [[u8; ethernet::HEADER]; 2],
    /// Whether payloads travel in clear and without tags.
    clear: bool,
}

/// Where the clients are.
pub struct Places<'a> {
    /// By [`Side`]: the interface, the sink.
    pub links: [&'a Link; 2],
    /// The MAC address of the next hop at the interface.
    pub hop: [u8; 6],
    /// The outer address of the first client that sends; the ports are counted up.
    pub source: SocketAddr,
    /// Whom they send to.
    pub receivers: Receivers,
}

/// Who is behind the sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receivers {
    /// Clients of the same node.
    Clients {
        /// The MAC address of the next hop at the sink.
        hop: [u8; 6],
        /// The outer address of the first one; the ports are counted up.
        source: SocketAddr,
    },
    /// A host that knows nothing of SATP, in open tunnel mode.
    Outside(SocketAddr),
}

impl Satp {
    /// Pairs of the clients `first` to `last` of a configuration, or each of them and a host outside.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when clients, addresses and sizes do not fit each other.
    pub fn new(
        config: &Config,
        [first, last]: [usize; 2],
        places: &Places<'_>,
        sender: u16,
        mut sizes: Sizes,
    ) -> Result<Self, Error> {
        let file = config.file.display();
        let clients = config.clients.get(first..=last).ok_or_else(|| {
            Error::usage(format!(
                "--clients {first}-{last}: {file} has the clients 0-{}",
                config.clients.len() as i64 - 1
            ))
        })?;
        let (each, receivers) = match places.receivers {
            Receivers::Clients { source, .. } => (2, Some(source)),
            Receivers::Outside(_) => (1, None),
        };
        if clients.len() < each {
            return Err(Error::usage("one client has nobody to send to; --clients must name at least two"));
        }
        let count = clients.len() / each;
        let service = &config.services[clients[0].service];
        let address = SocketAddr::new(service.address, service.port);
        for (source, option) in [(Some(places.source), "--source"), (receivers, "--sink-source")] {
            let Some(source) = source else { continue };
            let highest = usize::from(source.port()) + count - 1;
            if highest > usize::from(u16::MAX) {
                return Err(Error::usage(format!(
                    "{count} clients from port {} would need ports up to {highest}; choose a lower port in {option}",
                    source.port()
                )));
            }
            if source.is_ipv4() != address.is_ipv4() {
                return Err(Error::usage(format!("{option} {source} is not of the family of the service {address}")));
            }
        }
        let pairs: Vec<Pair> = clients
            .chunks_exact(each)
            .enumerate()
            .map(|(number, clients)| Pair::new(config, number as u16, clients, address, places))
            .collect::<Result<_, _>>()?;
        let most = pairs.iter().map(|pair| pair.room(places)).min().unwrap_or_default();
        if sizes.is_mix() && sizes.largest() > most {
            sizes.limit(LARGEST_OF_MIX.min(most));
        }
        let least = ethernet::HEADER + pairs[0].inner.length() + Stamp::OCTETS;
        if sizes.smallest() < least || sizes.largest() > most {
            return Err(Error::usage(format!(
                "--size {sizes}: sealed packets of these clients can have {least} to {most} octets before they are sealed, \
                 Ethernet header included: the MTU of {} is {}, that of {} {}",
                places.links[0].name, places.links[0].mtu, places.links[1].name, places.links[1].mtu
            )));
        }
        let clear = clients.iter().all(|client| client.crypto.cipher == AesCtr::Null && client.crypto.tag() == 0);
        let overhead = pairs.iter().map(|pair| pair.sender().overhead()).max().unwrap_or_default();
        let largest = sizes.largest() + overhead;
        let header = |side: Side, hop| ethernet_header(hop, places.links[side as usize].mac, address.is_ipv4());
        let (port, outside, hop) = match places.receivers {
            Receivers::Clients { hop, source } => (source.port(), None, hop),
            Receivers::Outside(to) => (to.port(), Some(octets(to.ip())), [0; 6]),
        };
        Ok(Self {
            pairs,
            sizes,
            largest,
            ports: [places.source.port(), port],
            outside,
            service: address,
            sender,
            ethernet: [header(Side::Interface, places.hop), header(Side::Sink, hop)],
            clear,
        })
    }

    /// Clients that send.
    pub fn flows(&self) -> u32 {
        self.pairs.len() as u32
    }

    /// Clients that receive: as many, or none where they send to a host outside.
    pub fn receivers(&self) -> u32 {
        if self.is_open() { 0 } else { self.flows() }
    }

    /// Whether plain packets to a host outside come out of the node.
    pub fn is_open(&self) -> bool {
        self.outside.is_some()
    }

    /// The sizes.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Octets of the largest frame.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// Whether packets must be sealed one by one, because they are encrypted or have a tag.
    pub fn is_sealed(&self) -> bool {
        !self.clear
    }

    /// The UDP port of the service.
    pub fn service_port(&self) -> u16 {
        self.service.port()
    }

    /// The lowest and the highest UDP destination port of what arrives at a side.
    pub fn ports(&self, side: Side) -> [u16; 2] {
        let first = self.ports[side as usize];
        match side {
            Side::Sink if self.is_open() => [first; 2],
            _ => [first, first + (self.pairs.len() - 1) as u16],
        }
    }

    /// Writes the packet with this stamp from a client of `side` to its other half; returns its length, or 0 when `frame`
    /// is too short or no client is there.
    #[inline]
    pub fn write(&self, side: Side, frame: &mut [u8], stamp: &Stamp, sequence: u32) -> usize {
        let pair = &self.pairs[usize::from(stamp.flow)];
        let Some(client) = pair.client(side) else { return 0 };
        let inner = if side == Side::Interface { pair.inner } else { pair.inner.reversed() };
        let length = self.sizes.at(stamp.sequence) - ethernet::HEADER;
        let start = ethernet::HEADER + client.outer.length();
        let Some(satp) = frame.get_mut(start..) else { return 0 };
        let plain = PAYLOAD_TYPE + length;
        let Some(body) = satp.get_mut(HEADER..HEADER + plain) else { return 0 };
        let (kind, packet) = body.split_at_mut(PAYLOAD_TYPE);
        let ethertype = if inner.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        kind.copy_from_slice(&ethertype.to_be_bytes());
        let (head, data) = packet.split_at_mut(inner.length());
        let sum = payload::write(data, stamp);
        inner.write(head, data.len(), udp_checksum(sum + inner.sum(data.len())));
        self.wrap(side, client, frame, sequence, plain)
    }

    /// Writes an empty authentic packet, with which a client tells the node where it is.
    pub fn keepalive(&self, side: Side, frame: &mut [u8], flow: u16, sequence: u32) -> usize {
        let Some(client) = self.pairs[usize::from(flow)].client(side) else { return 0 };
        let start = ethernet::HEADER + client.outer.length() + HEADER;
        let Some(kind) = frame.get_mut(start..start + PAYLOAD_TYPE) else { return 0 };
        kind.copy_from_slice(&ethernet::IPV4.to_be_bytes());
        self.wrap(side, client, frame, sequence, PAYLOAD_TYPE)
    }

    /// Seals what lies in the frame and puts the headers in front.
    #[inline]
    fn wrap(&self, side: Side, client: &Client, frame: &mut [u8], sequence: u32, plain: usize) -> usize {
        let start = ethernet::HEADER + client.outer.length();
        let header = Header { sequence, sender: self.sender, mux: client.mux };
        let Some(octets) = frame.get_mut(start..).and_then(|satp| client.keys.seal(client.role, &header, satp, plain))
        else {
            return 0;
        };
        let sum = client.outer.sum(octets) + checksum::add(0, &frame[start..start + octets]);
        frame[..ethernet::HEADER].copy_from_slice(&self.ethernet[side as usize]);
        client.outer.write(&mut frame[ethernet::HEADER..start], octets, udp_checksum(sum));
        start + octets
    }

    /// Knows a packet again that arrived at `side`: opens it, if a client is there.
    #[inline]
    pub fn read(&self, side: Side, frame: &mut [u8], datagram: &Datagram) -> Result<Arrival, Bad> {
        if let Some(outside) = self.outside.filter(|_| side == Side::Sink) {
            return self.read_plain(outside, frame, datagram);
        }
        let number = datagram.destination_port.wrapping_sub(self.ports[side as usize]);
        let pair = self.pairs.get(usize::from(number)).ok_or(Bad::Foreign)?;
        let client = pair.client(side).ok_or(Bad::Foreign)?;
        let end = datagram.payload + datagram.length;
        let satp = frame.get_mut(datagram.payload..end).ok_or(Bad::Corrupt)?;
        let header = Header::read(&*satp, 0).filter(|header| header.mux == client.mux).ok_or(Bad::Corrupt)?;
        let node = client.role.opposite();
        if !client.keys.verify(node, satp) {
            return Err(Bad::Corrupt);
        }
        let body = HEADER..satp.len().checked_sub(client.keys.tag()).ok_or(Bad::Corrupt)?;
        let body = satp.get_mut(body).ok_or(Bad::Corrupt)?;
        client.keys.crypt(node, &header, body);
        let inner = if side == Side::Sink { pair.inner } else { pair.inner.reversed() };
        let data = unwrap(body, &inner).ok_or(Bad::Corrupt)?;
        let stamp = payload::read(data).filter(|stamp| stamp.flow == number).ok_or(Bad::Corrupt)?;
        Ok(Arrival { stamp, outer: Some(header) })
    }

    /// Knows a packet again that came out of the node to the host outside. Its source is the client's or that of a NAT, and a
    /// hop was counted, so what must be as it was sent is the payload, and checksums must be right.
    #[inline]
    fn read_plain(&self, outside: [u8; 16], frame: &[u8], datagram: &Datagram) -> Result<Arrival, Bad> {
        let data = frame.get(datagram.payload..datagram.payload + datagram.length).ok_or(Bad::Corrupt)?;
        if datagram.destination != outside || !payload::is_stamped(data) {
            return Err(Bad::Foreign);
        }
        let stamp = payload::read(data).ok_or(Bad::Corrupt)?;
        let pair = self.pairs.get(usize::from(stamp.flow)).ok_or(Bad::Corrupt)?;
        let sent = self.sizes.at(stamp.sequence) - ethernet::HEADER - pair.inner.length();
        if data.len() != sent || !has_right_checksums(frame, datagram) {
            return Err(Bad::Corrupt);
        }
        Ok(Arrival { stamp, outer: None })
    }

    /// The packet with this stamp for the XDP sender. Sealed, or in clear and still without sequence number and stamp.
    pub fn prepare(&self, stamp: &Stamp, sequence: u32) -> Prepared {
        let pair = &self.pairs[usize::from(stamp.flow)];
        let client = pair.sender();
        let mut frame = vec![0; self.largest];
        let length = self.write(Side::Interface, &mut frame, stamp, sequence);
        frame.truncate(length);
        let slot = Slot { length: length as u16, flow: stamp.flow, ..Slot::default() };
        if self.is_sealed() {
            return Prepared { slot, frame };
        }
        let satp_at = ethernet::HEADER + client.outer.length();
        let inner_at = satp_at + HEADER + PAYLOAD_TYPE;
        let (check_at, stamp_at) = (inner_at + pair.inner.check_at(), inner_at + pair.inner.length());
        let outer_at = ethernet::HEADER + client.outer.check_at();
        frame[satp_at..satp_at + 4].fill(0);
        frame[check_at..check_at + 2].fill(0);
        frame[stamp_at..stamp_at + Stamp::OCTETS].fill(0);
        frame[outer_at..outer_at + 2].fill(0);
        let octets = length - satp_at;
        let inner_sum = pair.inner.sum(length - stamp_at) + checksum::add(0, &frame[stamp_at..]);
        let outer_sum = client.outer.sum(octets) + checksum::add(0, &frame[satp_at..]);
        let slot = Slot {
            stamp_at: stamp_at as u16,
            check_at: check_at as u16,
            sum: checksum::fold(inner_sum),
            satp_at: satp_at as u16,
            outer_at: outer_at as u16,
            outer_sum: checksum::fold(outer_sum),
            ..slot
        };
        Prepared { slot, frame }
    }
}

/// The UDP payload of the packet in `body`; nothing unless the packet is one between these ends.
#[inline]
fn unwrap<'a>(body: &'a [u8], ends: &Ends) -> Option<&'a [u8]> {
    let (kind, packet) = body.split_at_checked(PAYLOAD_TYPE)?;
    let ethertype = if ends.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let (head, data) = packet.split_at_checked(ends.length())?;
    // What must have come through as it was sent: all but the time to live and, with it, the header checksum.
    let mut expected = [0; 48];
    let expected = expected.get_mut(..head.len())?;
    let at = ends.check_at();
    ends.write(expected, data.len(), u16::from_be_bytes([head[at], head[at + 1]]));
    let same = if ends.is_v4() {
        checksum::of(&head[..ipv4::HEADER]) == 0
            && head[..ipv4::TTL] == expected[..ipv4::TTL]
            && head[ipv4::PROTOCOL] == expected[ipv4::PROTOCOL]
            && head[ipv4::SOURCE..] == expected[ipv4::SOURCE..]
    } else {
        head[..7] == expected[..7] && head[8..] == expected[8..]
    };
    (*kind == ethertype.to_be_bytes() && same).then_some(data)
}

/// Whether the checksums of the headers of IPv4 and UDP are there and right.
fn has_right_checksums(frame: &[u8], datagram: &Datagram) -> bool {
    let (at, octets) = if datagram.v4 { (ipv4::SOURCE, 8) } else { (ipv6::SOURCE, 32) };
    let start = datagram.payload - udp::HEADER;
    let length = udp::HEADER + datagram.length;
    let parts = (
        frame.get(datagram.network..start),
        frame.get(datagram.network + at..datagram.network + at + octets),
        frame.get(start..start + length),
    );
    let (Some(header), Some(addresses), Some(datagram_octets)) = parts else { return false };
    let sum = checksum::add(checksum::add(u64::from(udp::PROTOCOL) + length as u64, addresses), datagram_octets);
    (!datagram.v4 || checksum::of(header) == 0) && checksum::fold(sum) == 0xffff
}

/// The octets of an address, an IPv4 one mapped.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests;
