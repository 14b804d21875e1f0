//! The generator's XDP program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(missing_docs, unreachable_pub, reason = "what the macros make public is so for the linker only")]

use anytun_xdp_ebpf as _;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Sends the packet back out of the interface it came in through.
#[xdp]
fn generate(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// On the host the crate is built only so that plain `cargo build`, clippy and rust-analyzer see it.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this is the XDP program of anytun-gen, which builds it for the kernel and loads it");
}
