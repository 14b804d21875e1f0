//! What went wrong, with the exit code that says of which kind it is.

use std::fmt;

use anytun_xdp::config;
use anytun_xdp::kernel::HostError;

/// Why the program could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not fit each other or what they are for. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The node configuration cannot be used. Exit code 2.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The host cannot do it. Exit code 3.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The host lacks something that [`HostError`] has no word for, such as a neighbour. Exit code 3.
    #[error("{0}")]
    Unavailable(String),
    /// It failed while it ran. Exit code 1.
    #[error("{0}")]
    Running(String),
}

impl Error {
    /// Wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// A failure of the kernel or of a library while running.
    pub fn running(what: &str, error: impl fmt::Display) -> Self {
        Self::Running(format!("{what}: {error}"))
    }

    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Running(_) => 1,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Host(_) | Self::Unavailable(_) => 3,
        }
    }
}
