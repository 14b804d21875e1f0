//! Senders are told of packets that go no further.

use std::net::Ipv6Addr;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use anytun_common::wire::{ipv4, ipv6, unmapped};

use super::batch::Packet;
use super::passage::client_of;
use crate::mode::icmp::{self, Kind, Problem};
use crate::mode::tunnel::{self, Route};
use crate::table::{Client, Sources, Tables};

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
    let allowed = || client.track.errors.take(tables.errors, now);
    let length = icmp::answer(inner, payload_type, problem, sources(client, tables), allowed)?;
    let tos = match inner.first()? >> 4 {
        4 => *inner.get(ipv4::TOS)?,
        _ => ipv6::traffic_class(*inner.first()?, *inner.get(1)?),
    };
    packet.route = Route { to: packet.client, length: length as u32, tos, dont_fragment: true };
    Some(problem.kind())
}

/// What errors to a client come from.
fn sources(client: &Client, tables: &Tables) -> Sources {
    let policy = tables.policies.get(client.network as usize).copied().unwrap_or_default();
    let service = || tables.services.all().get(client.service as usize).map(|service| service.address);
    let v6 = || service().filter(|address| unmapped(*address).is_none()).map(Ipv6Addr::from);
    Sources { v6: policy.sources.v6.or_else(v6), ..policy.sources }
}
