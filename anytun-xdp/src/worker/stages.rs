//! The stages of a batch, in the order in which packets walk them.

use std::ops::Range;

use anytun_common::classify::{Datagram, datagram, network};
use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};
use anytun_common::wire::{ethernet, ipv6};

use super::batch::{End, Live, Packet};
use super::io::PacketIo;
use super::outbox::{Outbox, Receipt};
use super::passage::{Fate, Passage, account, client_of, counters};
use super::stage::Stage;
use super::tell::tell;
use super::way::Way;
use super::{BATCH, Lane};
use crate::mode::encapsulate::{self, Marks};
use crate::mode::fragment::Cut;
use crate::mode::mss;
use crate::mode::open_tunnel;
use crate::mode::tunnel::{self, Route};
use crate::satp::lease::Empty;
use crate::satp::prefetch;
use crate::satp::window::{Fresh, Refusal};
use crate::satp::{Batch, ToOpen, ToSeal};
use crate::table::ways::{Asks, Wayless, Ways};
use crate::table::{Client, Endpoint, Link, OUTSIDE, Tables, Tags};

/// Cache lines of a frame that hold its headers.
const HEADER_LINES: usize = 2;

impl<I: PacketIo> Lane<I> {
    /// Takes the received packets of one port through all stages, into the outboxes; says which are `done`.
    pub(super) fn relay(&mut self, tables: &Tables, ways: &Ways, port: usize, now: u64, mut done: impl FnMut(Stage)) {
        let Self { index, io, tally, received, packets, crypto, outboxes, oversized, identification, asks } = self;
        let asks = &*asks;
        let mut passage = Passage::new(io, received, packets, tables, *index, tally);
        open(&mut passage, crypto, port, now, &mut done);
        passage.packets().for_each(|(memory, packet)| prefetch_route(memory, packet, tables));
        passage.stage_to(|memory, packet, tables| {
            route(memory, packet, tables, ways, asks, port, now).unwrap_or_else(|end| {
                let mtu = largest_outward(memory, packet, ways);
                tell(memory, packet, tables, end.verdict, mtu, now)
                    .map_or(Fate::Ended(end), |kind| Fate::Told(end, kind))
            })
        });
        done(Stage::Route);
        seal(&mut passage, crypto, identification, now, &mut done);
        let (leave, aside) = passage.end();
        pass_on(io, received, packets, leave, outboxes, |io, place, frame, packet| {
            if aside.contains(place) { oversized.push(frame, *packet) } else { io.recycle(frame) }
        });
        done(Stage::Enclose);
    }

    /// Hands over what is in the outboxes.
    pub(super) fn transmit(&mut self, tables: &Tables) {
        let Self { index, io, tally, outboxes, .. } = self;
        let index = *index;
        let (mut forwarded, mut outward) = (0, 0);
        for (port, outbox) in outboxes.iter_mut().enumerate().filter(|(_, outbox)| !outbox.is_empty()) {
            let sent = |receipt: Receipt| match counters(tables, receipt.client, index) {
                Some(counters) => {
                    forwarded += 1;
                    counters.sent(receipt.octets);
                }
                None => outward += 1,
            };
            let refused =
                |receipt: Receipt| account(End::of(receipt.client)(Verdict::TxRingFull), tables, index, tally);
            outbox.transmit(io, port, sent, refused);
        }
        tally.count(Verdict::Forwarded, forwarded);
        tally.count(Verdict::Outward, outward);
    }
}

/// Puts the packets that `leave` into outboxes; the others are for `stays`.
#[inline]
pub(super) fn pass_on<I: PacketIo>(
    io: &mut I,
    frames: &mut Vec<I::Frame>,
    packets: &[Packet; BATCH],
    leave: Live,
    outboxes: &mut [Outbox<I::Frame>],
    mut stays: impl FnMut(&mut I, usize, I::Frame, &Packet),
) {
    for (place, (mut frame, packet)) in frames.drain(..).zip(packets.iter()).enumerate() {
        match outboxes.get_mut(usize::from(packet.slot)).filter(|_| leave.contains(place)) {
            Some(outbox) => {
                io.set_length(&mut frame, packet.end());
                outbox.push(frame, Receipt { client: packet.route.to, octets: packet.length() });
            }
            None => stays(io, place, frame, packet),
        }
    }
}

