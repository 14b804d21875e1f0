//! Makes the UMEM of a worker and binds its sockets.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anytun_common::wire::ethernet;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig, XdpFlags};
use xsk_rs::{FrameDesc, Socket, Umem};

use super::frame::Area;
use super::port::{FRAMES, Port, PortReport, RX_RING, TX_RING};
use super::{BATCH, Waker, Xsk, stats};
use crate::config::XdpMode;
use crate::kernel::{HostError, Link};
use crate::worker::io::{IoCounters, PacketIo};

/// Sizes a frame can have: a power of two from 2048 to a page, as the kernel wants it for an aligned UMEM.
const FRAME_SIZES: [u32; 2] = [2048, 4096];
/// What the kernel keeps free in front of a received packet (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
/// Octets in front of an IP packet: Ethernet header, two tags.
const OVERHEAD: u32 = (ethernet::HEADER + ethernet::MAX_TAGS * ethernet::TAG) as u32;
/// In zero-copy mode some hardware is told the room of a frame in this unit, rounded down (igb, igc and ixgbe:
/// SRRCTL.BSIZEPKT), and their drivers drop what needs more.
const ZERO_COPY_UNIT: u32 = 1024;
/// Drivers whose zero-copy mode `auto` uses. It crashed hosts or lost packets with several others, so a driver belongs
/// here only after it carried load; any other is asked for by `xdp = "zerocopy"`.
const GOOD_AT_ZERO_COPY: [&str; 1] = ["i40e"];
/// How long a queue may be in use when a socket is bound: the kernel frees those of a process that just ended late.
const BUSY: Duration = Duration::from_secs(3);
const BUSY_NAP: Duration = Duration::from_millis(20);

/// One socket to open.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// The interface.
    pub link: Link,
    /// Its receive queue.
    pub queue: u32,
    /// The mode asked for.
    pub mode: XdpMode,
}

impl Xsk {
    /// Opens the sockets of one worker. The index in `ports` is the slot of the interface; the worker has no queue of a
    /// slot that is `None`.
    ///
    /// All sockets of a worker share one UMEM, and the kernel gives them all the mode of the first. So zero-copy is
    /// tried only where every port allows it, and `zerocopy` beside a port that does not is refused.
    ///
    /// # Errors
    ///
    /// [`HostError::Unsupported`] when the MTU does not fit a frame, the queue does not exist, or zero-copy was asked for
    /// and refused; [`HostError::NotPermitted`]; [`HostError::Other`] such as for a queue that stays in use.
    pub fn open(ports: &[Option<PortSpec>]) -> Result<Self, HostError> {
        let zero_copy = wants_zero_copy(ports)?;
        let must = ports.iter().flatten().any(|port| port.mode == XdpMode::Zerocopy);
        let deadline = Instant::now() + BUSY;
        let mut copy = !zero_copy;
        loop {
            // Every try starts with a new UMEM: a socket that failed to bind leaves it in a state of its own.
            match Self::bind_all(ports, !copy) {
                Ok(xsk) => return Ok(xsk),
                Err(refused) if refused.is(libc::EBUSY) && Instant::now() < deadline => thread::sleep(BUSY_NAP),
                Err(refused) if !copy && !must && !refused.is(libc::EPERM) => copy = true,
                Err(refused) => return Err(refused.into_error(copy)),
            }
        }
    }

    fn bind_all(ports: &[Option<PortSpec>], zero_copy: bool) -> Result<Self, Refused> {
        let frame_size = frame_size(ports, zero_copy).map_err(Refused::Host)?;
        let used = ports.iter().flatten().count() as u32;
        let ((umem, free), huge_pages) = umem(frame_size, FRAMES * used.max(1)).map_err(Refused::Host)?;
        let bind =
            |spec: &Option<PortSpec>| spec.as_ref().map(|spec| bind(&umem, spec, zero_copy, frame_size)).transpose();
        let mut bound = ports.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        bound.iter_mut().flatten().for_each(|port| port.report.huge_pages = huge_pages);
        let mut xsk = Self {
            ports: bound,
            area: Area::new(umem, next_id()),
            total: free.len() as u64,
            free,
            scratch: Box::new([FrameDesc::default(); BATCH]),
            received: 0,
            counters: IoCounters::default(),
            waker: Waker::new().map_err(Refused::Host)?,
            stalled: 0,
        };
        // At once, because a driver in zero-copy mode wants frames before its first packet.
        xsk.reclaim();
        xsk.kick();
        Ok(xsk)
    }
}

/// Why the sockets could not be bound.
enum Refused {
    /// The host cannot do it in any mode.
    Host(HostError),
    /// The kernel refused this socket.
    Bind(PortSpec, io::Error),
}

impl Refused {
    fn is(&self, errno: i32) -> bool {
        matches!(self, Self::Bind(_, error) if error.raw_os_error() == Some(errno))
    }

