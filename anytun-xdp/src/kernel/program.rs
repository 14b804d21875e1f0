//! The XDP program: loaded with aya, attached through `bpf_link`s, which go with the process.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use anytun_common::map::{
    FRAGMENT, InsideKey, Interfaces, MAX_INTERFACES, QUEUES_PER_INTERFACE, ServiceKey, inside_key,
};
use anytun_common::verdict::Verdict;
use aya::maps::lpm_trie::{Key as Prefix, LpmTrie};
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;

use super::backlog::Backlogs;
use super::services::Services;
use super::{Attachment, HostError, Link, Xsk, object, privilege, xsk};
use crate::config::{PortRange, XdpMode};

/// The program's name in its object.
pub(super) const NAME: &str = "anytun_xdp";

/// Packets that may wait for a worker at most: less than its RX ring takes, so that none is lost behind the program.
const QUEUE_LIMIT: u64 = xsk::RX_RING as u64 * 3 / 4;

/// What packets from outside are for: as many leading bits of a key as count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Inside {
    key: InsideKey,
    bits: u8,
}

impl Inside {
    /// A prefix of a client: octets of the address, an IPv4 one mapped, and how many bits of them count.
    pub fn prefix((address, length): ([u8; 16], u8)) -> Self {
        Self { key: inside_key(&address, 0), bits: length.min(128) }
    }

    /// Ports of a NAT at its address, an IPv4 one mapped.
    pub fn ports(address: [u8; 16], ports: PortRange) -> impl Iterator<Item = Self> {
        ports.blocks().map(move |(first, bits)| Self { key: inside_key(&address, first), bits: 128 + bits })
    }

    /// Fragments to an address, an IPv4 one mapped, that come before the first one of their datagram, which has the ports.
    pub fn fragments(address: [u8; 16]) -> Self {
        Self { key: inside_key(&address, FRAGMENT), bits: 144 }
    }
}

/// What packets the program hands to workers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Steered {
    /// UDP datagrams to these services.
    pub services: HashSet<ServiceKey>,
    /// IP packets of any kind to clients of open networks.
    pub inside: HashSet<Inside>,
}

impl Steered {
    /// These services, and no client.
    pub fn services(services: impl IntoIterator<Item = ServiceKey>) -> Self {
        Self { services: services.into_iter().collect(), inside: HashSet::new() }
    }

    /// What both ask for.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            services: self.services.intersection(&other.services).copied().collect(),
            inside: self.inside.intersection(&other.inside).copied().collect(),
        }
    }
}

/// The XDP program in the kernel, with its maps. Dropping it detaches it.
pub struct Program {
    /// First, so that they go before the program and its maps.
    attachments: Vec<Attachment>,
    ebpf: Ebpf,
    services: Services,
    inside: LpmTrie<MapData, InsideKey, u8>,
    /// What `inside` holds.
    current: HashSet<Inside>,
    /// The map of interfaces, and what it holds.
    slots: Array<MapData, Interfaces>,
    interfaces: Interfaces,
    sockets: XskMap<MapData>,
    verdicts: PerCpuArray<MapData, u64>,
    backlogs: Backlogs,
    flush_log: Box<dyn FnMut() + Send>,
}

/// What the program did with a frame in a test run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestRun {
    /// The XDP action it returned (`enum xdp_action` of linux/bpf.h).
    pub action: u32,
    /// The verdict it counted.
    pub verdict: Verdict,
}

