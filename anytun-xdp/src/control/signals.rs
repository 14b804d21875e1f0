//! Signals, as messages.

use std::io;
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Incoming};

/// What a signal asks of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain and stop. A second one may be taken as impatience.
    Drain,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Handlers for SIGTERM, SIGINT and SIGHUP that turn each into a [`Signal`].
///
/// Handlers are of the whole process, so no thread started before or after can lose a signal to its default action;
/// create this first all the same. A system call in any thread may return EINTR. Dropping it ends its thread, but leaves
/// the handlers: signals are ignored from then on.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    receiver: Receiver<Signal>,
}

impl Signals {
    /// Installs the handlers; what arrives once this has returned is not lost.
    ///
    /// # Errors
    ///
    /// The system's, when a handler cannot be installed or the thread not be started.
    pub fn start() -> io::Result<Self> {
        let mut incoming = Incoming::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = incoming.handle();
        let (sender, receiver) = unbounded();
        let thread = Builder::new().name("signals".into()).spawn(move || {
            for signal in &mut incoming {
                let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Drain };
                if sender.send(signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread), receiver })
    }

    /// Where the signals arrive.
    pub fn receiver(&self) -> &Receiver<Signal> {
        &self.receiver
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    #[test]
    fn each_signal_arrives_as_what_it_asks_for() {
        let signals = Signals::start().unwrap();
        for (number, expected) in
            [(Number::SIGHUP, Signal::Reload), (Number::SIGTERM, Signal::Drain), (Number::SIGINT, Signal::Drain)]
        {
            raise(number).unwrap();
            assert_eq!(signals.receiver().recv_timeout(Duration::from_secs(10)), Ok(expected), "{number}");
        }
    }
}
