//! From a client to outside: mappings and sessions are made.

use super::index::Entered;
use super::record::{State, Status};
use super::{Account, End, Flow, Nat, Part, Protocol, RST, Refusal, Tcp, Way};

/// Turns after which a packet is given up that lost each of them to another worker that ended what it needs.
const TURNS: usize = 8;

/// A part in a mapping.
enum Shared {
    /// Which was made for it.
    Made(usize),
    /// Which was there and may have been used outside.
    Joined(usize),
}

impl Nat {
    /// The port outside for a packet that a client sends from `inside`. Makes mapping and session where there are none,
    /// whatever the packet is, so that a server that another node has talked to tells the client so; but not for a
    /// reset, which nobody would answer.
    ///
    /// # Errors
    /// When the client has too many or there are no more, and when `account` is closed.
    #[inline]
    pub fn outbound(&self, account: Account, inside: &End, flow: &Flow, now: u64) -> Result<u16, Refusal> {
        for _ in 0..TURNS {
            if let Some((number, mapping)) = self.mapping(account, inside, flow.protocol)
                && let Some((session, state)) = self.session(number, flow)
            {
                let went_on = self.go_on(session, state, flow, Way::Out, now);
                if went_on && self.mappings[number].state().is_same_life(mapping) {
                    return Ok(self.port(number));
                }
                continue;
            }
            if let Some(number) = self.open(account, inside, flow, now)? {
                return Ok(self.port(number));
            }
        }
        Err(Refusal::NoMapping)
    }

    /// The port outside of the client's end of a packet that came from `flow.remote`, for an ICMP error about it. Makes
    /// nothing and keeps nothing alive (RFC 5508 REQ-6, RFC 4787 REQ-12, RFC 5382 REQ-10).
    ///
    /// # Errors
    /// When no such packet can have come.
    pub fn error_outbound(&self, account: Account, inside: &End, flow: &Flow, now: u64) -> Result<u16, Refusal> {
        let (number, mapping) = self.mapping(account, inside, flow.protocol).ok_or(Refusal::NoMapping)?;
        let (_, session) = self.session(number, flow).ok_or(Refusal::NoMapping)?;
        let is_on = !Self::has_ended(session.value(), now) && self.mappings[number].state().is_same_life(mapping);
        if is_on { Ok(self.port(number)) } else { Err(Refusal::NoMapping) }
    }

    /// The mapping of a client's end.
    fn mapping(&self, account: Account, inside: &End, protocol: Protocol) -> Option<(usize, State)> {
        let (words, hash) = self.inside_key(account, protocol, inside);
        self.find_mapping(hash, &words, protocol)
    }

    fn find_mapping(&self, hash: u64, words: &[u64; 3], protocol: Protocol) -> Option<(usize, State)> {
        self.by_inside.find(hash, |number| {
            let state = self.mappings[number].find(words)?;
            (self.protocol(number) == protocol).then_some((number, state))
        })
    }

    /// Makes a session, and a mapping for it if there is none. Nothing when another worker was faster.
    #[cold]
    fn open(&self, account: Account, inside: &End, flow: &Flow, now: u64) -> Result<Option<usize>, Refusal> {
        if flow.protocol == Protocol::Tcp && flow.flags & RST != 0 || !self.accounts.is_open(account) {
            return Err(Refusal::NoMapping);
        }
        if !self.accounts.reserve(account, Part::Sessions, self.adjustable.sessions_per_client()) {
            return Err(Refusal::ClientLimit);
        }
        let opened = self.share(account, inside, flow.protocol).and_then(|part| {
            let (number, rest) = match part {
                Some(Shared::Made(number)) => (number, None),
                Some(Shared::Joined(number)) => (number, Some(self.rest(now))),
                None => return Ok(None),
            };
            let made = self.make_session(number, flow, now);
            if made != Ok(true) {
                self.leave(number, rest);
            }
            Ok(made?.then_some(number))
        });
        if !matches!(opened, Ok(Some(_))) {
            self.accounts.release(account, Part::Sessions);
        }
        opened
    }

    /// Takes a part in the mapping of a client's end, which lasts until it is left. Nothing when another worker was faster.
    fn share(&self, account: Account, inside: &End, protocol: Protocol) -> Result<Option<Shared>, Refusal> {
        let (words, hash) = self.inside_key(account, protocol, inside);
        if let Some((number, state)) = self.find_mapping(hash, &words, protocol) {
            return Ok(self.join(number, state).then_some(Shared::Joined(number)));
        }
        if !self.accounts.reserve(account, Part::Ports, self.adjustable.ports_per_client()) {
            return Err(Refusal::ClientLimit);
        }
        let made = self.make_mapping(hash, words, protocol);
        if !matches!(made, Ok(Some(_))) {
            self.accounts.release(account, Part::Ports);
        }
        Ok(made?.map(Shared::Made))
    }