// A batch waits for memory together: each loop asks for what the next one reads.

/// Takes packets from their outer headers to their inner packets: parse to decrypt.
#[inline]
fn open(passage: &mut Passage<'_, '_>, crypto: &mut Batch, port: usize, now: u64, done: &mut impl FnMut(Stage)) {
    let (tables, worker) = (passage.tables, passage.worker);
    passage.packets().for_each(|(memory, _)| prefetch::slice(memory, HEADER_LINES));
    passage.received(parse);
    let outside = passage.part_outside();
    done(Stage::Parse);
    passage.stage(|_, packet, tables| look_up(packet, tables));
    done(Stage::LookUp);
    for client in passage.packets().filter_map(|(_, packet)| client_of(tables, packet.client)) {
        client.prefetch_opening(worker);
    }
    passage.stage(|_, packet, tables| measure(packet, tables));
    done(Stage::Measure);

    let authentic = crypto.verify(passage.packets().map_while(|(memory, packet)| to_open(memory, packet, tables)));
    done(Stage::Verify);
    let mut places = 0..;
    passage.stage(|memory, packet, tables| {
        packet.place = places.next().unwrap_or(u8::MAX);
        let authentic = authentic.contains(packet.place.into());
        accept(memory, packet, authentic, tables, worker, port, now)
    });
    done(Stage::Accept);
    crypto.decrypt(
        passage
            .packets_mut()
            .map(|(memory, packet)| (packet.place.into(), body(memory, packet, tables).unwrap_or_default())),
    );
    passage.join(outside);
    done(Stage::Decrypt);
}

/// Takes packets whose way is known to whole frames: lay out to enclose, which is done when the frames are passed on.
#[inline]
pub(super) fn seal(
    passage: &mut Passage<'_, '_>,
    crypto: &mut Batch,
    identification: &mut u16,
    now: u64,
    done: &mut impl FnMut(Stage),
) {
    let (tables, worker) = (passage.tables, passage.worker);
    for client in passage.packets().filter_map(|(_, packet)| client_of(tables, packet.route.to)) {
        client.prefetch_sealing(worker);
    }
    let mut lay_out = |memory: &mut [u8], packet: &mut Packet, tables: &Tables| {
        lay_out(memory, packet, tables, worker, now, identification)
    };
    passage.stage_to(|memory, packet, tables| {
        let Err(end) = lay_out(memory, packet, tables) else { return Fate::On };
        if end.verdict == Verdict::TooBig && may_be_cut(memory, packet, tables, now) {
            return Fate::Aside;
        }
        let mtu =
            client_of(tables, packet.route.to).and_then(|to| Way::to(to, tables, now)).map_or(0, |way| way.inner());
        let told = tell(memory, packet, tables, end.verdict, mtu, now);
        match told.filter(|_| lay_out(memory, packet, tables).is_ok()) {
            Some(kind) => Fate::Told(end, kind),
            None => Fate::Ended(end),
        }
    });
    done(Stage::LayOut);
    let sealed = crypto.seal(passage.packets_mut().map_while(|(memory, packet)| to_seal(memory, packet, tables)));
    done(Stage::Seal);
    let mut places = 0..;
    passage.stage(|memory, packet, _| enclose(memory, packet, sealed.contains(places.next().unwrap_or(usize::MAX))));
}

