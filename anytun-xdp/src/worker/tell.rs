//! Senders are told of packets that go no further.

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use anytun_common::wire::{ipv4, ipv6, unmapped};

use super::batch::Packet;
use super::passage::client_of;
use super::room::Room;
use crate::mode::icmp::{self, Kind, Problem};
use crate::mode::open_tunnel;
use crate::mode::tunnel::{self, Route};
use crate::table::{Client, OUTSIDE, Sources, Tables};

/// Turns an opened packet that met `verdict` into the ICMP error about it, to the client that sent it; says of which kind it
/// is. `mtu` are the octets of the largest packet that its way takes. Nothing when none is sent. The packet was authentic
/// and its source that client's own, so whoever is told has asked.
#[inline(never)]
pub(super) fn tell(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    verdict: Verdict,
    mtu: usize,
    now: u64,
) -> Option<Kind> {
    let problem = Problem::of(verdict, mtu)?;
    let client = client_of(tables, packet.client)?;
    let body = memory.get_mut(packet.start() + HEADER..)?;
    let (payload_type, inner) = body.split_first_chunk_mut::<PAYLOAD_TYPE>()?;
    let payload_type = u16::from_be_bytes(*payload_type);
    if tunnel::is_for_group(tables, client, payload_type, inner) {
        return None;
    }
    let allowed = || client.track.allowance.take(tables.errors, now);
    let length = icmp::answer(inner, payload_type, problem, sources(client, tables), allowed)?;
    let to = client_of(tables, packet.route.to);
    open_tunnel::own_again(tables, client, to, inner.get_mut(..length)?, now).ok()?;
    let tos = match inner.first()? >> 4 {
        4 => *inner.get(ipv4::TOS)?,
        _ => ipv6::traffic_class(*inner.first()?, *inner.get(1)?),
    };
    packet.route = Route { to: packet.client, length: length as u32, tos, dont_fragment: true };
    Some(problem.kind())
}

/// Turns a packet from outside that met `verdict` into the ICMP error about it, to its sender, in front of the border; says
/// of which kind it is. Nothing when none is sent. Who is told may have been made up, as with any router, so there are not many
/// for each client.
#[inline(never)]
pub(super) fn tell_outside(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    verdict: Verdict,
    now: u64,
) -> Option<Kind> {
    let client = client_of(tables, packet.route.to)?;
    let mtu = Room::to(client, tables, now).map_or(0, |room| room.inner());
    let problem = Problem::of(verdict, mtu)?;
    let body = memory.get_mut(packet.start() + HEADER..)?;
    let (payload_type, inner) = body.split_first_chunk_mut::<PAYLOAD_TYPE>()?;
    let allowed = || client.track.allowance.take(tables.errors, now);
    let sources = sources_outside(client, tables);
    let length = icmp::answer(inner, u16::from_be_bytes(*payload_type), problem, sources, allowed)?;
    packet.route = Route { to: OUTSIDE, length: length as u32, ..Route::default() };
    Some(problem.kind())
}

/// The node's address of link scope in every tunnel, each of which is a link (RFC 4291 §2.5.6): the interface identifier is
/// what the node has in IPv4 where it has nothing else, 192.0.0.8.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xc000, 8);

/// What errors to hosts outside come from, unless a NAT puts its address there: an address of the node that they can reach.
fn sources_outside(client: &Client, tables: &Tables) -> Sources {
    let policy = tables.policies.get(client.network as usize).copied().unwrap_or_default();
    let v4 = || addresses(client, tables).find_map(unmapped).map(Ipv4Addr::from);
    Sources { v4: policy.sources.v4.or_else(v4), v6: policy.sources.v6.or_else(|| v6(client, tables)) }
}

/// What errors to a client come from.
fn sources(client: &Client, tables: &Tables) -> Sources {
    let policy = tables.policies.get(client.network as usize).copied().unwrap_or_default();
    let v6 = || v6(client, tables).or(Some(LINK_LOCAL));
    Sources { v6: policy.sources.v6.or_else(v6), ..policy.sources }
}

/// The first IPv6 address among the node's services, that of the client's own before others.
fn v6(client: &Client, tables: &Tables) -> Option<Ipv6Addr> {
    addresses(client, tables).find(|address| unmapped(*address).is_none()).map(Ipv6Addr::from)
}

/// The addresses of the node's services, that of the client's own first.
fn addresses(client: &Client, tables: &Tables) -> impl Iterator<Item = [u8; 16]> {
    let services = tables.services.all();
    services.get(client.service as usize).into_iter().chain(services).map(|service| service.address)
}
