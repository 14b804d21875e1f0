//! All that touches the kernel, and with it all `unsafe` of the user half but that of `satp::simd`.
//!
//! The order in which a node uses it: [`privilege::check`], [`Link::find`] for every interface, [`Program::load`],
//! [`Xsk::open`] for every worker, [`Program::set_slot`] and [`Program::set_sockets`], and [`Program::attach`] last, so
//! that no packet is steered to a socket that is not ready; then [`Mirror::run`] on a thread that keeps one capability, and
//! [`privilege::drop_capabilities`] before any other thread is started.

mod addressing;
mod attachment;
mod backlog;
pub mod doctor;
mod error;
mod ethtool;
mod icmp;
mod link;
pub mod memory;
mod mirror;
pub mod object;
pub mod privilege;
mod program;
pub mod queues;
mod rtnetlink;
mod scheduling;
mod service;
mod services;
mod tun;
mod xsk;

pub use addressing::{Addressing, Wanted};
pub use attachment::Attachment;
pub use error::HostError;
pub use icmp::{IcmpError, IcmpErrors};
pub use link::{Attached, Link, LinkState};
pub use mirror::{Mirror, MirrorCounters, Mirrored};
pub use program::{Inside, Program, Steered, TestRun};
pub use scheduling::RealTime;
pub use service::{Arrived, ServiceSocket};
pub use tun::{Layer, Ready, Tun, Watch};
pub use xsk::{Frame, PortReport, PortSpec, Waker, Xsk, XskStatistics, XskStats};
