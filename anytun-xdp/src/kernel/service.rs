//! UDP sockets at the addresses and ports of services: udp(7), ip(7), ipv6(7). XDP takes what is for a service before the kernel
//! has seen it, but fragments it leaves to the kernel, which puts them together (RFC 791 §3.2, RFC 8200 §4.5); the sockets
//! get the datagrams that come of it.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, recvmsg, setsockopt,
    socket, sockopt,
};

use super::{HostError, Waker};

/// Octets that wait in each socket at most, as the kernel counts them, if `net.core.rmem_max` allows as many.
const WAITING: usize = 1 << 20;

/// The socket of a service.
#[derive(Debug)]
pub struct ServiceSocket {
    socket: OwnedFd,
    at: SocketAddr,
}

/// A datagram that a socket got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Who sent it.
    pub from: SocketAddr,
    /// DSCP and ECN. Those of fragments are put together as RFC 3168 §5.3 says.
    pub tos: u8,
    /// Octets of the datagram. What there was no room for is lost.
    pub octets: usize,
}

impl ServiceSocket {
    /// Binds one in the network namespace of the calling thread. The address need not be there yet.
    ///
    /// # Errors
    ///
    /// [`HostError::Unsupported`] when another socket has the port, or for a port below
    /// `net.ipv4.ip_unprivileged_port_start` without `CAP_NET_BIND_SERVICE`; [`HostError::Other`].
    pub fn bind(at: SocketAddr) -> Result<Self, HostError> {
        Self::open(at).map_err(|error| refused(at, error))
    }

    fn open(at: SocketAddr) -> Result<Self, Errno> {
        let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Datagram, flags, None)?;
        if at.is_ipv4() {
            setsockopt(&socket, sockopt::IpRecvTos, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
        }
        // The kernel takes this one for either family.
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
        setsockopt(&socket, sockopt::RcvBuf, &WAITING)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
        Ok(Self { socket, at })
    }

    /// The address and port.
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// Takes the next datagram, if there is one, into `memory`.
    ///
    /// # Errors
    ///
    /// A signal came, or the kernel has no memory.
    pub fn receive(&self, memory: &mut [u8]) -> io::Result<Option<Arrived>> {
        let mut control = cmsg_space!(libc::c_int);
        let mut parts = [IoSliceMut::new(memory)];
        // With this flag the kernel says how long a datagram is for which there was no room.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let got = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
        let got = match got {
            Ok(got) => got,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let tos = got.cmsgs().ok().and_then(|mut messages| messages.find_map(tos)).unwrap_or(0);
        let from = got.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(Arrived { from, tos, octets: got.bytes }))
    }

    /// Waits until one of the sockets has a datagram, the waker wakes, or the time is up; returns the places of those that have. A
    /// signal ends it too.
    pub fn await_any(waker: &Waker, sockets: &[Arc<Self>], timeout: Duration) -> Vec<usize> {
        let entry = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let sockets = sockets.iter().map(|socket| entry(socket.socket.as_fd()));
        let mut polled: Vec<PollFd<'_>> = std::iter::once(entry(waker.fd())).chain(sockets).collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        if poll(&mut polled, timeout).is_err() {
            return Vec::new();
        }
        let ready = |entry: &PollFd<'_>| entry.any() == Some(true);
        if polled.first().is_some_and(ready) {
            waker.clear();
        }
        polled.iter().skip(1).enumerate().filter(|(_, entry)| ready(entry)).map(|(place, _)| place).collect()
    }
}

fn tos(message: ControlMessageOwned) -> Option<u8> {
    match message {
        ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
        ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).ok(),
        _ => None,
    }
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
        (Some(v4), _) => Some((*v4).into()),
        (_, Some(v6)) => {
            let v6 = SocketAddrV6::from(*v6);
            Some((*v6.ip(), v6.port()).into())
        }
        _ => None,
    }
}

/// Why a socket cannot be bound.
fn refused(at: SocketAddr, error: Errno) -> HostError {
    let (address, port) = (at.ip(), at.port());
    match error {
        Errno::EADDRINUSE => HostError::Unsupported {
            interface: format!("UDP port {port} of {address}"),
            what: "another program has a socket there".into(),
            mend: format!("`ss -ulpn 'sport = {port}'` shows it; stop it, and reload"),
        },
        Errno::EACCES | Errno::EPERM => HostError::Unsupported {
            interface: format!("UDP port {port} of {address}"),
            what: "a socket there takes CAP_NET_BIND_SERVICE, which a running node has no more".into(),
            mend: "restart the node, with that capability".into(),
        },
        error => HostError::other(format!("binding UDP port {port} of {address}"), error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};

    use super::*;

    /// How long what is sent over loopback may take.
    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_datagram_comes_with_its_sender_and_its_marks() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            // A port that was free a moment ago.
            let free = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap();
            let socket = Arc::new(ServiceSocket::bind(free).unwrap());
            assert_eq!(socket.at(), free);
            let sender = UdpSocket::bind((host, 0)).unwrap();
            if free.is_ipv4() {
                setsockopt(&sender, sockopt::Ipv4Tos, &0xb8).unwrap();
            } else {
                setsockopt(&sender, sockopt::Ipv6TClass, &0xb8).unwrap();
            }
            let (waker, sockets) = (Waker::new().unwrap(), [socket.clone()]);
            let mut memory = [0; 2000];
            assert_eq!(socket.receive(&mut memory).unwrap(), None);
            // 9000 octets do not fit the memory, but are counted.
            for octets in [0, 1, 2000, 9000] {
                sender.send_to(&vec![7; octets], free).unwrap();
                assert_eq!(ServiceSocket::await_any(&waker, &sockets, PATIENCE), [0]);
                let from = sender.local_addr().unwrap();
                let arrived = socket.receive(&mut memory).unwrap();
                assert_eq!(arrived, Some(Arrived { from, tos: 0xb8, octets }));
                let octets = octets.min(memory.len());
                assert!(memory[..octets].iter().all(|octet| *octet == 7));
            }
            waker.wake();
            assert_eq!(ServiceSocket::await_any(&waker, &sockets, PATIENCE), [0; 0]);
            let taken = ServiceSocket::bind(free).unwrap_err().to_string();
            assert!(taken.contains("another program") && taken.contains(&free.port().to_string()), "{taken}");
        }
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_bound_all_the_same() {
        for at in ["192.0.2.53:4444", "[2001:db8::53]:4444"] {
            let at = at.parse().unwrap();
            assert_eq!(ServiceSocket::bind(at).unwrap().at(), at);
        }
    }
}
