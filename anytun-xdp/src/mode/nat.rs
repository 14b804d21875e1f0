//! Open tunnel mode behind an address of the node: translation of one inner packet (RFC 3022, RFC 4787, RFC 5508).
//!
//! A packet is changed in place, after every check: one that is refused is as it came. Checksums are repaired by what
//! changed (RFC 1624), so a damaged packet stays one. Time to live and sizes are the router's business, not the NAT's.
//!
//! * Fragments: the first has the ports and is translated like a whole packet; later ones follow it for two seconds. Those
//!   that overtake it are refused, and [early](is_early): whoever has memory for them may try again (RFC 4787 REQ-14).
//! * Hairpinning (RFC 4787 REQ-9): a packet to the own address and range is translated outwards as any other and then has
//!   to go through [`inbound`], so its receiver sees the sender's address outside, and filters it as it would anybody.
//! * IPv6 headers of routing are not looked behind, as checksums are over an address that is not yet the destination.

use anytun_common::wire::icmp;

use crate::table::nat::{Account, End, Flow, Inside, Nat, Protocol, Refusal};

mod change;
mod crossing;
mod view;

pub use crossing::Crossing;
use view::{Extent, Fragment, Message, Side, View};

/// What is known of the checksums of TCP and UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    /// They are as on the wire.
    Whole,
    /// They may be the sum over the pseudo-header alone, as virtual interfaces hand packets over: they are reckoned anew, and
    /// damage is not found.
    Partial,
}

/// Where a translated packet of a client goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onward {
    /// Out of the node.
    Outside,
    /// Through [`inbound`], to a client of the same NAT.
    Hairpin,
}

/// Translates the packet that a client sends. `packet` ends with the IP packet and `account` is the client's; that the source
/// is an address of the client was checked before.
///
/// # Errors
/// Why it cannot go out, the packet unchanged.
pub fn outbound(nat: &Nat, account: Account, packet: &mut [u8], sums: Sums, now: u64) -> Result<Onward, Refusal> {
    outbound_first(nat, account, packet, sums, now).map(|(onward, _)| onward)
}

/// As [`outbound`]. Returns besides how the packet went, if others of its flow may go the same way.
#[inline]
pub fn outbound_first(
    nat: &Nat,
    account: Account,
    packet: &mut [u8],
    sums: Sums,
    now: u64,
) -> Result<(Onward, Option<Crossing>), Refusal> {
    let view = view(nat, packet)?;
    let onward = if view.destination == nat.address() { Onward::Hairpin } else { Onward::Outside };
    let own = |port| End { address: nat.address(), port };
    let key = |fragment| fragment_key(nat, Some(account), &view, fragment);
    if let Some(fragment) = view.fragment.filter(|fragment| !fragment.is_first) {
        nat.outbound_fragment(key(fragment), now)?;
        view.put_end(packet, Side::Source, &own(0));
        return Ok((onward, None));
    }
    let (port, remote, protocol, flags) = match view.message(packet)? {
        Message::Ports { protocol, source, destination, flags } => (source, destination, protocol, flags),
        // The node's own address answers queries by itself; answers are to queries that never come in.
        Message::Query(id) if onward == Onward::Outside => (id, 0, Protocol::Icmp, 0),
        Message::Query(_) | Message::Answer(_) => return Err(Refusal::NoMapping),
        Message::Error => return error_outbound(nat, account, packet, &view, now).map(|()| (onward, None)),
    };
    if onward == Onward::Hairpin && !nat.settings().ports.contains(remote) {
        return Err(Refusal::ForeignRange);
    }
    let inside = End { address: view.source, port };
    let flow = Flow { protocol, remote: End { address: view.destination, port: remote }, flags };
    let outside = own(nat.outbound(account, &inside, &flow, now)?);
    let crossing = if onward == Onward::Outside { Crossing::new(packet, &inside, &outside) } else { None };
    view.put_end(packet, Side::Source, &outside);
    if let Some(fragment) = view.fragment {
        nat.note_outbound_fragments(key(fragment), now);
    } else {
        complete(packet, sums);
    }
    Ok((onward, crossing))
}

