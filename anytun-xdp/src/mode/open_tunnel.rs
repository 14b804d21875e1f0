//! Open tunnel mode: packets between clients and hosts that do not speak anytun.

use std::ptr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::{ethernet, ipv4, ipv6, mapped};

use super::inner::{Inner, pair_v4};
use super::nat::{self, Crossing, Sums};
use super::partial;
use super::tunnel::{Route, destination, source};
use crate::table::nat::{Member, Refusal};
use crate::table::ways::{Way, Wayless, Ways};
use crate::table::{Behind, Client, OUTSIDE, Tables};

/// Routes a packet that came from outside as it is: finds the client of an open network that its destination leads to, by
/// its prefixes or behind a NAT, refuses a source that is a client's of that network, who would seem to have sent it, and
/// counts the hop. When checksums may be `partial`, they are completed. `now` is in milliseconds since the node started. When
/// the last hop is used up, the route is there all the same: it says whom the packet was for.
#[inline]
pub fn inward(
    tables: &Tables,
    payload_type: u16,
    packet: &mut [u8],
    partial: bool,
    now: u64,
    route: &mut Route,
) -> Result<(), Verdict> {
    let nats = if tables.nats.all().is_empty() { None } else { ends(packet) };
    let nats = nats.map_or(&[][..], |(_, destination)| tables.nats.at(&destination));
    let behind = match nats {
        [] => None,
        nats => {
            let (inner, length) = Inner::new(payload_type, packet)?;
            // Such a packet leaves no trace in the NAT.
            if inner.ends().source_is_of_link() {
                return Err(Verdict::LinkScope);
            }
            let packet = packet.get_mut(..length).ok_or(Verdict::MalformedInner)?;
            let sums = if partial { Sums::Partial } else { Sums::Whole };
            Some(translate(tables, nats.iter(), packet, sums, now)?)
        }
    };
    let (mut inner, length) = Inner::new(payload_type, packet)?;
    let ends = inner.ends();
    if ends.source_is_of_link() || ends.destination_is_of_link() {
        return Err(Verdict::LinkScope);
    }
    let to = behind.or_else(|| destination(tables.inside.clients(), &ends)).ok_or(Verdict::Stray)?;
    let client = tables.clients.get(to as usize).ok_or(Verdict::Stray)?;
    let network = tables.networks.get(client.network as usize).ok_or(Verdict::Stray)?;
    if source(network, &ends) != Some(OUTSIDE) {
        return Err(Verdict::ForeignSource);
    }
    *route = Route { to, length: length as u32, tos: inner.tos(), dont_fragment: inner.dont_fragment() };
    inner.hop()?;
    if partial
        && behind.is_none()
        && let Some(packet) = packet.get_mut(..length)
    {
        partial::complete(packet);
    }
    Ok(())
}

