//! anytun-gen: a packet generator and sink for nodes of anytun-xdp and for whatever else relays UDP.
//!
//! [`plan`] says what is wanted, [`traffic`] makes the packets and knows them again, [`live`] or a [`lane`] sends them,
//! [`sink`] or a lane receives them, and [`session`] ties them together and measures.
#![forbid(unsafe_code)]

pub mod clock;
pub mod error;
pub mod hop;
pub mod live;
pub mod plan;
pub mod rate;
pub mod report;
pub mod session;
pub mod sink;
pub mod size;
pub mod traffic;