/// Finds the SATP packet in a frame, or the IP packet that came from outside as it is.
#[inline]
fn parse(frame: &[u8], packet: &mut Packet, tables: &Tables) -> Result<(), End> {
    let nobody = |verdict| End { verdict, client: None };
    let network = network(frame).map_err(|_| nobody(Verdict::Stray))?;
    let for_service = |datagram: Datagram| Some((datagram, tables.services.position(&datagram.service_key())?));
    let Some((datagram, service)) = datagram(frame, &network).ok().and_then(for_service) else {
        *packet = Packet::from_outside(&network).ok_or(nobody(Verdict::Stray))?;
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

/// Finds the client whose MUX a packet carries.
#[inline]
fn look_up(packet: &mut Packet, tables: &Tables) -> Result<(), End> {
    let service = tables.services.all().get(packet.service as usize);
    let client = service.and_then(|service| service.client(packet.header.mux));
    packet.client = client.ok_or(End { verdict: Verdict::UnknownMux, client: None })?;
    if let Some(client) = client_of(tables, packet.client) {
        client.prefetch_to_open();
    }
    Ok(())
}

/// Checks that a packet is long enough for its client's tag.
#[inline]
fn measure(packet: &Packet, tables: &Tables) -> Result<(), End> {
    let end = End::of(packet.client);
    let Some(client) = client_of(tables, packet.client) else { return Err(end(Verdict::UnknownMux)) };
    client.windows.prefetch_number(packet.header.sender, packet.header.sequence);
    if packet.length() < HEADER + client.keys.tag() { Err(end(Verdict::Short)) } else { Ok(()) }
}

/// What of a packet is authenticated, and with what. Never nothing, as measure has found both; if it were, no packet from
/// there on would pass.
#[inline]
fn to_open<'a>(memory: &'a [u8], packet: &Packet, tables: &'a Tables) -> Option<ToOpen<'a>> {
    let client = client_of(tables, packet.client)?;
    Some(ToOpen { keys: &client.keys, sender: client.role, packet: memory.get(packet.start()..packet.end())? })
}

/// Takes a packet in if it is authentic and its sequence number is fresh. In this order: nothing that is not authentic
/// changes anything (protocol.md §3.6 and §3.7).
#[inline]
fn accept(
    memory: &[u8],
    packet: &mut Packet,
    authentic: bool,
    tables: &Tables,
    worker: usize,
    port: usize,
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
        learn(memory, packet, client, port);
        return Err(End { verdict: Verdict::Keepalive, client: Some(packet.client) });
    }
    Ok(())
}

/// Payload type and payload of a packet that was received.
#[inline]
fn body<'a>(memory: &'a mut [u8], packet: &Packet, tables: &Tables) -> Option<&'a mut [u8]> {
    let client = client_of(tables, packet.client)?;
    memory.get_mut(packet.start() + HEADER..packet.end().checked_sub(client.keys.tag())?)
}

/// Notes that the client is where this packet came from, if it is the newest of its sender ID.
#[inline]
fn learn(memory: &[u8], packet: &Packet, client: &Client, port: usize) {
    if packet.newest
        && let Some(endpoint) = endpoint(memory, packet, port)
    {
        let Header { sequence, sender, .. } = packet.header;
        client.track.endpoint.learn(&endpoint, || client.windows.is_newest(sender, sequence));
    }
}

/// The way back to the sender of a packet.
#[inline]
fn endpoint(memory: &[u8], packet: &Packet, port: usize) -> Option<Endpoint> {
    let tags = memory.get(ethernet::TYPE..packet.network().checked_sub(2)?)?;
    Some(Endpoint {
        slot: port as u8,
        link: Link::back(memory.first_chunk()?),
        tags: Tags::new(tags)?,
        address: packet.source,
        port: packet.source_port,
    })
}

/// Brings near what decides where an opened packet goes, or one from outside.
#[inline]
fn prefetch_route(memory: &[u8], packet: &Packet, tables: &Tables) {
    let network = match client_of(tables, packet.client) {
        Some(client) => tables.networks.get(client.network as usize),
        None => Some(tables.inside.clients()),
    };
    let body = memory.get(packet.start() + HEADER..);
    if let (Some(network), Some((payload_type, payload))) = (network, body.and_then(<[u8]>::split_first_chunk)) {
        tunnel::prefetch(network, u16::from_be_bytes(*payload_type), payload);
    }
}

