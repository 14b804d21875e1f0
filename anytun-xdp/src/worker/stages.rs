//! The stages of a batch, in the order in which packets walk them.

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};

use super::Lane;
use super::batch::{End, Item, Layout, Packet, account, stage};
use super::io::PacketIo;
use super::outbox::Receipt;
use super::stage::Stage;
use crate::mode::encapsulate::{self, Marks};
use crate::mode::tunnel::{self, Route};
use crate::satp::lease::Empty;
use crate::satp::prefetch;
use crate::satp::window::{Fresh, Refusal};
use crate::satp::{ToOpen, ToSeal};
use crate::table::{Client, Endpoint, Tables, Tags};

/// Cache lines of a frame that hold its headers.
const HEADER_LINES: usize = 2;

impl<I: PacketIo> Lane<I> {
    /// Takes the received packets of one port through all stages, into the outboxes; says which are `done`.
    pub(super) fn relay(&mut self, tables: &Tables, port: usize, now: u64, mut done: impl FnMut(Stage)) {
        let Self { index, io, tally, received, items, layouts, crypto, ended, outboxes, identification } = self;
        let (index, io) = (*index, &mut *io);
        let mut account = |end| account(end, tables, index, tally);

        // A batch waits for memory together: each loop asks for what the next one reads.
        received.iter().for_each(|frame| prefetch::slice(io.packet(frame), HEADER_LINES));
        for frame in received.drain(..) {
            match parse(io.packet(&frame), tables) {
                Ok(packet) => items.push(Item { frame, packet }),
                Err(end) => {
                    account(end);
                    ended.push(frame);
                }
            }
        }
        done(Stage::Parse);

        stage(items, ended, &mut account, |_, packet| look_up(packet, tables));
        done(Stage::LookUp);
        for Item { packet, .. } in items.iter() {
            if let Some(client) = tables.clients.get(packet.client as usize) {
                client.prefetch_opening(index);
            }
        }
        stage(items, ended, &mut account, |frame, packet| measure(io.packet(frame), packet, tables));
        done(Stage::Measure);

        let authentic = crypto.verify(items.iter().map_while(|item| to_open(io.packet(&item.frame), item, tables)));
        done(Stage::Verify);
        let mut places = 0..;
        stage(items, ended, &mut account, |frame, packet| {
            packet.place = places.next().unwrap_or(usize::MAX);
            let authentic = authentic.contains(packet.place);
            accept(io.packet(frame), packet, authentic, tables, index, port, now)
        });
        done(Stage::Accept);
        crypto.decrypt(items.iter_mut().map(|item| to_decrypt(io.buffer(&mut item.frame), &item.packet, tables)));
        done(Stage::Decrypt);

        items.iter().for_each(|item| prefetch_route(io.packet(&item.frame), &item.packet, tables));
        stage(items, ended, &mut account, |frame, packet| route(io.buffer(frame), packet, tables, port));
        done(Stage::Route);

        for Item { packet, .. } in items.iter() {
            if let Some(client) = tables.clients.get(packet.route.to as usize) {
                client.prefetch_sealing(index);
            }
        }
        stage(items, ended, &mut account, |frame, packet| {
            if !packet.route.dont_fragment {
                *identification = identification.wrapping_add(1);
            }
            layouts.push(lay_out(io.buffer(frame), packet, tables, index, *identification)?);
            Ok(())
        });
        done(Stage::LayOut);
        let laid_out = items.iter_mut().zip(layouts.iter());
        let sealed = crypto.seal(
            laid_out.map_while(|(Item { frame, packet }, layout)| to_seal(io.buffer(frame), packet, layout, tables)),
        );
        done(Stage::Seal);
        for (place, (Item { mut frame, packet }, layout)) in items.drain(..).zip(layouts.drain(..)).enumerate() {
            let end = match enclose(io.buffer(&mut frame), &packet, &layout, sealed.contains(place), tables) {
                Ok(()) => {
                    io.set_length(&mut frame, layout.total);
                    match outboxes.get_mut(usize::from(layout.endpoint.slot)) {
                        Some(outbox) => {
                            let octets = layout.total - layout.head;
                            outbox.push(frame, Receipt { client: packet.route.to, octets });
                            continue;
                        }
                        None => Verdict::NoEndpoint,
                    }
                }
                Err(verdict) => verdict,
            };
            account(End::of(packet.route.to)(end));
            ended.push(frame);
        }
        for frame in ended.drain(..) {
            io.recycle(frame);
        }
        done(Stage::Enclose);
    }

    /// Hands over what is in the outboxes.
    pub(super) fn transmit(&mut self, tables: &Tables) {
        let Self { index, io, tally, outboxes, .. } = self;
        let index = *index;
        let mut forwarded = 0;
        for (port, outbox) in outboxes.iter_mut().enumerate().filter(|(_, outbox)| !outbox.is_empty()) {
            let sent = |receipt: Receipt| {
                forwarded += 1;
                if let Some(counters) = counters(tables, receipt.client, index) {
                    counters.sent(receipt.octets);
                }
            };
            let refused =
                |receipt: Receipt| account(End::of(receipt.client)(Verdict::TxRingFull), tables, index, tally);
            outbox.transmit(io, port, sent, refused);
        }
        tally.count(Verdict::Forwarded, forwarded);
    }
}

