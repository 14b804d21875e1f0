//! AF_XDP: the sockets of one worker over one UMEM (Documentation/networking/af_xdp.rst of the kernel).
//!
//! A worker owns queue *i* of several interfaces. Their sockets share its UMEM, so a frame received on one interface is
//! sent on another by passing its descriptor. xsk-rs owns the memory and the rings; who owns a frame is decided here.

mod frame;
mod io;
mod open;
mod port;
mod stats;
mod waker;

pub use frame::Frame;
pub use open::PortSpec;
pub(super) use open::{largest_mtu, umem_octets};
pub use port::PortReport;
pub use stats::{XskStatistics, XskStats};
pub use waker::Waker;

use std::os::fd::BorrowedFd;

use frame::Area;
use port::Port;
pub(super) use port::RX_RING;
use xsk_rs::FrameDesc;

use super::HostError;
use super::backlog::Backlogs;
use crate::worker::io::IoCounters;

/// Packets that one system call sends in copy mode, and frames that move per step between a ring and the free list.
const BATCH: usize = 256;

/// The AF_XDP sockets of one worker, and the memory they share. The sockets close when it and every [`XskStats`] of it
/// are dropped.
pub struct Xsk {
    /// By slot of the interface. Before `area`, because the rings go before the memory they point into.
    ports: Vec<Option<Port>>,
    area: Area,
    /// Frames in nobody's ring.
    free: Vec<FrameDesc>,
    /// Descriptors on their way between a ring and their owner; of no meaning between two calls.
    scratch: Box<[FrameDesc; BATCH]>,
    /// Frames of `area`.
    total: u64,
    /// Frames the worker holds.
    received: u64,
    counters: IoCounters,
    waker: Waker,
    /// Naps since a packet was completed, with some unsent.
    stalled: u32,
}

impl Xsk {
    /// What port `port` asked for and got; nothing for a port without a socket of this worker.
    pub fn port_report(&self, port: usize) -> Option<&PortReport> {
        Some(&self.port(port)?.report)
    }

    /// What the kernel counts on `port`; nothing for a port without a socket of this worker.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn statistics(&self, port: usize) -> Option<Result<XskStatistics, HostError>> {
        Some(stats::statistics(self.port(port)?.fd()))
    }

    /// A handle for another thread that reads [`statistics`](Self::statistics).
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the process has no file descriptor left.
    pub fn stats(&self) -> Result<XskStats, HostError> {
        XskStats::new(self.ports.iter().map(|port| port.as_ref().map(Port::fd)))
    }

    /// The sockets, for the map of an XDP program: slot, queue, descriptor.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, u32, BorrowedFd<'_>)> {
        self.ports.iter().enumerate().filter_map(|(slot, port)| {
            let port = port.as_ref()?;
            Some((slot as u32, port.report.queue, port.fd()))
        })
    }

    /// Octets of the UMEM.
    pub fn umem_octets(&self) -> u64 {
        let frame = self.ports.iter().flatten().map(|port| port.report.frame_size).next().unwrap_or(0);
        self.total * u64::from(frame)
    }

    /// Makes the sockets tell the XDP program how far their worker is.
    pub(super) fn set_backlogs(&mut self, backlogs: &Backlogs) {
        for (slot, port) in self.ports.iter_mut().enumerate() {
            if let Some(port) = port {
                port.gauge = backlogs.queue(slot as u32, port.report.queue);
            }
        }
    }

    /// A handle that ends this worker's wait.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Appends up to `max` free frames to `frames`, for packets that were not received but are made here; returns how
    /// many. They are the caller's as received ones are.
    pub fn allocate(&mut self, frames: &mut Vec<Frame>, max: usize) -> usize {
        let count = max.min(self.free.len());
        let rest = self.free.len() - count;
        for desc in self.free.drain(rest..) {
            // SAFETY: the frames of the free list are of this UMEM and in nobody's hands, and this one just left it.
            frames.push(unsafe { self.area.adopt(desc) });
        }
        self.received += count as u64;
        count
    }

    fn port(&self, port: usize) -> Option<&Port> {
        self.ports.get(port)?.as_ref()
    }
}
