//! All that touches the kernel, and all `unsafe` of the user half.
//!
//! The order in which a node uses it: [`privilege::check`], [`Link::find`] for every interface, [`Program::load`],
//! [`Xsk::open`] for every worker, [`Program::set_slot`] and [`Program::set_socket`], and [`Program::attach`] last, so
//! that no packet is steered to a socket that is not ready; then [`privilege::drop_capabilities`], before any thread is
//! started.

mod attachment;
pub mod doctor;
mod error;
mod ethtool;
mod link;
pub mod object;
pub mod privilege;
mod program;
pub mod queues;
mod xsk;

pub use attachment::Attachment;
pub use error::HostError;
pub use link::{Attached, Link, LinkState};
pub use program::{Program, TestRun};
pub use xsk::{Frame, PortReport, PortSpec, Waker, Xsk, XskStatistics, XskStats};
