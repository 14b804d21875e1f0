//! What an operator and a service manager see of a running node: its [`status`], served on a Unix socket and as
//! Prometheus metrics, its health, its signals.
//!
//! The node hands everything over through [`source::Source`]; nothing here knows workers or the kernel, and nothing
//! here can hold a secret.

pub mod client;
pub mod event;
pub mod health;
pub mod metrics;
pub mod notify;
pub mod server;
pub mod show;
pub mod signals;
pub mod socket;
pub mod source;
pub mod status;
mod stream;
mod table;

#[cfg(test)]
mod sample;
