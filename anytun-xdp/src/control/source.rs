//! What the node tells its [`Server`](super::server::Server), and what may be asked of it.

use super::status::Status;

/// Whether the node wants traffic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// Whether routing may announce this node.
    pub ready: bool,
    /// Why it is not ready, or what it is doing, for an operator: one line.
    pub reason: String,
}

/// A running node, as its control interface sees it.
///
/// Every method is called on a thread that may block, and several may be called at once.
pub trait Source: Send + Sync + 'static {
    /// All there is to know, as of now.
    fn status(&self) -> Status;

    /// Whether the node wants traffic. Not ready from the moment [`drain`](Source::drain) was called.
    fn readiness(&self) -> Readiness;

    /// Whether every worker makes progress, as [`Progress`](super::health::Progress) can tell, and has sequence numbers
    /// to come.
    ///
    /// # Errors
    ///
    /// Which worker stands still, since when, or what else is wrong.
    fn health(&self) -> Result<(), String>;

    /// Reads the configuration again and puts it into force; returns one line that says what changed.
    ///
    /// # Errors
    ///
    /// Why the new configuration was refused. The old one is still in force then.
    fn reload(&self) -> Result<String, String>;

    /// Forgets the sequence numbers that a client has used, so that one whose count has started over is heard again;
    /// returns one line that says so. Until the client has spoken, its old packets can be replayed.
    ///
    /// # Errors
    ///
    /// There is no such client.
    fn forget(&self, client: &str) -> Result<String, String>;

    /// Asks the node to finish: not ready from now on, and stop once traffic has moved elsewhere. Returns at once.
    fn drain(&self);
}