impl Program {
    /// Loads the program and its maps. What the program logs goes to the logger that is set now.
    ///
    /// # Errors
    ///
    /// [`HostError::NotPermitted`] without what [`privilege::NEEDED`] lists; [`HostError::Other`] when the kernel refuses
    /// the program, with its reason.
    pub fn load() -> Result<Self, HostError> {
        let seed = RandomState::new().hash_one(0u8);
        let mut ebpf = EbpfLoader::new()
            .override_global("LIMIT", &QUEUE_LIMIT, true)
            .override_global("SEED", &seed, true)
            .load(object::STEER)
            .map_err(load_error)?;
        let mut logger = EbpfLogger::init(&mut ebpf).map_err(|error| broken(error.to_string()))?;
        let xdp = xdp_mut(&mut ebpf)?;
        xdp.load().map_err(|error| load_error(error.into()))?;
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| broken(format!("it has no map {name}")));
        Ok(Self {
            services: Services::new(map("SERVICES")?, map("FEW_SERVICES")?).map_err(map_error)?,
            inside: map("INSIDE")?.try_into().map_err(map_error)?,
            slots: map("INTERFACES")?.try_into().map_err(map_error)?,
            interfaces: Interfaces::default(),
            sockets: map("SOCKETS")?.try_into().map_err(map_error)?,
            verdicts: map("VERDICTS")?.try_into().map_err(map_error)?,
            backlogs: backlogs(map("BACKLOGS")?)?,
            current: HashSet::new(),
            attachments: Vec::new(),
            flush_log: Box::new(move || logger.flush()),
            ebpf,
        })
    }

    /// Steers exactly these packets. New entries are made before old ones are removed, so what stays misses no packet.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`], such as for more prefixes than [`MAX_INSIDE`](anytun_common::map::MAX_INSIDE); what was done
    /// until then stays.
    pub fn steer(&mut self, wanted: &Steered) -> Result<(), HostError> {
        let Self { services, inside, current, .. } = self;
        let prefix = |inside: &Inside| Prefix::new(u32::from(inside.bits), inside.key);
        services.set(&wanted.services).map_err(map_error)?;
        for key in wanted.inside.difference(&current.clone()) {
            inside.insert(&prefix(key), 1, 0).map_err(map_error)?;
            current.insert(*key);
        }
        for key in current.clone().difference(&wanted.inside) {
            inside.remove(&prefix(key)).map_err(map_error)?;
            current.remove(key);
        }
        Ok(())
    }

    /// Gives the interface `ifindex` its place in the map of sockets, its only one. To be done before it is attached to.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when `slot` is not below [`MAX_INTERFACES`].
    pub fn set_slot(&mut self, ifindex: u32, slot: u32) -> Result<(), HostError> {
        let wrong = || HostError::other(format!("slot {slot} of {MAX_INTERFACES}"), io::ErrorKind::InvalidInput);
        let mut interfaces = self.interfaces.map(|index| if index == ifindex { 0 } else { index });
        *interfaces.get_mut(slot as usize).ok_or_else(wrong)? = ifindex;
        self.interfaces = interfaces;
        self.slots.set(0, self.interfaces, 0).map_err(map_error)
    }

    /// Hands packets to the sockets of a worker: those of each to the one of their queue. The kernel takes a socket out when
    /// it is closed.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when a slot or a queue is out of range.
    pub fn set_sockets(&mut self, sockets: &mut Xsk) -> Result<(), HostError> {
        for (slot, queue, socket) in sockets.sockets() {
            if slot >= MAX_INTERFACES || queue >= QUEUES_PER_INTERFACE {
                let what = format!("queue {queue} of {QUEUES_PER_INTERFACE} in slot {slot} of {MAX_INTERFACES}");
                return Err(HostError::other(what, io::ErrorKind::InvalidInput));
            }
            self.sockets.set(slot * QUEUES_PER_INTERFACE + queue, socket.as_raw_fd(), 0).map_err(map_error)?;
        }
        sockets.set_backlogs(&self.backlogs);
        Ok(())
    }

    /// Attaches the program to an interface, native unless `mode` is generic, until [`detach_all`](Self::detach_all) or
    /// the end of the process, however it ends.
    ///
    /// # Errors
    ///
    /// [`HostError::ForeignProgram`] when the interface already runs an XDP program; [`HostError::Unsupported`] when the
    /// driver cannot; [`HostError::NotPermitted`].
    pub fn attach(&mut self, link: &Link, mode: XdpMode) -> Result<(), HostError> {
        let program = xdp(&self.ebpf)?.fd().map_err(program_error)?;
        self.attachments.push(Attachment::new(program.as_fd(), link, mode)?);
        Ok(())
    }

    /// Detaches the program from every interface.
    pub fn detach_all(&mut self) {
        self.attachments.clear();
    }

    /// Packets by verdict since the program was loaded, summed over the processors; those of the user half stay zero.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn verdicts(&self) -> Result<[u64; Verdict::COUNT], HostError> {
        let mut sums = [0u64; Verdict::COUNT];
        for (index, sum) in sums.iter_mut().enumerate() {
            let counters = self.verdicts.get(&(index as u32), 0).map_err(map_error)?;
            *sum = counters.iter().fold(0, |sum, counter| sum.wrapping_add(*counter));
        }
        Ok(sums)
    }

    /// The kernel's number of the program, as `bpftool prog` shows it.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn id(&self) -> Result<u32, HostError> {
        Ok(xdp(&self.ebpf)?.info().map_err(program_error)?.id())
    }

    /// Passes what the program logged on to the logger. To be called now and then; what finds no room is lost.
    pub fn flush_log(&mut self) {
        (self.flush_log)();
    }

    /// Runs the program on `frame` without a network (`BPF_PROG_TEST_RUN`): the interface is loopback, the queue 0.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`], such as for a frame shorter than an Ethernet header, which the kernel does not take.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun, HostError> {
        let before = self.verdicts()?;
        let action = self.test_action(frame)?;
        let after = self.verdicts()?;
        let counted = |verdict: &&Verdict| after[**verdict as usize] != before[**verdict as usize];
        let verdict = *Verdict::ALL.iter().find(counted).ok_or_else(|| broken("it counted no verdict".into()))?;
        Ok(TestRun { action, verdict })
    }

    /// Like [`test_run`](Self::test_run), but only the action; the verdict shows in [`verdicts`](Self::verdicts).
    ///
    /// # Errors
    ///
    /// As [`test_run`](Self::test_run).
    pub fn test_action(&self, frame: &[u8]) -> Result<u32, HostError> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        Ok(xdp(&self.ebpf)?.test_run(options).map_err(program_error)?.return_value)
    }
}

