//! Tunnel mode in an IP network: a routing decision on the inner packet.

use std::mem::replace;

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ethernet, ipv4, ipv6, mapped};

use super::inner::{Ends, Inner, pair_v4, pair_v6};
use super::membership::Report;
use crate::table::{Client, KERNEL, Lpm, NOWHERE, Tables, is_group};

/// Where an inner packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Number of the client it goes to, or of the group; [`KERNEL`] when the node's kernel gets it.
    pub to: u32,
    /// Octets of the inner packet.
    pub length: u32,
    /// DSCP and ECN it goes on with.
    pub tos: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
}

// Packets of a client to one host often come right behind one another, so what is known of the last one is kept: by its
// client's number and its source and destination.

/// For whose packets the look-up has been brought near last, in each family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    v4: Option<(u32, u64)>,
    v6: Option<(u32, [u128; 2])>,
}

impl Ahead {
    /// Whether a packet of `client` may go elsewhere than the last one.
    #[inline]
    pub fn turns(&mut self, client: u32, payload_type: u16, payload: &[u8]) -> bool {
        match payload_type {
            ethernet::IPV4 => payload.first_chunk().is_some_and(|header| {
                let last = Some((client, pair_v4(header)));
                replace(&mut self.v4, last) != last
            }),
            ethernet::IPV6 => payload.first_chunk().is_some_and(|header| {
                let last = Some((client, pair_v6(header)));
                replace(&mut self.v6, last) != last
            }),
            _ => false,
        }
    }
}

/// Brings near what is looked up in `network` to find where a packet goes.
pub fn prefetch(network: &Lpm, payload_type: u16, payload: &[u8]) {
    match payload_type {
        ethernet::IPV4 => {
            if let Some(address) = payload.get(ipv4::DESTINATION..).and_then(<[u8]>::first_chunk) {
                network.prefetch_v4(*address);
            }
        }
        ethernet::IPV6 => {
            if let Some(address) = payload.get(ipv6::DESTINATION..).and_then(<[u8]>::first_chunk) {
                network.prefetch_v6(*address);
            }
        }
        _ => {}
    }
}

/// Where the last packet of a batch went that was its client's to send, in each family; nothing of one to a group, which
/// others join and leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bearing {
    v4: Option<(u32, u64, u32)>,
    v6: Option<(u32, [u128; 2], u32)>,
}

impl Bearing {
    /// Where a packet of `client` goes, if it goes as the last one did.
    #[inline]
    fn find(&self, client: u32, inner: &Inner<'_>) -> Option<u32> {
        match inner {
            Inner::V4(header) => {
                let (last, pair, to) = self.v4?;
                (last == client && pair == pair_v4(header)).then_some(to)
            }
            Inner::V6(header) => {
                let (last, pair, to) = self.v6?;
                (last == client && pair == pair_v6(header)).then_some(to)
            }
        }
    }

    /// Notes where it goes.
    #[inline]
    fn note(&mut self, client: u32, inner: &Inner<'_>, to: u32) {
        match inner {
            Inner::V4(header) => self.v4 = Some((client, pair_v4(header), to)),
            Inner::V6(header) => self.v6 = Some((client, pair_v6(header), to)),
        }
    }
}

/// Routes a packet that `client` sent: checks its source, finds the client that its destination leads to, takes over
/// congestion met outside, and counts the hop, unless the kernel will. `payload` is what lies behind the payload type;
/// `outer_tos` is that of the header it came in. `route` is written if it has one.
#[inline]
pub fn route(
    tables: &Tables,
    client: u32,
    payload_type: u16,
    payload: &mut [u8],
    outer_tos: u8,
    bearing: &mut Bearing,
    route: &mut Route,
) -> Result<(), Verdict> {
    let (mut inner, length) = Inner::new(payload_type, payload)?;
    let to = match bearing.find(client, &inner) {
        Some(to) => to,
        None => {
            let to = find(tables, client, &inner.ends())?;
            if !is_group(to) {
                bearing.note(client, &inner, to);
            }
            to
        }
    };
    inner.decapsulate_ecn(outer_tos)?;
    // The kernel counts the hop where it is one.
    if to != KERNEL {
        inner.hop()?;
    }
    *route = Route { to, length: length as u32, tos: inner.tos(), dont_fragment: inner.dont_fragment() };
    Ok(())
}

