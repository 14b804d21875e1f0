//! TUN and TAP devices (Documentation/networking/tuntap.rst of the kernel): interfaces whose packets this program sends and
//! receives. One connects a network with the kernel. It goes with the process.

use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{HostError, Waker};

/// Where devices are made.
pub(super) const CONTROL: &str = "/dev/net/tun";

/// A device of this process.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
    ifindex: u32,
    layer: Layer,
}

/// What goes through a device, without anything in front of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// IP packets: TUN.
    Ip,
    /// Ethernet frames without FCS: TAP.
    Ethernet,
}

impl Layer {
    fn flag(self) -> libc::c_int {
        match self {
            Self::Ip => libc::IFF_TUN,
            Self::Ethernet => libc::IFF_TAP,
        }
    }
}

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread. It is down, and has no address.
    ///
    /// # Errors
    ///
    /// [`HostError::Unsupported`] when an interface is named so already, or when the kernel has no such devices;
    /// [`HostError::NotPermitted`].
    pub fn create(name: &str, layer: Layer) -> Result<Self, HostError> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open(CONTROL).map_err(|error| not_opened(name, error))?;
        set_interface(&file, name, layer).map_err(|error| not_made(name, error))?;
        let ifindex = if_nametoindex(name).map_err(|error| HostError::other(format!("asking about {name}"), error))?;
        Ok(Self { file, name: name.into(), ifindex, layer })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What goes through it.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The kernel's number of it.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Takes the next packet that the kernel sends through the device, if there is one; returns its octets. Of one that is
    /// larger than `memory` the rest is lost.
    ///
    /// # Errors
    ///
    /// The device is gone, or a signal came.
    pub fn receive(&self, memory: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(memory) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the kernel a packet, as if it had come from the network.
    ///
    /// # Errors
    ///
    /// The device is down or gone, or the kernel has no memory.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }
}

/// Makes a device and binds it to an open [`CONTROL`].
fn set_interface(file: &File, name: &str, layer: Layer) -> io::Result<()> {
    let mut field = [0; libc::IFNAMSIZ];
    if name.len() >= field.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    let flags = (layer.flag() | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    let mut request = libc::ifreq { ifr_name: field, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, which `request` is; the file is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Why [`CONTROL`] cannot be opened.
pub(super) fn not_opened(device: &str, error: io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => HostError::Unsupported {
            interface: device.into(),
            what: format!("there is no {CONTROL} to make the device with"),
            mend: "`modprobe tun`, give a container the device, or leave `address` and `device` out of the network"
                .into(),
        },
        Some(libc::EACCES | libc::EPERM) => HostError::Unsupported {
            interface: device.into(),
            what: format!("{CONTROL} may not be opened ({error})"),
            mend: format!("run as root, or `chmod 0666 {CONTROL}`, or DeviceAllow={CONTROL} for the service"),
        },
        _ => HostError::other(format!("opening {CONTROL}"), error),
    }
}

fn not_made(device: &str, error: io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => HostError::Unsupported {
            interface: device.into(),
            what: "an interface has this name already, and is left alone".into(),
            mend: format!(
                "set `device` of the network to another name, or, if it is not needed, `ip link delete {device}`"
            ),
        },
        Some(libc::EPERM) => HostError::not_permitted(format!("make the device {device}"), "CAP_NET_ADMIN"),
        _ => HostError::other(format!("making the device {device}"), error),
    }
}

/// What a device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// Nothing.
    Nothing,
    /// A packet from the kernel.
    Packet,
    /// It is there no more.
    Gone,
}

/// Waits for several devices and a [`Waker`] at once.
pub struct Watch<'a> {
    waker: &'a Waker,
    /// The waker first.
    polled: Vec<PollFd<'a>>,
}

impl<'a> Watch<'a> {
    /// Of these devices.
    pub fn new(waker: &'a Waker, devices: impl IntoIterator<Item = &'a Tun>) -> Self {
        let entry = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let devices = devices.into_iter().map(|device| entry(device.file.as_fd()));
        let polled = std::iter::once(entry(waker.fd())).chain(devices).collect();
        Self { waker, polled }
    }

    /// Waits until a device has a packet, the waker wakes, or the time is up. A signal ends it too.
    pub fn wait(&mut self, timeout: Duration) {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        // After a signal nothing new is known, and to look at a device without a packet does no harm.
        let _interrupted = poll(&mut self.polled, timeout);
        if self.polled.first().is_some_and(|entry| entry.any() == Some(true)) {
            self.waker.clear();
        }
    }

    /// What the device had when the last wait ended.
    pub fn ready(&self, device: usize) -> Ready {
        match self.polled.get(device + 1).and_then(PollFd::revents) {
            Some(events) if events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL | PollFlags::POLLHUP) => {
                Ready::Gone
            }
            Some(events) if events.contains(PollFlags::POLLIN) => Ready::Packet,
            _ => Ready::Nothing,
        }
    }
}
