//! The XDP program: classify, count, and redirect what is for a service or for the inside of an open network to the AF_XDP
//! socket of its queue, unless its worker is too far behind. Everything else goes to the kernel untouched.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(missing_docs, unreachable_pub, reason = "what the macros make public is so for the linker only")]

use core::ptr;
use core::sync::atomic::AtomicU64;

use anytun_common::backlog::{self, Backlog, FLOWS_PER_QUEUE, Flow};
use anytun_common::classify::{Network, Udp, fragment, network, plain, port, udp};
use anytun_common::map::{
    FRAGMENT, FewServices, FragmentKey, InsideKey, Interfaces, MAX_FRAGMENTS, MAX_INSIDE, MAX_SERVICES, MAX_SOCKETS,
    NO_PORT, QUEUES_PER_INTERFACE, ServiceKey, ServiceWords, inside_key,
};
use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::Header;
use anytun_xdp_ebpf::Frame;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::warn;

/// Octets that come near together.
const CACHE_LINE: usize = 64;

/// Where packets must be addressed to be steered. The value is not used.
#[map]
static SERVICES: HashMap<ServiceKey, u8> = HashMap::with_max_entries(MAX_SERVICES, 0);

/// The first of them, or all if they are few.
#[map]
static FEW_SERVICES: Array<FewServices> = Array::with_max_entries(1, 0);

/// What packets from outside are for: prefixes of clients of open networks, and blocks of ports of NATs. The value is not
/// used.
#[map]
static INSIDE: LpmTrie<InsideKey, u8> = LpmTrie::with_max_entries(MAX_INSIDE, 0);

/// Datagrams in fragments to the address of a NAT whose first one has come: whether they are for the NAT. The one that was
/// looked for least recently makes room.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, bool> = LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);

/// The interfaces, which are few enough to be compared one by one: that is quicker than to hash.
#[map]
static INTERFACES: Array<Interfaces> = Array::with_max_entries(1, 0);

/// The AF_XDP sockets, at `slot * QUEUES_PER_INTERFACE + queue`.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_SOCKETS, 0);

/// How far the workers are, by the place of their socket. They write their part through a mapping.
#[map]
static BACKLOGS: Array<Backlog<AtomicU64>> = Array::with_max_entries(MAX_SOCKETS, BPF_F_MMAPABLE);

/// What the flows of each queue have waiting, at `place of the socket * FLOWS_PER_QUEUE + bucket`.
#[map]
static FLOWS: Array<Flow> = Array::with_max_entries(MAX_SOCKETS * FLOWS_PER_QUEUE, 0);

/// Packets that may wait for a worker at most. Set when the program is loaded.
#[unsafe(no_mangle)]
static LIMIT: u64 = 0;

/// Random, so that no sender knows whose bucket it shares. Set when the program is loaded.
#[unsafe(no_mangle)]
static SEED: u64 = 0;

/// One counter for every verdict and processor.
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// The program.
#[xdp]
fn anytun_xdp(ctx: XdpContext) -> u32 {
    match steer(&ctx) {
        Ok(action) => {
            count(Verdict::Steered);
            action
        }
        Err(verdict) => {
            // Once for every processor: the counter tells the rest.
            if count(verdict) == 0 && matches!(verdict, Verdict::NoSocket) {
                warn!(
                    &ctx,
                    "no AF_XDP socket for queue {} of interface index {}: its packets go to the kernel",
                    ctx.rx_queue_index(),
                    ctx.ingress_ifindex()
                );
            }
            if matches!(verdict, Verdict::Overload) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
        }
    }
}

/// Who sends what: the part of a packet that tells its flow from others, apart from the source address.
struct Sender {
    port: u16,
    mux: u16,
}

/// Redirects a packet for a service or a client, or says why it is none of ours.
#[inline(always)]
fn steer(ctx: &XdpContext) -> Result<u32, Verdict> {
    let frame = Frame(ctx);
    // Where the headers of a tunnelled packet go on, which copy mode copies next: it comes near while the first line does.
    frame.prefetch(CACHE_LINE);
    // Two copies of what follows, one of which knows all offsets.
    let (sender, network) = match plain(&frame) {
        Some(network) => (sender(&frame, &network)?, network),
        None => {
            let network = network(&frame)?;
            (sender(&frame, &network)?, network)
        }
    };
    let slot = slot(ctx.ingress_ifindex() as u32).ok_or(Verdict::NoSocket)?;
    let queue = ctx.rx_queue_index();
    if queue >= QUEUES_PER_INTERFACE {
        return Err(Verdict::NoSocket);
    }
    let place = slot * QUEUES_PER_INTERFACE + queue;
    // The helper looks the socket up: a place without one fails here, before the packet is given away.
    let action = SOCKETS.redirect(place, 0).map_err(|_| Verdict::NoSocket)?;
    if admit(&network, &sender, place) { Ok(action) } else { Err(Verdict::Overload) }
}

/// The place of an interface in [`SOCKETS`].
#[inline(always)]
fn slot(ifindex: u32) -> Option<u32> {
    // A place is written once, before the program is attached to its interface.
    let place = INTERFACES.get(0)?.iter().position(|index| *index == ifindex)?;
    Some(place as u32)
}

/// By whom a packet for a service or a client is, or why it is none of ours.
#[inline(always)]
fn sender(frame: &Frame<'_>, network: &Network) -> Result<Sender, Verdict> {
    match for_service(frame, network) {
        Err(_) if for_client(frame, network) => Ok(Sender { port: 0, mux: 0 }),
        found => found,
    }
}

