//! Frames of the UMEM, and who may touch them.

use std::slice;

use anytun_common::wire::ethernet;
use xsk_rs::{FrameDesc, Umem};

/// One frame of a worker's UMEM, owned: neither the kernel nor another `Frame` reaches its memory. It belongs to the
/// [`Xsk`](super::Xsk) that received it, which has to get it back; another one treats it as empty.
#[must_use = "a frame that is dropped is lost to the UMEM"]
pub struct Frame {
    desc: FrameDesc,
    owner: u32,
}

/// The memory of a UMEM as frames see it.
pub(super) struct Area {
    umem: Umem,
    /// Which [`Frame`]s are of this memory: every UMEM of the process has its own number.
    id: u32,
}

impl Area {
    pub(super) fn new(umem: Umem, id: u32) -> Self {
        Self { umem, id }
    }

    /// Makes the owner of the frame that `desc` describes.
    ///
    /// # Safety
    ///
    /// `desc` must come from the RX ring of a socket of this UMEM, and must not be used for anything else until
    /// [`release`](Self::release) gives it back.
    pub(super) unsafe fn adopt(&self, desc: FrameDesc) -> Frame {
        Frame { desc, owner: self.id }
    }

    /// Ends the ownership. A frame of another UMEM is nothing here.
    pub(super) fn release(&self, frame: Frame) -> Option<FrameDesc> {
        self.owns(&frame).then_some(frame.desc)
    }

    /// The descriptor of `frame` for the TX ring. None for a frame of another UMEM, which is not ours to send, and for a
    /// packet without an Ethernet header, which the kernel would drop without ever completing it; no worker makes either.
    #[inline]
    pub(super) fn sendable(&self, frame: &Frame) -> Option<FrameDesc> {
        let whole = frame.desc.lengths().data() >= ethernet::HEADER;
        (whole && self.owns(frame)).then_some(frame.desc)
    }

    /// The packet in `frame`.
    #[inline]
    pub(super) fn packet<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        if !self.owns(frame) {
            return &[];
        }
        // SAFETY: `adopt` and the check above say that the descriptor is of this UMEM, and that nobody else uses the
        // frame: the kernel gave it up when it came out of the RX ring, and `Frame` is neither Copy nor Clone, so the
        // shared borrow of it excludes a mutable one.
        let data = unsafe { self.umem.data(&frame.desc) };
        let contents = data.contents();
        // SAFETY: the slice is the one just made, whose memory lives as long as `self`; only its lifetime, which xsk-rs
        // ties to the temporary `data`, is widened to the borrows of UMEM and frame that the line above argued with.
        unsafe { slice::from_raw_parts(contents.as_ptr(), contents.len()) }
    }

    /// The memory of `frame` from the start of its packet to the frame's end.
    #[inline]
    pub(super) fn buffer<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        if !self.owns(frame) {
            return &mut [];
        }
        // A copy of the descriptor, because getting at the whole memory changes the length of the packet.
        let mut desc = frame.desc;
        // SAFETY: as in `packet`, and the exclusive borrow of `frame` excludes every other access.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        data.cursor().set_pos(usize::MAX);
        let contents = data.contents_mut();
        // SAFETY: the slice is the one just made; its lifetime is widened to those of UMEM and of the exclusively
        // borrowed frame, and the temporary `data` that it came from is not used again.
        unsafe { slice::from_raw_parts_mut(contents.as_mut_ptr(), contents.len()) }
    }

    /// Sets the length of the packet; at most that of the buffer.
    #[inline]
    pub(super) fn set_length(&self, frame: &mut Frame, length: usize) {
        if !self.owns(frame) {
            return;
        }
        // SAFETY: as in `buffer`.
        let mut data = unsafe { self.umem.data_mut(&mut frame.desc) };
        data.cursor().set_pos(length);
    }

    #[inline]
    fn owns(&self, frame: &Frame) -> bool {
        frame.owner == self.id
    }
}
