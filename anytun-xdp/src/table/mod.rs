//! The module `table`.