    fn into_error(self, copy: bool) -> HostError {
        let (spec, error) = match self {
            Self::Host(error) => return error,
            Self::Bind(spec, error) => (spec, error),
        };
        let (interface, queue) = (spec.link.name.clone(), spec.queue);
        match error.raw_os_error() {
            Some(libc::EPERM) => {
                HostError::not_permitted(format!("open an AF_XDP socket on {interface}"), "CAP_NET_RAW")
            }
            Some(libc::EBUSY) => HostError::Unsupported {
                what: format!("queue {queue} stays in use by another AF_XDP socket"),
                mend: "stop the program that has it; `ss --xdp -p` may name it".into(),
                interface,
            },
            Some(libc::EINVAL) if queue >= spec.link.queues => HostError::Unsupported {
                what: format!("has no receive queue {queue}, only {}", spec.link.queues),
                mend: format!("correct `queues`, or `ethtool -L {interface} combined {}`", queue + 1),
                interface,
            },
            Some(libc::ENETDOWN) => HostError::Unsupported {
                what: "is down, and its driver takes no AF_XDP socket then".into(),
                mend: format!("`ip link set dev {interface} up`"),
                interface,
            },
            _ if !copy => HostError::Unsupported {
                what: format!("its driver ({}) refuses zero-copy ({error})", spec.link.driver),
                mend: "set xdp = \"native\" for it".into(),
                interface,
            },
            Some(libc::ENOBUFS | libc::ENOMEM) => memory(error),
            _ => HostError::other(format!("binding an AF_XDP socket to queue {queue} of {interface}"), error),
        }
    }
}

/// Whether to try zero-copy: every port must want it, because the sockets of a UMEM all have one mode.
fn wants_zero_copy(ports: &[Option<PortSpec>]) -> Result<bool, HostError> {
    let wants = |port: &PortSpec| match port.mode {
        XdpMode::Zerocopy => true,
        XdpMode::Auto => GOOD_AT_ZERO_COPY.contains(&port.link.driver.as_str()),
        XdpMode::Native | XdpMode::Generic => false,
    };
    let asked = ports.iter().flatten().find(|port| port.mode == XdpMode::Zerocopy);
    // `auto` goes along with a port that insists.
    let goes_along = |port: &PortSpec| asked.is_some() && port.mode == XdpMode::Auto;
    let against = |port: &&PortSpec| !(wants(port) || goes_along(port));
    match (asked, ports.iter().flatten().find(against)) {
        (Some(asked), Some(other)) => Err(HostError::Unsupported {
            interface: asked.link.name.clone(),
            what: format!(
                "cannot do zero-copy beside {}, whose packets are copied: both share one memory",
                other.link.name
            ),
            mend: "give both the same `xdp`".into(),
        }),
        (_, other) => Ok(other.is_none()),
    }
}

/// Octets of the largest packet, with its Ethernet header and tags, that is received into a frame.
const fn room(frame_size: u32, zero_copy: bool) -> u32 {
    let room = frame_size - HEADROOM;
    if zero_copy { room - room % ZERO_COPY_UNIT } else { room }
}

/// The largest MTU whose packets fit a frame.
pub(in crate::kernel) const fn largest_mtu(zero_copy: bool) -> u32 {
    room(FRAME_SIZES[FRAME_SIZES.len() - 1], zero_copy) - OVERHEAD
}

/// The smallest frame that holds the largest packet of every port.
fn frame_size(ports: &[Option<PortSpec>], zero_copy: bool) -> Result<u32, HostError> {
    let Some(largest) = ports.iter().flatten().max_by_key(|port| port.link.mtu) else { return Ok(FRAME_SIZES[0]) };
    frame_size_for(largest.link.mtu, zero_copy).ok_or_else(|| {
        let limit = largest_mtu(zero_copy);
        HostError::Unsupported {
            interface: largest.link.name.clone(),
            what: format!("its MTU is {}, and a frame holds packets of an MTU up to {limit}", largest.link.mtu),
            mend: format!("`ip link set dev {} mtu {limit}` or less", largest.link.name),
        }
    })
}

fn frame_size_for(mtu: u32, zero_copy: bool) -> Option<u32> {
    FRAME_SIZES.into_iter().find(|&size| mtu <= room(size, zero_copy) - OVERHEAD)
}

/// Octets of the UMEM of a worker with `ports` ports, the largest MTU of which is `mtu`; nothing when it fits no frame.
pub(in crate::kernel) fn umem_octets(ports: u32, mtu: u32, zero_copy: bool) -> Option<u64> {
    Some(u64::from(frame_size_for(mtu, zero_copy)?) * u64::from(FRAMES * ports.max(1)))
}

/// A UMEM and its frames.
type Made = (Umem, Vec<FrameDesc>);

