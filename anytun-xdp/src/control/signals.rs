//! Signals, as messages.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
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

/// Handlers for SIGTERM, SIGINT and SIGHUP. They are of the whole process and stay to its end, so no signal takes its
/// default action from here on. A system call in any thread may return EINTR.
#[derive(Debug)]
pub struct Handlers(Incoming);

impl Handlers {
    /// Installs the handlers; what arrives once this has returned is kept.
    ///
    /// # Errors
    ///
    /// The system's, when a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Incoming::new([SIGTERM, SIGINT, SIGHUP]).map(Self)
    }

    /// Starts the thread that passes signals on, also those that came before.
    ///
    /// # Errors
    ///
    /// The system's, when the thread cannot be started.
    pub fn listen(self) -> io::Result<Signals> {
        let Self(mut incoming) = self;
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
        Ok(Signals { handle, thread: Some(thread), receiver })
    }
}

/// Each SIGTERM, SIGINT and SIGHUP as a [`Signal`]. Dropping it ends its thread; signals are ignored from then on.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    receiver: Receiver<Signal>,
}

impl Signals {
    /// What has arrived, of several the most pressing: to drain, else to reload once. Waits up to `patience`.
    ///
    /// # Errors
    ///
    /// Nothing came; or, `Disconnected`, nothing will.
    pub fn next(&self, patience: Duration) -> Result<Signal, RecvTimeoutError> {
        let first = self.receiver.recv_timeout(patience)?;
        Ok(self.receiver.try_iter().fold(first, |one, other| if one == Signal::Drain { one } else { other }))
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
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn each_signal_arrives_as_what_it_asks_for() {
        let handlers = Handlers::install().unwrap();
        raise(Number::SIGHUP).unwrap();
        let signals = handlers.listen().unwrap();
        assert_eq!(signals.next(PATIENCE), Ok(Signal::Reload), "what came before the thread is not lost");
        for (number, expected) in
            [(Number::SIGHUP, Signal::Reload), (Number::SIGTERM, Signal::Drain), (Number::SIGINT, Signal::Drain)]
        {
            raise(number).unwrap();
            assert_eq!(signals.next(PATIENCE), Ok(expected), "{number}");
        }
    }

    #[test]
    fn of_several_signals_the_most_pressing_counts() {
        let (sender, receiver) = unbounded();
        let handle = Incoming::new([0; 0]).unwrap().handle();
        let signals = Signals { handle, thread: None, receiver };
        for signal in [Signal::Reload, Signal::Drain, Signal::Reload, Signal::Reload] {
            sender.send(signal).unwrap();
        }
        assert_eq!(signals.next(PATIENCE), Ok(Signal::Drain));
        sender.send(Signal::Reload).unwrap();
        sender.send(Signal::Reload).unwrap();
        assert_eq!(signals.next(PATIENCE), Ok(Signal::Reload));
        assert_eq!(signals.next(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    }
}
