//! [`PacketIo`] over AF_XDP sockets.

use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use anytun_common::map::MAX_INTERFACES;

use super::frame::Frame;
use super::port::Port;
use super::{BATCH, Xsk};
use crate::worker::io::{IoCounters, Ledger, PacketIo};

/// The first and the longest nap while packets wait in a TX ring that the kernel does not empty, such as one of an
/// interface that is down.
const FIRST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(128);

impl PacketIo for Xsk {
    type Frame = Frame;

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn receive(&mut self, port: usize, frames: &mut Vec<Frame>, max: usize) -> usize {
        let Some(Some(port)) = self.ports.get_mut(port) else { return 0 };
        let descs = &mut self.scratch[..max.min(BATCH)];
        let count = port.take_received(descs);
        if count == 0 {
            return 0;
        }
        for desc in &descs[..count] {
            // SAFETY: the descriptor came out of the RX ring of a socket of this UMEM just now, and the copy in the
            // scratch array is not used again.
            frames.push(unsafe { self.area.adopt(*desc) });
        }
        self.received += count as u64;
        self.counters.rx_batches += 1;
        count
    }

    fn transmit(&mut self, port: usize, frames: &mut Vec<Frame>) -> usize {
        let Some(Some(port)) = self.ports.get_mut(port) else { return 0 };
        let room = port.tx_room(frames.len());
        let mut taken = 0;
        while taken < room {
            let step = (room - taken).min(BATCH);
            let mut count = 0;
            for desc in frames[..step].iter().filter_map(|frame| self.area.sendable(frame)) {
                self.scratch[count] = desc;
                count += 1;
            }
            // SAFETY: `sendable` says that the frames are of this UMEM; the worker owned them, and they are forgotten
            // below when the kernel has taken them.
            if !unsafe { port.transmit(&self.scratch[..count]) } {
                break;
            }
            for frame in frames.drain(..step) {
                let sent = self.area.sendable(&frame).is_some();
                if let Some(desc) = self.area.release(frame) {
                    self.received -= 1;
                    if !sent {
                        self.free.push(desc);
                    }
                }
            }
            taken += step;
        }
        if taken > 0 {
            self.counters.tx_batches += 1;
        }
        taken
    }

    fn allocate(&mut self, frames: &mut Vec<Frame>, max: usize) -> usize {
        Xsk::allocate(self, frames, max)
    }

    fn recycle(&mut self, frame: Frame) {
        if let Some(desc) = self.area.release(frame) {
            self.received -= 1;
            self.free.push(desc);
        }
    }

    fn reclaim(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            loop {
                let count = port.take_completed(&mut self.scratch[..]);
                self.free.extend_from_slice(&self.scratch[..count]);
                if count > 0 {
                    self.stalled = 0;
                }
                if count < BATCH {
                    break;
                }
            }
        }
        for port in self.ports.iter_mut().flatten() {
            let count = port.fill_wanted().min(self.free.len());
            let rest = self.free.len() - count;
            // SAFETY: the frames of the free list are of this UMEM and in nobody's hands, and they leave the list below
            // when the kernel has taken them.
            if count > 0 && unsafe { port.refill(&self.free[rest..]) } {
                self.free.truncate(rest);
            }
        }
    }

    fn kick(&mut self) -> bool {
        let mut all = true;
        for port in self.ports.iter_mut().flatten() {
            self.counters.tx_kicks += port.kick_tx();
            self.counters.fill_kicks += u64::from(port.kick_fill());
            all &= port.unsent() == 0;
        }
        all
    }

    fn wait(&mut self, timeout: Duration) {
        let unsent: u64 = self.ports.iter_mut().flatten().map(|port| u64::from(port.unsent())).sum();
        let timeout = self.nap(unsent).map_or(timeout, |nap| timeout.min(nap));
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_INTERFACES as usize + 1];
        polled[0].fd = self.waker.fd().as_raw_fd();
        for (entry, port) in polled[1..].iter_mut().zip(self.ports.iter().flatten()) {
            entry.fd = port.fd().as_raw_fd();
        }
        // In copy mode the kernel also sends what is in the TX rings when it is polled (xsk_poll).
        let is_over = !self.poll(&mut polled, timeout);
        // Only what was slept in vain makes the next nap longer: a wait that something ends at once takes no time.
        if unsent > 0 && is_over {
            self.stalled = self.stalled.saturating_add(1);
        }
    }

    fn gather(&mut self, time: Duration) {
        let waker = libc::pollfd { fd: self.waker.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        self.poll(&mut [waker], time);
    }

    fn packet<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.area.packet(frame)
    }

    fn buffer<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.area.buffer(frame)
    }

    fn set_length(&self, frame: &mut Frame, length: usize) {
        self.area.set_length(frame, length);
    }

    fn ledger(&self) -> Ledger {
        let ports = || self.ports.iter().flatten();
        Ledger {
            free: self.free.len() as u64,
            fill: ports().map(|port| port.in_fill).sum(),
            received: self.received,
            tx: ports().map(|port| port.in_tx).sum(),
            total: self.total,
        }
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}

impl Xsk {
    /// Sleeps until a descriptor is ready, of which the first is the waker's, or the time is up; returns whether one is.
    fn poll(&mut self, polled: &mut [libc::pollfd], timeout: Duration) -> bool {
        let timeout = libc::timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let count = polled.len() as libc::nfds_t;
        // SAFETY: the slice and the timeout live through the call, the count is that of the slice, the descriptors are
        // open or negative, which makes the kernel skip them, and no signal mask is given.
        let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), count, &raw const timeout, ptr::null()) };
        self.counters.polls += 1;
        self.ports.iter_mut().flatten().for_each(Port::ask_for_completions);
        if polled.first().is_some_and(|waker| waker.revents != 0) {
            self.waker.clear();
        }
        ready != 0
    }

    /// How long a wait may be while `unsent` packets are in the TX rings: short at first, longer while none is completed.
    fn nap(&mut self, unsent: u64) -> Option<Duration> {
        if unsent == 0 {
            self.stalled = 0;
            return None;
        }
        let nap = FIRST_NAP.saturating_mul(1 << self.stalled.min(7)).min(LONGEST_NAP);
        Some(nap)
    }
}
