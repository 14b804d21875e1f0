//! Clients whose configuration says where they are, which counts until their packets tell.

use super::ways::{Asks, Wayless, Ways};
use super::{Endpoint, Evidence, Service, Tables};
use crate::config::Config;
use crate::table::service::octets;

/// Where a client is as long as its packets have not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Number of the client.
    client: u32,
    /// Its outer address, an IPv4 one mapped.
    address: [u8; 16],
    /// Its UDP port.
    port: u16,
}

impl Expected {
    /// Those of a configuration.
    pub(super) fn of(config: &Config) -> Vec<Self> {
        let expected = (0..).zip(&config.clients).filter_map(|(client, of)| Some((client, of.endpoint?)));
        expected.map(|(client, at)| Self { client, address: octets(at.ip()), port: at.port() }).collect()
    }
}

impl Tables {
    /// Lets clients whose packets have not told where they are be where they are expected, by the ways there are now; asks for
    /// neighbours that are not known yet. To be called about once a second: what leads to such a client may change.
    pub fn expect(&self, ways: &Ways, asks: &Asks) {
        for expected in &self.expected {
            let Some(client) = self.clients.get(expected.client as usize) else { continue };
            // It may have been heard all the same: not every packet tells.
            let is_expected = || !client.track.endpoint.is_learned();
            let service = self.services.all().get(client.service as usize).filter(|_| is_expected());
            match service.map(|service| expected.endpoint(service, ways)) {
                Some(Ok(endpoint)) => {
                    client.track.endpoint.learn(&endpoint, is_expected);
                }
                Some(Err(Wayless::Neighbour(next))) => asks.ask(next),
                // No way, or none of the node's: the next time there may be one.
                Some(Err(_)) | None => {}
            }
        }
    }
}

impl Expected {
    fn endpoint(&self, service: &Service, ways: &Ways) -> Result<Endpoint, Wayless> {
        let way = ways.find(&self.address, &service.address, 0)?;
        let endpoint = Endpoint::new(way.slot, way.link, way.tags, self.address, self.port);
        Ok(endpoint.told_by(Evidence::Configuration))
    }
}
