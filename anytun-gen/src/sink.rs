//! The sink's XDP program: it counts and drops what is ours, or hands it to AF_XDP sockets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anytun_common::generate::{Arrived, INTERFACES, PHASES, Rule};
use anytun_common::map::QUEUES_PER_INTERFACE;
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::{Attachment, Link, object, privilege};
use aya::maps::{Array, MapData, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

use crate::error::Error;
use crate::live::chain;

/// The program on up to two interfaces. Dropping it detaches it.
pub struct Sink {
    /// First, so that they go before the program.
    attachments: Vec<Attachment>,
    ebpf: Ebpf,
    rules: Array<MapData, [u64; Rule::WORDS]>,
    arrived: PerCpuArray<MapData, [u64; Arrived::WORDS]>,
    sockets: XskMap<MapData>,
}

impl Sink {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] and [`Error::Running`] when the kernel refuses.
    pub fn load() -> Result<Self, Error> {
        let mut ebpf = EbpfLoader::new().load(object::GENERATE).map_err(|error| load_error(&error))?;
        let xdp: &mut Xdp = ebpf
            .program_mut("sink")
            .ok_or_else(|| Error::Running("the object has no program sink".into()))?
            .try_into()
            .map_err(|error| load_error(&error))?;
        xdp.load().map_err(|error| load_error(&error))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Error::Running(format!("the object of the sink has no map {name}")))
        };
        Ok(Self {
            attachments: Vec::new(),
            rules: take("RULES")?.try_into().map_err(map_error)?,
            arrived: take("ARRIVED")?.try_into().map_err(map_error)?,
            sockets: take("SOCKETS")?.try_into().map_err(map_error)?,
            ebpf,
        })
    }

    /// Sets one of the rules.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn set_rule(&mut self, index: u32, rule: &Rule) -> Result<(), Error> {
        self.rules.set(index, rule.to_words(), 0).map_err(map_error)
    }

    /// Hands the packets that fit a rule, of one queue, to an AF_XDP socket.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when there is no such place.
    pub fn set_socket(&mut self, rule: u32, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        debug_assert!(rule < INTERFACES);
        self.sockets.set(rule * QUEUES_PER_INTERFACE + queue, socket.as_raw_fd(), 0).map_err(map_error)
    }

    /// Attaches the program.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] as [`Attachment::new`] has it.
    pub fn attach(&mut self, link: &Link, mode: XdpMode) -> Result<(), Error> {
        let xdp: &Xdp = self
            .ebpf
            .program("sink")
            .ok_or_else(|| Error::Running("the object has no program sink".into()))?
            .try_into()
            .map_err(|error| load_error(&error))?;
        let program = xdp.fd().map_err(|error| load_error(&error))?;
        self.attachments.push(Attachment::new(program.as_fd(), link, mode)?);
        Ok(())
    }

    /// What arrived in a phase, summed over the processors.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn arrived(&self, phase: u8) -> Result<Arrived, Error> {
        let mut sum = Arrived::default();
        for words in self.arrived.get(&u32::from(phase), 0).map_err(map_error)?.iter() {
            let one = Arrived::from_words(*words);
            sum.foreign += one.foreign;
            if one.packets > 0 {
                sum.first = if sum.packets == 0 { one.first } else { sum.first.min(one.first) };
                sum.last = sum.last.max(one.last);
                sum.packets += one.packets;
                sum.octets += one.octets;
            }
        }
        Ok(sum)
    }

    /// Forgets what arrived in a phase.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn forget(&mut self, phase: u8) -> Result<(), Error> {
        let processors = self.arrived.get(&u32::from(phase), 0).map_err(map_error)?.len();
        let zero = vec![[0; Arrived::WORDS]; processors]
            .try_into()
            .map_err(|error| Error::running("the counters of the sink", error))?;
        self.arrived.set(u32::from(phase), zero, 0).map_err(map_error)
    }
}

const _: () = assert!(PHASES == u8::MAX as u32 + 1);

fn load_error(error: &dyn std::error::Error) -> Error {
    match privilege::check() {
        Err(missing) => Error::Host(missing),
        Ok(()) => Error::Running(format!("loading the sink's XDP program: {}", chain(error))),
    }
}

fn map_error(error: aya::maps::MapError) -> Error {
    Error::Running(format!("a map of the sink's XDP program: {}", chain(&error)))
}