/// Whom a packet between these ends is for, if `client` may send it.
#[inline(never)]
fn find(tables: &Tables, client: u32, ends: &Ends) -> Result<u32, Verdict> {
    let number = client;
    let client = tables.clients.get(number as usize).ok_or(Verdict::NoRoute)?;
    let network = tables.networks.get(client.network as usize).ok_or(Verdict::NoRoute)?;
    if ends.source_is_of_link() {
        return Err(Verdict::LinkScope);
    }
    if !is_from(client, number, network, ends) {
        return Err(Verdict::ForeignSource);
    }
    match destination(network, ends) {
        Some(to) if is_group(to) => Ok(to),
        // No prefix of a client holds for these.
        _ if ends.destination_is_routed_group() => joined(tables, client.network, ends).ok_or(Verdict::NoMember),
        _ if ends.destination_is_of_link() => Err(Verdict::LinkScope),
        to => to.ok_or(Verdict::NoRoute),
    }
}

/// Whether a packet of `client` is for a group or a broadcast: no error is sent about such a one (RFC 1812 §4.3.2.7).
pub fn is_for_group(tables: &Tables, client: &Client, payload_type: u16, packet: &mut [u8]) -> bool {
    let network = tables.networks.get(client.network as usize);
    let ends = Inner::new(payload_type, packet).map(|(inner, _)| inner.ends());
    let to = network.zip(ends.ok()).and_then(|(network, ends)| destination(network, &ends));
    to.is_some_and(is_group)
}

/// The report of IGMP or MLD that a packet of the client with this number is, in a network that learns from these. It has to
/// come from an address of the client's or, as hosts send them, from 0.0.0.0 (RFC 3376 §4.2.13); in IPv6 from one of its link,
/// or none (RFC 3810 §5.2.13).
pub fn report<'a>(tables: &Tables, client: u32, payload_type: u16, packet: &'a mut [u8]) -> Option<Report<'a>> {
    let number = client;
    let client = tables.clients.get(number as usize)?;
    tables.snooped(client.network)?;
    let network = tables.networks.get(client.network as usize)?;
    let (inner, length) = Inner::new(payload_type, packet).ok()?;
    let ends = inner.ends();
    let is_own = match ends {
        Ends::V4 { source, .. } => {
            source.is_unspecified() || !ends.source_is_of_link() && is_from(client, number, network, &ends)
        }
        Ends::V6 { source, .. } => source.is_unspecified() || source.is_unicast_link_local(),
    };
    Report::new(packet.get(..length).filter(|_| is_own)?)
}

/// The group that clients of a network have joined and a packet is for.
#[inline]
pub(super) fn joined(tables: &Tables, network: u32, ends: &Ends) -> Option<u32> {
    let group = match ends {
        Ends::V4 { destination, .. } => mapped(destination.octets()),
        Ends::V6 { destination, .. } => destination.octets(),
    };
    tables.snooped(network)?;
    tables.joined.load().find(network, &group)
}

/// Whether the source of an inner packet, which is not zero, belongs to the client `number`. The closest prefix decides, so
/// no client can use an address inside another's more specific prefix.
#[inline]
fn is_from(client: &Client, number: u32, network: &Lpm, ends: &Ends) -> bool {
    match ends {
        Ends::V4 { source, .. } => {
            client.own.has_v4(source.octets()) || network.find_v4(source.octets()) == Some(number)
        }
        Ends::V6 { source, .. } => {
            client.own.has_v6(source.octets()) || network.find_v6(source.octets()) == Some(number)
        }
    }
}

/// Whose the source of an inner packet is: a client, or what stands for one.
#[inline]
pub(super) fn source(network: &Lpm, ends: &Ends) -> Option<u32> {
    match ends {
        Ends::V4 { source, .. } => network.find_v4(source.octets()),
        Ends::V6 { source, .. } => network.find_v6(source.octets()),
    }
}

/// Whose the destination of an inner packet is: a client, or what stands for one.
#[inline]
pub(super) fn destination(network: &Lpm, ends: &Ends) -> Option<u32> {
    match ends {
        Ends::V4 { destination, .. } => network.find_v4(destination.octets()),
        Ends::V6 { destination, .. } => network.find_v6(destination.octets()),
    }
    .filter(|&to| to != NOWHERE)
}
