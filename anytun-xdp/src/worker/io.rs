//! What a worker needs from whoever moves its packets: AF_XDP sockets in the node, plain memory in tests.

use std::time::Duration;

/// Frames by the state they are in. Every frame of the UMEM is in exactly one, so the states sum up to
/// [`total`](Ledger::total) at any time between two calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// In nobody's ring, ready for any use.
    pub free: u64,
    /// In a FILL ring: the kernel may write a packet into it.
    pub fill: u64,
    /// Received, and the worker has not passed it on yet.
    pub received: u64,
    /// In a TX ring or with the driver: not completed yet.
    pub tx: u64,
    /// Frames of the UMEM.
    pub total: u64,
}

impl Ledger {
    /// Whether every frame is accounted for.
    pub const fn holds(&self) -> bool {
        self.free + self.fill + self.received + self.tx == self.total
    }
}

/// How often the kernel was entered, and for how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoCounters {
    /// Calls that made the kernel send what is in a TX ring.
    pub tx_kicks: u64,
    /// Calls that made the kernel look at a FILL ring.
    pub fill_kicks: u64,
    /// Calls that waited for packets.
    pub polls: u64,
    /// Batches received.
    pub rx_batches: u64,
    /// Batches handed over for transmission.
    pub tx_batches: u64,
}

/// Moves frames between a worker and the ports (interfaces) it owns a queue of.
///
/// A [`Frame`](PacketIo::Frame) is linear: it comes from [`receive`](PacketIo::receive) and goes to
/// [`transmit`](PacketIo::transmit) or [`recycle`](PacketIo::recycle), once. Dropping one instead leaks it from the UMEM,
/// which the ledger then shows for good.
pub trait PacketIo {
    /// One frame, owned.
    type Frame;

    /// How many ports there are. Port numbers are the slots of the interfaces; a port without a socket of this worker
    /// receives nothing and accepts nothing.
    fn ports(&self) -> usize;

    /// Appends up to `max` received frames of `port` to `frames`, in the order of arrival; returns how many.
    fn receive(&mut self, port: usize, frames: &mut Vec<Self::Frame>, max: usize) -> usize;

    /// Moves frames from the front of `frames` into the TX ring of `port`; those it has no room for stay. Returns how
    /// many went.
    fn transmit(&mut self, port: usize, frames: &mut Vec<Self::Frame>) -> usize;

    /// Appends up to `max` free frames to `frames`, for packets that were not received but are made here; returns how many.
    /// They are the caller's as received ones are.
    fn allocate(&mut self, frames: &mut Vec<Self::Frame>, max: usize) -> usize;

    /// Takes back a frame that is not to be sent.
    fn recycle(&mut self, frame: Self::Frame);

    /// Collects completed frames, and keeps the FILL rings full.
    fn reclaim(&mut self);

    /// Wakes the kernel for every ring that asks for it; returns whether it has taken all that is to be sent.
    fn kick(&mut self) -> bool;

    /// Sleeps until a packet arrives, the worker is woken, or the time is up.
    fn wait(&mut self, timeout: Duration);

    /// Sleeps until the worker is woken or the time is up, whatever arrives meanwhile.
    fn gather(&mut self, time: Duration);

    /// The packet in `frame`.
    fn packet<'a>(&'a self, frame: &'a Self::Frame) -> &'a [u8];

    /// All memory of `frame` from the start of its packet, also what lies behind the packet's end.
    fn buffer<'a>(&'a self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// Sets the length of the packet in `frame`, in octets; at most that of its [`buffer`](PacketIo::buffer).
    fn set_length(&self, frame: &mut Self::Frame, length: usize);

    /// Where the frames are now.
    fn ledger(&self) -> Ledger;

    /// What it cost so far.
    fn counters(&self) -> IoCounters;
}
