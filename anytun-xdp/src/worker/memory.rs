//! Packet I/O over plain memory: for tests, which need a kernel that misbehaves on demand, and for measuring the pipeline
//! without one.

use std::collections::VecDeque;
use std::time::Duration;

use super::io::{IoCounters, Ledger, PacketIo};

/// A frame of plain memory.
#[derive(Debug)]
pub struct Frame {
    memory: Box<[u8]>,
    length: usize,
}

/// What the kernel on the other side of the rings does. Every limit holds per call of [`PacketIo`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Packets a receive yields at most.
    pub receive: usize,
    /// Room of each TX ring.
    pub tx_ring: usize,
    /// Frames a FILL ring holds.
    pub fill_ring: usize,
    /// Frames completed at each reclaim, at most.
    pub complete: usize,
    /// Whether packets that were sent are kept for [`Memory::sent`].
    pub keep: bool,
}

impl Default for Kernel {
    /// A kernel that does all at once, with rings of 128 descriptors.
    fn default() -> Self {
        Self { receive: usize::MAX, tx_ring: 128, fill_ring: 128, complete: usize::MAX, keep: true }
    }
}

/// One port: what arrived, what was sent, and the rings between.
#[derive(Debug, Default)]
struct Port {
    fill: Vec<Frame>,
    arrived: VecDeque<Frame>,
    tx: VecDeque<Frame>,
    /// How many of them the kernel was told of: only these it sends.
    told: usize,
    sent: Vec<Vec<u8>>,
}

/// Rings and frames in plain memory.
#[derive(Debug)]
pub struct Memory {
    /// How the kernel behaves from now on.
    pub kernel: Kernel,
    /// For how long the last wait was, at most.
    pub waited: Option<Duration>,
    ports: Vec<Port>,
    free: Vec<Frame>,
    received: u64,
    total: u64,
    frame_size: usize,
    counters: IoCounters,
}

impl Memory {
    /// `frames` frames of `frame_size` octets, all free, for `ports` ports.
    pub fn new(ports: usize, frames: usize, frame_size: usize, kernel: Kernel) -> Self {
        Self {
            kernel,
            waited: None,
            ports: (0..ports).map(|_| Port::default()).collect(),
            free: (0..frames).map(|_| Frame { memory: vec![0; frame_size].into_boxed_slice(), length: 0 }).collect(),
            received: 0,
            total: frames as u64,
            frame_size,
            counters: IoCounters::default(),
        }
    }

    /// Lets a packet arrive on a port, if its FILL ring has a frame; says whether it had.
    pub fn arrive(&mut self, port: usize, packet: &[u8]) -> bool {
        assert!(
            packet.len() <= self.frame_size,
            "a packet of {} octets in frames of {}",
            packet.len(),
            self.frame_size
        );
        let Some(mut frame) = self.ports[port].fill.pop() else { return false };
        frame.memory[..packet.len()].copy_from_slice(packet);
        frame.length = packet.len();
        self.ports[port].arrived.push_back(frame);
        true
    }

    /// The packets sent on a port since the last call, in order.
    pub fn sent(&mut self, port: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.ports[port].sent)
    }
}

impl PacketIo for Memory {
    type Frame = Frame;

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn receive(&mut self, port: usize, frames: &mut Vec<Frame>, max: usize) -> usize {
        let arrived = &mut self.ports[port].arrived;
        let count = max.min(self.kernel.receive).min(arrived.len());
        frames.extend(arrived.drain(..count));
        self.received += count as u64;
        self.counters.rx_batches += u64::from(count > 0);
        count
    }

    fn transmit(&mut self, port: usize, frames: &mut Vec<Frame>) -> usize {
        let tx = &mut self.ports[port].tx;
        let count = self.kernel.tx_ring.saturating_sub(tx.len()).min(frames.len());
        tx.extend(frames.drain(..count));
        self.received -= count as u64;
        self.counters.tx_batches += u64::from(count > 0);
        count
    }

    fn allocate(&mut self, frames: &mut Vec<Frame>, max: usize) -> usize {
        let count = max.min(self.free.len());
        frames.extend(self.free.drain(self.free.len() - count..));
        self.received += count as u64;
        count
    }

    fn recycle(&mut self, frame: Frame) {
        self.received -= 1;
        self.free.push(frame);
    }

    fn reclaim(&mut self) {
        for port in &mut self.ports {
            let count = self.kernel.complete.min(port.told);
            port.told -= count;
            for mut frame in port.tx.drain(..count) {
                if self.kernel.keep {
                    port.sent.push(frame.memory[..frame.length].to_vec());
                }
                frame.length = 0;
                self.free.push(frame);
            }
        }
        for port in &mut self.ports {
            let room = self.kernel.fill_ring.saturating_sub(port.fill.len()).min(self.free.len());
            port.fill.extend(self.free.drain(self.free.len() - room..));
        }
    }

    fn kick(&mut self) -> bool {
        self.counters.tx_kicks += 1;
        self.ports.iter_mut().for_each(|port| port.told = port.tx.len());
        true
    }

    fn wait(&mut self, timeout: Duration) {
        self.waited = Some(timeout);
        self.counters.polls += 1;
        // Who waits for sockets tells it, too.
        self.ports.iter_mut().for_each(|port| port.told = port.tx.len());
    }

    fn gather(&mut self, time: Duration) {
        self.waited = Some(time);
        self.counters.polls += 1;
    }

    fn packet<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        &frame.memory[..frame.length]
    }

    fn buffer<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        &mut frame.memory
    }

    fn set_length(&self, frame: &mut Frame, length: usize) {
        frame.length = length.min(frame.memory.len());
    }

    fn ledger(&self) -> Ledger {
        let sum = |count: fn(&Port) -> usize| self.ports.iter().map(|port| count(port) as u64).sum::<u64>();
        Ledger {
            free: self.free.len() as u64,
            fill: sum(|port| port.fill.len() + port.arrived.len()),
            received: self.received,
            tx: sum(|port| port.tx.len()),
            total: self.total,
        }
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}
