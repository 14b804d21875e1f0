//! Packets of all sizes, one by one, through real daemons: none vanishes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::lab::{Running, Who};

use crate::Case;
use crate::sizes::wide_with;

/// Octets of the inner packets.
const SMALLEST: usize = 60;
const LARGEST: usize = 9000;
/// The port of the host that sends back what it gets.
const PORT: u16 = 7777;
/// How long an answer may take, and how many may be lost of all: this machine has other things to do.
const PATIENCE: Duration = Duration::from_secs(2);
const LOST: usize = 3;

pub(crate) fn cases() -> Vec<Case> {
    let outside = [("anycast", "v4-outside"), ("anycast6", "v6-outside")];
    let kinds = [("v4-that-may-be-cut", 0, true), ("v4-that-must-not", 0, false), ("v6", 1, false)];
    let of = |(service, outside)| {
        kinds.map(|(kind, family, may_be_cut)| -> Case {
            let work = move || sweep(service, family, may_be_cut);
            (format!("sweep/60-to-9000/{kind}/{outside}"), Box::new(work))
        })
    };
    outside.into_iter().flat_map(of).collect()
}

/// Alice sends bob datagrams of every size, and each comes back whole. Where she asks for packets not to be cut on their way,
/// those that are too large are answered, once, and then cut by her own kernel.
fn sweep(service: &'static str, family: usize, may_be_cut: bool) -> Result<()> {
    let running = wide_with(service, |config| Config { icmp_rate: 1000, ..config })?;
    let [alice, bob] = Who::BOTH.map(|who| running.lab.client(who));
    if may_be_cut {
        alice.set("ipv4/ip_no_pmtu_disc", "1")?;
    }
    let [from, to] = Who::BOTH.map(|who| SocketAddr::new(who.inner()[family], PORT));
    let far = bob.enter(|| UdpSocket::bind(to))?.context("bob cannot bind")?;
    let near = alice.enter(|| UdpSocket::bind(from))?.context("alice cannot bind")?;
    near.connect(to)?;
    near.set_read_timeout(Some(PATIENCE))?;
    let echo = Echo::start(far)?;
    let told = walk(&near, if family == 0 { 28 } else { 48 });
    echo.stop()?;
    let told = told?;
    ensure!(!may_be_cut || told.is_empty(), "packets that may be cut were answered at {told:?} octets");
    ensure!(told.len() <= 1, "the same way was too narrow for several sizes: {told:?}");
    ensure_told(&running, told.len() as u64)?;
    running.node.status()?.ensure_ledgers_hold()
}

/// Sends a datagram of every size, behind `headers` octets, and waits for each; the sizes of which the kernel was told that
/// they are too large.
fn walk(near: &UdpSocket, headers: usize) -> Result<BTreeSet<usize>> {
    let mut buffer = vec![0; LARGEST];
    let (mut told, mut lost) = (BTreeSet::new(), Vec::new());
    for size in SMALLEST..=LARGEST {
        let datagram: Vec<u8> = (headers..size).map(|at| (at * 7 + size) as u8).collect();
        loop {
            match near.send(&datagram).and_then(|_| near.recv(&mut buffer)) {
                Ok(length) if buffer[..length] == datagram => break,
                // Late: of a size that was given up.
                Ok(length) if lost.contains(&(length + headers)) => continue,
                Ok(length) => {
                    ensure!(false, "of {size} octets came back {}, and they may have changed", length + headers)
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                    ensure!(told.insert(size), "{size} octets are still too large after the kernel was told");
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    lost.push(size);
                    ensure!(lost.len() <= LOST, "packets of these sizes vanished: {lost:?}");
                }
                Err(error) => return Err(error).with_context(|| format!("{size} octets")),
            }
        }
    }
    Ok(told)
}

/// The node has told of packets that are too large, and dropped no more than it told of.
fn ensure_told(running: &Running, times: u64) -> Result<()> {
    let status = running.node.status()?;
    let (dropped, told) = (status.verdict("too-big"), status.icmp_errors("too-big"));
    ensure!(told == dropped && told == times, "{dropped} were too big, {told} answered, {times} heard of");
    Ok(())
}

/// A host that sends back what it gets.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Echo {
    fn start(socket: UdpSocket) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; LARGEST];
            while !stopped.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    // Its own kernel may be told, too, and then sends in smaller fragments.
                    Ok((length, from)) => drop(socket.send_to(&buffer[..length], from)),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => return Err(error).context("the echo failed"),
                }
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?
    }
}
