//! What happens to one packet. No I/O, no clock, no lock, no allocation.

pub mod bridge;
pub mod ecn;
pub mod encapsulate;
pub mod fragment;
pub mod halve;
pub mod icmp;
pub mod inner;
pub mod local;
pub mod membership;
pub mod mss;
pub mod nat;
pub mod open_tunnel;
pub mod partial;
pub mod path;
pub mod query;
pub mod tunnel;
pub mod upper;
