//! The first stages: from outer headers to opened packets.

use anytun_common::classify::{Datagram, Network, datagram, network, plain};
use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};

use super::batch::{End, Live, Packet};
use super::head::{Before, Head};
use super::passage::{Passage, client_of};
use super::stage::Stage;
use crate::satp::window::{Fresh, Refusal};
use crate::satp::{Batch, ToOpen, prefetch};
use crate::table::ways::{Asks, Way, Wayless, Ways};
use crate::table::{Client, Endpoint, Evidence, Link, NOBODY, Tables, Tags};

/// By whom packets were received.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// By the socket of this port.
    Port(usize),
    /// By the kernel, from wherever: the ways out of the node say what the frames would have.
    Kernel { ways: &'a Ways, asks: &'a Asks },
}

/// Cache lines of a frame that hold its headers.
const HEADER_LINES: usize = 2;

// A batch waits for memory together: each loop asks for what the next one reads.

/// Takes packets from their outer headers to their inner packets: parse to decrypt.
#[inline]
pub(super) fn open(
    passage: &mut Passage<'_, '_>,
    crypto: &mut Batch,
    origin: Origin<'_>,
    now: u64,
    done: &mut impl FnMut(Stage),
) {
    let (tables, worker) = (passage.tables, passage.worker);
    passage.packets().for_each(|(memory, _)| prefetch::slice(memory, HEADER_LINES));
    let (mut any_outside, mut before) = (false, Before::default());
    passage.received(|frame, packet, tables| {
        parse(frame, packet, tables, &mut before)?;
        any_outside |= packet.is_from_outside();
        Ok(())
    });
    let outside = if any_outside { passage.part_outside() } else { Live::all(0) };
    done(Stage::Parse);
    let mut last = None;
    passage.stage(|_, packet, tables| look_up(packet, tables, &mut last));
    done(Stage::LookUp);
    passage.senders().for_each(|client| client.prefetch_opening(worker));
    let (mut is_sealed, mut last) = (false, NOBODY);
    passage.stage(|_, packet, tables| measure(packet, tables, &mut is_sealed, &mut last));
    done(Stage::Measure);

    let authentic = is_sealed
        .then(|| crypto.verify(passage.packets().map_while(|(memory, packet)| to_open(memory, packet, tables))));
    done(Stage::Verify);
    let mut places = 0..;
    passage.stage(|memory, packet, tables| {
        packet.place = places.next().unwrap_or(u8::MAX);
        let authentic = authentic.is_none_or(|authentic| authentic.contains(packet.place.into()));
        accept(memory, packet, authentic, tables, worker, origin, now)
    });
    done(Stage::Accept);
    if is_sealed {
        crypto.decrypt(
            passage
                .packets_mut()
                .map(|(memory, packet)| (packet.place.into(), body(memory, packet, tables).unwrap_or_default())),
        );
    }
    passage.join(outside);
    done(Stage::Decrypt);
}

/// Finds the SATP packet in a frame, or the IP packet that came from outside as it is.
#[inline]
fn parse(frame: &[u8], packet: &mut Packet, tables: &Tables, before: &mut Before) -> Result<(), End> {
    let head = Head::of(frame);
    if let Some(like) = head.as_ref().and_then(|head| before.parsed(head, frame)) {
        *packet = like;
        return Ok(());
    }
    match plain(frame) {
        Some(network) => {
            find(frame, &network, packet, tables)?;
            if let Some(head) = head {
                before.note(head, packet);
            }
            Ok(())
        }
        None => parse_any(frame, packet, tables),
    }
}

/// The same in a frame of any kind.
#[inline(never)]
fn parse_any(frame: &[u8], packet: &mut Packet, tables: &Tables) -> Result<(), End> {
    let network = network(frame).map_err(|_| End { verdict: Verdict::Stray, client: None })?;
    find(frame, &network, packet, tables)
}

