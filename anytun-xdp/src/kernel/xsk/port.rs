//! One socket of a worker: four rings, and how many frames are in each pair.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, recv};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use crate::config::XdpMode;
use crate::kernel::backlog::Gauge;

/// Descriptors of the FILL and of the RX ring: room for a burst while the worker does not run.
pub(in crate::kernel) const RX_RING: u32 = 4096;
/// Descriptors of the TX and of the completion ring.
pub(super) const TX_RING: u32 = 2048;
/// Frames that one port can have in its rings at most. A UMEM of this many for each port never leaves one without.
pub(super) const FRAMES: u32 = RX_RING + TX_RING;

/// What a port asked for and what it got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortReport {
    /// The interface.
    pub interface: String,
    /// The receive queue.
    pub queue: u32,
    /// The mode asked for.
    pub asked: XdpMode,
    /// Whether the kernel moves packets without copying them, by its own word (`XDP_OPTIONS`).
    pub zero_copy: bool,
    /// Whether the kernel says when it needs a system call (`XDP_USE_NEED_WAKEUP`).
    pub need_wakeup: bool,
    /// Descriptors of the RX ring.
    pub rx_ring: u32,
    /// Descriptors of the TX ring.
    pub tx_ring: u32,
    /// Descriptors of the FILL ring.
    pub fill_ring: u32,
    /// Descriptors of the completion ring.
    pub completion_ring: u32,
    /// Octets of one frame of the UMEM.
    pub frame_size: u32,
    /// Octets of the largest packet that fits a frame, with its Ethernet header and tags.
    pub frame_room: u32,
    /// Whether the UMEM lies in huge pages.
    pub huge_pages: bool,
}

/// A socket and its rings.
pub(super) struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    /// Frames in the FILL ring, with the driver, or in the RX ring.
    pub(super) in_fill: u64,
    /// Frames in the TX ring, with the driver, or in the completion ring.
    pub(super) in_tx: u64,
    /// Whether the kernel is to be woken for frames that left the TX ring and are not completed.
    completions_due: bool,
    pub(super) report: PortReport,
    /// The queue in front of the socket, once the XDP program is known.
    pub(super) gauge: Option<Gauge>,
}

impl Port {
    pub(super) fn new(rx: RxQueue, tx: TxQueue, fill: FillQueue, completion: CompQueue, report: PortReport) -> Self {
        Self { rx, tx, fill, completion, in_fill: 0, in_tx: 0, completions_due: false, report, gauge: None }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        let fd = self.tx.fd().as_raw_fd();
        // SAFETY: the socket is open as long as its queues live, and the borrow of `self` keeps this one alive.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Takes received packets out of the RX ring; returns how many descriptors it wrote.
    pub(super) fn take_received(&mut self, descs: &mut [FrameDesc]) -> usize {
        let given = self.gauge.as_ref().map(Gauge::given);
        let mut count = 0;
        while count < descs.len() {
            // Until nothing comes: only then has the ring been looked at. It hands out what it saw there before, without
            // looking whether there is more.
            //
            // SAFETY: what is in the RX ring came from this port's FILL ring, so from the UMEM that the socket is bound to.
            let more = unsafe { self.rx.consume(&mut descs[count..]) };
            if more == 0 {
                break;
            }
            count += more;
        }
        self.in_fill -= count as u64;
        match (&self.gauge, given) {
            (Some(gauge), Some(given)) if count < descs.len() => gauge.emptied(given),
            (Some(gauge), _) => gauge.took(count as u64),
            _ => {}
        }
        count
    }

    /// Frames that the TX ring would take now, `wanted` at most.
    pub(super) fn tx_room(&mut self, wanted: usize) -> usize {
        // Also those that are not in the ring any more but not completed count, so that a port never has more frames
        // than the UMEM reckons with, and its completion ring never overflows.
        let unused = u64::from(TX_RING).saturating_sub(self.in_tx) as usize;
        let possible = wanted.min(unused);
        let room = possible.min(self.tx.nb_free(possible as u32) as usize);
        self.completions_due |= room < wanted;
        room
    }

    /// Hands frames over for transmission, all or none; returns whether it did.
    ///
    /// # Safety
    ///
    /// The descriptors must be of the UMEM the socket is bound to, and the caller must own their frames and give them up.
    pub(super) unsafe fn transmit(&mut self, descs: &[FrameDesc]) -> bool {
        // SAFETY: this function's contract is that of `produce`.
        let count = unsafe { self.tx.produce(descs) };
        self.in_tx += count as u64;
        self.completions_due = true;
        count == descs.len()
    }

    /// Takes completed frames out of the completion ring; returns how many descriptors it wrote.
    pub(super) fn take_completed(&mut self, descs: &mut [FrameDesc]) -> usize {
        if self.in_tx == 0 {
            return 0;
        }
        // SAFETY: what is in the completion ring came from this port's TX ring, so from the socket's UMEM.
        let count = unsafe { self.completion.consume(descs) };
        self.in_tx -= count as u64;
        count
    }

    /// Frames the FILL ring lacks.
    pub(super) fn fill_wanted(&self) -> usize {
        u64::from(RX_RING).saturating_sub(self.in_fill) as usize
    }

    /// Hands frames over for receiving, all or none; returns whether it did.
    ///
    /// # Safety
    ///
    /// As [`transmit`](Self::transmit).
    pub(super) unsafe fn refill(&mut self, descs: &[FrameDesc]) -> bool {
        // SAFETY: this function's contract is that of `produce`.
        let count = unsafe { self.fill.produce(descs) };
        self.in_fill += count as u64;
        count == descs.len()
    }

    /// Lets the next kick wake the kernel for frames that left the TX ring and are not completed.
    pub(super) fn ask_for_completions(&mut self) {
        self.completions_due = true;
    }

    /// Packets in the TX ring that the kernel has not looked at yet.
    pub(super) fn unsent(&mut self) -> u32 {
        if self.in_tx == 0 { 0 } else { TX_RING - self.tx.nb_free_exact().min(TX_RING) }
    }

    /// Makes the kernel send, if it asks for it and there is something to do; returns how often it was entered. Once is
    /// enough where the kernel knows the option that raises its budget; before Linux 6.17 it sends 32 packets a call.
    pub(super) fn kick_tx(&mut self) -> u64 {
        let mut calls = 0;
        let mut unsent = self.unsent();
        if unsent == 0 {
            // In zero-copy mode packets that left the ring may wait for a kick as well: the one that completes them. Once,
            // not in every turn of a worker that has nothing else to do.
            let completions = self.report.zero_copy && self.in_tx > 0 && mem::take(&mut self.completions_due);
            if !completions {
                return 0;
            }
        }
        while self.tx.needs_wakeup() {
            // The errors are those of an interface that is down, gone or busy: the packets stay, and are kicked again.
            let _ = self.tx.wakeup();
            calls += 1;
            let left = self.unsent();
            if left == 0 || left >= unsent {
                break;
            }
            unsent = left;
        }
        calls
    }

    /// Makes the kernel look at the FILL ring, if it asks for it; returns whether it was entered.
    pub(super) fn kick_fill(&mut self) -> bool {
        if self.in_fill == 0 || !self.fill.needs_wakeup() {
            return false;
        }
        // As in `kick_tx`. Nothing is received this way: packets come through the RX ring.
        let _ = recv(self.fd().as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
        true
    }
}
