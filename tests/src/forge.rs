//! A client under full control: authentic packets with any header from any address, and everything that is almost one.

use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use anytun_common::wire::satp::{HEADER, Header, MAX_TAG, PAYLOAD_TYPE};
use anytun_xdp::satp::{Keys, Role};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};

use crate::crypto::Crypto;
use crate::namespace::Namespace;

/// EtherTypes of the payload.
pub const IPV4: u16 = 0x0800;
/// An Ethernet frame without FCS (protocol.md §3).
pub const ETHERNET: u16 = 0x6558;

/// How long a packet that must come may take, and how long one is waited for that must not.
const REPLY: Duration = Duration::from_secs(5);
/// Room for what has come and was not read yet, in octets as the kernel counts them: thousands of packets.
const ROOM: usize = 8 << 20;

/// One who seals packets for a service with the keys of a client.
pub struct Forger {
    keys: Keys,
    role: Role,
    service: SocketAddr,
    /// Put into the headers that [`Forger::seal`] makes.
    pub mux: u16,
    /// Put into the headers that [`Forger::seal`] makes.
    pub sender: u16,
}

impl Forger {
    /// A client's other half: role right, sender ID 0.
    pub fn new(crypto: &Crypto, mux: u16, service: SocketAddr) -> Self {
        Self { keys: crypto.keys(), role: Role::Right, service, mux, sender: 0 }
    }

    /// The same with another role.
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// A packet as it goes into UDP: `payload` of `kind`, sealed under a sequence number.
    pub fn seal(&self, sequence: u32, kind: u16, payload: &[u8]) -> Vec<u8> {
        let header = Header { sequence, sender: self.sender, mux: self.mux };
        let plain = PAYLOAD_TYPE + payload.len();
        let mut packet = vec![0; HEADER + plain + MAX_TAG];
        packet[HEADER..HEADER + PAYLOAD_TYPE].copy_from_slice(&kind.to_be_bytes());
        packet[HEADER + PAYLOAD_TYPE..HEADER + plain].copy_from_slice(payload);
        let length =
            self.keys.seal(self.role, &header, &mut packet, plain).unwrap_or_else(|| panic!("{plain} octets fit"));
        packet.truncate(length);
        packet
    }

    /// The inner packet of what the node sends this client.
    pub fn open(&self, packet: &[u8]) -> Result<Vec<u8>> {
        ensure!(
            self.keys.verify(self.role.opposite(), packet),
            "the node sent {} octets that are not authentic",
            packet.len()
        );
        let header = Header::read(packet, 0).context("no SATP header")?;
        let end = packet.len() - self.keys.tag();
        let mut body = packet.get(HEADER..end).context("no body")?.to_vec();
        self.keys.crypt(self.role.opposite(), &header, &mut body);
        Ok(body.split_off(PAYLOAD_TYPE.min(body.len())))
    }

    /// The service that packets are for.
    pub fn service(&self) -> SocketAddr {
        self.service
    }
}

/// An outer address and port to send from.
#[derive(Debug)]
pub struct Outlet {
    socket: UdpSocket,
}

impl Outlet {
    /// Binds a port in a namespace.
    pub fn bind(namespace: &Namespace, address: IpAddr, port: u16) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind((address, port)))?;
        let socket = socket.with_context(|| format!("cannot bind {address} port {port} in {}", namespace.name()))?;
        socket.set_read_timeout(Some(REPLY))?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
        Ok(Self { socket })
    }

    /// The address as `status` shows an endpoint.
    pub fn endpoint(&self) -> Result<String> {
        Ok(self.socket.local_addr()?.to_string())
    }

    /// Sends a datagram.
    pub fn send(&self, packet: &[u8], to: SocketAddr) -> Result<()> {
        self.socket.send_to(packet, to).with_context(|| format!("cannot send to {to}"))?;
        Ok(())
    }

    /// Waits for the next datagram.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = [0; 2048];
        let (length, _) = self.socket.recv_from(&mut buffer).context("no packet has come")?;
        Ok(buffer[..length].to_vec())
    }

    /// Whether nothing has come and is waiting to be read.
    pub fn is_silent(&self) -> Result<bool> {
        Ok(self.waiting()?.is_none())
    }

    /// A datagram that has come and was not read yet.
    pub fn waiting(&self) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 2048];
        self.socket.set_nonblocking(true)?;
        let result = self.socket.recv_from(&mut buffer);
        self.socket.set_nonblocking(false)?;
        match result {
            Ok((length, _)) => Ok(Some(buffer[..length].to_vec())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot read a socket"),
        }
    }

    /// Sends many datagrams of `size` octets in one call (UDP segmentation offload). `packets` holds them one after the
    /// other, at most 64.
    pub fn flood(&self, packets: &[u8], size: u16, to: SocketAddr) -> Result<()> {
        let parts = [IoSlice::new(packets)];
        let segments = [ControlMessage::UdpGsoSegments(&size)];
        let to = SockaddrStorage::from(to);
        sendmsg(self.socket.as_raw_fd(), &parts, &segments, MsgFlags::empty(), Some(&to)).context("cannot flood")?;
        Ok(())
    }
}

/// An inner IPv4 packet with a UDP datagram, from an address and port to another, and right checksums (RFC 791, RFC 768).
pub fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram = [from.1, to.1, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend_from_slice(payload);
    let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, 17], &length.to_be_bytes(), &datagram].concat();
    let sum = checksum(&pseudo);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet = datagram_header(from.0, to.0, length);
    packet.extend(datagram);
    packet
}

/// An inner IPv4 packet that nobody answers: UDP to the port `discard`, with room for `length` octets of payload.
pub fn datagram(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut packet = datagram_header(source, destination, 8 + length);
    packet.extend([9, 9, 8 + length, 0].map(u16::to_be_bytes).concat());
    packet.resize(packet.len() + usize::from(length), 0);
    packet
}

/// The IPv4 header in front of UDP datagrams of `length` octets.
fn datagram_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// The checksum of RFC 1071, over an odd octet too.
fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum: u32 = octets.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