/// The same behind an IP header.
#[inline(always)]
fn find(frame: &[u8], network: &Network, packet: &mut Packet, tables: &Tables) -> Result<(), End> {
    let nobody = |verdict| End { verdict, client: None };
    let for_service = |datagram: Datagram| Some((datagram, tables.services.position(&datagram.service_key())?));
    let Some((datagram, service)) = datagram(frame, network).ok().and_then(for_service) else {
        *packet = Packet::from_outside(network).ok_or(nobody(Verdict::Stray))?;
        return Ok(());
    };
    let header = Header::read(frame, datagram.payload).filter(|_| datagram.length >= HEADER);
    let header = header.ok_or(nobody(Verdict::Short))?;
    if let Some(service) = tables.services.all().get(service as usize) {
        service.prefetch_client(header.mux);
    }
    *packet = Packet::new(&datagram, header, service).ok_or(nobody(Verdict::Stray))?;
    Ok(())
}

/// Finds the client whose MUX a packet carries. `last` is what was found for the one before it: by service and MUX, which
/// client.
#[inline]
fn look_up(packet: &mut Packet, tables: &Tables, last: &mut Option<(u32, u16, u32)>) -> Result<(), End> {
    let mux = packet.header.mux;
    if let Some((_, _, client)) = last.filter(|last| (last.0, last.1) == (packet.service, mux)) {
        packet.client = client;
        return Ok(());
    }
    let service = tables.services.all().get(packet.service as usize);
    let client = service.and_then(|service| service.client(mux));
    packet.client = client.ok_or(End { verdict: Verdict::UnknownMux, client: None })?;
    *last = Some((packet.service, mux, packet.client));
    if let Some(client) = client_of(tables, packet.client) {
        client.prefetch_to_open();
    }
    Ok(())
}

/// Checks that a packet is long enough for its client's tag, and notes if there is anything to be opened. `last` is the client
/// of the one before it.
#[inline]
fn measure(packet: &Packet, tables: &Tables, is_sealed: &mut bool, last: &mut u32) -> Result<(), End> {
    let end = End::of(packet.client);
    let Some(client) = client_of(tables, packet.client) else { return Err(end(Verdict::UnknownMux)) };
    // What follows of the same client is mostly beside it.
    if std::mem::replace(last, packet.client) != packet.client {
        client.windows.prefetch_number(packet.header.sender, packet.header.sequence);
    }
    *is_sealed |= client.keys.is_sealing();
    if packet.length() < HEADER + client.keys.tag() { Err(end(Verdict::Short)) } else { Ok(()) }
}

/// What of a packet is authenticated, and with what. Never nothing, as measure has found both; if it were, no packet from
/// there on would pass where any is authenticated.
#[inline]
fn to_open<'a>(memory: &'a [u8], packet: &Packet, tables: &'a Tables) -> Option<ToOpen<'a>> {
    let client = client_of(tables, packet.client)?;
    Some(ToOpen { keys: &client.keys, sender: client.role, packet: memory.get(packet.start()..packet.end())? })
}

/// Takes a packet in if it is authentic and its sequence number is fresh. In this order: nothing that is not authentic
/// changes anything (protocol.md §3.6 and §3.7).
#[inline(always)]
fn accept(
    memory: &[u8],
    packet: &mut Packet,
    authentic: bool,
    tables: &Tables,
    worker: usize,
    origin: Origin<'_>,
    now: u64,
) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = client_of(tables, packet.client).ok_or(end(Verdict::UnknownMux))?;
    if !authentic {
        return Err(end(Verdict::BadTag));
    }
    let Header { sequence, sender, .. } = packet.header;
    let fresh = client.windows.accept(sender, sequence).map_err(|refusal| {
        end(match refusal {
            Refusal::Replayed => Verdict::Replayed,
            Refusal::SenderLimit => Verdict::SenderLimit,
        })
    })?;
    if let Some(counters) = client.counters.get(worker) {
        counters.received(packet.length());
    }
    client.track.heard(now);
    packet.newest = fresh == Fresh::Newest;
    if packet.length() <= HEADER + PAYLOAD_TYPE + client.keys.tag() {
        if packet.newest {
            learn(memory, packet, client, tables, origin);
        }
        return Err(End { verdict: Verdict::Keepalive, client: Some(packet.client) });
    }
    Ok(())
}

