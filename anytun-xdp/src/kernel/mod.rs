//! All that touches the kernel, and all `unsafe` of the user half.
//!
//! The order in which a node uses it: [`Link`] looks at an interface, [`Program`] loads the XDP program, [`Xsk`] opens
//! the sockets of a worker, [`Program::set_socket`] names them to the program, and [`Program::attach`] comes last, so
//! that no packet is steered to a socket that is not ready.

mod error;
mod ethtool;
mod link;
pub mod doctor;
pub mod privilege;
mod program;
mod xsk;

pub use error::HostError;
pub use link::{Attached, Link};
pub use program::{Program, TestRun};
pub use xsk::{Frame, PortReport, PortSpec, Waker, Xsk, XskStatistics, XskStats};
