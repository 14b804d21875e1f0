//! An XDP program on an interface, through a `bpf_link`. Not made by aya, whose attach falls back to netlink: what is
//! attached that way outlives the process and replaces what was there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use super::{HostError, Link};
use crate::config::XdpMode;

/// An XDP program on an interface, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Attachment(OwnedFd);

impl Attachment {
    /// Attaches `program`, native unless `mode` is generic.
    ///
    /// # Errors
    ///
    /// [`HostError::ForeignProgram`] when the interface already runs an XDP program; [`HostError::Unsupported`] when the
    /// driver cannot; [`HostError::NotPermitted`].
    pub fn new(program: BorrowedFd<'_>, link: &Link, mode: XdpMode) -> Result<Self, HostError> {
        link.refuse_foreign_program()?;
        let flags = match mode {
            XdpMode::Generic => libbpf_sys::XDP_FLAGS_SKB_MODE,
            XdpMode::Auto | XdpMode::Zerocopy | XdpMode::Native => libbpf_sys::XDP_FLAGS_DRV_MODE,
        };
        Self::create(program, link.ifindex, flags).map_err(|error| refused(link, mode, error))
    }

    fn create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<Self> {
        let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags,
            ..Default::default()
        };
        // SAFETY: the program's descriptor is borrowed through the call, and the options live through it and say their
        // own size.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex, libbpf_sys::BPF_XDP, &raw const options)
        };
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: the kernel just made the descriptor for us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl Drop for Attachment {
    /// Closing the last descriptor detaches as well, but a child process that was just forked may still have a copy.
    fn drop(&mut self) {
        // SAFETY: the descriptor is open until this function has returned. Linux before 5.11 does not know the call, and
        // then the close that follows does it.
        let _unknown = unsafe { libbpf_sys::bpf_link_detach(self.0.as_raw_fd()) };
    }
}

fn refused(link: &Link, mode: XdpMode, error: io::Error) -> HostError {
    let interface = link.name.clone();
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            HostError::not_permitted(format!("attach an XDP program to {interface}"), "CAP_NET_ADMIN CAP_BPF")
        }
        Some(libc::ENODEV) => super::link::no_such_interface(&interface),
        // Somebody was faster than our look.
        Some(libc::EBUSY | libc::EEXIST) => match link.refuse_foreign_program() {
            Err(foreign) => foreign,
            Ok(()) => HostError::other(format!("attaching the XDP program to {interface}"), error),
        },
        Some(libc::ERANGE) => HostError::Unsupported {
            what: format!("its MTU of {} (or that of its peer) is too large for XDP", link.mtu),
            mend: format!("`ip link set dev {interface} mtu 1500`, on the peer too"),
            interface,
        },
        // Some drivers refuse with EINVAL what others refuse with EOPNOTSUPP.
        Some(libc::EOPNOTSUPP | libc::EINVAL) if mode != XdpMode::Generic => HostError::Unsupported {
            what: format!("its driver ({}) has no native XDP in this state ({error})", link.driver),
            mend: "set xdp = \"generic\" for it, or see the kernel's log for the driver's reason".into(),
            interface,
        },
        _ => HostError::other(format!("attaching the XDP program to {interface}"), error),
    }
}
