//! The slow path, as far as a worker has to do with it: packets that go to the kernel, or come from it, other than through
//! the rings. Threads of the node move them at the other end: one those of networks, in both directions, another one those
//! that the kernel received for services. Between a thread and each worker are pipes of a fixed number of parcels, which are
//! made once and go back and forth, so nothing is allocated, and nobody waits: what finds no empty parcel is dropped under a
//! name of its own. Of the parcels of a pipe each sender may have as many under way as are left.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ethernet, ipv4, ipv6};

use super::handover::Handover;
use super::shares::{Class, Shares};

/// By which way the kernel gets a packet, or gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The device of a network, by its number in [`Devices`](crate::table::Devices): inner packets, or frames in an Ethernet
    /// network.
    Device(u32),
    /// The socket of a service: frames, made around what it got.
    Service,
}

/// Memory for one packet, and the packet in it.
pub struct Parcel {
    way: Way,
    /// Whose share of the pipe it is, while it is under way.
    class: Option<Class>,
    length: usize,
    memory: Box<[u8]>,
}

impl Parcel {
    /// An empty one for packets of up to `octets`.
    pub fn new(octets: usize) -> Self {
        Self { way: Way::Device(0), class: None, length: 0, memory: vec![0; octets].into_boxed_slice() }
    }

    /// Makes the memory larger, if it is not for packets of `octets` yet. What is in it is lost.
    pub fn grow(&mut self, octets: usize) {
        if self.memory.len() < octets {
            *self = Self::new(octets);
        }
    }

    /// By which way the packet goes or came.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The packet.
    #[inline]
    pub fn packet(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }

    /// Whether the packet fills all memory, so that it may be the beginning of a longer one.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.length == self.memory.len()
    }

    /// The packet, to be changed in place.
    #[inline]
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.length).unwrap_or_default()
    }

    /// All memory, to write a packet into; [`set`](Self::set) says what was written.
    pub fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Says that the first `length` octets of the memory are a packet, and by which way it goes or came.
    pub fn set(&mut self, way: Way, length: usize) {
        (self.way, self.length) = (way, length.min(self.memory.len()));
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What clients send is nobody's business.
        f.debug_struct("Parcel").field("way", &self.way).field("length", &self.length).finish_non_exhaustive()
    }
}

/// Wakes a thread that has said that it sleeps; one that is awake is left alone, which costs no system call.
pub struct Bell {
    asleep: AtomicBool,
    rings: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Bell {
    /// One whose owner is woken by `wake`, also before it really sleeps.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { asleep: AtomicBool::new(false), rings: AtomicU64::new(0), wake: Box::new(wake) }
    }

    /// To be called when there is something for the owner. Whatever was put before, the owner either sees it when it looks
    /// for the last time before it sleeps, or is woken.
    #[inline]
    pub fn ring(&self) {
        // Between what was put and the look at the flag; the owner has the same between its flag and its look.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.rings.fetch_add(1, Ordering::Relaxed);
            (self.wake)();
        }
    }

    /// The owner is about to sleep: it has to look once more after this call.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake.
    pub fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// How often the owner was woken.
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("asleep", &self.asleep).field("rings", &self.rings).finish_non_exhaustive()
    }
}

/// One direction. Every parcel is in one of the queues or in the hands of one end; each queue has room for all.
#[derive(Debug)]
struct Pipe {
    full: Handover<Parcel>,
    empty: Handover<Parcel>,
}

impl Pipe {
    fn new(parcels: usize, octets: usize) -> Arc<Self> {
        let parcels = parcels.max(1);
        let pipe = Self { full: Handover::new(parcels), empty: Handover::new(parcels) };
        (0..parcels).for_each(|_| put(&pipe.empty, Parcel::new(octets)));
        Arc::new(pipe)
    }
}

/// The end of a pipe at which packets are put in.
#[derive(Debug)]
struct Mouth {
    pipe: Arc<Pipe>,
    /// Empty parcels that have come back.
    spare: Vec<Parcel>,
    /// What of the parcels each sender has under way, those counted in that have come back since but are not in `spare` yet.
    shares: Shares,
    /// Whether something was put in since the last [`flush`](Self::flush).
    unsaid: bool,
}

impl Mouth {
    fn new(pipe: Arc<Pipe>, parcels: usize) -> Self {
        Self { pipe, spare: Vec::with_capacity(parcels.max(1)), shares: Shares::default(), unsaid: false }
    }

