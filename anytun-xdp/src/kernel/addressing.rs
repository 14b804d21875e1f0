//! What the kernel is told about the device of a network: its MTU, the node's own addresses, and routes to the clients that
//! lie outside of their prefixes.

use std::collections::BTreeSet;
use std::{fs, io};

use anytun_common::wire::ethernet::Mac;
use netlink_packet_route::link::In6AddrGenMode;

use super::rtnetlink::Rtnetlink;
use super::{HostError, Tun};
use crate::config::{HostAddress, Prefix};

/// The smallest MTU of an interface with IPv6 (RFC 8200 section 5).
const IPV6_MTU: u32 = 1280;

/// What a device is to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Octets of the largest IP packet.
    pub mtu: u32,
    /// MAC address, of a TAP device.
    pub mac: Option<Mac>,
    /// Addresses of the node, each with the prefix that is behind the device.
    pub addresses: Vec<HostAddress>,
    /// What else is behind it.
    pub routes: BTreeSet<Prefix>,
}

/// A device and what it was told. Changing it needs `CAP_NET_ADMIN`.
pub struct Addressing {
    netlink: Rtnetlink,
    name: String,
    ifindex: u32,
    is: Wanted,
}

impl Addressing {
    /// Of a device that is new, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when there is no socket.
    pub fn new(device: &Tun) -> Result<Self, HostError> {
        let netlink = Rtnetlink::open().map_err(|error| HostError::other("opening a netlink socket", error))?;
        let mut new = Self { netlink, name: device.name().into(), ifindex: device.ifindex(), is: Wanted::default() };
        // On a TUN device packets to link-local addresses go no further, and a TAP device may have no address at all. A kernel
        // without IPv6 gives it none, and does not know the request.
        let _without_ipv6 = new.netlink.set_link_local(new.ifindex, In6AddrGenMode::None);
        Ok(new)
    }

    /// What the device is.
    pub fn is(&self) -> &Wanted {
        &self.is
    }

    /// Makes the device what is wanted, and it up. When that fails, it is made what it was.
    ///
    /// # Errors
    ///
    /// [`HostError::Unsupported`] for what the kernel refuses, [`HostError::NotPermitted`].
    pub fn set(&mut self, wanted: &Wanted) -> Result<(), HostError> {
        let before = self.is.clone();
        let outcome = self.change(wanted);
        if outcome.is_err() && before != Wanted::default() {
            // The first failure is the one to tell.
            let _second = self.change(&before);
        }
        outcome
    }

    fn change(&mut self, wanted: &Wanted) -> Result<(), HostError> {
        if self.is.addresses.iter().chain(&wanted.addresses).any(|own| own.address.is_ipv6()) && wanted.mtu < IPV6_MTU {
            return Err(self.unsupported(
                format!(
                    "packets of {} octets fit through the tunnels of its network, and IPv6 needs {IPV6_MTU}",
                    wanted.mtu
                ),
                "raise the MTU of the interfaces, or leave the IPv6 address out".into(),
            ));
        }
        let again = self.is.addresses != wanted.addresses;
        // What is gone already need not be removed, and whatever else is in the way will be told when something is added.
        let gone: Vec<Prefix> =
            self.is.routes.iter().filter(|prefix| again || !wanted.routes.contains(prefix)).copied().collect();
        for prefix in gone {
            let _gone = self.netlink.remove_route(self.ifindex, prefix);
            self.is.routes.remove(&prefix);
        }
        if again {
            // With the last address of a family the kernel removes routes of the device, and with the first of a prefix
            // others, so all begin anew.
            for own in std::mem::take(&mut self.is.addresses) {
                let _gone = self.netlink.remove_address(self.ifindex, own);
            }
        }
        if self.is.mac != wanted.mac
            && let Some(mac) = wanted.mac
        {
            self.prepare(mac, &wanted.addresses)?;
            self.is.mac = wanted.mac;
        }
        if self.is.mtu != wanted.mtu {
            self.netlink.set_up(self.ifindex, wanted.mtu).map_err(|error| self.refused("set up", error))?;
            self.is.mtu = wanted.mtu;
        }
        for &own in &wanted.addresses {
            if !self.is.addresses.contains(&own) {
                self.netlink.add_address(self.ifindex, own).map_err(|error| self.no_address(own, error))?;
                self.is.addresses.push(own);
            }
        }
        for &prefix in &wanted.routes {
            if !self.is.routes.contains(&prefix) {
                self.netlink.add_route(self.ifindex, prefix).map_err(|error| self.no_route(prefix, error))?;
                self.is.routes.insert(prefix);
            }
        }
        Ok(())
    }

    /// Makes a TAP device that is down ready for clients on its link.
    fn prepare(&mut self, mac: Mac, addresses: &[HostAddress]) -> Result<(), HostError> {
        self.netlink.set_mac(self.ifindex, mac).map_err(|error| self.refused("set the MAC address of", error))?;
        if addresses.iter().any(|own| own.address.is_ipv6()) {
            // There every host has one (RFC 4291 section 2.8).
            let _without_ipv6 = self.netlink.set_link_local(self.ifindex, In6AddrGenMode::Eui64);
        }
        self.refuse_routers()
    }

    /// Keeps clients from becoming routers of this host by advertisements (RFC 4861 section 6.3.4).
    fn refuse_routers(&self) -> Result<(), HostError> {
        let setting = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", self.name);
        let is_open = fs::read_to_string(&setting).is_ok_and(|value| value.trim() != "0");
        // Without IPv6 there is nothing to set.
        let outcome = if is_open { fs::write(&setting, "0") } else { Ok(()) };
        outcome.map_err(|error| {
            self.unsupported(
                format!(
                    "{setting} cannot be set to 0 ({error}), and clients could make themselves routers of this host"
                ),
                "`sysctl net.ipv6.conf.default.accept_ra=0`, or let the node write there".into(),
            )
        })
    }

    fn unsupported(&self, what: String, mend: String) -> HostError {
        HostError::Unsupported { interface: self.name.clone(), what, mend }
    }

    fn refused(&self, what: &str, error: io::Error) -> HostError {
        match error.raw_os_error() {
            Some(libc::EPERM) => HostError::not_permitted(format!("{what} {}", self.name), "CAP_NET_ADMIN"),
            Some(libc::ENODEV) => self.unsupported("the device is gone".into(), "restart the node".into()),
            _ => HostError::other(format!("{}: {what}", self.name), error),
        }
    }

    fn no_address(&self, own: HostAddress, error: io::Error) -> HostError {
        match error.raw_os_error() {
            // Without IPv6, or where a setting turns it off.
            Some(libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOBUFS) if own.address.is_ipv6() => self
                .unsupported(
                    format!("the kernel takes no IPv6 address ({error})"),
                    "`sysctl net.ipv6.conf.default.disable_ipv6=0`, or leave the IPv6 address out".into(),
                ),
            _ => self.refused(&format!("give the address {own} to"), error),
        }
    }

    fn no_route(&self, prefix: Prefix, error: io::Error) -> HostError {
        match error.raw_os_error() {
            Some(libc::EEXIST) => self.unsupported(
                format!("the kernel has a route to the client's prefix {prefix} already"),
                format!(
                    "see `ip route show {prefix}`, and remove it if it is not needed, or leave `address` out of the network"
                ),
            ),
            _ => self.refused(&format!("add a route to {prefix} through"), error),
        }
    }
}
