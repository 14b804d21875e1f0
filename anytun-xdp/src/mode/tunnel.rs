//! Tunnel mode in an IP network: a routing decision on the inner packet.

use anytun_common::verdict::Verdict;

use super::inner::{Ends, Inner};
use crate::table::{Lpm, Tables};

/// Where an inner packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Number of the client it goes to.
    pub to: u32,
    /// Octets of the inner packet.
    pub length: usize,
    /// DSCP and ECN it goes on with.
    pub tos: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
}

/// Routes a packet that `client` sent: checks its source, finds the client that its destination leads to, takes over
/// congestion met outside, and counts the hop. `payload` is what lies behind the payload type; `outer_tos` is that of the
/// header it came in.
#[inline]
pub fn route(
    tables: &Tables,
    client: u32,
    payload_type: u16,
    payload: &mut [u8],
    outer_tos: u8,
) -> Result<Route, Verdict> {
    let network = tables
        .clients
        .get(client as usize)
        .and_then(|client| tables.networks.get(client.network as usize))
        .ok_or(Verdict::NoRoute)?;
    let (mut inner, length) = Inner::new(payload_type, payload)?;
    let ends = inner.ends();
    if ends.source_is_of_link() {
        return Err(Verdict::LinkScope);
    }
    let (source, destination) = owners(network, &ends);
    // The closest prefix decides, so no client can use an address inside another's more specific prefix.
    if source != Some(client) {
        return Err(Verdict::ForeignSource);
    }
    if ends.destination_is_of_link() {
        return Err(Verdict::LinkScope);
    }
    let to = destination.ok_or(Verdict::NoRoute)?;
    inner.decapsulate_ecn(outer_tos)?;
    inner.hop()?;
    Ok(Route { to, length, tos: inner.tos(), dont_fragment: inner.dont_fragment() })
}

/// The clients that source and destination of an inner packet belong to.
#[inline]
fn owners(network: &Lpm, ends: &Ends) -> (Option<u32>, Option<u32>) {
    match ends {
        Ends::V4 { source, destination } => (network.find_v4(source.octets()), network.find_v4(destination.octets())),
        Ends::V6 { source, destination } => (network.find_v6(source.octets()), network.find_v6(destination.octets())),
    }
}
