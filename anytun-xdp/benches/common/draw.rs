//! Clients that nothing foresees.

/// A number that nothing foresees, neither a cache nor the prefetchers of a CPU (the finalizer of SplitMix64).
pub(crate) fn mixed(turn: u64) -> u64 {
    let turn = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (turn ^ turn >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