fn xdp(ebpf: &Ebpf) -> Result<&Xdp, HostError> {
    let program = ebpf.program(NAME).ok_or_else(|| broken(format!("it has no program {NAME}")))?;
    program.try_into().map_err(program_error)
}

fn xdp_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp, HostError> {
    let program = ebpf.program_mut(NAME).ok_or_else(|| broken(format!("it has no program {NAME}")))?;
    program.try_into().map_err(program_error)
}

fn backlogs(map: Map) -> Result<Backlogs, HostError> {
    match map {
        Map::Array(map) => Backlogs::new(&map),
        _ => Err(broken("its map of backlogs is no array".into())),
    }
}

/// What kept the program from being loaded. The kernel refuses a program of a process that lacks a capability with EPERM,
/// and one that only CAP_PERFMON would let through with EACCES, like one it finds unsafe.
fn load_error(error: EbpfError) -> HostError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        let errno = at.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if matches!(errno, Some(libc::EPERM | libc::EACCES))
            && let Err(missing) = privilege::check()
        {
            return missing;
        }
        cause = at.source();
    }
    broken(error.to_string())
}

fn program_error(error: ProgramError) -> HostError {
    HostError::other("the XDP program", io::Error::other(error))
}

fn map_error(error: MapError) -> HostError {
    HostError::other("a map of the XDP program", io::Error::other(error))
}

fn broken(why: String) -> HostError {
    HostError::other("loading the XDP program", io::Error::other(why))
}
