//! The XDP sender: prepared packets in a map, sent as live frames of `BPF_PROG_TEST_RUN`.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use anytun_common::generate::{Orders, Progress, SLOT_SIZES, Slot};
use anytun_xdp::kernel::object;
use aya::maps::{Array, Map, MapData};
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::errno::Errno;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;

use crate::error::Error;
use crate::traffic::Prepared;

/// Frames that the kernel sends together.
const BATCH: u32 = 64;
/// Runs of the program in one call; the call is ended before.
const REPEAT: u32 = u32::MAX;
/// What ends the call.
const END: Signal = Signal::SIGUSR1;
/// How often that is tried until the thread has ended.
const NAP: Duration = Duration::from_millis(1);

/// The program and its packets.
pub struct Live {
    ebpf: Ebpf,
    program: String,
    /// One for every thread that prepares packets.
    stores: Vec<Store>,
    orders: Array<MapData, [u64; Orders::WORDS]>,
    progress: Array<MapData, [u64; Progress::WORDS]>,
    /// Octets of the frames that the program is run on: of the largest packet, because frames are shrunk more cheaply
    /// than grown.
    frame: usize,
    slots: u32,
}

/// Writes one slot.
type Store = Box<dyn FnMut(u32, &Slot, &[u8]) -> Result<(), Error> + Send>;

