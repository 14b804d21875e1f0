//! anytun-gen: a packet generator and sink for nodes of anytun-xdp and for whatever else relays UDP.
//!
//! [`plan`] says what is wanted, [`traffic`] makes the packets and knows them again, a [`lane`] sends and receives them
//! through AF_XDP sockets, [`live`] and [`sink`] do so with XDP programs, [`tally`] keeps count, and [`session`] ties
//! them together and measures.
#![forbid(unsafe_code)]

mod carrier;
pub mod clock;
pub mod error;
pub mod hop;
pub mod lane;
pub mod live;
mod look;
pub mod memory;
pub mod outcome;
pub mod pcap;
pub mod plan;
pub mod rate;
pub mod report;
pub mod search;
pub mod session;
pub mod sink;
pub mod size;
pub mod tally;
pub mod track;
pub mod traffic;
