//! The module `mode`.
