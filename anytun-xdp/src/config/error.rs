//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong or odd, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line in the file, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What it is and what to do about it. Never contains a secret.
    pub message: String,
}

impl Problem {
    /// The place as compilers print it: `FILE:LINE`, or `FILE` when the whole file is meant.
    pub fn place(&self, file: &Path) -> String {
        match self.line {
            0 => file.display().to_string(),
            line => format!("{}:{line}", file.display()),
        }
    }
}

/// Problems that are printed; the others are counted.
pub(super) const SHOWN: usize = 20;

/// Problems as lines, `FILE:LINE: message`: the first 20, and how many more there are.
pub fn lines(file: &Path, problems: &[Problem]) -> impl Iterator<Item = String> {
    let more = problems.len().saturating_sub(SHOWN);
    let shown = problems.iter().take(SHOWN);
    shown
        .map(|problem| format!("{}: {}", problem.place(file), problem.message))
        .chain((more > 0).then(|| format!("{}: and {more} more", file.display())))
}

/// A configuration that cannot be used.
///
/// Prints one line per problem, `FILE:LINE: message`, of many the first 20.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The file that was read.
    pub file: PathBuf,
    /// Every problem found, in the order of the file. Never empty.
    pub problems: Vec<Problem>,
}

impl Error {
    /// One problem with the whole file.
    pub(super) fn whole_file(file: &Path, message: String) -> Self {
        Self { file: file.to_owned(), problems: vec![Problem { line: 0, message }] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(&self.file, &self.problems).collect::<Vec<_>>().join("\n"))
    }
}

impl std::error::Error for Error {}

/// What has been found so far while a configuration is read.
#[derive(Default)]
pub(super) struct Report {
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Report {
    pub(super) fn error(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(Problem { line, message: message.into() });
    }

    pub(super) fn warn(&mut self, line: usize, message: impl Into<String>) {
        self.warnings.push(Problem { line, message: message.into() });
    }
}
