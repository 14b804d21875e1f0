//! Loads of packet memory as wide as they can be.
//!
//! What has no alignment the compiler loads octet by octet, as some processors ask for. Those that run AF_XDP at speed do not,
//! and then neither does the verifier where packets are read: x86-64 and 64-bit ARM always, others by
//! `CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`, without which the kernel refuses the programs as misaligned.
//!
//! The compiler moves no such load before the check of its bounds, as it knows nothing of what it does; if it did, the verifier
//! would refuse the program.

use core::arch::asm;

macro_rules! load {
    ($name:ident, $type:ty, $width:literal) => {
        /// # Safety
        /// So many octets from this address on must be readable.
        #[inline(always)]
        unsafe fn $name(address: usize) -> $type {
            let value: u64;
            // SAFETY: the caller vouches for the memory. The instruction writes nothing but its register.
            unsafe {
                asm!(
                    concat!("{value} = *(", $width, " *)({address} + 0)"),
                    value = out(reg) value,
                    address = in(reg) address,
                    options(pure, readonly, nostack)
                );
            }
            value as $type
        }
    };
}

load!(eight, u64, "u64");
load!(four, u32, "u32");
load!(two, u16, "u16");
load!(one, u8, "u8");

/// Loads an octet that nothing depends on. BPF has no prefetch; this lets processors that execute out of order go on, as far
/// as they can without retiring it.
///
/// # Safety
/// It must be readable.
#[inline(always)]
pub(crate) unsafe fn touch(address: usize) {
    // SAFETY: the caller vouches for the memory. The instruction writes nothing but its register. Not pure, so that it stays
    // where it is.
    unsafe {
        asm!("{value} = *(u8 *)({address} + 0)", value = out(reg) _, address = in(reg) address, options(readonly, nostack))
    };
}

/// The `N` octets from an address on.
///
/// # Safety
/// They must be readable.
#[inline(always)]
pub(crate) unsafe fn octets<const N: usize>(address: usize) -> [u8; N] {
    let mut octets = [0; N];
    let mut at = address;
    let (eights, rest) = octets.as_chunks_mut();
    for chunk in eights {
        // SAFETY: these are within the N octets, for which the caller vouches; here and below.
        *chunk = unsafe { eight(at) }.to_ne_bytes();
        at += 8;
    }
    let (fours, rest) = rest.as_chunks_mut();
    for chunk in fours {
        // SAFETY: as above.
        *chunk = unsafe { four(at) }.to_ne_bytes();
        at += 4;
    }
    let (twos, rest) = rest.as_chunks_mut();
    for chunk in twos {
        // SAFETY: as above.
        *chunk = unsafe { two(at) }.to_ne_bytes();
        at += 2;
    }
    for octet in rest {
        // SAFETY: as above.
        *octet = unsafe { one(at) };
        at += 1;
    }
    octets
}
