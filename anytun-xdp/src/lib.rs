//! anytun-xdp: an anycast tunnel relay for Linux whose packets bypass the kernel.
//!
//! A packet walks the tree one way: [`kernel`] receives it, [`worker`] runs the stages over its batch, [`mode`] decides
//! with what [`satp`] opened and [`table`] knows, and [`kernel`] sends it. [`control`] watches, [`node`] ties all together.

pub mod config;
pub mod control;
pub mod kernel;
pub mod mode;
pub mod node;
pub mod satp;
pub mod table;
pub mod worker;
