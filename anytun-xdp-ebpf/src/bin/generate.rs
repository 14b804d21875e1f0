//! The XDP programs of the generator. `send_*` turn the live frames of `BPF_PROG_TEST_RUN` into prepared packets
//! (Documentation/bpf/bpf_prog_run.rst of the kernel), one program for each size of slots. `sink` counts or redirects what
//! arrives.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(missing_docs, unreachable_pub, reason = "what the macros make public is so for the linker only")]

use core::hint::black_box;

use anytun_common::classify::classify;
use anytun_common::generate::{Arrived, INTERFACES, Orders, PHASES, Progress, Rule, Slot};
use anytun_common::map::QUEUES_PER_INTERFACE;
use anytun_common::stamp::Stamp;
use anytun_common::wire::{Bytes, checksum, ethernet, ipv4, ipv6, udp};
use anytun_xdp_ebpf::Frame;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_store_bytes};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;

/// What the sender is to do: one entry.
#[map]
static ORDERS: Array<Orders> = Array::with_max_entries(1, 0);

/// How far it is: one entry.
#[map]
static PROGRESS: Array<Progress> = Array::with_max_entries(1, 0);

/// Which packets are the sink's.
#[map]
static RULES: Array<Rule> = Array::with_max_entries(INTERFACES, 0);

/// What arrived, by phase.
#[map]
static ARRIVED: PerCpuArray<Arrived> = PerCpuArray::with_max_entries(PHASES, 0);

/// The AF_XDP sockets, at `rule * QUEUES_PER_INTERFACE + queue`.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(INTERFACES * QUEUES_PER_INTERFACE, 0);

/// Defines the program that sends the packets of one map. User space makes the map as large as it needs it.
macro_rules! sender {
    ($program:ident, $slots:ident, $size:literal) => {
        #[map]
        static $slots: Array<[u8; $size]> = Array::with_max_entries(1, 0);

        #[xdp]
        fn $program(ctx: XdpContext) -> u32 {
            let Some((orders, progress, now)) = due() else { return xdp_action::XDP_DROP };
            let Some(slot) = $slots.get_ptr_mut(progress.slot as u32) else { return xdp_action::XDP_DROP };
            // SAFETY: the pointer is to a value of the map, which lives as long as the program, and which only the one
            // run of the program that there is at a time touches.
            let slot = unsafe { &mut *slot };
            lay(&ctx, slot, orders, progress, now).unwrap_or(xdp_action::XDP_DROP)
        }
    };
}

sender!(send_128, SLOTS_128, 128);
sender!(send_256, SLOTS_256, 256);
sender!(send_512, SLOTS_512, 512);
sender!(send_1024, SLOTS_1024, 1024);
sender!(send_2048, SLOTS_2048, 2048);

/// Whether a packet is due; if so, orders, progress and the time.
#[inline(always)]
fn due() -> Option<(&'static Orders, &'static mut Progress, u64)> {
    let orders = ORDERS.get(0)?;
    // SAFETY: as in `sender`; user space only reads it while the program runs.
    let progress = unsafe { &mut *PROGRESS.get_ptr_mut(0)? };
    // SAFETY: the helper has no requirements.
    let now = unsafe { bpf_ktime_get_ns() };
    // Not when the call was made: the kernel takes tens of milliseconds until the first run.
    if progress.began == 0 {
        progress.began = now;
    }
    let elapsed = now - progress.began;
    if elapsed >= orders.duration {
        return None;
    }
    if progress.slot >= orders.slots {
        if orders.again == 0 {
            progress.exhausted = 1;
            return None;
        }
        progress.slot = 0;
    }
    if orders.rate != 0 {
        let accounted = progress.sent + progress.skipped;
        let due = scheduled(orders, elapsed / 1000);
        if due <= accounted {
            return None;
        }
        let behind = due - accounted;
        if behind > orders.slack {
            progress.skipped += behind - orders.slack;
        }
    }
    Some((orders, progress, now))
}

/// Packets that are due after so many microseconds: the mean of the first and the present rate, times the time.
#[inline(always)]
fn scheduled(orders: &Orders, micros: u64) -> u64 {
    let grown = if orders.growth >> 63 == 0 {
        orders.growth.wrapping_mul(micros) / 2_000_000
    } else {
        0u64.wrapping_sub(orders.growth.wrapping_neg().wrapping_mul(micros) / 2_000_000)
    };
    orders.rate.wrapping_add(grown).wrapping_mul(micros) / 1_000_000 + 1
}

