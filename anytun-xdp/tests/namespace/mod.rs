//! Network namespaces of a test: made with iproute2, removed when the test ends, however it ends.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Whether the test may make namespaces; says so when not.
pub(crate) fn permitted(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root, for network namespaces and the XDP program");
    }
    root
}

/// A network namespace.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with loopback up and without IPv6, whose own packets would be in the way.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("axk{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace.enter(|| {
            for scope in ["all", "default"] {
                // A kernel without IPv6 has no such file, and needs none.
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        });
        namespace
    }

    /// Its name, as `ip netns` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }

    /// Runs `work` on a thread of its own in it.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A veth pair: `ours` in one namespace, `theirs` in the other, both up.
pub(crate) fn veth(here: &Namespace, ours: &str, there: &Namespace, theirs: &str) {
    here.ip(&["link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", there.name()]);
    here.ip(&["link", "set", ours, "up"]);
    there.ip(&["link", "set", theirs, "up"]);
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whole frames in and out of an interface of the calling thread's namespace.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// On the interface `name`. Receives IPv4 only, and nothing that the host itself sends there.
    pub(crate) fn new(name: &str) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, Some(SockProtocol::EthIp)).unwrap();
        let mut addresses = getifaddrs().unwrap().filter(|entry| entry.interface_name == name);
        let address = addresses.find_map(|entry| entry.address?.as_link_addr().copied()).unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        setsockopt(&fd, RcvBufForce, &(32 << 20)).unwrap();
        Self(fd)
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }

    /// The next frame, or nothing within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap());
        setsockopt(&self.0, ReceiveTimeout, &patience).unwrap();
        let mut frame = vec![0; 65536];
        match recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()).map_err(std::io::Error::from) {
            Ok(length) => {
                frame.truncate(length);
                Some(frame)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(error) => panic!("receiving: {error}"),
        }
    }
}
