//! The devices by which the kernel takes part in networks.

use super::NOBODY;
use crate::config::Config;

/// Which device belongs to which network. A device is known by its place among all of a node, which a reload does not
/// change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Devices {
    /// By network, [`NOBODY`] for one without a device.
    of_networks: Vec<u32>,
    /// By device.
    networks: Vec<u32>,
}

impl Devices {
    pub(super) fn new(config: &Config) -> Self {
        let mut of_networks = vec![NOBODY; config.networks.len()];
        let networks: Vec<u32> = config.devices().iter().map(|(network, _)| *network as u32).collect();
        for (device, &network) in networks.iter().enumerate() {
            if let Some(of_network) = of_networks.get_mut(network as usize) {
                *of_network = device as u32;
            }
        }
        Self { of_networks, networks }
    }

    /// The device of a network.
    #[inline]
    pub fn of_network(&self, network: u32) -> Option<u32> {
        self.of_networks.get(network as usize).copied().filter(|&device| device != NOBODY)
    }

    /// The network of a device.
    #[inline]
    pub fn network(&self, device: u32) -> Option<u32> {
        self.networks.get(device as usize).copied()
    }
}