/// Decides where a packet from outside goes.
#[inline]
fn route_inward(memory: &mut [u8], packet: &mut Packet, tables: &Tables, port: usize, now: u64) -> Result<Fate, End> {
    let body = memory.get_mut(packet.start() + HEADER..packet.end()).and_then(<[u8]>::split_first_chunk_mut);
    let (payload_type, payload) = body.ok_or(End { verdict: Verdict::MalformedInner, client: None })?;
    let partial = tables.partial.get(port).copied().unwrap_or(false);
    let decided = open_tunnel::inward(tables, u16::from_be_bytes(*payload_type), payload, partial);
    packet.route = decided.map_err(|verdict| End { verdict, client: None })?;
    clamp(memory, packet, tables, now);
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// Decides where an opened packet goes, and notes where its client is, unless the packet is not what the client may send:
/// such a one changes nothing.
#[inline]
fn route(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    ways: &Ways,
    asks: &Asks,
    port: usize,
    now: u64,
) -> Result<Fate, End> {
    if packet.is_from_outside() {
        return route_inward(memory, packet, tables, port, now);
    }
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = client_of(tables, packet.client).ok_or(end(Verdict::UnknownMux))?;
    let decided = body(memory, packet, tables)
        .and_then(|body| body.split_first_chunk_mut::<PAYLOAD_TYPE>())
        .ok_or(Verdict::MalformedInner)
        .and_then(|(payload_type, payload)| {
            let payload_type = u16::from_be_bytes(*payload_type);
            tunnel::route(tables, packet.client, payload_type, payload, packet.tos)
        });
    if !matches!(decided, Err(Verdict::ForeignSource | Verdict::PayloadType | Verdict::MalformedInner)) {
        learn(memory, packet, client, port);
    }
    packet.route = decided.map_err(end)?;
    clamp(memory, packet, tables, now);
    if packet.route.to == OUTSIDE {
        let sender = packet.client;
        leave(memory, packet, ways, asks).map_err(|verdict| End { verdict, client: Some(sender) })?;
        return Ok(Fate::Leave);
    }
    if let Some(client) = client_of(tables, packet.route.to) {
        client.prefetch_to_seal();
    }
    Ok(Fate::On)
}

/// Makes a frame of a packet that leaves an open network as it is.
#[inline]
fn leave(memory: &mut [u8], packet: &mut Packet, ways: &Ways, asks: &Asks) -> Result<(), Verdict> {
    let inner = packet.start() + HEADER + PAYLOAD_TYPE;
    let end = inner + packet.route.length as usize;
    let octets = memory.get(inner..end).ok_or(Verdict::MalformedInner)?;
    let way = open_tunnel::way(ways, octets).map_err(|wayless| match wayless {
        Wayless::Neighbour(next) => {
            asks.ask(next);
            Verdict::NoNeighbour
        }
        _ => Verdict::NoWay,
    })?;
    if octets.len() > usize::from(way.mtu) {
        return Err(Verdict::TooBig);
    }
    let head = open_tunnel::length(&way);
    let total = head + octets.len();
    memory.copy_within(inner..end, head);
    let framed = memory.get_mut(..total).ok_or(Verdict::TooBig)?;
    open_tunnel::write(framed, &way).ok_or(Verdict::TooBig)?;
    packet.place_at(head, total).ok_or(Verdict::TooBig)?;
    packet.slot = way.slot;
    Ok(())
}

/// Makes TCP announce segments that fit the ways to the clients at both ends.
#[inline]
fn clamp(memory: &mut [u8], packet: &Packet, tables: &Tables, now: u64) {
    let ends = || [packet.client, packet.route.to].into_iter().filter_map(|end| client_of(tables, end));
    let policy = ends().next().and_then(|client| tables.policies.get(client.network as usize));
    if policy.is_some_and(|policy| policy.mss_clamp) {
        let narrower = || ends().filter_map(|end| Way::to(end, tables, now)).map(|way| way.inner()).min();
        mss::clamp(memory.get_mut(inner(packet)).unwrap_or_default(), narrower);
    }
}

/// Where in its frame the inner packet of a routed packet lies that is not laid out yet.
#[inline]
pub(super) fn inner(packet: &Packet) -> Range<usize> {
    let start = packet.start() + HEADER + PAYLOAD_TYPE;
    start..start + packet.route.length as usize
}

/// Octets of the largest packet on the way of one that leaves an open network as it is; 0 when there is none.
fn largest_outward(memory: &[u8], packet: &Packet, ways: &Ways) -> usize {
    let inner = memory.get(inner(packet)).filter(|_| packet.route.to == OUTSIDE);
    inner.and_then(|inner| open_tunnel::way(ways, inner).ok()).map_or(0, |way| way.mtu.into())
}

/// Whether a packet that is larger than its way takes can be sent in fragments.
#[inline(never)]
fn may_be_cut(memory: &[u8], packet: &Packet, tables: &Tables, now: u64) -> bool {
    let Some(way) = client_of(tables, packet.route.to).and_then(|to| Way::to(to, tables, now)) else { return false };
    memory.get(inner(packet)).is_some_and(|inner| Cut::new(inner, way.inner()).is_some())
}

/// Decides where in its frame a routed packet is sealed, and with which number, and writes the headers in front of it. The
/// packet stays at its place unless these change in length.
#[inline]
fn lay_out(
    memory: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    worker: usize,
    now: u64,
    identification: &mut u16,
) -> Result<(), End> {
    let Route { to, length, tos, mut dont_fragment } = packet.route;
    let end = |verdict| End { verdict, client: Some(to) };
    let client = client_of(tables, to).ok_or(end(Verdict::NoRoute))?;
    let service = tables.services.all().get(client.service as usize).ok_or(end(Verdict::NoRoute))?;
    let endpoint = client.track.endpoint.load().ok_or(end(Verdict::NoEndpoint))?;
    let way = Way::new(client, &endpoint, tables, now).ok_or(end(Verdict::NoEndpoint))?;
    let head = encapsulate::length(&endpoint);
    let plain = PAYLOAD_TYPE + length as usize;
    let total = head + HEADER + plain + client.keys.tag();
    let from = packet.start();
    if length as usize > way.inner() {
        // An IPv6 packet of a size that every link has to take is cut outside, by the router that told of the path
        // (RFC 2473 §7.2 b).
        let payload_type = memory.get(from + HEADER..).and_then(<[u8]>::first_chunk).copied();
        let small = payload_type == Some(ethernet::IPV6.to_be_bytes()) && length as usize <= ipv6::LEAST_MTU;
        if !small || !endpoint.is_v4() || !way.leaves(length as usize) {
            return Err(end(Verdict::TooBig));
        }
        dont_fragment = false;
    }
    if total > memory.len() {
        return Err(end(Verdict::TooBig));
    }
    if from != head {
        memory.copy_within(from + HEADER..from + HEADER + plain, head + HEADER);
    }
    let sequence = client.sequences.get(worker).ok_or(end(Verdict::NoSequence))?;
    let (sender, sequence) = sequence.take().map_err(|empty| {
        end(match empty {
            Empty::Late => Verdict::NoSequence,
            Empty::Exhausted => Verdict::SequenceExhausted,
        })
    })?;
    if !dont_fragment {
        *identification = identification.wrapping_add(1);
    }
    let marks = Marks { tos, dont_fragment, identification: *identification };
    let framed = memory.get_mut(..total).ok_or(end(Verdict::TooBig))?;
    packet.unsummed = encapsulate::write(framed, &endpoint, service, marks).ok_or(end(Verdict::TooBig))?;
    packet.place_at(head, total).ok_or(end(Verdict::TooBig))?;
    packet.header = Header { sequence, sender, mux: client.mux };
    packet.slot = endpoint.slot;
    Ok(())
}

/// What of a packet that is laid out is sealed, and with what. Never nothing, as there was a client to lay it out for; if
/// it were, no packet from there on would be sealed.
#[inline]
fn to_seal<'a>(memory: &'a mut [u8], packet: &Packet, tables: &'a Tables) -> Option<ToSeal<'a>> {
    let client = client_of(tables, packet.route.to)?;
    let satp = memory.get_mut(packet.start()..packet.end())?;
    Some(ToSeal { keys: &client.keys, sender: client.role.opposite(), header: packet.header, packet: satp })
}

/// Completes the outer headers of a packet that is `sealed`: their checksum runs over all of it.
#[inline]
fn enclose(memory: &mut [u8], packet: &Packet, sealed: bool) -> Result<(), End> {
    let framed = memory.get_mut(..packet.end()).filter(|_| sealed);
    let summed = framed.and_then(|framed| encapsulate::sum(framed, packet.start(), packet.unsummed));
    summed.ok_or(End { verdict: Verdict::TooBig, client: Some(packet.route.to) })
}
