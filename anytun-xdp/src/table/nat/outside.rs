//! From outside to a client: nothing is made, only found.

use super::record::State;
use super::{Account, End, Flow, Nat, Refusal, Tcp, Way};

/// Who a packet from outside is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inside {
    /// Whose it is.
    pub account: Account,
    /// Where it goes: the client's own address and port.
    pub end: End,
}

impl Nat {
    /// Takes a packet to a port of the address.
    ///
    /// # Errors
    /// When the port is not of the range, nobody has it, or its owner has not sent there. There is no answer to a SYN that
    /// is refused, so RFC 5382 REQ-4 is kept, whatever its owner sends in the next six seconds.
    #[inline]
    pub fn inbound(&self, port: u16, flow: &Flow, now: u64) -> Result<Inside, Refusal> {
        let (number, mapping, inside) = self.owner(port, flow)?;
        let (session, state) = self.session(number, flow).ok_or(Refusal::Filtered)?;
        let is_on = !Self::has_ended(state.value(), now) && self.go_on(session, state, flow, Way::In, now);
        // Of the same mapping as at first: the session had a part in it.
        if !is_on || !self.mappings[number].state().is_same_life(mapping) {
            return Err(Refusal::Filtered);
        }
        Ok(inside)
    }

    /// Who is meant by an ICMP error about a packet that left from `port` for `flow.remote`. Such an error keeps nothing
    /// alive and ends nothing (RFC 5508 REQ-6, RFC 4787 REQ-12, RFC 5382 REQ-10).
    ///
    /// # Errors
    /// When the packet was none of ours.
    pub fn error_inbound(&self, port: u16, flow: &Flow, now: u64) -> Result<Inside, Refusal> {
        let (number, mapping, inside) = self.owner(port, flow)?;
        let (_, session) = self.session(number, flow).ok_or(Refusal::NoMapping)?;
        let is_on = !Self::has_ended(session.value(), now) && self.mappings[number].state().is_same_life(mapping);
        if is_on { Ok(inside) } else { Err(Refusal::NoMapping) }
    }

    /// The mapping of a port.
    fn owner(&self, port: u16, flow: &Flow) -> Result<(usize, State, Inside), Refusal> {
        let number = self.number(flow.protocol, port).ok_or(Refusal::ForeignRange)?;
        let (state, inside) = self.inside(number).ok_or(Refusal::NoMapping)?;
        Ok((number, state, inside))
    }

    /// Who has a mapping, if it is live and its owner is still a client.
    fn inside(&self, number: usize) -> Option<(State, Inside)> {
        let (state, [first, high, low]) = self.mappings.get(number)?.read()?;
        let account = Account::from_bits(first);
        let inside = Inside { account, end: End::from_words(first, [high, low]) };
        self.accounts.is_open(account).then_some((state, inside))
    }

    /// The session of a mapping with somebody.
    pub(super) fn session(&self, number: usize, flow: &Flow) -> Option<(usize, State)> {
        let (words, hash) = self.remote_key(number, flow);
        self.by_remote.find(hash, |session| Some((session, self.sessions[session].find(&words)?)))
    }

    /// Lets a session go on with one more packet. False when it has ended meanwhile.
    pub(super) fn go_on(&self, session: usize, mut state: State, flow: &Flow, way: Way, now: u64) -> bool {
        let keeps_alive = way == Way::Out || self.settings.inbound_refreshes;
        let record = &self.sessions[session];
        let first = state;
        loop {
            let before = Tcp::from_bits(state.tcp());
            let after = if flow.protocol == super::Protocol::Tcp { before.after(way, flow.flags) } else { before };
            let end = Self::end(now, self.life(flow.protocol, after));
            let end = match (after == before, keeps_alive) {
                (false, _) => end,
                (true, true) => state.value().max(end),
                (true, false) => state.value(),
            };
            let new = state.with_tcp(after.to_bits()).with_value(end);
            // Once a second for a session at most, unless its TCP state changes.
            if new == state {
                return true;
            }
            match record.replace(state, new) {
                Ok(()) => return true,
                Err(now) if now.is_same_life(first) => state = now,
                Err(_) => return false,
            }
        }
    }

    /// Remembers where later fragments of a datagram from outside go. `key` is a hash of what they have in common.
    pub fn note_inbound_fragments(&self, key: u64, protocol: super::Protocol, port: u16, now: u64) {
        let Some(number) = self.number(protocol, port) else { return };
        let known = number as u32 | self.mappings[number].state().generation() << FRAGMENT_NUMBER;
        self.fragments.note(key, known, now);
    }

    /// Where they go.
    ///
    /// # Errors
    /// When the first fragment was not seen in time, or its receiver is gone.
    pub fn inbound_fragment(&self, key: u64, now: u64) -> Result<Inside, Refusal> {
        let known = self.fragments.find(key, now).ok_or(Refusal::Fragment)?;
        let number = known & ((1 << FRAGMENT_NUMBER) - 1);
        let (state, inside) = self.inside(number as usize).ok_or(Refusal::Fragment)?;
        let is_same = state.generation() << FRAGMENT_NUMBER == known & !((1 << FRAGMENT_NUMBER) - 1);
        if is_same { Ok(inside) } else { Err(Refusal::Fragment) }
    }
}

/// Bits of a mapping's number in what is remembered of fragments.
const FRAGMENT_NUMBER: u32 = 18;
