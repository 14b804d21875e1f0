//! The stages of a batch, in the order in which packets walk them.

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};

use super::Lane;
use super::batch::{End, Item, Packet, account, stage};
use super::io::PacketIo;
use super::outbox::Receipt;
use crate::mode::encapsulate::{self, Marks};
use crate::mode::tunnel::{self, Route};
use crate::satp::lease::Empty;
use crate::satp::window::{Fresh, Refusal};
use crate::table::{Client, Endpoint, Tables, Tags};

impl<I: PacketIo> Lane<I> {
    /// Takes the received packets of one port through all stages, into the outboxes.
    pub(super) fn relay(&mut self, tables: &Tables, port: usize, now: u64) {
        let Self { index, io, tally, received, items, ended, outboxes, identification } = self;
        let (index, io) = (*index, &mut *io);
        let mut account = |end| account(end, tables, index, tally);

        for frame in received.drain(..) {
            match parse(io.packet(&frame), tables) {
                Ok(packet) => items.push(Item { frame, packet }),
                Err(end) => {
                    account(end);
                    ended.push(frame);
                }
            }
        }
        stage(items, ended, &mut account, |frame, packet| open(io.buffer(frame), packet, tables, index, port, now));
        stage(items, ended, &mut account, |frame, packet| route(io.buffer(frame), packet, tables, port));
        for Item { mut frame, packet } in items.drain(..) {
            if !packet.route.dont_fragment {
                *identification = identification.wrapping_add(1);
            }
            match seal(io.buffer(&mut frame), &packet, tables, index, *identification) {
                Ok(sealed) => {
                    io.set_length(&mut frame, sealed.length);
                    match outboxes.get_mut(sealed.port) {
                        Some(outbox) => outbox.push(frame, sealed.receipt),
                        None => {
                            account(End::of(sealed.receipt.client)(Verdict::NoEndpoint));
                            ended.push(frame);
                        }
                    }
                }
                Err(end) => {
                    account(end);
                    ended.push(frame);
                }
            }
        }
        for frame in ended.drain(..) {
            io.recycle(frame);
        }
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
    tables.clients.get(client as usize)?.track.counters.get(worker)
}

/// Finds the SATP packet in a frame, and the client whose MUX it carries.
#[inline]
fn parse(frame: &[u8], tables: &Tables) -> Result<Packet, End> {
    let nobody = |verdict| End { verdict, client: None };
    let datagram = classify(frame).map_err(|_| nobody(Verdict::Stray))?;
    let service = tables.services.find(&datagram.service_key()).ok_or(nobody(Verdict::Stray))?;
    if datagram.length < HEADER {
        return Err(nobody(Verdict::Short));
    }
    let header = Header::read(frame, datagram.payload).ok_or(nobody(Verdict::Short))?;
    let client = service.client(header.mux).ok_or(nobody(Verdict::UnknownMux))?;
    Ok(Packet { datagram, header, client, newest: false, route: Route::default() })
}

/// Authenticates a packet, checks its sequence number and decrypts. In this order: nothing that is not authentic changes
/// anything (protocol.md §3.6 and §3.7).
#[inline]
fn open(
    buffer: &mut [u8],
    packet: &mut Packet,
    tables: &Tables,
    worker: usize,
    port: usize,
    now: u64,
) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = tables.clients.get(packet.client as usize).ok_or(end(Verdict::UnknownMux))?;
    let datagram = &packet.datagram;
    let satp = buffer.get(datagram.payload..datagram.payload + datagram.length).ok_or(end(Verdict::Short))?;
    let tag = client.keys.tag();
    if satp.len() < HEADER + tag {
        return Err(end(Verdict::Short));
    }
    if !client.keys.verify(client.role, satp) {
        return Err(end(Verdict::BadTag));
    }
    let Header { sequence, sender, .. } = packet.header;
    let fresh = client.windows.accept(sender, sequence).map_err(|refusal| {
        end(match refusal {
            Refusal::Replayed => Verdict::Replayed,
            Refusal::SenderLimit => Verdict::SenderLimit,
        })
    })?;
    if let Some(counters) = client.track.counters.get(worker) {
        counters.received(datagram.length);
    }
    client.track.heard(now);
    packet.newest = fresh == Fresh::Newest;
    let body = packet.datagram.length - HEADER - tag;
    if body <= PAYLOAD_TYPE {
        learn(buffer, packet, client, port);
        return Err(end(Verdict::Keepalive));
    }
    let start = packet.datagram.payload + HEADER;
    let body = buffer.get_mut(start..start + body).ok_or(end(Verdict::Short))?;
    client.keys.crypt(client.role, &packet.header, body);
    Ok(())
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

/// Decides where an opened packet goes, and notes where its client is, unless the packet is not what the client may send:
/// such a one changes nothing.
#[inline]
fn route(buffer: &mut [u8], packet: &mut Packet, tables: &Tables, port: usize) -> Result<(), End> {
    let end = |verdict| End { verdict, client: Some(packet.client) };
    let client = tables.clients.get(packet.client as usize).ok_or(end(Verdict::UnknownMux))?;
    let start = packet.datagram.payload + HEADER;
    let stop = packet.datagram.payload + packet.datagram.length - client.keys.tag();
    let decided = buffer
        .get_mut(start..stop)
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
    Ok(())
}

/// A packet ready to be transmitted.
struct Sealed {
    port: usize,
    length: usize,
    receipt: Receipt,
}

/// Seals a routed packet for the client it goes to and puts new headers in front. The packet stays in its frame, and at
/// its place unless the headers before it change in length.
#[inline]
fn seal(
    buffer: &mut [u8],
    packet: &Packet,
    tables: &Tables,
    worker: usize,
    identification: u16,
) -> Result<Sealed, End> {
    let Route { to, length, tos, dont_fragment } = packet.route;
    let end = |verdict| End { verdict, client: Some(to) };
    let client: &Client = tables.clients.get(to as usize).ok_or(end(Verdict::NoRoute))?;
    let service = tables.services.all().get(client.service as usize).ok_or(end(Verdict::NoRoute))?;
    let endpoint = client.track.endpoint.load().ok_or(end(Verdict::NoEndpoint))?;
    let head = encapsulate::length(&endpoint);
    let plain = PAYLOAD_TYPE + length;
    let total = head + HEADER + plain + client.keys.tag();
    let mtu = tables.mtus.get(usize::from(endpoint.slot)).copied().unwrap_or(0);
    if encapsulate::network_length(&endpoint, total) > mtu || total > buffer.len() {
        return Err(end(Verdict::TooBig));
    }
    let (from, target) = (packet.datagram.payload, head);
    if from != target {
        buffer.copy_within(from + HEADER..from + HEADER + plain, target + HEADER);
    }
    let sequence = client.sequences.get(worker).ok_or(end(Verdict::NoSequence))?;
    let (sender, sequence) = sequence.take().map_err(|empty| {
        end(match empty {
            Empty::Late => Verdict::NoSequence,
            Empty::Exhausted => Verdict::SequenceExhausted,
        })
    })?;
    let header = Header { sequence, sender, mux: client.mux };
    let framed = buffer.get_mut(..total).ok_or(end(Verdict::TooBig))?;
    let octets = framed
        .get_mut(head..)
        .and_then(|satp| client.keys.seal(client.role.opposite(), &header, satp, plain))
        .ok_or(end(Verdict::TooBig))?;
    encapsulate::write(framed, &endpoint, service, Marks { tos, dont_fragment, identification })
        .ok_or(end(Verdict::TooBig))?;
    Ok(Sealed { port: usize::from(endpoint.slot), length: total, receipt: Receipt { client: to, octets } })
}