/// Completes the packet in the slot and lays it into the frame, whole: what was in the frame is of an earlier packet, as
/// others have changed it. Counts it.
#[inline(always)]
fn lay<const N: usize>(
    ctx: &XdpContext,
    slot: &mut [u8; N],
    orders: &Orders,
    progress: &mut Progress,
    now: u64,
) -> Option<u32> {
    let about = Slot::from_bytes(*slot.first_chunk()?);
    if about.stamp_at != 0 {
        let magic = (orders.magic as u16).to_be_bytes();
        let stamp = Stamp { magic, flow: about.flow, sequence: progress.sequence as u32, timestamp: now };
        let octets = stamp.to_bytes();
        let sum = checksum::add(0, &octets);
        write(slot, about.stamp_at, octets)?;
        let mut outer = sum;
        if about.check_at != 0 {
            let check = udp_checksum(sum + u64::from(about.sum));
            write(slot, about.check_at, check.to_be_bytes())?;
            outer += u64::from(check);
        }
        if about.satp_at != 0 {
            let sequence = (orders.first.wrapping_add(progress.sequence) as u32).to_be_bytes();
            write(slot, about.satp_at, sequence)?;
            outer = checksum::add(outer, &sequence);
        }
        if about.outer_at != 0 {
            write(slot, about.outer_at, udp_checksum(outer + u64::from(about.outer_sum)).to_be_bytes())?;
        }
    }
    // In two steps, between which the compiler must forget what it knows: the verifier does not follow the one comparison
    // that it would make of them.
    let length = u64::from(about.length);
    if length > (N - Slot::OCTETS) as u64 {
        return None;
    }
    let length = black_box(length);
    if length < ethernet::HEADER as u64 {
        return None;
    }
    let change = length as i64 - (ctx.data_end() - ctx.data()) as i64;
    // SAFETY: the context is the one that the kernel gave; the packet pointers read before are not used again.
    if change != 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, change as i32) } != 0 {
        return None;
    }
    let frame = slot[Slot::OCTETS..].as_mut_ptr().cast();
    // SAFETY: as above, and `length` octets from `frame` lie in the slot by the check above.
    if unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, frame, length as u32) } != 0 {
        return None;
    }
    progress.last = now;
    progress.sent += 1;
    progress.slot += 1;
    progress.column += 1;
    if progress.column >= orders.flows {
        progress.column = 0;
        progress.sequence += 1;
    }
    // SAFETY: the helper has no requirements.
    Some(unsafe { bpf_redirect(orders.ifindex as u32, 0) } as u32)
}

/// Writes octets at an offset of the frame in a slot.
#[inline(always)]
fn write<const N: usize, const M: usize>(slot: &mut [u8; N], at: u16, octets: [u8; M]) -> Option<()> {
    // A number of its own register, so that the verifier sees that the one compared is the one added.
    let at = black_box(u64::from(at)) as usize;
    if at > N - Slot::OCTETS - M {
        return None;
    }
    *slot[Slot::OCTETS..].get_mut(at..)?.first_chunk_mut()? = octets;
    Some(())
}

/// The checksum for a sum; 0 would mean that there is none.
#[inline(always)]
fn udp_checksum(sum: u64) -> u16 {
    match !checksum::fold(sum) {
        0 => 0xffff,
        check => check,
    }
}

/// Counts and drops, or redirects, what is the sink's.
#[xdp]
fn sink(ctx: XdpContext) -> u32 {
    arrive(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn arrive(ctx: &XdpContext) -> Option<u32> {
    let frame = Frame(ctx);
    for index in 0..INTERFACES {
        let rule = RULES.get(index)?;
        if rule.ifindex == ctx.ingress_ifindex() as u64
            && let Some(payload) = payload(&frame, rule)
        {
            return take(ctx, rule, index, payload);
        }
    }
    None
}

/// Does with a packet what its rule says.
#[inline(always)]
fn take(ctx: &XdpContext, rule: &Rule, index: u32, payload: usize) -> Option<u32> {
    let frame = Frame(ctx);
    if rule.count == 0 {
        let queue = ctx.rx_queue_index();
        if queue >= QUEUES_PER_INTERFACE {
            return None;
        }
        return SOCKETS.redirect(index * QUEUES_PER_INTERFACE + queue, 0).ok();
    }
    // SAFETY: the pointer is to this processor's own value, and XDP programs do not interrupt each other on one processor.
    let arrived = unsafe { &mut *ARRIVED.get_ptr_mut(rule.phase as u32)? };
    if rule.stamp_at != Rule::SEALED {
        let magic = frame.read::<2>(payload + (rule.stamp_at & 0xff) as usize);
        if magic != Some((rule.magic as u16).to_be_bytes()) {
            arrived.foreign += 1;
            return Some(xdp_action::XDP_DROP);
        }
    }
    // SAFETY: the helper has no requirements.
    let now = unsafe { bpf_ktime_get_ns() };
    if arrived.packets == 0 {
        arrived.first = now;
    }
    arrived.last = now;
    arrived.packets += 1;
    arrived.octets += frame.length() as u64;
    Some(xdp_action::XDP_DROP)
}

/// The offset of the UDP payload of a packet that is the sink's.
#[inline(always)]
fn payload(frame: &Frame<'_>, rule: &Rule) -> Option<usize> {
    let ethertype = u16::from_be_bytes(frame.read::<2>(ethernet::TYPE)?);
    // The usual packets get by without the decoder, whose checks cost as much as all else here.
    let at = match ethertype {
        ethernet::IPV4 if frame.read::<1>(ethernet::HEADER)? == [0x45] => {
            let [protocol] = frame.read::<1>(ethernet::HEADER + ipv4::PROTOCOL)?;
            (protocol == udp::PROTOCOL).then_some(ethernet::HEADER + ipv4::HEADER)?
        }
        ethernet::IPV6 => {
            let [next] = frame.read::<1>(ethernet::HEADER + ipv6::NEXT_HEADER)?;
            (next == udp::PROTOCOL).then_some(ethernet::HEADER + ipv6::HEADER)?
        }
        _ => {
            let datagram = classify(frame).ok()?;
            return is_ours(rule, datagram.source_port, datagram.destination_port).then_some(datagram.payload);
        }
    };
    let [s0, s1, d0, d1] = frame.read::<4>(at)?;
    is_ours(rule, u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])).then_some(at + udp::HEADER)
}

#[inline(always)]
fn is_ours(rule: &Rule, source: u16, destination: u16) -> bool {
    (rule.low..=rule.high).contains(&u64::from(destination)) && (rule.source == 0 || rule.source == u64::from(source))
}

/// On the host the crate is built only so that plain `cargo build`, clippy and rust-analyzer see it.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these are the XDP programs of anytun-gen, which builds them for the kernel and loads them");
}
