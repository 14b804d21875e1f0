//! What is wrong with a configuration, and where.

/// One thing that is wrong or odd, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line in the file, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What it is and what to do about it. Never contains a secret.
    pub message: String,
}

/// A configuration that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Every problem found.
    pub problems: Vec<Problem>,
}
