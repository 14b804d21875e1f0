//! Traffic a user would send: echo requests at an exact rate, and `ping` where its options are needed.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use crate::namespace::Namespace;

/// How long after the last request a reply still counts.
const LINGER: Duration = Duration::from_secs(1);
/// How many requests of a flow may be unanswered. Two flows with their replies stay below the 277 small packets that a
/// socket of the daemons holds: what a busy machine keeps waiting is late then, and only what is lost counts as lost.
const WINDOW: u32 = 100;
/// ICMP types of an echo request, IPv4 (RFC 792) and IPv6 (RFC 4443 §4.1).
const REQUEST: [u8; 2] = [8, 128];
/// Octets of the ICMP header.
const HEADER: usize = 8;
/// Octets behind it: as many as `ping` sends.
const PAYLOAD: usize = 56;

/// Echo requests at a rate, or slower while [`WINDOW`] of them are unanswered, and their replies. `ping` itself cannot do it: below a millisecond its interval is zero, and
/// then each request waits for the reply before it.
#[derive(Debug)]
pub struct Echo {
    state: Arc<State>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
    started: Instant,
}

/// What became of the requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Requests sent.
    pub sent: u32,
    /// Requests that were answered.
    pub received: u32,
    /// Replies beyond the first to a request.
    pub duplicates: u32,
    /// Requests that the kernel refused to send; they are not in `sent`.
    pub refused: u32,
    /// The unanswered requests, as ranges of numbers from 0.
    pub lost: Vec<(u32, u32)>,
    /// From the first request to the last.
    pub duration: Duration,
}

#[derive(Debug, Default)]
struct State {
    sent: AtomicU32,
    refused: AtomicU32,
    received: AtomicU32,
    duplicates: AtomicU32,
    /// One more than the highest number that was answered.
    latest: AtomicU32,
    stop: AtomicBool,
    /// The receiver may go.
    leave: AtomicBool,
    answered: std::sync::Mutex<Vec<bool>>,
}

