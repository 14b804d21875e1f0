//! The module `worker`.
pub mod io;
