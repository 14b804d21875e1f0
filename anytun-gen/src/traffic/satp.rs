//! SATP: what the clients of a node configuration send to each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anytun_common::classify::Datagram;
use anytun_common::generate::Slot;
use anytun_common::stamp::Stamp;
use anytun_common::wire::{checksum, ethernet, ipv4};
use anytun_xdp::config::{self, Config};
use anytun_xdp::kernel::Link;
use anytun_xdp::satp::{AesCtr, HEADER, Header, Keys, PAYLOAD_TYPE, Role};

use super::headers::{Ends, udp_checksum};
use super::{Arrival, Bad, Prepared, Side, ethernet_header, payload};
use crate::error::Error;
use crate::size::Sizes;

/// UDP ports inside the tunnel.
const INNER_PORTS: [u16; 2] = [7000, 9000];
/// What the largest of a mix becomes where the tunnel has no room for it.
const LARGEST_OF_MIX: usize = 1400;

/// Pairs of clients: one behind the interface sends, one behind the sink receives.
pub struct Satp {
    pairs: Vec<Pair>,
    sizes: Sizes,
    /// Octets of the largest frame.
    largest: usize,
    /// The port of the first sending client, and of the first receiving one.
    ports: [u16; 2],
    service: SocketAddr,
    /// The sender ID of all clients.
    sender: u16,
    /// Ethernet headers of what leaves the interface, and the sink.
    ethernet: [[u8; ethernet::HEADER]; 2],
    /// Whether payloads travel in clear and without tags.
    clear: bool,
}

/// A client that sends, and the one it sends to.
struct Pair {
    /// By [`Side`]: the one at the interface, the one at the sink.
    clients: [Client; 2],
    /// The addresses inside, from the first to the second.
    inner: Ends,
}

/// One end.
struct Client {
    keys: Keys,
    /// Of the client; the node has the other one.
    role: Role,
    mux: u16,
    /// From the client to the service.
    outer: Ends,
}

/// Where the clients are.
pub struct Places<'a> {
    /// By [`Side`]: the interface, the sink.
    pub links: [&'a Link; 2],
    /// The MAC addresses of the next hops.
    pub hops: [[u8; 6]; 2],
    /// The outer address of the first client; the ports are counted up.
    pub sources: [SocketAddr; 2],
}

