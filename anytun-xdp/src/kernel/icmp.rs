//! Raw sockets that get a copy of each ICMP error which says that a packet was too big: raw(7), icmp(7), RFC 3542 §3.2. The
//! kernel still sees it, and no packet of the workers comes near.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt::RcvBuf,
};
use tracing::warn;

use anytun_common::wire::{icmp, icmpv6, ipv4};

use super::{HostError, Waker};

/// Octets that wait in each socket at most, as the kernel counts them.
const WAITING: usize = 64 << 10;
/// Octets that are read of a message: more than what is quoted of a packet has to say.
const READ: usize = 2048;
/// So many messages are taken at a time, and then none for a while: a flood of errors costs the node little, and real ones
/// are sent again.
const AT_A_TIME: usize = 64;
const REST: Duration = Duration::from_millis(10);

/// `ICMP_FILTER` (include/uapi/linux/icmp.h) and `ICMPV6_FILTER` (include/uapi/linux/icmpv6.h). A bit that is set keeps its type out.
const FILTER: libc::c_int = 1;

/// A message about a packet that was too big, or one that passes for such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError<'a> {
    /// An ICMP message of the type destination unreachable. Its checksum was not looked at.
    V4(&'a [u8]),
    /// An ICMPv6 message of the type packet too big, whose checksum is right.
    V6(&'a [u8]),
}

/// The sockets.
pub struct IcmpErrors {
    v4: OwnedFd,
    /// Nothing on a host without IPv6.
    v6: Option<OwnedFd>,
    waker: Waker,
}

impl IcmpErrors {
    /// Opens them in the network namespace of the calling thread, which needs `CAP_NET_RAW`.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel refuses.
    pub fn open() -> Result<Self, HostError> {
        let failed = |error: io::Error| HostError::other("opening a raw socket for ICMP errors", error);
        let v4 = raw(AddressFamily::Inet, SockProtocol::Icmp).map_err(failed)?;
        filter(&v4, libc::SOL_RAW, [!(1u32 << icmp::UNREACHABLE)]).map_err(failed)?;
        let v6 = match raw(AddressFamily::Inet6, SockProtocol::IcmpV6) {
            Ok(v6) => {
                let mut types = [u32::MAX; 8];
                types[0] = !(1 << icmpv6::PACKET_TOO_BIG);
                filter(&v6, libc::IPPROTO_ICMPV6, types).map_err(failed)?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { v4, v6, waker: Waker::new()? })
    }

    /// Ends the wait of [`run`](Self::run).
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Hands every message over until `stop` is set and the waker is woken.
    pub fn run(&self, stop: &AtomicBool, mut hear: impl FnMut(IcmpError<'_>)) {
        let mut octets = [0; READ];
        while !stop.load(Ordering::Acquire) {
            let fds = [Some(self.v4.as_fd()), self.v6.as_ref().map(AsFd::as_fd), Some(self.waker.fd())];
            let mut fds: Vec<_> = fds.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            if let Err(error) = poll(&mut fds, PollTimeout::NONE)
                && error != Errno::EINTR
            {
                warn!("waiting for ICMP errors: {error}; no path MTU is learned any more");
                return;
            }
            self.waker.clear();
            let mut taken = take(&self.v4, &mut octets, |packet| {
                let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
                if let Some(message) = packet.get(header.max(ipv4::HEADER)..) {
                    hear(IcmpError::V4(message));
                }
            });
            if let Some(v6) = &self.v6 {
                taken = taken.max(take(v6, &mut octets, |message| hear(IcmpError::V6(message))));
            }
            if taken == AT_A_TIME {
                std::thread::sleep(REST);
            }
        }
    }
}

/// Takes what waits in a socket, up to [`AT_A_TIME`] messages; returns how many.
fn take(socket: &OwnedFd, octets: &mut [u8], mut each: impl FnMut(&[u8])) -> usize {
    let mut taken = 0;
    while taken < AT_A_TIME {
        match recv(socket.as_raw_fd(), octets, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => each(octets.get(..length).unwrap_or_default()),
            // The kernel says once what it heard about the socket itself; nothing was sent through it.
            Err(Errno::EINTR) => {}
            Err(_) => return taken,
        }
        taken += 1;
    }
    taken
}

fn raw(family: AddressFamily, protocol: SockProtocol) -> io::Result<OwnedFd> {
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, RcvBuf, &WAITING)?;
    Ok(socket)
}

/// Sets the filter of types; one bit each.
fn filter<const WORDS: usize>(socket: &OwnedFd, level: libc::c_int, types: [u32; WORDS]) -> io::Result<()> {
    let length = size_of_val(&types) as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets from `types`, which are as many, and keeps no pointer to them.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, FILTER, types.as_ptr().cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