    fn make_mapping(&self, hash: u64, words: [u64; 3], protocol: Protocol) -> Result<Option<usize>, Refusal> {
        let pool = &self.ports[protocol as usize];
        let place = pool.take(self.draw()).ok_or(Refusal::PortsExhausted)?;
        let number = protocol as usize * self.settings.ports.count() + place;
        let mapping = &self.mappings[number];
        mapping.begin(words, 0, 1);
        let find = |other: usize| self.mappings[other].find(&words).filter(|_| self.protocol(other) == protocol);
        let refused = match self.by_inside.enter(hash, number, find) {
            Entered::Done => return Ok(Some(number)),
            Entered::Exists(_) => Ok(None),
            // One bucket of the index, where chance has put more than its share.
            Entered::Full => Err(Refusal::PortsExhausted),
        };
        // Nobody has seen it, so it need not rest.
        mapping.free();
        pool.give_back(place);
        refused
    }

    /// Counts one more session of a mapping, if it is still alive.
    fn join(&self, number: usize, mut state: State) -> bool {
        let first = state;
        while state.is_same_life(first) {
            match self.mappings[number].replace(state, state.with_value(state.value() + 1)) {
                Ok(()) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Counts one less. With the last the mapping ends: its port then rests until the second `rest`, or nowhere when it was
    /// never used outside.
    pub(super) fn leave(&self, number: usize, rest: Option<u32>) {
        let mapping = &self.mappings[number];
        let mut state = mapping.state();
        loop {
            let left = state.value().saturating_sub(1);
            let new = if left == 0 { state.with_status(Status::Ending) } else { state.with_value(left) };
            match mapping.replace(state, new) {
                Ok(()) if left > 0 => return,
                Ok(()) => break,
                Err(now) => state = now,
            }
        }
        let words = mapping.words();
        self.by_inside.remove(self.inside_hash(self.protocol(number), &words), number);
        match rest {
            Some(rest) => mapping.hold(rest),
            None => self.free_port(number),
        }
    }

    /// Gives back a port that has no mapping any more. Only for who ended it, or ended its rest.
    pub(super) fn free_port(&self, number: usize) {
        let mapping = &self.mappings[number];
        let account = Account::from_bits(mapping.words()[0]);
        mapping.free();
        self.accounts.release(account, Part::Ports);
        self.ports[self.protocol(number) as usize].give_back(number % self.settings.ports.count());
    }

    /// Makes a session of a mapping. Needs a part in the mapping, which becomes the session's. False when there is one.
    fn make_session(&self, number: usize, flow: &Flow, now: u64) -> Result<bool, Refusal> {
        let (words, hash) = self.remote_key(number, flow);
        let session = self.taken.take(self.draw()).ok_or(Refusal::TableFull)?;
        let tcp = match flow.protocol {
            Protocol::Tcp => Tcp::default().after(Way::Out, flow.flags),
            _ => Tcp::default(),
        };
        let end = Self::end(now, self.life(flow.protocol, tcp));
        let record = &self.sessions[session];
        record.begin(words, tcp.to_bits(), end);
        let refused = match self.by_remote.enter(hash, session, |other| self.sessions[other].find(&words)) {
            Entered::Done => return Ok(true),
            Entered::Exists(_) => Ok(false),
            Entered::Full => Err(Refusal::TableFull),
        };
        record.free();
        self.taken.give_back(session);
        refused
    }

    /// Ends a session with this state and these words. False when its state is another now, or when it is only about to be
    /// put in force: then it still belongs to the worker that makes it.
    pub(super) fn end_session(&self, session: usize, state: State, words: &[u64; 3], now: u64) -> bool {
        let record = &self.sessions[session];
        let hash = self.remote_hash(words);
        // In force in this life, if the state still stands after the look: it leaves the index only after its end.
        let is_in_force = self.by_remote.find(hash, |number| (number == session).then_some(())).is_some();
        if !is_in_force || record.replace(state, state.with_status(Status::Ending)).is_err() {
            return false;
        }
        self.by_remote.remove(hash, session);
        let number = (words[0] >> 16) as usize;
        // The session has a part in the mapping, so this is still its own.
        let account = Account::from_bits(self.mappings[number].words()[0]);
        record.free();
        self.taken.give_back(session);
        self.accounts.release(account, Part::Sessions);
        self.leave(number, Some(self.rest(now)));
        true
    }

    /// Until when a port rests whose last session ends now.
    fn rest(&self, now: u64) -> u32 {
        Self::end(now, self.settings.timers.rest)
    }

    /// Remembers that later fragments of a datagram of a client may pass.
    pub fn note_outbound_fragments(&self, key: u64, now: u64) {
        self.fragments.note(key, 0, now);
    }

    /// Whether a later fragment may pass: it has no ports, and only its address is changed.
    ///
    /// # Errors
    /// When the first fragment was not seen in time.
    pub fn outbound_fragment(&self, key: u64, now: u64) -> Result<(), Refusal> {
        self.fragments.find(key, now).map(|_| ()).ok_or(Refusal::Fragment)
    }
}