impl Live {
    /// Loads the program with room for `slots` packets, none larger than `largest` octets.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when no slot is so large; [`Error::Host`] and [`Error::Unavailable`] when the kernel refuses.
    pub fn load(slots: u32, largest: usize) -> Result<Self, Error> {
        let size = slot_size(largest)?;
        let (program, map) = (format!("send_{size}"), format!("SLOTS_{size}"));
        let octets = u64::from(slots) * size as u64;
        let mut ebpf = EbpfLoader::new().map_max_entries(&map, slots).load(object::GENERATE).map_err(|error| {
            refused(&format!("no map for {slots} packets of {size} octets, {} MB in all", octets / 1_000_000), error)
        })?;
        let xdp: &mut Xdp = ebpf
            .program_mut(&program)
            .ok_or_else(|| Error::Running(format!("the object has no program {program}")))?
            .try_into()
            .map_err(|error| Error::running("the XDP sender", error))?;
        xdp.load().map_err(|error| refused("the XDP sender", error))?;
        let mut take = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| Error::Running(format!("the object of the XDP sender has no map {name}")))
        };
        let Map::Array(slots_map) = take(&map)? else {
            return Err(Error::Running(format!("the map {map} is no array")));
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let stores = (0..threads).map(|_| store(&slots_map, size)).collect::<Result<_, _>>()?;
        let orders = take("ORDERS")?.try_into().map_err(map_error)?;
        let progress = take("PROGRESS")?.try_into().map_err(map_error)?;
        signal_hook::flag::register(END as i32, Arc::new(AtomicBool::new(false)))
            .map_err(|error| Error::running("the signal that ends the XDP sender", error))?;
        Ok(Self { ebpf, program, stores, orders, progress, frame: largest, slots })
    }

    /// Fills all slots with what `make` gives for their numbers, on all processors. `made` counts them.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn fill(&mut self, made: &AtomicU32, make: impl Fn(u32) -> Prepared + Sync) -> Result<(), Error> {
        let slots = self.slots;
        let threads = self.stores.len() as u32;
        thread::scope(|scope| {
            let fill = |(number, store): (usize, Store)| {
                let make = &make;
                scope.spawn(move || {
                    let mut store = store;
                    for index in (number as u32..slots).step_by(threads as usize) {
                        let Prepared { slot, frame } = make(index);
                        store(index, &slot, &frame)?;
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            };
            let working: Vec<_> = self.stores.drain(..).enumerate().map(fill).collect();
            working
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Says what is to be sent, and from which slot and sequence number on.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn prepare(&mut self, orders: &Orders, from: &Progress) -> Result<(), Error> {
        self.progress.set(0, from.to_words(), 0).map_err(map_error)?;
        self.orders.set(0, orders.to_words(), 0).map_err(map_error)
    }

    /// How far it is.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when the kernel refuses.
    pub fn progress(&self) -> Result<Progress, Error> {
        self.progress.get(&0, 0).map(Progress::from_words).map_err(map_error)
    }

    /// Starts to send on a thread of its own; [`Sending::end`] ends it.
    pub fn start<'scope, 'env: 'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Result<Sending<'scope>, Error> {
        let xdp: &Xdp = self
            .ebpf
            .program(&self.program)
            .ok_or_else(|| Error::Running(format!("the object has no program {}", self.program)))?
            .try_into()
            .map_err(|error| Error::running("the XDP sender", error))?;
        let (tell, told) = std::sync::mpsc::channel();
        let frame = vec![0; self.frame];
        let thread = scope.spawn(move || {
            // The receiver waits for it.
            let _ = tell.send(pthread_self());
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options = TestRunOptions { data_in: Some(&frame), repeat: REPEAT, attrs, ..TestRunOptions::new() };
            match xdp.test_run(options) {
                Ok(_) => Ok(()),
                Err(ProgramError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(Errno::EINTR as i32) =>
                {
                    Ok(())
                }
                Err(error) => Err(Error::running("sending live frames (BPF_PROG_TEST_RUN)", error)),
            }
        });
        let id = told.recv().map_err(|error| Error::running("the thread of the XDP sender", error))?;
        Ok(Sending { thread, id })
    }
}

/// A call that sends.
pub struct Sending<'scope> {
    thread: ScopedJoinHandle<'scope, Result<(), Error>>,
    id: Pthread,
}

impl Sending<'_> {
    /// Whether the call has returned, which it does before its end only when it failed.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the call.
    ///
    /// # Errors
    ///
    /// Why the call failed before.
    pub fn end(self) -> Result<(), Error> {
        // More than once: a signal that comes before the call is lost to it.
        while !self.thread.is_finished() {
            // The thread is not joined yet, so its number is good, and one that has just ended is not signalled.
            let _ = pthread_kill(self.id, END);
            thread::sleep(NAP);
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The smallest slot for packets of so many octets.
///
/// # Errors
///
/// [`Error::Usage`] when there is none.
pub fn slot_size(largest: usize) -> Result<usize, Error> {
    let room = |size: &usize| largest + Slot::OCTETS <= *size;
    SLOT_SIZES.into_iter().find(room).ok_or_else(|| {
        let most = SLOT_SIZES[SLOT_SIZES.len() - 1] - Slot::OCTETS;
        Error::usage(format!("a frame of {largest} octets; --engine xdp sends frames of up to {most}"))
    })
}

/// A writer of a map of slots.
fn store(map: &MapData, size: usize) -> Result<Store, Error> {
    match size {
        128 => sized::<128>(map),
        256 => sized::<256>(map),
        512 => sized::<512>(map),
        1024 => sized::<1024>(map),
        _ => sized::<2048>(map),
    }
}

fn sized<const N: usize>(map: &MapData) -> Result<Store, Error> {
    let fd = map.fd().as_fd().try_clone_to_owned().map_err(|error| Error::running("the map of slots", error))?;
    let map = MapData::from_fd(fd).map_err(map_error)?;
    let mut map: Array<MapData, [u8; N]> = Map::Array(map).try_into().map_err(map_error)?;
    Ok(Box::new(move |index, slot, frame| {
        let mut value = [0; N];
        let (head, rest) = value.split_at_mut(Slot::OCTETS);
        head.copy_from_slice(&slot.to_bytes());
        let rest = rest.get_mut(..frame.len()).ok_or_else(|| Error::Running("a packet larger than its slot".into()))?;
        rest.copy_from_slice(frame);
        map.set(index, value, 0).map_err(map_error)
    }))
}

/// What the kernel refused at load.
fn refused(what: &str, error: impl std::error::Error + 'static) -> Error {
    match anytun_xdp::kernel::privilege::check() {
        Err(missing) => Error::Host(missing),
        Ok(()) => Error::Unavailable(format!("{what}: {}", chain(&error))),
    }
}

/// An error and what is behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn map_error(error: aya::maps::MapError) -> Error {
    Error::Running(format!("a map of the XDP sender: {}", chain(&error)))
}
