//! Packets between the clients of a network and the kernel of the node, by the slow path: IP packets, and frames in an Ethernet
//! network.

use std::time::Duration;

use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, PAYLOAD_TYPE};
use anytun_common::wire::{ethernet, ipv4, udp};

use super::batch::Packet;
use super::counters::Tally;
use super::io::PacketIo;
use super::passage::{Fate, client_of};
use super::room::Room;
use super::slow::{Inlet, Parcel, Way, WorkerHalf};
use super::stages::{clamp, inner};
use super::{Lane, REST};
use crate::mode::fragment::Cut;
use crate::mode::icmp::Problem;
use crate::mode::tunnel::Route;
use crate::mode::{bridge, local};
use crate::table::ways::Ways;
use crate::table::{Allowance, Bridge, KERNEL, NOBODY, Tables, is_group};

/// Packets of the kernel that a worker takes in one turn: those of clients are not to wait for many.
const TURN: usize = 16;

/// Where in its frame the SATP packet is put that a packet of the kernel becomes: there it stays when the way to the client
/// is IPv4 without VLAN tags.
pub(super) const START: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER;

/// What a worker has of the slow path.
#[derive(Debug)]
pub(super) struct Local {
    half: WorkerHalf,
    /// The ICMP errors that the kernel may be sent.
    errors: Allowance,
}

impl Local {
    pub(super) fn new(half: WorkerHalf) -> Self {
        Self { half, errors: Allowance::default() }
    }
}

/// Hands a routed packet over to the kernel, by the device of the client's network; says what became of it.
#[inline(never)]
pub(super) fn deliver(memory: &[u8], packet: &Packet, tables: &Tables, local: &mut Option<Local>) -> Verdict {
    let network = client_of(tables, packet.client).map(|client| client.network);
    let device = network.and_then(|network| tables.devices.of_network(network));
    let (Some(local), Some(device), Some(octets)) = (local, device, memory.get(inner(packet))) else {
        return Verdict::NoRoute;
    };
    if !stays(network.unwrap_or_default(), octets, tables) {
        return Verdict::NoRoute;
    }
    local.half.send(Way::Device(device), packet.client, octets).err().unwrap_or(Verdict::Delivered)
}

/// Whether the kernel is to keep a packet that is handed over to it, as far as that is not decided by its route. Where the
/// node has no address in an Ethernet network its device is a part of somebody's bridge.
fn stays(network: u32, octets: &[u8], tables: &Tables) -> bool {
    let has_address = || {
        let policy = tables.policies.get(network as usize);
        policy.is_some_and(|policy| policy.sources.v4.is_some() || policy.sources.v6.is_some())
    };
    match (tables.bridge(network), tables.networks.get(network as usize)) {
        (Some(bridge), Some(own)) if has_address() => bridge::is_for_node(bridge, own, octets),
        _ => true,
    }
}

impl<I: PacketIo> Lane<I> {
    /// Takes packets of the kernel through the last stages, and sends them; returns how many. Then makes sure that the kernel
    /// gets what was handed over.
    #[inline]
    pub(super) fn exchange(&mut self, tables: &Tables, ways: &Ways, now: u64) -> usize {
        if self.local.is_none() {
            return 0;
        }
        let taken = self.take_from_kernel(tables, now);
        if taken > 0 {
            self.send_on(|lane| &mut lane.received, tables, ways, now, |_, _, _| Fate::On);
        }
        if let Some(local) = &mut self.local {
            local.half.flush();
        }
        taken
    }

    /// Sleeps until there is something to do, or the time is up.
    pub(super) fn sleep(&mut self, timeout: Duration) {
        // What is not taken yet may be being put in by a thread that waits for this processor.
        self.pause(|io, is_asked| io.wait(if is_asked { timeout.min(REST) } else { timeout }));
    }

    /// Lets packets gather for that long, unless others than those who send them want the worker.
    pub(super) fn gather(&mut self, time: Duration) {
        self.pause(|io, is_asked| {
            if !is_asked {
                io.gather(time);
            }
        });
    }

    /// Does that while both pipes are asked to wake the worker; says whether either has something already.
    fn pause(&mut self, pause: impl FnOnce(&mut I, bool)) {
        // Both are asked before, as either is to wake it.
        let local = self.local.as_ref().is_none_or(|local| local.half.doze());
        let datagrams = self.datagrams.as_ref().is_none_or(Inlet::doze);
        pause(&mut self.io, !(local && datagrams));
        self.local.iter().for_each(|local| local.half.rise());
        self.datagrams.iter().for_each(Inlet::rise);
    }

