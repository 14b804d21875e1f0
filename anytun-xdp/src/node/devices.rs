//! The devices by which the kernel takes part in networks: what each is to be, and the thread that keeps them so when the
//! configuration changes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anytun_common::wire::ethernet::Mac;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use anytun_common::wire::{ethernet, ipv4, ipv6, udp};
use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::warn;

use crate::config::{Config, HostAddress, Local};
use crate::kernel::{Addressing, HostError, Layer, Link, Tun, Wanted, privilege};
use crate::satp::Suite;

/// How long a change of devices may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets that went through a device.
#[derive(Debug, Default)]
pub(super) struct DeviceCounters {
    /// To the kernel.
    pub(super) delivered: AtomicU64,
    /// To the kernel, which did not take them.
    pub(super) refused: AtomicU64,
    /// From the kernel to workers.
    pub(super) injected: AtomicU64,
    /// From the kernel, and there was no room for it with a worker, or none that its flow may have.
    pub(super) overrun: AtomicU64,
}

/// A device as the control side sees it.
pub(super) struct DeviceView {
    pub(super) name: String,
    pub(super) network: String,
    pub(super) mac: Option<Mac>,
    pub(super) addresses: Vec<HostAddress>,
    pub(super) counters: Arc<DeviceCounters>,
}

/// The devices of a node that is about to start, by their place among all.
pub(super) struct Devices {
    pub(super) tuns: Vec<Tun>,
    addressing: Vec<Addressing>,
    is: Vec<Wanted>,
}

impl Devices {
    /// Makes the devices of a configuration, with their addresses and routes, and sets them up.
    pub(super) fn make(config: &Config, links: &[Link]) -> Result<Self, HostError> {
        let devices = config.devices();
        let layer = |local: &Local| if local.mac.is_some() { Layer::Ethernet } else { Layer::Ip };
        let tun = |(_, local): &(usize, &Local)| Tun::create(&local.device, layer(local));
        let tuns = devices.iter().map(tun).collect::<Result<Vec<_>, _>>()?;
        let mut addressing = tuns.iter().map(Addressing::new).collect::<Result<Vec<_>, _>>()?;
        let is = wanted(config, links);
        addressing.iter_mut().zip(&is).try_for_each(|(device, wanted)| device.set(wanted))?;
        Ok(Self { tuns, addressing, is })
    }

    /// What others see of them.
    pub(super) fn views(config: &Config) -> Vec<DeviceView> {
        let view = |(network, local): (usize, &Local)| DeviceView {
            name: local.device.clone(),
            network: config.networks.get(network).map(|network| network.name.clone()).unwrap_or_default(),
            mac: local.mac,
            addresses: local.addresses.clone(),
            counters: Arc::default(),
        };
        config.devices().into_iter().map(view).collect()
    }

    /// What changes them later, and the devices to move packets through. Nothing without a device.
    pub(super) fn split(self) -> Option<(Vec<Tun>, Administration, Administrator)> {
        if self.tuns.is_empty() {
            return None;
        }
        let ((ask, asked), (answer, answers)) = (bounded(1), bounded(1));
        let administration = Administration { ask, answers, is: self.is };
        Some((self.tuns, administration, Administrator { asked, answer, devices: self.addressing }))
    }
}

/// What the devices of a configuration are to be: as large as what fits through the tunnels of their network, in one packet
/// on each of these interfaces; in Ethernet networks with a VLAN tag.
pub(super) fn wanted(config: &Config, links: &[Link]) -> Vec<Wanted> {
    let smallest = links.iter().map(|link| link.mtu).min().unwrap_or(0);
    let device = |(network, local): (usize, &Local)| {
        let members = || config.clients.iter().filter(move |client| client.network == network);
        let is_v6 = |service: usize| config.services.get(service).is_some_and(|service| service.address.is_ipv6());
        let outer = if members().any(|client| is_v6(client.service)) { ipv6::HEADER } else { ipv4::HEADER };
        let tag = members().map(|client| client.crypto.tag()).max().unwrap_or(Suite::DEFAULT.tag());
        // Frames with a VLAN tag may be 4 octets longer: so VLAN devices and bridges of the kernel expect it (IEEE 802.3 §3.2.7).
        let frame = if local.mac.is_some() { ethernet::HEADER + ethernet::TAG } else { 0 };
        let around = outer + udp::HEADER + HEADER + PAYLOAD_TYPE + tag + frame;
        let prefixes = members().flat_map(|client| &client.prefixes).copied();
        Wanted {
            mtu: smallest.saturating_sub(around as u32),
            mac: local.mac,
            addresses: local.addresses.clone(),
            routes: prefixes.filter(|prefix| local.needs_route(prefix)).collect(),
        }
    };
    config.devices().into_iter().map(device).collect()
}

