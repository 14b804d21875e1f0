//! What the XDP programs of this crate share: the view of a packet, the licence, and what `core` wants of a program.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod load;

use anytun_common::wire::Bytes;
use aya_ebpf::programs::XdpContext;

/// The packet that a program runs on.
pub struct Frame<'a>(pub &'a XdpContext);

impl Frame<'_> {
    /// Begins to bring near what is at `offset`, if the packet goes so far.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        let at = self.0.data() + offset;
        // As in `read`: of a comparison without "equal" older kernels conclude one octet too few.
        if at + size_of::<u8>() <= self.0.data_end() {
            #[cfg(target_arch = "bpf")]
            // SAFETY: the octet at `at` lies between data and data_end, as was just checked.
            unsafe {
                load::touch(at)
            };
        }
    }
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.0.data() + offset;
        if start + N > self.0.data_end() {
            return None;
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: the N octets from `start` lie between data and data_end, which was just checked and the verifier
        // insists on; the memory is initialised, `[u8; N]` has no alignment, and nobody writes to the packet while the
        // program reads it.
        return Some(unsafe { *(start as *const [u8; N]) });
        #[cfg(target_arch = "bpf")]
        // SAFETY: as above.
        return Some(unsafe { load::octets(start) });
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: nothing in the programs panics, and the verifier would refuse a loop without an end.
    loop {}
}

/// The licence the kernel reads; helpers for GPL programs need a compatible one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
