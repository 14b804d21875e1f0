//! What the kernel says about an AF_XDP socket.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};

use crate::kernel::HostError;

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h: packets that one system call sends in copy mode.
const MAX_TX_SKB_BUDGET: c_int = 9;

/// The counters of one socket (`struct xdp_statistics` of linux/if_xdp.h), in packets or descriptors since it was bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XskStatistics {
    /// Packets dropped on receive for other reasons than those below, such as being larger than a frame.
    pub rx_dropped: u64,
    /// Descriptors in the FILL ring that the kernel could not use.
    pub rx_invalid_descs: u64,
    /// Descriptors in the TX ring that the kernel could not use.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times the FILL ring was empty when a frame was needed.
    pub rx_fill_ring_empty: u64,
    /// Times the TX ring was found empty; counts up on an idle socket.
    pub tx_ring_empty: u64,
}

/// Reads the statistics of a worker's sockets from another thread. Keeps the sockets open: to be dropped with the
/// [`Xsk`](super::Xsk).
#[derive(Debug)]
pub struct XskStats {
    sockets: Vec<Option<OwnedFd>>,
}

impl XskStats {
    pub(super) fn new<'a>(sockets: impl Iterator<Item = Option<BorrowedFd<'a>>>) -> Result<Self, HostError> {
        let duplicate = |socket: Option<BorrowedFd<'a>>| socket.map(|socket| socket.try_clone_to_owned()).transpose();
        let sockets = sockets.map(duplicate).collect::<io::Result<_>>();
        Ok(Self { sockets: sockets.map_err(|error| HostError::other("duplicating an AF_XDP socket", error))? })
    }

    /// The counters of `port`; nothing for a port without a socket of the worker.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn statistics(&self, port: usize) -> Option<Result<XskStatistics, HostError>> {
        Some(statistics(self.sockets.get(port)?.as_ref()?.as_fd()))
    }
}

/// Reads the counters of a socket.
pub(super) fn statistics(socket: BorrowedFd<'_>) -> Result<XskStatistics, HostError> {
    // An older kernel knows the first three only and leaves the others as they are: zero.
    let words: [u64; 6] = option(socket, libc::XDP_STATISTICS, [0; 6])
        .map_err(|error| HostError::other("reading the statistics of an AF_XDP socket", error))?;
    let [rx_dropped, rx_invalid_descs, tx_invalid_descs, rx_ring_full, rx_fill_ring_empty, tx_ring_empty] = words;
    Ok(XskStatistics {
        rx_dropped,
        rx_invalid_descs,
        tx_invalid_descs,
        rx_ring_full,
        rx_fill_ring_empty,
        tx_ring_empty,
    })
}

const _: () = assert!(size_of::<libc::xdp_statistics>() == 48);

/// Whether the socket really is in zero-copy mode.
pub(super) fn is_zero_copy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let [flags] = option(socket, libc::XDP_OPTIONS, [0u32; 1])?;
    Ok(flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// Raises the number of packets that one system call sends in copy mode; it is 32 by default. Kernels before 6.17 do not
/// know the option and keep to that.
pub(super) fn raise_tx_budget(socket: BorrowedFd<'_>, packets: u32) {
    // SAFETY: the option's value is a 32-bit number, which lives through the call and whose size is given.
    let _unsupported = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            MAX_TX_SKB_BUDGET,
            (&raw const packets).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
}

/// Lets the socket have that many octets on their way in copy mode, in which the kernel charges it for the copies that it sends:
/// by default those of some ninety packets of 1500 octets, and then a full batch waits for another call.
pub(super) fn raise_send_buffer(socket: BorrowedFd<'_>, octets: u32) {
    let octets = octets as usize;
    // Without CAP_NET_ADMIN as far as net.core.wmem_max allows.
    if setsockopt(&socket, sockopt::SndBufForce, &octets).is_err() {
        let _limited = setsockopt(&socket, sockopt::SndBuf, &octets);
    }
}

/// Reads an option of `SOL_XDP` whose value is made of whole numbers.
fn option<T: Word, const N: usize>(socket: BorrowedFd<'_>, name: c_int, mut value: [T; N]) -> io::Result<[T; N]> {
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets into the value, which lives through the call and for which every
    // pattern of bits is a value.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A whole number: every pattern of bits is a value.
trait Word: Copy {}
impl Word for u32 {}
impl Word for u64 {}