/// Translates a packet for the address of `nats` by the one whose port it is for; returns the client's number. A packet that
/// is refused is as it came.
fn translate<'a>(
    tables: &Tables,
    nats: impl Iterator<Item = &'a Behind>,
    packet: &mut [u8],
    sums: Sums,
    now: u64,
) -> Result<u32, Verdict> {
    let mut refused = Refusal::ForeignRange;
    for behind in nats {
        let inside = match nat::inbound(behind.nat(), packet, sums, now) {
            Ok(inside) => inside,
            // The first fragment may have passed another one.
            Err(refusal @ (Refusal::ForeignRange | Refusal::Fragment)) => {
                refused = refusal;
                continue;
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let to = behind.client(&inside, &tables.clients).ok_or(Verdict::NatNoMapping)?;
        // The address may have gone to somebody else since the client sent from it.
        let is_own = tables.networks.get(behind.network as usize).is_some_and(|network| {
            let [.., a, b, c, d] = inside.end.address;
            let v4 = mapped([a, b, c, d]) == inside.end.address;
            let owner = if v4 { network.find_v4([a, b, c, d]) } else { network.find_v6(inside.end.address) };
            owner == Some(to)
        });
        return if is_own { Ok(to) } else { Err(Verdict::NatNoMapping) };
    }
    Err(refused.into())
}

/// Whether a packet that a NAT refused is a fragment whose first one may still come: of a `client`, or from outside.
pub fn is_early(tables: &Tables, client: Option<&Client>, packet: &[u8], now: u64) -> bool {
    match client {
        Some(client) => border(client, packet).is_ok_and(|border| match border {
            Border::Open => false,
            Border::Behind(member) | Border::Back(member) => {
                // Of what was refused on its way back the first fragment has passed outwards.
                let is_own = ends(packet).is_some_and(|(source, _)| source != member.nat().address());
                is_own && nat::is_early(member.nat(), Some(member.account()), packet, now)
            }
        }),
        None => ends(packet).is_some_and(|(_, destination)| {
            let nats = tables.nats.at(&destination);
            !nats.is_empty() && nats.iter().all(|behind| nat::is_early(behind.nat(), None, packet, now))
        }),
    }
}

/// Translates a packet for the NAT that `member` is behind, as one from outside; returns the client's number.
fn come_back(tables: &Tables, member: &Member, packet: &mut [u8], now: u64) -> Result<u32, Verdict> {
    let nat = member.nat();
    let own = tables.nats.at(&nat.address()).iter().filter(|behind| ptr::eq(behind.nat(), &**nat));
    translate(tables, own, packet, Sums::Whole, now)
}

/// Makes an ICMP error to `client` one about what the client sent, where its packet was translated on its way back to `to`
/// before it met its end. That takes both translations again, as an error from that client would.
#[inline]
pub fn own_again(
    tables: &Tables,
    client: &Client,
    to: Option<&Client>,
    error: &mut [u8],
    now: u64,
) -> Result<(), Verdict> {
    let Some(members) = &client.members else { return Ok(()) };
    let (_, destination) = ends(error).ok_or(Verdict::MalformedInner)?;
    let Some(member) = members.of(&destination).filter(|member| member.nat().address() == destination) else {
        return Ok(());
    };
    let of_receiver = to.and_then(|to| to.members.as_ref()?.of(&destination)).ok_or(Verdict::NatNoMapping)?;
    nat::outbound(of_receiver.nat(), of_receiver.account(), error, Sums::Whole, now)?;
    come_back(tables, member, error, now).map(drop)
}

/// How a packet that leaves its network goes on.
#[derive(Clone, Copy, Debug)]
pub enum Border<'a> {
    /// As it is.
    Open,
    /// Behind a NAT.
    Behind(&'a Member),
    /// Behind the NAT of whom it is for, and so back into the network.
    Back(&'a Member),
}

impl Border<'_> {
    /// The address that the packet of `source` leaves with.
    #[inline]
    fn source(&self, source: [u8; 16]) -> [u8; 16] {
        match self {
            Self::Open => source,
            Self::Behind(member) | Self::Back(member) => member.nat().address(),
        }
    }
}

/// What is at the border for a packet of `client`.
///
/// # Errors
/// When the client has no account in the NAT of its network.
#[inline]
pub fn border<'a>(client: &'a Client, packet: &[u8]) -> Result<Border<'a>, Verdict> {
    let Some(members) = &client.members else { return Ok(Border::Open) };
    let (source, destination) = ends(packet).ok_or(Verdict::MalformedInner)?;
    let member = members.of(&source).ok_or(Verdict::NatLimit)?;
    let is_back = destination == member.nat().address();
    Ok(if is_back { Border::Back(member) } else { Border::Behind(member) })
}

/// Translates a packet that leaves behind a NAT. Returns what goes for those of its flow that follow it.
///
/// # Errors
/// Why it cannot, the packet unchanged.
#[inline]
pub fn go_behind(member: &Member, packet: &mut [u8], now: u64) -> Result<Option<Crossing>, Verdict> {
    let (_, crossing) = nat::outbound_first(member.nat(), member.account(), packet, Sums::Whole, now)?;
    Ok(crossing)
}

/// Translates a packet to somebody behind the same NAT. Returns the number of the client that it goes to.
///
/// # Errors
/// Why it cannot.
#[inline]
pub fn go_back(tables: &Tables, member: &Member, packet: &mut [u8], now: u64) -> Result<u32, Verdict> {
    nat::outbound(member.nat(), member.account(), packet, Sums::Whole, now)?;
    come_back(tables, member, packet, now)
}

/// The ways out of a batch of packets. Those of one pair of hosts often come one behind the other, so the last way is kept.
/// So is how the last one crossed the border, for what follows of its client between the same two, behind a NAT of the same
/// flow, before anything else takes a way or, behind a NAT, comes from outside.
pub struct Trail<'a> {
    ways: &'a Ways,
    last: Last,
    /// Of a packet of the client of this number, which left by the last way.
    crossed: Option<(u32, Crossed)>,
}

/// Who went the last way.
#[derive(Clone, Copy, Default)]
pub struct Last {
    /// Source and destination, as numbers, so that they are compared in registers.
    pair: Option<[u128; 2]>,
    way: Way,
}

/// The last way, from one batch to the next: as long as nothing was said to have changed, but no longer than a millisecond, as
/// the kernel is to know which neighbours are used.
#[derive(Default)]
pub struct Kept {
    ways: Arc<Ways>,
    now: u64,
    last: Last,
}

impl Kept {
    /// Forgets it when its time is over. `now` is in milliseconds since the node started.
    #[inline]
    pub fn renew(&mut self, ways: &Arc<Ways>, now: u64) {
        if !Arc::ptr_eq(&self.ways, ways) {
            *self = Self { ways: ways.clone(), now, last: Last::default() };
        } else if self.now != now {
            (self.now, self.last) = (now, Last::default());
        }
    }

    /// Goes on from it, by the same ways.
    #[inline]
    pub fn trail<'a>(&self, ways: &'a Ways) -> Trail<'a> {
        debug_assert!(ptr::eq(ways, &*self.ways), "renewed for other ways");
        Trail { last: self.last, ..Trail::new(ways) }
    }

    /// Keeps the last way of a batch.
    #[inline]
    pub fn keep(&mut self, last: Last) {
        self.last = last;
    }
}

