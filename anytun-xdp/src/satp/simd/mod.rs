//! SHA-1 and AES for many packets side by side, with vector instructions, the hint that fetches memory ahead, and memory
//! that takes few pages: the only place outside of [`kernel`] with `unsafe` and intrinsics in it.
//!
//! [`kernel`]: crate::kernel
//!
//! # Why this is safe
//!
//! Four kinds of operations here are unsafe, and each has one argument.
//!
//! * **Calling a function that is compiled for more than the baseline.** It must not run on a CPU without its
//!   features. Every set of features has a token type ([`Avx512`], [`Avx2`], [`ShaNi`], [`Vaes`], [`AesNi`]) whose field
//!   is private to this module and whose only constructor is `detect`, which asks the CPU (and, through `XGETBV`, whether
//!   the operating system keeps the registers). The traits `Lanes` and `Blocks` are
//!   implemented for tokens, so holding the value that a method is called on proves the call sound. Between functions
//!   with the same features calls are safe; the compiler checks that.
//! * **Loads and stores.** All go through the functions of `memory`, which take references to arrays of exactly the
//!   octets that are moved, or a slice whose length makes the mask of the move. Instructions that tolerate any
//!   alignment are used throughout. So no pointer arithmetic is done anywhere, and indices are checked by the compiler or
//!   at run time.
//! * **The hint of `prefetch`.** It faults at no address and changes nothing but what is in the caches.
//! * **The memory of `pages` and `shared`.** Both own what they allocate, write a value before anybody sees it, and drop it
//!   when nobody does any more: `pages` as a `Vec` of fixed length does, `shared` as an `Arc` does.
//!
//! Everything else is arithmetic on values, which is safe.
//!
//! # Why this takes constant time
//!
//! Which instructions run, which memory they touch and how often depends on lengths, suites, roles and on how many packets
//! there are, never on keys, session values, payload or tags. There is no look-up table of secrets: the S-box is that of
//! the AES instructions. What is left of a batch in its scratch memory is overwritten by the next and wiped with it.

pub(super) mod aes;
pub(crate) mod pages;
pub(crate) mod prefetch;
pub(super) mod sha1;
pub(crate) mod shared;

#[cfg(target_arch = "x86_64")]
mod memory;

/// Octets of a cache line.
const LINE: usize = 64;

/// The most packets that are worked on together.
pub(super) const PACKETS: usize = 64;

/// Defines the proof that the CPU has a set of features.
#[cfg(target_arch = "x86_64")]
macro_rules! token {
    ($(#[$doc:meta])* $name:ident: $($feature:tt),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) struct $name(());

        impl $name {
            /// The proof, if the CPU has what is needed.
            pub(super) fn detect() -> Option<Self> {
                ($(std::arch::is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
token! {
    /// 512-bit registers: 16 chains of SHA-1.
    Avx512: "avx512f", "avx512bw"
}
#[cfg(target_arch = "x86_64")]
token! {
    /// 256-bit registers: 8 chains of SHA-1.
    Avx2: "avx2"
}
#[cfg(target_arch = "x86_64")]
token! {
    /// The SHA instructions.
    ShaNi: "sha", "ssse3", "sse4.1"
}
#[cfg(target_arch = "x86_64")]
token! {
    /// AES on 512-bit registers: 4 blocks an instruction.
    Vaes: "vaes", "avx512f", "avx512bw", "aes", "ssse3"
}
#[cfg(target_arch = "x86_64")]
token! {
    /// The AES instructions.
    AesNi: "aes", "ssse3"
}
