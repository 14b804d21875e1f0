//! The compiled XDP programs, for whoever loads one with aya.

/// The node's program (`anytun_xdp`).
pub static STEER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer"));
/// The generator's program (`generate`).
pub static GENERATE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generate"));
/// The bare forwarder of the benchmark (`forward`).
pub static FORWARD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/forward"));
