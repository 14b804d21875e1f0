//! The XDP program: classify, count, and redirect what is for a service to the AF_XDP socket of its queue. Everything else
//! goes to the kernel untouched.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(missing_docs, unreachable_pub, reason = "what the macros make public is so for the linker only")]

use anytun_common::classify::classify;
use anytun_common::map::{MAX_INTERFACES, MAX_SERVICES, MAX_SOCKETS, QUEUES_PER_INTERFACE, ServiceKey};
use anytun_common::verdict::Verdict;
use anytun_xdp_ebpf::Frame;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::warn;

/// Where packets must be addressed to be steered. The value is not used.
#[map]
static SERVICES: HashMap<ServiceKey, u8> = HashMap::with_max_entries(MAX_SERVICES, 0);

/// Interface index to slot: the place of the interface in [`SOCKETS`].
#[map]
static SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_INTERFACES, 0);

/// The AF_XDP sockets, at `slot * QUEUES_PER_INTERFACE + queue`.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_SOCKETS, 0);

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
            xdp_action::XDP_PASS
        }
    }
}

/// Redirects a packet for a service, or says why it is none of ours.
#[inline(always)]
fn steer(ctx: &XdpContext) -> Result<u32, Verdict> {
    let datagram = classify(&Frame(ctx))?;
    // SAFETY: the value is not read; a concurrent change of the map shows as found or as not found.
    unsafe { SERVICES.get(datagram.service_key()) }.ok_or(Verdict::NotService)?;
    // SAFETY: a slot is written once, before the program is attached to the interface.
    let slot = *unsafe { SLOTS.get(ctx.ingress_ifindex() as u32) }.ok_or(Verdict::NoSocket)?;
    let queue = ctx.rx_queue_index();
    if queue >= QUEUES_PER_INTERFACE {
        return Err(Verdict::NoSocket);
    }
    // The helper looks the socket up: a place without one fails here, before the packet is given away.
    SOCKETS.redirect(slot * QUEUES_PER_INTERFACE + queue, 0).map_err(|_| Verdict::NoSocket)
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