/// Changes devices by way of the thread that may.
pub(super) struct Administration {
    ask: Sender<Vec<Wanted>>,
    answers: Receiver<Result<(), HostError>>,
    is: Vec<Wanted>,
}

impl Administration {
    /// Makes the devices what is wanted, or leaves them what they are; returns what they were.
    pub(super) fn set(&mut self, wanted: Vec<Wanted>) -> Result<Vec<Wanted>, String> {
        if wanted == self.is {
            return Ok(wanted);
        }
        // Of a change that took too long.
        while self.answers.try_recv().is_ok() {}
        let silent = || "the thread that sets up the devices of networks does not answer; restart the node".to_owned();
        self.ask.send_timeout(wanted.clone(), PATIENCE).map_err(|_| silent())?;
        let answer = self.answers.recv_timeout(PATIENCE).map_err(|_| silent())?;
        answer.map_err(|error| error.to_string())?;
        Ok(std::mem::replace(&mut self.is, wanted))
    }
}

/// The thread that keeps the devices what they are to be. No packet passes it.
pub(super) struct Administrator {
    asked: Receiver<Vec<Wanted>>,
    answer: Sender<Result<(), HostError>>,
    devices: Vec<Addressing>,
}

impl Administrator {
    /// Does what it is asked for until the other end is dropped. Of its capabilities the thread keeps `CAP_NET_ADMIN`.
    pub(super) fn run(mut self) {
        if let Err(error) = privilege::keep_network_administration() {
            warn!("{error}; the thread that sets up devices keeps its capabilities");
        }
        while let Ok(wanted) = self.asked.recv() {
            let outcome = self.change(&wanted);
            // Who asked may have given up.
            let _late = self.answer.try_send(outcome);
        }
    }

    fn change(&mut self, wanted: &[Wanted]) -> Result<(), HostError> {
        let before: Vec<Wanted> = self.devices.iter().map(|device| device.is().clone()).collect();
        let outcome = self.devices.iter_mut().zip(wanted).try_for_each(|(device, wanted)| device.set(wanted));
        if outcome.is_err() {
            for (device, before) in self.devices.iter_mut().zip(&before) {
                // The first failure is the one to tell.
                let _second = device.set(before);
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn devices_are_as_large_as_what_fits_through_tunnels_in_ethernet_networks_with_a_tag() {
        let text = |address: &str, network: &str, client: &str| {
            format!(
                "[node]\nname = \"vie1\"\nstate_dir = \"state\"\nsender_ids = \"7\"\n[[interface]]\nname = \"eth0\"\n\
                 [[service]]\nname = \"anycast\"\naddress = \"{address}\"\nport = 4444\n\
                 [[network]]\nname = \"office\"\ndevice = \"yard\"\n{network}\n\
                 [[client]]\nname = \"alice\"\nmux = 1\npassphrase = \"the passphrase of alice\"\n{client}\n"
            )
        };
        let ip = "address = \"10.9.0.1/24\"";
        // Around the inner packet are IP, UDP, 8 octets of SATP, 2 of payload type and 10 of tag.
        for (address, network, client, mtu) in [
            ("192.0.2.53", ip, "prefixes = [\"10.9.0.11/32\"]", 1500 - 20 - 8 - 20),
            ("2001:db8::53", ip, "prefixes = [\"10.9.0.11/32\"]", 1500 - 40 - 8 - 20),
            ("192.0.2.53", "kind = \"ethernet\"", "", 1500 - 20 - 8 - 20 - 14 - 4),
            ("2001:db8::53", "kind = \"ethernet\"", "", 1500 - 40 - 8 - 20 - 14 - 4),
        ] {
            let config = config::parse(&text(address, network, client), Path::new("node.toml")).expect("valid");
            let wide = Link { mtu: 9000, ..Link::example() };
            assert_eq!(wanted(&config, &[wide, Link::example()])[0].mtu, mtu, "{address} {network}");
        }
    }
}