/// Makes a UMEM in huge pages, of which so many have to be reserved (Documentation/admin-guide/mm/hugetlbpage.rst), or else in
/// usual ones; says which.
fn umem(frame_size: u32, frames: u32) -> Result<(Made, bool), HostError> {
    let wrong =
        |error: &dyn std::error::Error| HostError::other("sizing the UMEM", io::Error::other(error.to_string()));
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_size).map_err(|error| wrong(&error))?)
        .fill_queue_size(QueueSize::new(RX_RING).map_err(|error| wrong(&error))?)
        .comp_queue_size(QueueSize::new(TX_RING).map_err(|error| wrong(&error))?)
        .build()
        .map_err(|error| wrong(&error))?;
    let frames = NonZeroU32::new(frames).unwrap_or(NonZeroU32::MIN);
    let octets = u64::from(frame_size) * u64::from(frames.get());
    if huge_page().is_some_and(|page| octets.is_multiple_of(page))
        && let Ok(made) = Umem::new(config, frames, true)
    {
        return Ok((made, true));
    }
    let made = Umem::new(config, frames, false).map(|made| (made, false));
    made.map_err(|error| {
        let cause = cause(&error);
        match cause.raw_os_error() {
            Some(libc::EPERM) => HostError::not_permitted("make a UMEM", "CAP_NET_RAW"),
            Some(libc::ENOBUFS | libc::ENOMEM) => memory(cause),
            Some(libc::EAFNOSUPPORT) => HostError::Other {
                what: "this process may not use AF_XDP: the kernel has no CONFIG_XDP_SOCKETS, or a sandbox forbids it \
                       (systemd: RestrictAddressFamilies must list AF_XDP)"
                    .into(),
                source: cause,
            },
            _ => HostError::other("making a UMEM", cause),
        }
    })
}

/// Octets of the kernel's huge pages (`Hugepagesize` of proc(5)); nothing where it has none.
fn huge_page() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024).filter(|page| *page > 0)
}

fn memory(error: io::Error) -> HostError {
    HostError::Other {
        what: "no memory for the UMEM; without CAP_IPC_LOCK it must fit the limit of locked memory (systemd: \
               LimitMEMLOCK=infinity, shell: `ulimit -l unlimited`)"
            .into(),
        source: error,
    }
}

/// Binds the socket of one port. The kernel ignores `mode` for all but the first socket of a UMEM.
fn bind(umem: &Umem, spec: &PortSpec, zero_copy: bool, frame_size: u32) -> Result<Port, Refused> {
    let mode = if zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
    let refused = |error| Refused::Bind(spec.clone(), error);
    let size = |size| QueueSize::new(size).map_err(|error| refused(io::Error::other(error)));
    let config = SocketConfig::builder()
        .rx_queue_size(size(RX_RING)?)
        .tx_queue_size(size(TX_RING)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .xdp_flags(XdpFlags::empty())
        .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let interface: Interface = spec.link.name.parse().map_err(|error| refused(io::Error::other(error)))?;
    // SAFETY: libxdp loads no program, as the contract asks for; also no (interface, queue) is bound to twice, because a
    // worker has one port for each interface.
    let socket = unsafe { Socket::new(config, umem, &interface, spec.queue) };
    let (tx, rx, rings) = socket.map_err(|error| refused(cause(&error)))?;
    let (fill, completion) = rings.ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EBUSY)))?;
    let report = PortReport {
        interface: spec.link.name.clone(),
        queue: spec.queue,
        asked: spec.mode,
        zero_copy: false,
        need_wakeup: true,
        rx_ring: RX_RING,
        tx_ring: TX_RING,
        fill_ring: RX_RING,
        completion_ring: TX_RING,
        frame_size,
        frame_room: room(frame_size, zero_copy),
        huge_pages: false,
    };
    let mut port = Port::new(rx, tx, fill, completion, report);
    port.report.zero_copy = stats::is_zero_copy(port.fd()).map_err(refused)?;
    stats::raise_tx_budget(port.fd(), BATCH as u32);
    // Twice that is what the kernel takes it for (socket(7)), and what copies of full frames are charged with at most.
    stats::raise_send_buffer(port.fd(), TX_RING * (frame_size + 1024));
    Ok(port)
}

/// The system's error below one of xsk-rs.
fn cause(error: &dyn std::error::Error) -> io::Error {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_the_packets_of_its_mtu() {
        assert_eq!([frame_size_for(1500, false), frame_size_for(1500, true)], [Some(2048), Some(4096)]);
        assert_eq!([frame_size_for(1000, true), frame_size_for(1010, true)], [Some(2048), Some(4096)]);
        assert_eq!([largest_mtu(false), largest_mtu(true)], [3818, 3050]);
        for zero_copy in [false, true] {
            assert_eq!(frame_size_for(largest_mtu(zero_copy), zero_copy), Some(4096));
            assert_eq!(frame_size_for(largest_mtu(zero_copy) + 1, zero_copy), None);
        }
    }
}