/// Translates a packet from outside that is addressed to the NAT. Returns whom it is for; whether that client is still one,
/// and the address one of its own, is for the caller to see.
///
/// # Errors
/// Why it cannot come in, the packet unchanged.
pub fn inbound(nat: &Nat, packet: &mut [u8], sums: Sums, now: u64) -> Result<Inside, Refusal> {
    let view = view(nat, packet)?;
    if view.destination != nat.address() {
        return Err(Refusal::NoMapping);
    }
    let key = |fragment| fragment_key(nat, None, &view, fragment);
    if let Some(fragment) = view.fragment.filter(|fragment| !fragment.is_first) {
        let inside = nat.inbound_fragment(key(fragment), now)?;
        view.put_end(packet, Side::Destination, &inside.end);
        return Ok(inside);
    }
    let (port, remote, protocol, flags) = match view.message(packet)? {
        Message::Ports { protocol, source, destination, flags } => (destination, source, protocol, flags),
        Message::Answer(id) => (id, 0, Protocol::Icmp, 0),
        Message::Query(_) => return Err(Refusal::NoMapping),
        Message::Error => return error_inbound(nat, packet, &view, now),
    };
    let flow = Flow { protocol, remote: End { address: view.source, port: remote }, flags };
    let inside = nat.inbound(port, &flow, now)?;
    view.put_end(packet, Side::Destination, &inside.end);
    if let Some(fragment) = view.fragment {
        nat.note_inbound_fragments(key(fragment), protocol, port, now);
    } else {
        complete(packet, sums);
    }
    Ok(inside)
}

/// Whether a packet is a fragment without ports whose first fragment may pass, but did not yet: of the client with this
/// account, or nobody's when it comes from outside. Changes nothing.
pub fn is_early(nat: &Nat, sender: Option<Account>, packet: &[u8], now: u64) -> bool {
    let Ok(view) = view(nat, packet) else { return false };
    let later = view.fragment.filter(|fragment| !fragment.is_first && view.may_have_ports());
    let Some(fragment) = later else { return false };
    let key = fragment_key(nat, sender, &view, fragment);
    if sender.is_some() { nat.outbound_fragment(key, now).is_err() } else { nat.inbound_fragment(key, now).is_err() }
}

/// Steps in which memory is brought near for a batch, each when the one before is done for all of its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// What tells where the tables have the packet's flow.
    First,
    /// What the first step led to.
    Second,
}

/// Brings near what [`outbound`] will look at.
#[inline]
pub fn prefetch_outbound(nat: &Nat, account: Account, packet: &[u8], step: Step) {
    let Some((source, destination, protocol)) = ends(nat, packet) else { return };
    match step {
        Step::First => nat.prefetch_outbound(account, &source, protocol),
        Step::Second => {
            nat.prefetch_outbound_session(account, &source, &Flow { protocol, remote: destination, flags: 0 });
        }
    }
}

/// Brings near what [`inbound`] will look at.
#[inline]
pub fn prefetch_inbound(nat: &Nat, packet: &[u8], step: Step) {
    let Some((source, destination, protocol)) = ends(nat, packet) else { return };
    let flow = Flow { protocol, remote: source, flags: 0 };
    match step {
        Step::First => nat.prefetch_inbound(destination.port, &flow),
        Step::Second => nat.prefetch_inbound_session(destination.port, &flow),
    }
}

/// Source and destination of what is neither an error nor a later fragment.
fn ends(nat: &Nat, packet: &[u8]) -> Option<(End, End, Protocol)> {
    let view = view(nat, packet).ok().filter(|view| !view.is_later_fragment())?;
    let (source, destination, protocol) = match view.message(packet).ok()? {
        Message::Ports { protocol, source, destination, .. } => (source, destination, protocol),
        Message::Query(id) => (id, 0, Protocol::Icmp),
        Message::Answer(id) => (0, id, Protocol::Icmp),
        Message::Error => return None,
    };
    let end = |address, port| End { address, port };
    Some((end(view.source, source), end(view.destination, destination), protocol))
}

