//! An interface: what the kernel and its driver say about it.

use std::io;

use libbpf_rs::libbpf_sys;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nameindex, if_nametoindex};

use super::HostError;
use super::ethtool::Ethtool;

/// An interface at the moment it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The kernel's number of it.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU: octets of the largest IP packet.
    pub mtu: u32,
    /// Its driver, as `ethtool -i` shows it; empty when the driver does not say.
    pub driver: String,
    /// Receive queues that a socket can be bound to.
    pub queues: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
}

/// What has become of an interface since it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Up, with a carrier, and running the node's program.
    Up,
    /// As before, but down or without a carrier.
    Down,
    /// It is gone, or another one has its name now.
    Gone,
    /// It does not run the node's program any more.
    Detached,
}

/// An XDP program that is attached to an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The kernel's number of the program, as `bpftool prog` shows it.
    pub id: u32,
    /// The program's name; `?` when it may not be read.
    pub name: String,
    /// `native`, `generic` or `offloaded`.
    pub mode: &'static str,
}

/// Drivers whose packets may come from a host that left their checksum to its hardware, and have never met any.
const WITHOUT_HARDWARE: [&str; 2] = ["veth", "virtio_net"];

impl Link {
    /// Looks at the interface `name` in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`HostError::NoSuchInterface`]; [`HostError::Unsupported`] when it is not an Ethernet interface.
    pub fn find(name: &str) -> Result<Self, HostError> {
        let ifindex = if_nametoindex(name).map_err(|_| no_such_interface(name))?;
        let ask = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENODEV) => no_such_interface(name),
            _ => HostError::other(format!("asking about {name}"), error),
        };
        let ethtool = Ethtool::new(name).map_err(ask)?;
        let flags = ethtool.flags().map_err(ask)?;
        let mac = ethtool.mac().map_err(ask)?.ok_or_else(|| HostError::Unsupported {
            interface: name.into(),
            what: "is not an Ethernet interface".into(),
            mend: "name the Ethernet interface below it in [[interface]]".into(),
        })?;
        Ok(Self {
            name: name.into(),
            ifindex,
            mac,
            mtu: ethtool.mtu().map_err(ask)?,
            driver: ethtool.driver().unwrap_or_default(),
            queues: queues(&ethtool),
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_RUNNING != 0,
        })
    }

    /// The XDP program attached to it now, if any; of several (native and generic) the native one.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel does not answer.
    pub fn attached(&self) -> Result<Option<Attached>, HostError> {
        attached(self.ifindex)
            .map_err(|error| HostError::other(format!("asking which XDP program {} runs", self.name), error))
    }

    /// How it is now, for a node whose program has the kernel's number `program`.
    pub fn state(&self, program: u32) -> LinkState {
        if if_nametoindex(self.name.as_str()) != Ok(self.ifindex) {
            return LinkState::Gone;
        }
        let runs = |ids: libbpf_sys::bpf_xdp_query_opts| {
            [ids.prog_id, ids.drv_prog_id, ids.hw_prog_id, ids.skb_prog_id].contains(&program)
        };
        if !query(self.ifindex).is_ok_and(runs) {
            return LinkState::Detached;
        }
        let ready = libc::IFF_UP | libc::IFF_RUNNING;
        match Ethtool::new(&self.name).and_then(|ethtool| ethtool.flags()) {
            Ok(flags) if flags & ready == ready => LinkState::Up,
            _ => LinkState::Down,
        }
    }

    /// Whether it is up and has a carrier at this moment. An interface that has just got an XDP program or a socket may be
    /// without for seconds: its driver starts it anew.
    pub fn has_carrier(&self) -> bool {
        // Not by IFF_RUNNING, which follows up to a second later (Documentation/networking/operstates.rst).
        let ready = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOWER_UP;
        let is_ready = |other: InterfaceAddress| other.interface_name == self.name && other.flags.contains(ready);
        getifaddrs().is_ok_and(|mut all| all.any(is_ready))
    }

    /// Whether packets may come in with checksums that their sender left to its hardware: where there is none.
    pub fn may_hand_over_partial_checksums(&self) -> bool {
        WITHOUT_HARDWARE.contains(&self.driver.as_str())
    }

    /// The offloads that are on, by the kernel's names; empty when the driver does not say.
    pub fn offloads(&self) -> Vec<String> {
        Ethtool::new(&self.name).and_then(|ethtool| ethtool.active_features()).unwrap_or_default()
    }

    /// Refuses an interface that runs an XDP program.
    ///
    /// # Errors
    ///
    /// [`HostError::ForeignProgram`]; [`HostError::Other`] when the kernel does not answer.
    pub fn refuse_foreign_program(&self) -> Result<(), HostError> {
        match self.attached()? {
            None => Ok(()),
            Some(Attached { id, name, mode }) => {
                Err(HostError::ForeignProgram { interface: self.name.clone(), id, name, mode })
            }
        }
    }
}

/// The error that lists the interfaces there are.
pub(super) fn no_such_interface(name: &str) -> HostError {
    let existing = match if_nameindex() {
        Ok(list) => list.iter().map(|entry| entry.name().to_string_lossy().into_owned()).collect::<Vec<_>>().join(", "),
        Err(_) => "none that can be listed".into(),
    };
    HostError::NoSuchInterface { name: name.into(), existing }
}

/// Receive queues in use: dedicated and combined channels. A driver that does not know channels has one queue.
fn queues(ethtool: &Ethtool) -> u32 {
    match ethtool.channels() {
        Ok(channels) => channels.rx.saturating_add(channels.combined).max(1),
        Err(_) => 1,
    }
}

fn attached(ifindex: u32) -> io::Result<Option<Attached>> {
    let (id, mode) = match query(ifindex)? {
        libbpf_sys::bpf_xdp_query_opts { drv_prog_id: id @ 1.., .. } => (id, "native"),
        libbpf_sys::bpf_xdp_query_opts { hw_prog_id: id @ 1.., .. } => (id, "offloaded"),
        libbpf_sys::bpf_xdp_query_opts { skb_prog_id: id @ 1.., .. } => (id, "generic"),
        _ => return Ok(None),
    };
    Ok(Some(Attached { id, name: program_name(id), mode }))
}

/// The kernel's numbers of the XDP programs an interface runs.
fn query(ifindex: u32) -> io::Result<libbpf_sys::bpf_xdp_query_opts> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: the options live through the call and say their own size, beyond which libbpf does not write.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex, 0, &raw mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(options)
}

/// The name of a loaded program, when the process may read it.
fn program_name(id: u32) -> String {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| "?".into())
}

#[cfg(test)]
impl Link {
    /// An interface that is not there.
    pub(crate) fn example() -> Self {
        Self {
            name: "eth0".into(),
            ifindex: u32::MAX,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            driver: "mlx5_core".into(),
            queues: 8,
            up: true,
            carrier: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_interface_has_now_is_gone() {
        let old = Link { name: "lo".into(), ..Link::example() };
        assert_eq!(old.state(1), LinkState::Gone);
        let lo = Link { ifindex: if_nametoindex("lo").unwrap(), ..old };
        assert_eq!(lo.state(u32::MAX), LinkState::Detached);
    }

    #[test]
    fn a_missing_interface_is_answered_with_those_there_are() {
        let error = Link::find("axk-none").unwrap_err();
        assert!(matches!(&error, HostError::NoSuchInterface { name, .. } if name == "axk-none"));
        assert!(error.to_string().contains("lo"), "{error}");
    }

    #[test]
    fn loopback_is_no_ethernet_interface() {
        assert!(matches!(Link::find("lo"), Err(HostError::Unsupported { .. })));
    }
}
