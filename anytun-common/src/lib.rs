//! What the kernel half and the user half of anytun-xdp agree on: the decoder of frames, the verdicts, and the keys and
//! values of the eBPF maps. Depends on nothing, allocates nothing, never panics on bytes from the network.
#![no_std]
#![forbid(unsafe_code)]

pub mod classify;
pub mod generate;
pub mod map;
pub mod stamp;
pub mod verdict;
pub mod wire;
