//! Sealed packets on their way into the TX ring of one port.

use super::io::PacketIo;

/// Packets to transmit on one port, in order.
#[derive(Debug)]
pub(super) struct Outbox<F> {
    frames: Vec<F>,
    /// For each frame the client it goes to and the octets of its SATP packet.
    receipts: Vec<Receipt>,
    /// Of packets that could not be put in.
    lost: Vec<Receipt>,
}

/// To whom a packet goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    /// Number of the client.
    pub(super) client: u32,
    /// Octets of the SATP packet; 0 for the first fragment of one, which counts with the second: alone it is worth nothing.
    pub(super) octets: usize,
}

impl<F> Outbox<F> {
    pub(super) fn with_capacity(packets: usize) -> Self {
        // Each may become two.
        let frames = 2 * packets;
        Self {
            frames: Vec::with_capacity(frames),
            receipts: Vec::with_capacity(frames),
            lost: Vec::with_capacity(packets),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.lost.is_empty()
    }

    pub(super) fn push(&mut self, frame: F, receipt: Receipt) {
        self.frames.push(frame);
        self.receipts.push(receipt);
    }

    /// The same of several, which may be fewer than the receipts.
    #[inline]
    pub(super) fn append(&mut self, frames: &mut Vec<F>, receipts: impl Iterator<Item = Receipt>) {
        self.receipts.extend(receipts.take(frames.len()));
        self.frames.append(frames);
    }

    /// A free frame, if there is one.
    pub(super) fn allocate<I: PacketIo<Frame = F>>(&mut self, io: &mut I) -> Option<F> {
        if io.allocate(&mut self.frames, 1) > 0 { self.frames.pop() } else { None }
    }

    /// Notes a packet that there is no frame for.
    pub(super) fn lose(&mut self, receipt: Receipt) {
        self.lost.push(receipt);
    }

    /// Moves what fits into the TX ring; when not all did, wakes the kernel, collects what it completed and tries once
    /// more. What is left then is taken back: the ring is full because the link takes no more.
    pub(super) fn transmit<I: PacketIo<Frame = F>>(
        &mut self,
        io: &mut I,
        port: usize,
        mut sent: impl FnMut(Receipt),
        mut refused: impl FnMut(Receipt),
    ) {
        let mut accepted = io.transmit(port, &mut self.frames);
        if !self.frames.is_empty() {
            io.kick();
            io.reclaim();
            accepted += io.transmit(port, &mut self.frames);
        }
        for (index, receipt) in self.receipts.drain(..).enumerate() {
            if index < accepted { sent(receipt) } else { refused(receipt) }
        }
        self.lost.drain(..).for_each(refused);
        for frame in self.frames.drain(..) {
            io.recycle(frame);
        }
    }
}
