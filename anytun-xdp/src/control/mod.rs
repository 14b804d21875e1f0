//! The module `control`.