    /// An empty parcel for a packet of this sender. The verdict of a failure is [`Verdict::SlowPathFull`] or
    /// [`Verdict::SlowPathShare`].
    #[inline]
    fn parcel(&mut self, class: Class) -> Result<Parcel, Verdict> {
        if !self.shares.admits(class, self.spare.len()) {
            self.collect();
            if !self.shares.admits(class, self.spare.len()) {
                return Err(if self.spare.is_empty() { Verdict::SlowPathFull } else { Verdict::SlowPathShare });
            }
        }
        self.spare.pop().ok_or(Verdict::SlowPathFull)
    }

    /// Looks which parcels have come back.
    fn collect(&mut self) {
        while let Some(mut parcel) = self.pipe.empty.pop() {
            parcel.class.take().into_iter().for_each(|class| self.shares.remove(class));
            self.spare.push(parcel);
        }
    }

    /// Puts a packet of this sender in, in a parcel that is of this pipe from then on.
    #[inline]
    fn put(&mut self, mut parcel: Parcel, class: Class) {
        parcel.class = Some(class);
        self.shares.add(class);
        put(&self.pipe.full, parcel);
        self.unsaid = true;
    }

    /// Makes sure that what was put in is taken.
    #[inline]
    fn flush(&mut self, bell: &Bell) {
        if std::mem::take(&mut self.unsaid) {
            bell.ring();
        }
    }
}

#[inline]
fn put(queue: &Handover<Parcel>, parcel: Parcel) {
    // There is room for every parcel of the pipe; one of another pipe has no place here.
    let _foreign = queue.push(parcel);
}

/// Makes the two ends for one worker: `parcels` in each direction, each for packets of up to `octets`. `thread` is the bell
/// of the thread of the slow path, which all workers ring, and `worker` that of this one.
pub fn halves(parcels: usize, octets: usize, thread: Arc<Bell>, worker: Bell) -> (WorkerHalf, ThreadHalf) {
    let down = Pipe::new(parcels, octets);
    let (inlet, feed) = inlet(parcels, octets, worker);
    (WorkerHalf { down: Mouth::new(down.clone(), parcels), inlet, thread }, ThreadHalf { down, feed })
}

/// Makes the two ends of a pipe to one worker: `parcels`, each for packets of up to `octets`, or as many as it
/// [grows](Parcel::grow) to. `worker` is the worker's bell.
pub fn inlet(parcels: usize, octets: usize, worker: Bell) -> (Inlet, Feed) {
    let (pipe, bell) = (Pipe::new(parcels, octets), Arc::new(worker));
    (Inlet { pipe: pipe.clone(), bell: bell.clone() }, Feed { mouth: Mouth::new(pipe, parcels), bell })
}

/// What a worker holds of a pipe to it.
#[derive(Debug)]
pub struct Inlet {
    pipe: Arc<Pipe>,
    bell: Arc<Bell>,
}

impl Inlet {
    /// Whether nothing waits for the worker.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pipe.full.is_empty()
    }

    /// The next packet from the kernel. The parcel has to be given [back](Self::give_back).
    #[inline]
    pub fn take(&mut self) -> Option<Parcel> {
        // To look costs less than to take nothing, and most turns find nothing.
        if self.is_empty() { None } else { self.pipe.full.pop() }
    }

    /// Gives a parcel back that was [taken](Self::take).
    #[inline]
    pub fn give_back(&mut self, parcel: Parcel) {
        put(&self.pipe.empty, parcel);
    }

    /// Says that the worker is about to sleep; returns whether it may, as nothing waits for it. Then
    /// [`rise`](Self::rise) has to be called when it is awake.
    pub fn doze(&self) -> bool {
        self.bell.doze();
        let may = self.is_empty();
        if !may {
            self.bell.rise();
        }
        may
    }

    /// Says that the worker is awake.
    pub fn rise(&self) {
        self.bell.rise();
    }
}

/// What a thread holds of a pipe to a worker.
#[derive(Debug)]
pub struct Feed {
    mouth: Mouth,
    bell: Arc<Bell>,
}

