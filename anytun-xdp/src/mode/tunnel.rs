//! Tunnel mode in an IP network: a routing decision on the inner packet.

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ipv4, ipv6};

use super::inner::Inner;
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
    let (source, destination) = ends(network, &inner);
    // The closest prefix decides, so no client can use an address inside another's more specific prefix.
    if source != Some(client) {
        return Err(Verdict::ForeignSource);
    }
    let to = destination.ok_or(Verdict::NoRoute)?;
    inner.decapsulate_ecn(outer_tos)?;
    inner.hop()?;
    Ok(Route { to, length, tos: inner.tos(), dont_fragment: inner.dont_fragment() })
}

/// The clients that source and destination of an inner packet belong to.
#[inline]
fn ends(network: &Lpm, inner: &Inner<'_>) -> (Option<u32>, Option<u32>) {
    match inner {
        Inner::V4(h) => {
            let at = |offset: usize| [h[offset], h[offset + 1], h[offset + 2], h[offset + 3]];
            (network.find_v4(at(ipv4::SOURCE)), network.find_v4(at(ipv4::DESTINATION)))
        }
        Inner::V6(h) => {
            let at = |offset: usize| std::array::from_fn(|i| h[offset + i]);
            (network.find_v6(at(ipv6::SOURCE)), network.find_v6(at(ipv6::DESTINATION)))
        }
    }
}
