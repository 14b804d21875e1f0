//! The module `kernel`.