/// The counters of a client that `worker` writes.
#[inline]
fn counters(tables: &Tables, client: u32, worker: usize) -> Option<&crate::table::ClientCounters> {
    tables.clients.get(client as usize)?.counters.get(worker)
}

/// Finds the SATP packet in a frame.
#[inline]
fn parse(frame: &[u8], tables: &Tables) -> Result<Packet, End> {
    let nobody = |verdict| End { verdict, client: None };
    let datagram = classify(frame).map_err(|_| nobody(Verdict::Stray))?;
    let service = tables.services.position(&datagram.service_key()).ok_or(nobody(Verdict::Stray))?;
    if datagram.length < HEADER {
        return Err(nobody(Verdict::Short));
    }
    let header = Header::read(frame, datagram.payload).ok_or(nobody(Verdict::Short))?;
    if let Some(service) = tables.services.all().get(service as usize) {
        service.prefetch_client(header.mux);
    }
    Ok(Packet { datagram, header, service, client: 0, place: 0, newest: false, route: Route::default() })
}

/// Finds the client whose MUX a packet carries.
#[inline]
fn look_up(packet: &mut Packet, tables: &Tables) -> Result<(), End> {
    let service = tables.services.all().get(packet.service as usize);
    let client = service.and_then(|service| service.client(packet.header.mux));
    packet.client = client.ok_or(End { verdict: Verdict::UnknownMux, client: None })?;
    if let Some(client) = tables.clients.get(packet.client as usize) {
        client.prefetch_to_open();
    }
    Ok(())
}

/// Checks that a packet is long enough for its client's tag.
#[inline]
fn measure(frame: &[u8], packet: &Packet, tables: &Tables) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = tables.clients.get(packet.client as usize).ok_or(end(Verdict::UnknownMux))?;
    client.windows.prefetch_number(packet.header.sender, packet.header.sequence);
    let Packet { datagram, .. } = packet;
    if datagram.length < HEADER + client.keys.tag() || frame.len() < datagram.payload + datagram.length {
        return Err(end(Verdict::Short));
    }
    Ok(())
}

/// What of a packet is authenticated, and with what. Never nothing, as measure has found both; if it were, no packet from
/// there on would pass.
#[inline]
fn to_open<'a, F>(frame: &'a [u8], item: &Item<F>, tables: &'a Tables) -> Option<ToOpen<'a>> {
    let client = tables.clients.get(item.packet.client as usize)?;
    let datagram = &item.packet.datagram;
    let packet = frame.get(datagram.payload..datagram.payload + datagram.length)?;
    Some(ToOpen { keys: &client.keys, sender: client.role, packet })
}

/// Takes a packet in if it is authentic and its sequence number is fresh. In this order: nothing that is not authentic
/// changes anything (protocol.md §3.6 and §3.7).
#[inline]
fn accept(
    frame: &[u8],
    packet: &mut Packet,
    authentic: bool,
    tables: &Tables,
    worker: usize,
    port: usize,
    now: u64,
) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = tables.clients.get(packet.client as usize).ok_or(end(Verdict::UnknownMux))?;
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
        counters.received(packet.datagram.length);
    }
    client.track.heard(now);
    packet.newest = fresh == Fresh::Newest;
    if packet.datagram.length - HEADER - client.keys.tag() <= PAYLOAD_TYPE {
        learn(frame, packet, client, port);
        return Err(end(Verdict::Keepalive));
    }
    Ok(())
}

/// The encrypted part of an accepted packet.
#[inline]
fn to_decrypt<'a>(buffer: &'a mut [u8], packet: &Packet, tables: &Tables) -> (usize, &'a mut [u8]) {
    (packet.place, body(buffer, packet, tables).unwrap_or_default())
}

/// Payload type and payload of a packet that was received.
#[inline]
fn body<'a>(buffer: &'a mut [u8], packet: &Packet, tables: &Tables) -> Option<&'a mut [u8]> {
    let client = tables.clients.get(packet.client as usize)?;
    let start = packet.datagram.payload + HEADER;
    let stop = (packet.datagram.payload + packet.datagram.length).checked_sub(client.keys.tag())?;
    buffer.get_mut(start..stop)
}

/// Notes that the client is where this packet came from, if it is the newest of its sender ID.
#[inline]
fn learn(frame: &[u8], packet: &Packet, client: &Client, port: usize) {
    if packet.newest
        && let Some(endpoint) = endpoint(frame, packet, port)
    {
        let Header { sequence, sender, .. } = packet.header;
        client.track.endpoint.learn(&endpoint, || client.windows.is_newest(sender, sequence));
    }
}