    /// Puts packets of the kernel whose way is known among the received ones.
    fn take_from_kernel(&mut self, tables: &Tables, now: u64) -> usize {
        let Self { io, tally, received, packets, copies, local, .. } = self;
        let Some(local) = local else { return 0 };
        let mut taken = 0;
        while taken < TURN
            && let Some(parcel) = local.half.take()
        {
            taken += 1;
            let place = received.len();
            // Without a frame it fares as what finds no room in a TX ring.
            let frame = (io.allocate(received, 1) > 0).then(|| received.pop()).flatten();
            let placed = frame.ok_or(Verdict::TxRingFull).and_then(|mut frame| {
                let packet = take_in(io.buffer(&mut frame), &parcel, tables, local, tally, now);
                match (packet, packets.get_mut(place)) {
                    (Ok(packet), _) if is_group(packet.route.to) => {
                        copies.push(frame, packet).map(|()| tally.count(Verdict::Copied, 1)).map_err(|frame| {
                            io.recycle(frame);
                            Verdict::CopiesLimit
                        })
                    }
                    (Ok(packet), Some(known)) => {
                        *known = packet;
                        received.push(frame);
                        Ok(())
                    }
                    (packet, _) => {
                        io.recycle(frame);
                        packet.map(drop)
                    }
                }
            });
            if let Err(verdict) = placed {
                tally.count(verdict, 1);
            }
            local.half.give_back(parcel);
        }
        tally.injected += taken as u64;
        taken
    }
}

/// Writes a packet of the kernel into the memory of a frame, and finds its way. The kernel is told of one that cannot go.
fn take_in(
    memory: &mut [u8],
    parcel: &Parcel,
    tables: &Tables,
    local: &mut Local,
    tally: &mut Tally,
    now: u64,
) -> Result<Packet, Verdict> {
    let Way::Device(device) = parcel.way() else { return Err(Verdict::NoRoute) };
    let network = tables.devices.network(device).ok_or(Verdict::NoRoute)?;
    let body = memory.get_mut(START + HEADER..).ok_or(Verdict::TooBig)?;
    let (head, buffer) = body.split_first_chunk_mut::<PAYLOAD_TYPE>().ok_or(Verdict::TooBig)?;
    let octets = buffer.get_mut(..parcel.packet().len()).ok_or(Verdict::TooBig)?;
    octets.copy_from_slice(parcel.packet());
    if let Some(bridge) = tables.bridge(network) {
        *head = ethernet::TRANSPARENT.to_be_bytes();
        // What was larger than the parcel was cut.
        let whole = (!parcel.is_full()).then_some(octets).ok_or(Verdict::TooBig)?;
        let packet = Packet::from_kernel(bridged(bridge, tables, network, whole, now)?);
        return place(packet).ok_or(Verdict::TooBig);
    }
    let payload_type = local::payload_type(octets);
    *head = payload_type.to_be_bytes();
    let routed = local::route(tables, network, payload_type, octets);
    let (verdict, mtu) = match routed {
        Err(verdict) => (verdict, 0),
        Ok(route) => {
            let packet = place(Packet::from_kernel(route)).ok_or(Verdict::TooBig)?;
            clamp(memory, &packet, tables, now);
            let Some(mtu) = narrow(memory, &packet, tables, now) else { return Ok(packet) };
            (Verdict::TooBig, mtu)
        }
    };
    let buffer = memory.get_mut(START + HEADER + PAYLOAD_TYPE..).unwrap_or_default();
    let allowed = || local.errors.take(tables.errors, now);
    let told = Problem::of(verdict, mtu).and_then(|problem| {
        let length = local::answer(buffer, payload_type, problem, allowed)?;
        Some((problem.kind(), length))
    });
    if let Some((kind, length)) = told {
        let answer = buffer.get(..length).unwrap_or_default();
        tally.icmp_errors[kind as usize] += 1;
        tally.count(local.half.send(Way::Device(device), NOBODY, answer).err().unwrap_or(Verdict::Delivered), 1);
    }
    Err(verdict)
}

/// Says where in its frame a routed packet of the kernel lies.
fn place(mut packet: Packet) -> Option<Packet> {
    let whole = inner(&packet).len();
    packet.place_at(START, START + HEADER + PAYLOAD_TYPE + whole)?;
    Some(packet)
}

/// Finds the way of a frame that the kernel sends through the TAP device of an Ethernet network.
fn bridged(bridge: &Bridge, tables: &Tables, network: u32, frame: &[u8], now: u64) -> Result<Route, Verdict> {
    let everybody = tables.groups.everybody(network);
    let route = bridge::route(bridge, everybody, KERNEL, bridge.kernel_floods(), ethernet::TRANSPARENT, frame, now)?;
    let is_for_nobody = tables.groups.members(route.to).is_some_and(<[u32]>::is_empty);
    if is_for_nobody { Err(Verdict::NoMember) } else { Ok(route) }
}

/// Octets of the largest packet on the way to the client, if this one is larger and may not be cut.
fn narrow(memory: &[u8], packet: &Packet, tables: &Tables, now: u64) -> Option<usize> {
    let limit = Room::to(client_of(tables, packet.route.to)?, tables, now)?.inner();
    let octets = memory.get(inner(packet))?;
    let narrow = octets.len() > limit.max(local::least(octets)) && Cut::new(octets, limit).is_none();
    narrow.then_some(limit)
}
