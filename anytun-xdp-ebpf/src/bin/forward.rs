//! The yardsticks of the benchmark: two programs that do as little as can be done to a packet on its way from one
//! interface to another. `forward` does it in the kernel, `reflect` hands it to an AF_XDP socket. Both take every IPv4 UDP
//! packet and leave the rest to the kernel.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(missing_docs, unreachable_pub, reason = "what the macros make public is so for the linker only")]

use anytun_common::wire::Bytes;
use anytun_xdp_ebpf::Frame;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, DevMap, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;

/// Interfaces that can take part.
const PORTS: u32 = 2;
/// Queues of an interface that can have a socket.
const QUEUES: u32 = 64;

/// Interface index to port.
#[map]
static SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(PORTS, 0);

/// By port of arrival: the destination and the source address of the Ethernet header that the packet leaves with.
#[map]
static HEADERS: Array<[u8; 12]> = Array::with_max_entries(PORTS, 0);

/// By port of arrival: the interface that the packet leaves through.
#[map]
static DEVICES: DevMap = DevMap::with_max_entries(PORTS, 0);

/// AF_XDP sockets, at `port * QUEUES + queue`.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(PORTS * QUEUES, 0);

/// Packets forwarded.
#[map]
static FORWARDED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Sends a packet out of the other interface with a new Ethernet header.
#[xdp]
fn forward(ctx: XdpContext) -> u32 {
    try_forward(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

/// Hands a packet to the AF_XDP socket of its queue.
#[xdp]
fn reflect(ctx: XdpContext) -> u32 {
    try_reflect(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn try_forward(ctx: &XdpContext) -> Option<u32> {
    let port = arrival(ctx)?;
    let header = HEADERS.get(port)?;
    let start = ctx.data();
    if start + header.len() > ctx.data_end() {
        return None;
    }
    // SAFETY: the twelve octets from `start` lie between data and data_end, which the line above just checked, and
    // nobody else has the packet while the program runs.
    unsafe { *(start as *mut [u8; 12]) = *header };
    if let Some(counter) = FORWARDED.get_ptr_mut(0) {
        // SAFETY: the pointer is to this processor's own counter, and XDP programs do not interrupt each other on one
        // processor.
        let counter = unsafe { &mut *counter };
        *counter = counter.wrapping_add(1);
    }
    DEVICES.redirect(port, 0).ok()
}

#[inline(always)]
fn try_reflect(ctx: &XdpContext) -> Option<u32> {
    let port = arrival(ctx)?;
    let queue = ctx.rx_queue_index();
    if queue >= QUEUES {
        return None;
    }
    SOCKETS.redirect(port * QUEUES + queue, 0).ok()
}

/// The port that an IPv4 UDP packet came in through.
#[inline(always)]
fn arrival(ctx: &XdpContext) -> Option<u32> {
    let frame = Frame(ctx);
    // EtherType, and the protocol of the IPv4 header behind it (RFC 791 §3.1).
    if frame.read::<2>(12)? != [0x08, 0x00] || frame.read::<1>(23)? != [17] {
        return None;
    }
    // SAFETY: a port is written once, before the program is attached to the interface.
    unsafe { SLOTS.get(ctx.ingress_ifindex() as u32) }.copied()
}

/// On the host the crate is built only so that plain `cargo build`, clippy and rust-analyzer see it.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these are yardsticks of `cargo xtask bench`, which builds them for the kernel and loads them");
}
