//! Sealed packets from clients to clients, ready to arrive.

use anytun_common::wire::{checksum, ethernet, ipv4, udp};
use anytun_xdp::satp::{Batch, HEADER, Header, PAYLOAD_TYPE, Role, ToSeal};
use anytun_xdp::worker::BATCH;

use crate::world::{World, address};

/// Packets that are made at once.
pub(crate) const PACKETS: usize = 4096;

/// Where the SATP packet begins.
const OUTER: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER;

/// Whose packets come to a worker: those of every client whose number leaves the rest `rest` when divided by `of`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) rest: u16,
    pub(crate) of: u16,
    /// Whether they go to such clients only, or to all.
    pub(crate) apart: bool,
}

impl Share {
    /// All clients, for a worker that has no other beside it.
    pub(crate) const ALL: Self = Self { rest: 0, of: 1, apart: false };

    /// One of those clients.
    fn pick(self, drawn: u32, clients: u16) -> u16 {
        (drawn % u32::from(clients / self.of)) as u16 * self.of + self.rest
    }
}

/// As many packets as are made at once, all of one size.
pub(crate) struct Traffic {
    share: Share,
    /// Octets of the inner packet.
    inner: usize,
    /// Octets of each frame, and the frames one after the other.
    length: usize,
    frames: Vec<u8>,
    crypto: Batch,
}

impl Traffic {
    /// Packets whose inner packet would make a plain Ethernet frame of `size` octets, without FCS.
    pub(crate) fn new(world: &World, size: usize, share: Share) -> Self {
        let inner = size - ethernet::HEADER;
        let length = OUTER + HEADER + PAYLOAD_TYPE + inner + world.keys[0].tag();
        Self { share, inner, length, frames: vec![0; PACKETS * length], crypto: Batch::default() }
    }

    /// Makes new packets of clients that nothing can foresee.
    pub(crate) fn renew(&mut self, world: &World) {
        let share = self.share;
        self.lay(world, PACKETS, || {
            let (from, to) = world.draw();
            let to = if share.apart { share.pick(to, world.clients) } else { Share::ALL.pick(to, world.clients) };
            (share.pick(from, world.clients), to)
        });
    }

    /// Makes one packet of each of these clients to itself, at most as many as are made at once.
    pub(crate) fn introduce(&mut self, world: &World, mut clients: impl ExactSizeIterator<Item = u16>) {
        let count = clients.len();
        self.lay(world, count, || clients.next().map(|client| (client, client)).expect("as many as it said"));
    }

    /// The first `count` packets, in batches.
    pub(crate) fn batches(&self, count: usize) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        let frames = &self.frames[..count * self.length];
        frames.chunks(BATCH * self.length).map(|batch| batch.chunks(self.length))
    }

    fn lay(&mut self, world: &World, count: usize, mut ends: impl FnMut() -> (u16, u16)) {
        let Self { inner, length, ref mut frames, ref mut crypto, .. } = *self;
        for batch in frames[..count * length].chunks_mut(BATCH * length) {
            let sealed = crypto.seal(batch.chunks_mut(length).map(|frame| {
                let (from, to) = ends();
                let (outer, satp) = frame.split_at_mut(OUTER);
                lay_outer(outer, from, satp.len());
                lay_inner(&mut satp[HEADER..], from, to, inner);
                let header = Header { sequence: world.number(from), sender: 0, mux: from };
                ToSeal { keys: &world.keys[usize::from(from)], sender: Role::Right, header, packet: satp }
            }));
            assert_eq!(sealed.count() as usize, batch.len() / length);
        }
    }
}

/// Payload type and inner packet.
fn lay_inner(body: &mut [u8], from: u16, to: u16, length: usize) {
    body[..PAYLOAD_TYPE].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    let packet = &mut body[PAYLOAD_TYPE..PAYLOAD_TYPE + length];
    packet.fill(0);
    lay_ip(packet, address(from), address(to), length);
}

/// Ethernet, IPv4 and UDP headers of a packet to the service. UDP has no checksum.
fn lay_outer(outer: &mut [u8], from: u16, satp: usize) {
    let [high, low] = from.to_be_bytes();
    outer[..ethernet::TYPE].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, high, low]);
    outer[ethernet::TYPE..ethernet::HEADER].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    let (ip, rest) = outer[ethernet::HEADER..].split_at_mut(ipv4::HEADER);
    lay_ip(ip, [198, 51, high, low], [192, 0, 2, 53], ipv4::HEADER + udp::HEADER + satp);
    rest[..4].copy_from_slice(&[0x11, 0x5c, 0x11, 0x5c]);
    rest[4..6].copy_from_slice(&((udp::HEADER + satp) as u16).to_be_bytes());
    rest[6..].fill(0);
}

/// An IPv4 header of a packet of `total` octets that carries UDP.
fn lay_ip(ip: &mut [u8], source: [u8; 4], destination: [u8; 4], total: usize) {
    let [high, low] = (total as u16).to_be_bytes();
    ip[..ipv4::SOURCE].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0, 0, 64, udp::PROTOCOL, 0, 0]);
    ip[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&source);
    ip[ipv4::DESTINATION..ipv4::HEADER].copy_from_slice(&destination);
    let sum = checksum::of(&ip[..ipv4::HEADER]);
    ip[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum.to_be_bytes());
}