/// The way back to the sender of a packet.
#[inline]
fn endpoint(frame: &[u8], packet: &Packet, port: usize) -> Option<Endpoint> {
    let tags = frame.get(ethernet::TYPE..packet.datagram.network.checked_sub(2)?)?;
    Some(Endpoint {
        slot: port as u8,
        local: *frame.first_chunk()?,
        neighbour: *frame.get(ethernet::SOURCE..)?.first_chunk()?,
        tags: Tags::new(tags)?,
        address: packet.datagram.source,
        port: packet.datagram.source_port,
    })
}

/// Brings near what decides where an opened packet goes.
#[inline]
fn prefetch_route(frame: &[u8], packet: &Packet, tables: &Tables) {
    let Some(client) = tables.clients.get(packet.client as usize) else { return };
    let body = frame.get(packet.datagram.payload + HEADER..);
    if let Some((payload_type, payload)) = body.and_then(<[u8]>::split_first_chunk) {
        tunnel::prefetch(tables, client, u16::from_be_bytes(*payload_type), payload);
    }
}

/// Decides where an opened packet goes, and notes where its client is, unless the packet is not what the client may send:
/// such a one changes nothing.
#[inline]
fn route(buffer: &mut [u8], packet: &mut Packet, tables: &Tables, port: usize) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = tables.clients.get(packet.client as usize).ok_or(end(Verdict::UnknownMux))?;
    let decided = body(buffer, packet, tables)
        .and_then(|body| body.split_first_chunk_mut::<PAYLOAD_TYPE>())
        .ok_or(Verdict::MalformedInner)
        .and_then(|(payload_type, payload)| {
            let payload_type = u16::from_be_bytes(*payload_type);
            tunnel::route(tables, packet.client, payload_type, payload, packet.datagram.tos)
        });
    if !matches!(decided, Err(Verdict::ForeignSource | Verdict::PayloadType | Verdict::MalformedInner)) {
        learn(buffer, packet, client, port);
    }
    packet.route = decided.map_err(end)?;
    if let Some(client) = tables.clients.get(packet.route.to as usize) {
        client.prefetch_to_seal();
    }
    Ok(())
}

/// Decides where in its frame a routed packet is sealed, and with which number. The packet stays at its place unless the
/// headers before it change in length.
#[inline]
fn lay_out(
    buffer: &mut [u8],
    packet: &Packet,
    tables: &Tables,
    worker: usize,
    identification: u16,
) -> Result<Layout, End> {
    let Route { to, length, .. } = packet.route;
    let end = |verdict| End { verdict, client: Some(to) };
    let client: &Client = tables.clients.get(to as usize).ok_or(end(Verdict::NoRoute))?;
    let endpoint = client.track.endpoint.load().ok_or(end(Verdict::NoEndpoint))?;
    let head = encapsulate::length(&endpoint);
    let plain = PAYLOAD_TYPE + length;
    let total = head + HEADER + plain + client.keys.tag();
    let mtu = tables.mtus.get(usize::from(endpoint.slot)).copied().unwrap_or(0);
    if encapsulate::network_length(&endpoint, total) > mtu || total > buffer.len() {
        return Err(end(Verdict::TooBig));
    }
    let from = packet.datagram.payload;
    if from != head {
        buffer.copy_within(from + HEADER..from + HEADER + plain, head + HEADER);
    }
    let sequence = client.sequences.get(worker).ok_or(end(Verdict::NoSequence))?;
    let (sender, sequence) = sequence.take().map_err(|empty| {
        end(match empty {
            Empty::Late => Verdict::NoSequence,
            Empty::Exhausted => Verdict::SequenceExhausted,
        })
    })?;
    let header = Header { sequence, sender, mux: client.mux };
    Ok(Layout { endpoint, head, total, header, identification })
}

/// What of a packet that is laid out is sealed, and with what. Never nothing, as there was a client to lay it out for; if
/// it were, no packet from there on would be sealed.
#[inline]
fn to_seal<'a>(buffer: &'a mut [u8], packet: &Packet, layout: &Layout, tables: &'a Tables) -> Option<ToSeal<'a>> {
    let client = tables.clients.get(packet.route.to as usize)?;
    let packet = buffer.get_mut(layout.head..layout.total)?;
    Some(ToSeal { keys: &client.keys, sender: client.role.opposite(), header: layout.header, packet })
}

/// Puts the outer headers in front of a packet that is `sealed`: their checksum runs over all of it.
#[inline]
fn enclose(buffer: &mut [u8], packet: &Packet, layout: &Layout, sealed: bool, tables: &Tables) -> Result<(), Verdict> {
    let Route { to, tos, dont_fragment, .. } = packet.route;
    let client = tables.clients.get(to as usize).ok_or(Verdict::NoRoute)?;
    let service = tables.services.all().get(client.service as usize).ok_or(Verdict::NoRoute)?;
    let framed = buffer.get_mut(..layout.total).filter(|_| sealed).ok_or(Verdict::TooBig)?;
    let marks = Marks { tos, dont_fragment, identification: layout.identification };
    encapsulate::write(framed, &layout.endpoint, service, marks).ok_or(Verdict::TooBig)
}