impl Satp {
    /// Pairs of the clients `first` to `last` of a configuration.
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
        if clients.len() < 2 {
            return Err(Error::usage("one client has nobody to send to; --clients must name at least two"));
        }
        let count = clients.len() / 2;
        let service = &config.services[clients[0].service];
        let address = SocketAddr::new(service.address, service.port);
        for (source, option) in places.sources.iter().zip(["--source", "--sink-source"]) {
            let highest = usize::from(source.port()) + count - 1;
            if source.port() == 0 || highest > usize::from(u16::MAX) {
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
            .chunks_exact(2)
            .enumerate()
            .map(|(number, two)| pair(config, number as u16, [&two[0], &two[1]], address, places.sources))
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
        let largest = pairs.iter().map(|pair| pair.frame(sizes.largest())).max().unwrap_or_default();
        let header = |side: usize| ethernet_header(places.hops[side], places.links[side].mac, address.is_ipv4());
        Ok(Self {
            pairs,
            sizes,
            largest,
            ports: places.sources.map(|source| source.port()),
            service: address,
            sender,
            ethernet: [header(0), header(1)],
            clear,
        })
    }

    /// Pairs of clients.
    pub fn flows(&self) -> u32 {
        self.pairs.len() as u32
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

    /// The lowest and the highest port of the clients of a side.
    pub fn ports(&self, side: Side) -> [u16; 2] {
        let first = self.ports[side as usize];
        [first, first + (self.pairs.len() - 1) as u16]
    }

    /// Writes the packet with this stamp from a client of `side` to its other half; returns its length, or 0 when `frame`
    /// is too short.
    #[inline]
    pub fn write(&self, side: Side, frame: &mut [u8], stamp: &Stamp, sequence: u32) -> usize {
        let pair = &self.pairs[usize::from(stamp.flow)];
        let client = &pair.clients[side as usize];
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
        self.wrap(side, frame, stamp.flow, sequence, plain)
    }

    /// Writes an empty authentic packet, with which a client tells the node where it is.
    pub fn keepalive(&self, side: Side, frame: &mut [u8], flow: u16, sequence: u32) -> usize {
        let start = ethernet::HEADER + self.pairs[usize::from(flow)].clients[side as usize].outer.length() + HEADER;
        let Some(kind) = frame.get_mut(start..start + PAYLOAD_TYPE) else { return 0 };
        kind.copy_from_slice(&ethernet::IPV4.to_be_bytes());
        self.wrap(side, frame, flow, sequence, PAYLOAD_TYPE)
    }

    /// Seals what lies in the frame and puts the headers in front.
    #[inline]
    fn wrap(&self, side: Side, frame: &mut [u8], flow: u16, sequence: u32, plain: usize) -> usize {
        let client = &self.pairs[usize::from(flow)].clients[side as usize];
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

    /// Opens a packet that arrived at `side`.
    #[inline]
    pub fn read(&self, side: Side, frame: &mut [u8], datagram: &Datagram) -> Result<Arrival, Bad> {
        let number = datagram.destination_port.wrapping_sub(self.ports[side as usize]);
        let pair = self.pairs.get(usize::from(number)).ok_or(Bad::Foreign)?;
        let client = &pair.clients[side as usize];
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

    /// The packet with this stamp for the XDP sender. Sealed, or in clear and still without sequence number and stamp.
    pub fn prepare(&self, stamp: &Stamp, sequence: u32) -> Prepared {
        let pair = &self.pairs[usize::from(stamp.flow)];
        let client = &pair.clients[Side::Interface as usize];
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

impl Pair {
    /// Octets of a frame whose packet has `size` octets before it is sealed.
    fn frame(&self, size: usize) -> usize {
        let client = &self.clients[Side::Interface as usize];
        size + client.outer.length() + HEADER + PAYLOAD_TYPE + client.keys.tag()
    }

    /// The largest size before sealing whose packet fits the MTU on both sides.
    fn room(&self, places: &Places<'_>) -> usize {
        let room = |(client, link): (&Client, &&Link)| {
            let overhead = client.outer.length() + HEADER + PAYLOAD_TYPE + client.keys.tag();
            (link.mtu as usize + ethernet::HEADER).saturating_sub(overhead)
        };
        self.clients.iter().zip(&places.links).map(room).min().unwrap_or_default()
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

fn pair(
    config: &Config,
    number: u16,
    clients: [&config::Client; 2],
    service: SocketAddr,
    sources: [SocketAddr; 2],
) -> Result<Pair, Error> {
    let [from, to] = clients;
    let file = config.file.display();
    let wrong = |what: String| Err(Error::usage(format!("{file}: clients {:?} and {:?} {what}", from.name, to.name)));
    if from.network != to.network {
        return wrong("are in different networks, so one cannot send to the other".into());
    }
    if from.service != to.service
        || SocketAddr::new(config.services[from.service].address, config.services[from.service].port) != service
    {
        return wrong(format!("are not all clients of the service {service}, as the first one is"));
    }
    let addresses = [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6]
        .into_iter()
        .find_map(|family| Some([address(from, family)?, address(to, family)?]));
    let Some([source, destination]) = addresses else {
        return wrong("have no prefixes of one family".into());
    };
    let inner = Ends {
        source: SocketAddr::new(source, INNER_PORTS[0]),
        destination: SocketAddr::new(destination, INNER_PORTS[1]),
    };
    let end = |client: &config::Client, mut source: SocketAddr| {
        source.set_port(source.port() + number);
        Client {
            keys: Keys::new(&client.secret, &client.crypto),
            role: client.role.opposite(),
            mux: client.mux,
            outer: Ends { source, destination: service },
        }
    };
    Ok(Pair { clients: [end(from, sources[0]), end(to, sources[1])], inner })
}

/// An inner address of a client: the first one of a prefix.
fn address(client: &config::Client, family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let prefix = client.prefixes.iter().find(|prefix| !prefix.is_default() && family(&prefix.address))?;
    Some(match prefix.address {
        IpAddr::V4(v4) if prefix.length < 31 => Ipv4Addr::from_bits(v4.to_bits() + 1).into(),
        IpAddr::V6(v6) if prefix.length < 127 => Ipv6Addr::from_bits(v6.to_bits() + 1).into(),
        address => address,
    })
}

#[cfg(test)]
mod tests;