/// Whether the packet is for a service, and of whom.
#[inline(always)]
fn for_service(frame: &Frame<'_>, network: &Network) -> Result<Sender, Verdict> {
    // Not the whole datagram: what is not on the stack need not be copied there.
    let Udp { payload, source_port, destination_port, .. } = udp(frame, network)?;
    if !is_service(ServiceKey::new(network.destination, destination_port).words()) {
        return Err(Verdict::NotService);
    }
    let mux = Header::read(frame, payload).map_or(0, |header| header.mux);
    Ok(Sender { port: source_port, mux })
}

/// Whether packets addressed so are for a service.
#[inline(always)]
fn is_service(key: ServiceWords) -> bool {
    // It may change while it is read, but what stays in it does not, and it says that there are no others only when all are
    // there: see who writes it.
    let Some(few) = FEW_SERVICES.get(0) else { return false };
    few.contains(&key) || few.more != 0 && is_any_service(key[0], key[1], key[2])
}

/// The same when services are many. With the words of the key, so that only here they are put into memory.
#[inline(never)]
fn is_any_service(high: u64, low: u64, port: u64) -> bool {
    let key = ServiceKey::from_words([high, low, port]);
    // SAFETY: the value is not read; a concurrent change of the map shows as found or as not found.
    unsafe { SERVICES.get(key) }.is_some()
}

/// Whether the packet is for a client of an open network, under its own address or behind a NAT.
#[inline(always)]
fn for_client(frame: &Frame<'_>, network: &Network) -> bool {
    if network.fragment { is_fragment_inside(frame, network) } else { is_inside(network, port(frame, network)) }
}

/// Whether a fragment is for a client. What is for a NAT the first fragment tells, which has the ports, of those that come
/// after it.
#[inline(never)]
fn is_fragment_inside(frame: &Frame<'_>, network: &Network) -> bool {
    if is_inside(network, NO_PORT) {
        return true;
    }
    let Some(fragment) = fragment(frame, network) else { return false };
    let Some(port) = fragment.port else {
        // SAFETY: the value is a copy; a concurrent change of the entry shows as before or after it.
        let known = unsafe { FRAGMENTS.get(fragment.key) }.copied();
        return known.unwrap_or_else(|| is_inside(network, FRAGMENT));
    };
    let inside = is_inside(network, port);
    // When that fails, what follows is taken for what came before its first fragment.
    let _ = if inside || is_inside(network, FRAGMENT) {
        FRAGMENTS.insert(fragment.key, inside, 0)
    } else {
        // Identifications come again.
        FRAGMENTS.remove(fragment.key)
    };
    inside
}

/// Whether something that has this port is for a client.
#[inline(always)]
fn is_inside(network: &Network, port: u16) -> bool {
    let key = inside_key(&network.destination, port);
    INSIDE.get(Key::new(8 * size_of::<InsideKey>() as u32, key)).is_some()
}

/// Whether the packet may join the queue of the worker at `place`; counts it there if so.
#[inline(always)]
fn admit(network: &Network, sender: &Sender, place: u32) -> bool {
    let Some(Backlog { given, taken }) = BACKLOGS.get(place) else { return true };
    // Volatile where an atomic is meant: plain loads and stores of aligned words are all that BPF has below version 4.
    // SAFETY: the word is in the map, which lives as long as the program, and is written as a whole.
    let before = unsafe { ptr::read_volatile(given.count.as_ptr()) };
    // SAFETY: as above.
    let taken = unsafe { ptr::read_volatile(taken.count.as_ptr()) };
    let admitted = backlog::is_calm(before, taken) || admit_flow(network, sender, place, before, taken);
    if admitted {
        // Not an addition in one: nobody else writes it, and should two processors do, the worker sets it right.
        //
        // SAFETY: as above.
        unsafe { ptr::write_volatile(given.count.as_ptr(), before + 1) };
    }
    admitted
}

/// Whether the packet may join a queue that others wait in, so many handed over `before` it and so many of these `taken`.
#[inline(always)]
fn admit_flow(network: &Network, sender: &Sender, place: u32, before: u64, taken: u64) -> bool {
    // SAFETY: read-only memory. Volatile, because the loader replaces what the compiler sees.
    let limit = unsafe { ptr::read_volatile(&raw const LIMIT) };
    // SAFETY: as above.
    let seed = unsafe { ptr::read_volatile(&raw const SEED) };
    let bucket = backlog::bucket(&network.source, sender.port, sender.mux, seed);
    let Some(flow) = FLOWS.get_ptr_mut(place * FLOWS_PER_QUEUE + bucket) else { return true };
    // SAFETY: a queue is served by one processor at a time, so nobody else has its flows. Generic XDP may break that rule:
    // then a count is lost, which does not last.
    unsafe { &mut *flow }.admits(before, taken, limit)
}

/// Counts a verdict; returns how many this processor had counted before.
#[inline(always)]
fn count(verdict: Verdict) -> u64 {
    let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) else { return u64::MAX };
    // SAFETY: the pointer is to this processor's own counter, and XDP programs do not interrupt each other on one
    // processor.
    let counter = unsafe { &mut *counter };
    let before = *counter;
    *counter = before.wrapping_add(1);
    before
}

/// On the host the crate is built only so that plain `cargo build`, clippy and rust-analyzer see it.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is the XDP program of anytun-xdp; `cargo xtask run` builds it for the kernel and loads it");
}
