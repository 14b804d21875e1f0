//! The clients that exist today: `anytun` and `uanytun` (protocol.md §5).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::crypto::Crypto;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::{PATIENCE, until};

/// Which of the two programs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `anytun`, C++, a thread for each direction.
    Anytun,
    /// `uanytun`, C, one thread.
    Uanytun,
}

impl Kind {
    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Kind::Anytun => "anytun",
            Kind::Uanytun => "uanytun",
        }
    }
}

/// What a daemon is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which program.
    pub kind: Kind,
    /// `left` or `right`.
    pub role: &'static str,
    /// The MUX.
    pub mux: u16,
    /// The sender ID.
    pub sender: u16,
    /// The local port.
    pub port: u16,
    /// Where it sends: the service, or another daemon.
    pub remote: SocketAddr,
    /// `tun`, or `tap` in an Ethernet network.
    pub device: &'static str,
    /// Inner addresses of its device.
    pub inner: [IpAddr; 2],
    /// Keys and choices.
    pub crypto: Crypto,
    /// Its own replay window; 0 turns it off.
    pub window: u32,
}

/// The name of a daemon's tun device.
pub const TUN: &str = "tun0";

/// A running daemon whose tun device is up.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
}

impl Daemon {
    /// Starts a daemon in `namespace` and waits until its tun device has its addresses. Its log goes to `directory`.
    pub fn start(namespace: &Namespace, directory: &Path, settings: &Settings) -> Result<Self> {
        let [v4, v6] = settings.inner;
        ensure!(
            v4.is_ipv4() && v6.is_ipv6(),
            "the inner addresses of a daemon are an IPv4 and an IPv6 one, in this order"
        );
        let program = settings.kind.program();
        let log = directory.join(format!("{program}-{}.log", namespace.name()));
        let family = if settings.remote.is_ipv4() { "-4" } else { "-6" };
        let remote = settings.remote.ip().to_string();
        let words = [
            "-D",
            family,
            "-p",
            &settings.port.to_string(),
            "-r",
            &remote,
            "-o",
            &settings.remote.port().to_string(),
            "-d",
            TUN,
            "-t",
            settings.device,
            "-n",
            &format!("{v4}/24"),
            "-e",
            settings.role,
            "-m",
            &settings.mux.to_string(),
            "-s",
            &settings.sender.to_string(),
            "-w",
            &settings.window.to_string(),
            "-L",
            "stderr:3",
        ]
        .map(str::to_owned);
        let arguments = words.into_iter().chain(settings.crypto.flags());
        let name = format!("{program} in {}", namespace.name());
        let mut process = Process::start(&name, namespace, Path::new(program), arguments, &log)?;
        until(&format!("the tun device of {program} is up"), PATIENCE, || {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "{name} ended: {ended:?}\n{}", process.log_tail());
            let shown = namespace.ip(&format!("-o addr show up dev {TUN}")).unwrap_or_default();
            Ok(shown.contains(&format!("inet {v4}")).then_some(()))
        })?;
        namespace.ip(&format!("addr add {v6}/64 dev {TUN} nodad"))?;
        namespace.ip(&format!("link set {TUN} txqueuelen 5000"))?;
        Ok(Self { process })
    }

    /// Stops it from reading and sending until [`Daemon::resume`].
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    /// Kills it, as a crash of its host would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// The process ID: a test that asserts that no client was restarted compares it.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