/// How a packet crossed the border of an open network.
enum Crossed {
    /// As it was, in IPv4: source and destination as they stand in it.
    Open(u64),
    /// Behind a NAT.
    Behind(Crossing),
}

impl<'a> Trail<'a> {
    /// Nobody has left yet.
    #[inline]
    pub fn new(ways: &'a Ways) -> Self {
        Self { ways, last: Last::default(), crossed: None }
    }

    /// The last way.
    #[inline]
    pub fn last(&self) -> Last {
        self.last
    }

    /// The way out of a packet that leaves through `border`. It was checked when it was routed.
    #[inline]
    pub fn way(&mut self, border: Border<'_>, packet: &[u8]) -> Result<&Way, Wayless> {
        // It goes with the way that was last before this.
        self.crossed = None;
        let (source, destination) = ends(packet).ok_or(Wayless::Unreachable)?;
        let source = border.source(source);
        let pair = [source, destination].map(u128::from_ne_bytes);
        if self.last.pair.is_none_or(|last| last[0] ^ pair[0] | last[1] ^ pair[1] != 0) {
            let way = self.ways.find(&destination, &source, flow(&source, &destination))?;
            self.last = Last { pair: Some(pair), way };
        }
        Ok(&self.last.way)
    }

    /// Forgets how the last packet crossed a NAT: one from outside may have changed its session.
    #[inline]
    pub fn forget(&mut self) {
        if let Some((_, Crossed::Behind(_))) = self.crossed {
            self.crossed = None;
        }
    }

    /// Remembers that a packet of `client`, which goes the last way, crossed as it is.
    #[inline]
    pub fn note_open(&mut self, client: u32, packet: &[u8]) {
        self.crossed = ends_v4(packet).map(|ends| (client, Crossed::Open(ends)));
    }

    /// Remembers how a packet of `client`, which goes the last way, crossed a NAT.
    #[inline]
    pub fn note_behind(&mut self, client: u32, crossing: Option<Crossing>) {
        self.crossed = crossing.map(|crossing| (client, Crossed::Behind(crossing)));
    }

    /// The way of a packet of `client` that goes as the last one did, translated as that one. Nothing of any other, or when it
    /// is too large; it is as it came then.
    #[inline]
    pub fn repeat(&self, client: u32, packet: &mut [u8]) -> Option<&Way> {
        let (sender, crossed) = self.crossed.as_ref()?;
        if *sender != client || packet.len() > usize::from(self.last.way.mtu) {
            return None;
        }
        let is_again = match crossed {
            Crossed::Open(ends) => ends_v4(packet) == Some(*ends),
            Crossed::Behind(crossing) => crossing.repeat(packet),
        };
        is_again.then_some(&self.last.way)
    }
}

/// Source and destination of an IPv4 packet as they stand in it, in one word.
#[inline]
fn ends_v4(packet: &[u8]) -> Option<u64> {
    packet.first_chunk().filter(|header| header[0] >> 4 == 4).map(pair_v4)
}

/// Source and destination of an IP packet, IPv4 ones mapped.
#[inline]
fn ends(packet: &[u8]) -> Option<([u8; 16], [u8; 16])> {
    let four = |at: usize| packet.get(at..)?.first_chunk().copied().map(mapped);
    let sixteen = |at: usize| packet.get(at..)?.first_chunk().copied();
    match packet.first()? >> 4 {
        4 => Some((four(ipv4::SOURCE)?, four(ipv4::DESTINATION)?)),
        _ => Some((sixteen(ipv6::SOURCE)?, sixteen(ipv6::DESTINATION)?)),
    }
}

/// Tells flows apart where several ways are equally good. Packets of one pair of hosts stay in order.
#[inline]
fn flow(source: &[u8; 16], destination: &[u8; 16]) -> u32 {
    let half = |address: &[u8; 16]| {
        let number = u128::from_le_bytes(*address);
        number as u64 ^ (number >> 64) as u64
    };
    let mixed = (half(source) ^ half(destination).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Octets of the Ethernet header in front of a packet on its way.
#[inline]
pub fn length(way: &Way) -> usize {
    ethernet::HEADER + way.tags.as_bytes().len()
}

/// Writes that header into the first [`length`] octets of `frame`, behind which the packet is. Nothing when it has no room.
#[inline]
pub fn write(frame: &mut [u8], way: &Way) -> Option<()> {
    let (link, packet) = frame.split_at_mut_checked(length(way))?;
    let (addresses, tagged) = link.split_first_chunk_mut::<{ ethernet::TYPE }>()?;
    *addresses = *way.link.as_bytes();
    let (tags, ethertype) = tagged.split_last_chunk_mut::<2>()?;
    // Few frames are tagged, and to copy a number of octets that only the way knows is a call.
    if !tags.is_empty() {
        tags.copy_from_slice(way.tags.as_bytes());
    }
    *ethertype = match packet.first()? >> 4 {
        4 => ethernet::IPV4,
        _ => ethernet::IPV6,
    }
    .to_be_bytes();
    Some(())
}