/// The view over a packet of the NAT's family.
fn view(nat: &Nat, packet: &[u8]) -> Result<View, Refusal> {
    let view = View::of(packet, Extent::Whole)?;
    if view.is_v4 == nat.settings().address.is_ipv4() { Ok(view) } else { Err(Refusal::Protocol) }
}

/// What the fragments of a datagram have in common: of IPv4 the protocol too (RFC 791 §3.2), of IPv6 not (RFC 8200 §4.5).
fn fragment_key(nat: &Nat, sender: Option<Account>, view: &View, fragment: Fragment) -> u64 {
    let protocol = if view.is_v4 { view.protocol } else { 0 };
    nat.fragment_key(sender, [&view.source, &view.destination], fragment.identification, protocol)
}

/// Reckons a checksum anew where that is asked for.
fn complete(packet: &mut [u8], sums: Sums) {
    if sums == Sums::Partial
        && let Ok(view) = View::of(packet, Extent::Whole)
        && !view.is_icmp()
    {
        view.complete(packet);
    }
}

/// Translates an ICMP error that a client sends about a packet it got (RFC 5508 REQ-5): the quoted destination and the
/// source. That may be a router behind the client that has no mapping; it goes out under the same address.
fn error_outbound(nat: &Nat, account: Account, packet: &mut [u8], view: &View, now: u64) -> Result<(), Refusal> {
    let (quote, quoted) = quote(packet, view)?;
    let (port, remote, protocol) = match quoted.message(quote)? {
        Message::Ports { protocol, source, destination, .. } => (destination, source, protocol),
        Message::Answer(id) => (id, 0, Protocol::Icmp),
        Message::Query(_) | Message::Error => return Err(Refusal::NoMapping),
    };
    let inside = End { address: quoted.destination, port };
    let flow = Flow { protocol, remote: End { address: quoted.source, port: remote }, flags: 0 };
    let port = nat.error_outbound(account, &inside, &flow, now)?;
    let change = quoted.put_end(quote, Side::Destination, &End { address: nat.address(), port });
    view.put_around(packet, Side::Source, &nat.address(), change);
    Ok(())
}

/// Translates an ICMP error about a packet of a client, from wherever that got to (RFC 5508 REQ-4): the quoted source and the
/// destination.
fn error_inbound(nat: &Nat, packet: &mut [u8], view: &View, now: u64) -> Result<Inside, Refusal> {
    let (quote, quoted) = quote(packet, view)?;
    let (port, remote, protocol) = match quoted.message(quote)? {
        Message::Ports { protocol, source, destination, .. } => (source, destination, protocol),
        Message::Query(id) => (id, 0, Protocol::Icmp),
        Message::Answer(_) | Message::Error => return Err(Refusal::NoMapping),
    };
    if quoted.source != nat.address() {
        return Err(Refusal::NoMapping);
    }
    let flow = Flow { protocol, remote: End { address: quoted.destination, port: remote }, flags: 0 };
    let inside = nat.error_inbound(port, &flow, now)?;
    let change = quoted.put_end(quote, Side::Source, &inside.end);
    view.put_around(packet, Side::Destination, &inside.end.address, change);
    Ok(inside)
}

/// What an ICMP error with a right checksum quotes (RFC 5508 REQ-3). Checksums in the quoted packet may be cut off or wrong,
/// and are repaired as far as they are there; that of its IP header too, against REQ-3a, since routers count down its time
/// to live and leave its checksum.
fn quote<'a>(packet: &'a mut [u8], view: &View) -> Result<(&'a mut [u8], View), Refusal> {
    if view.fragment.is_some() {
        return Err(Refusal::Fragment);
    }
    if view.sum(packet) != 0xffff {
        return Err(Refusal::Malformed);
    }
    let quote = packet.get_mut(view.transport + icmp::HEADER..view.end).ok_or(Refusal::Malformed)?;
    let quoted = View::of(quote, Extent::Quoted)?;
    if quoted.is_v4 != view.is_v4 {
        return Err(Refusal::Malformed);
    }
    if quoted.is_later_fragment() {
        return Err(Refusal::Fragment);
    }
    Ok((quote, quoted))
}

#[cfg(test)]
mod tests;