/// Payload type and payload of a packet that was received.
#[inline]
pub(super) fn body<'a>(memory: &'a mut [u8], packet: &Packet, tables: &Tables) -> Option<&'a mut [u8]> {
    let client = client_of(tables, packet.client)?;
    memory.get_mut(packet.start() + HEADER..packet.end().checked_sub(client.keys.tag())?)
}

/// From where the last packet of a batch came, if its client is known to be there. Its packets often come right behind one
/// another, and then there is nothing new to learn: what another worker learns in the meantime counts as if it had come after
/// them, until the next batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    last: Option<Place>,
}

/// What an untagged packet tells of its client's place: who it is, the outer port and address, and the Ethernet addresses.
type Place = (u32, u16, u128, [u8; ethernet::TYPE]);

/// The place that a packet tells of; nothing of a tagged one.
#[inline]
fn place(memory: &[u8], packet: &Packet) -> Option<Place> {
    let link = memory.first_chunk().filter(|_| packet.network() == ethernet::HEADER)?;
    Some((packet.client, packet.source_port, u128::from_ne_bytes(packet.source), *link))
}

/// [Learns](learn) from a packet, unless the one before it in its batch has told the same.
#[inline]
pub(super) fn follow(
    memory: &[u8],
    packet: &Packet,
    client: &Client,
    tables: &Tables,
    origin: Origin<'_>,
    heard: &mut Heard,
) {
    if !packet.newest {
        return;
    }
    let place = place(memory, packet);
    if place.is_none() || place != heard.last {
        let is_known = learn(memory, packet, client, tables, origin);
        // Not what is new: of a batch that only the newest packet can teach, as all were accepted before.
        heard.last = place.filter(|_| is_known);
    }
}

/// Notes that the client is where this packet came from, if it is the newest of its sender ID. Returns whether that was known.
#[inline(never)]
fn learn(memory: &[u8], packet: &Packet, client: &Client, tables: &Tables, origin: Origin<'_>) -> bool {
    let learn = |endpoint: Endpoint| {
        let Header { sequence, sender, .. } = packet.header;
        let is_known = client.track.endpoint.is_at(&endpoint);
        if !is_known {
            client.track.endpoint.learn(&endpoint, || client.windows.is_newest(sender, sequence));
        }
        is_known
    };
    // Each by itself, so that what a frame tells stays in registers until it is compared.
    match origin {
        Origin::Port(port) => back(memory, packet, port).is_some_and(learn),
        Origin::Kernel { ways, asks } => by_routes(packet, client, tables, ways, asks).is_some_and(learn),
    }
}

/// The way that a packet came, turned around.
#[inline]
fn back(memory: &[u8], packet: &Packet, port: usize) -> Option<Endpoint> {
    let tags = memory.get(ethernet::TYPE..packet.network().checked_sub(2)?)?;
    let link = Link::back(memory.first_chunk()?);
    Some(Endpoint::new(port as u8, link, Tags::new(tags)?, packet.source, packet.source_port))
}

/// The way by which the kernel would answer a packet that it received: it has kept to itself by which the packet came. Nothing
/// for a client whose frames have told that it is there, as these tell more than routes do; and nothing while the next hop is
/// not known, which the next packet finds.
#[inline(never)]
fn by_routes(packet: &Packet, client: &Client, tables: &Tables, ways: &Ways, asks: &Asks) -> Option<Endpoint> {
    let (address, port) = (packet.source, packet.source_port);
    let told = client.track.endpoint.load().filter(|known| known.evidence() == Evidence::Frame);
    if told.is_some_and(|known| (known.address(), known.port()) == (address, port)) {
        return None;
    }
    let service = tables.services.all().get(packet.service as usize)?;
    match ways.find(&address, &service.address, 0) {
        Ok(Way { slot, link, tags, .. }) => {
            Some(Endpoint::new(slot, link, tags, address, port).told_by(Evidence::Datagram))
        }
        Err(Wayless::Neighbour(next)) => {
            asks.ask(next);
            None
        }
        Err(_) => None,
    }
}