impl Echo {
    /// Starts to send `count` requests, `rate` a second, from `namespace` to `address`; 0 requests mean until told.
    pub fn start(namespace: &Namespace, address: IpAddr, rate: u32, count: u32) -> Result<Self> {
        let sending = namespace.enter(|| echo_socket(address))??;
        let receiving = sending.try_clone()?;
        receiving.set_read_timeout(Some(Duration::from_millis(20)))?;
        let state = Arc::new(State::default());
        let (theirs, ours) = (Arc::clone(&state), Arc::clone(&state));
        let kind = REQUEST[usize::from(address.is_ipv6())];
        let receiver = thread::spawn(move || receive(&receiving, &ours));
        let sender = thread::spawn(move || send(&sending, kind, &theirs, rate, count));
        Ok(Self { state, sender, receiver, started: Instant::now() })
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u32 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Requests answered so far.
    pub fn received(&self) -> u32 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// One more than the highest number of an answered request: greater than an earlier [`Echo::numbered`] means that a
    /// request sent since then has come back.
    pub fn latest(&self) -> u32 {
        self.state.latest.load(Ordering::Relaxed)
    }

    /// Requests numbered so far, refused ones included.
    pub fn numbered(&self) -> u32 {
        self.sent() + self.state.refused.load(Ordering::Relaxed)
    }

    /// Stops sending, then does as [`Echo::finish`].
    pub fn stop(self) -> Result<Report> {
        self.state.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all requests are sent and answered, or one second after the last has passed.
    pub fn finish(self) -> Result<Report> {
        self.sender.join().map_err(|_| anyhow!("the sender of echo requests panicked"))?;
        let duration = self.started.elapsed();
        let end = Instant::now() + LINGER;
        let state = &self.state;
        while state.received.load(Ordering::Relaxed) < state.sent.load(Ordering::Relaxed) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        state.leave.store(true, Ordering::Relaxed);
        self.receiver.join().map_err(|_| anyhow!("the receiver of echo replies panicked"))?;
        let answered = state.answered.lock().map_err(|_| anyhow!("the receiver of echo replies panicked"))?;
        let refused = state.refused.load(Ordering::Relaxed);
        let sent = state.sent.load(Ordering::Relaxed);
        Ok(Report {
            sent,
            received: state.received.load(Ordering::Relaxed),
            duplicates: state.duplicates.load(Ordering::Relaxed),
            refused,
            lost: gaps(&answered, sent + refused),
            duration,
        })
    }
}

impl Report {
    /// Fails unless every request was sent, answered, and answered once.
    pub fn ensure_none_lost(&self, what: &str) -> Result<()> {
        let whole = self.sent > 0 && self.received == self.sent && self.duplicates == 0 && self.refused == 0;
        ensure!(whole, "{what}: {self:?}");
        Ok(())
    }
}

/// An ICMP socket whose identifier and checksum the kernel fills in, connected to `address`.
fn echo_socket(address: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket: OwnedFd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
        .context("cannot make a socket for echo requests")?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    let to = SockaddrStorage::from(std::net::SocketAddr::new(address, 0));
    connect(socket.as_raw_fd(), &to).with_context(|| format!("no route to {address}"))?;
    Ok(UdpSocket::from(socket))
}

fn send(socket: &UdpSocket, kind: u8, state: &State, rate: u32, count: u32) {
    let start = Instant::now();
    let (mut number, mut given_up) = (0, 0);
    while (count == 0 || number < count) && !state.stop.load(Ordering::Relaxed) {
        let due = start + Duration::from_secs(1) * number / rate.max(1);
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        given_up = await_replies(state, given_up);
        let mut packet = [0; HEADER + PAYLOAD];
        packet[0] = kind;
        packet[6..8].copy_from_slice(&number.to_be_bytes()[2..]);
        packet[HEADER..HEADER + 4].copy_from_slice(&number.to_be_bytes());
        let counter = if socket.send(&packet).is_ok() { &state.sent } else { &state.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
}

/// Waits while the window is full, but no longer than a reply counts: then those in it are given up. How many have been.
fn await_replies(state: &State, given_up: u32) -> u32 {
    let unanswered = || state.sent.load(Ordering::Relaxed).saturating_sub(state.received.load(Ordering::Relaxed));
    let end = Instant::now() + LINGER;
    while unanswered() >= given_up + WINDOW {
        if Instant::now() >= end || state.stop.load(Ordering::Relaxed) {
            return unanswered();
        }
        thread::sleep(Duration::from_micros(100));
    }
    given_up
}

fn receive(socket: &UdpSocket, state: &State) {
    let mut buffer = [0; 2048];
    while !state.leave.load(Ordering::Relaxed) {
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            // An ICMP error about a request: the request stays unanswered.
            Err(_) => continue,
        };
        let Some(number) = buffer[..length].get(HEADER..HEADER + 4) else { continue };
        let number = u32::from_be_bytes([number[0], number[1], number[2], number[3]]);
        let Ok(mut answered) = state.answered.lock() else { return };
        if answered.len() <= number as usize {
            answered.resize(number as usize + 1, false);
        }
        let first = !std::mem::replace(&mut answered[number as usize], true);
        let counter = if first { &state.received } else { &state.duplicates };
        counter.fetch_add(1, Ordering::Relaxed);
        state.latest.fetch_max(number + 1, Ordering::Relaxed);
    }
}

/// The runs of unanswered numbers below `end`, first and last.
fn gaps(answered: &[bool], end: u32) -> Vec<(u32, u32)> {
    let mut gaps: Vec<(u32, u32)> = Vec::new();
    for number in (0..end).filter(|&number| !answered.get(number as usize).is_some_and(|&yes| yes)) {
        match gaps.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            _ => gaps.push((number, number)),
        }
    }
    gaps
}

/// Runs `ping` with `count` requests of `size` octets and fails unless all are answered.
pub fn ping(namespace: &Namespace, address: IpAddr, count: u32, size: u32) -> Result<()> {
    let shown = namespace.run(&format!("ping -n -q -c {count} -i 0.01 -W 1 -s {size} {address}"))?;
    ensure!(shown.contains(&format!("{count} packets transmitted, {count} received")), "ping of {address}: {shown}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_requests_are_shown_as_ranges() {
        assert_eq!(gaps(&[true, false, false, true, false], 7), [(1, 2), (4, 6)]);
        assert_eq!(gaps(&[true, true], 2), []);
        assert_eq!(gaps(&[], 1), [(0, 0)]);
    }
}