impl Feed {
    /// Hands a packet of a sender with this number over to the worker. What comes back instead of `parcel` is an empty one.
    /// The verdict of a failure is [`Verdict::SlowPathFull`] or [`Verdict::SlowPathShare`], and then the packet is in `parcel`
    /// still.
    pub fn send(&mut self, parcel: &mut Parcel, sender: u32) -> Result<(), Verdict> {
        let class = Class::of(sender);
        let empty = self.mouth.parcel(class)?;
        self.mouth.put(std::mem::replace(parcel, empty), class);
        Ok(())
    }

    /// Makes sure that what was handed over is taken.
    pub fn flush(&mut self) {
        self.mouth.flush(&self.bell);
    }

    /// How often the worker had to be woken.
    pub fn rings(&self) -> u64 {
        self.bell.rings()
    }
}

/// What a worker holds of the slow path of networks.
#[derive(Debug)]
pub struct WorkerHalf {
    down: Mouth,
    inlet: Inlet,
    thread: Arc<Bell>,
}

impl WorkerHalf {
    /// Hands a packet of the client with this number over to the kernel. The verdict of a failure is [`Verdict::SlowPathFull`],
    /// [`Verdict::SlowPathShare`] or [`Verdict::TooBig`].
    #[inline]
    pub fn send(&mut self, way: Way, client: u32, packet: &[u8]) -> Result<(), Verdict> {
        let class = Class::of(client);
        let mut parcel = self.down.parcel(class)?;
        let Some(memory) = parcel.memory.get_mut(..packet.len()) else {
            self.down.spare.push(parcel);
            return Err(Verdict::TooBig);
        };
        memory.copy_from_slice(packet);
        parcel.set(way, packet.len());
        self.down.put(parcel, class);
        Ok(())
    }

    /// Makes sure that what was handed over is taken. To be called once a batch.
    #[inline]
    pub fn flush(&mut self) {
        self.down.flush(&self.thread);
    }

    /// The next packet from the kernel. The parcel has to be given [back](Self::give_back).
    #[inline]
    pub fn take(&mut self) -> Option<Parcel> {
        self.inlet.take()
    }

    /// Gives a parcel back that was [taken](Self::take).
    #[inline]
    pub fn give_back(&mut self, parcel: Parcel) {
        self.inlet.give_back(parcel);
    }

    /// Says that the worker is about to sleep; returns whether it may, as nothing waits for it. Then
    /// [`rise`](Self::rise) has to be called when it is awake.
    pub fn doze(&self) -> bool {
        self.inlet.doze()
    }

    /// Says that the worker is awake.
    pub fn rise(&self) {
        self.inlet.rise();
    }
}

/// What the thread of the slow path holds for one worker.
#[derive(Debug)]
pub struct ThreadHalf {
    down: Arc<Pipe>,
    feed: Feed,
}

impl ThreadHalf {
    /// The next packet for the kernel. The parcel has to be given [back](Self::give_back).
    pub fn take(&mut self) -> Option<Parcel> {
        self.down.full.pop()
    }

    /// Gives a parcel back that was [taken](Self::take).
    pub fn give_back(&mut self, parcel: Parcel) {
        put(&self.down.empty, parcel);
    }

    /// Whether nothing waits for the kernel.
    pub fn is_empty(&self) -> bool {
        self.down.full.is_empty()
    }

    /// Hands a packet of a sender over to the worker, as [`Feed::send`] does.
    pub fn send(&mut self, parcel: &mut Parcel, sender: u32) -> Result<(), Verdict> {
        self.feed.send(parcel, sender)
    }

    /// Makes sure that what was handed over is taken.
    pub fn flush(&mut self) {
        self.feed.flush();
    }

    /// How often the worker had to be woken.
    pub fn rings(&self) -> u64 {
        self.feed.rings()
    }
}

/// A number that is the same for all packets between two addresses, fragments included, and for many pairs of addresses
/// differs. Which pairs have the same one nobody can tell who does not know the hasher's `key`.
pub fn flow(packet: &[u8], key: &impl BuildHasher) -> u32 {
    let addresses = match packet.first().map(|first| first >> 4) {
        Some(6) => packet.get(ipv6::SOURCE..ipv6::HEADER),
        _ => packet.get(ipv4::SOURCE..ipv4::HEADER),
    };
    key.hash_one(addresses) as u32
}

/// The same for Ethernet frames and their MAC addresses.
pub fn frame_flow(frame: &[u8], key: &impl BuildHasher) -> u32 {
    key.hash_one(frame.get(..ethernet::TYPE)) as u32
}

#[cfg(test)]
mod tests;
