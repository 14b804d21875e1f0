//! A batch of packets on its way through the stages.

use anytun_common::classify::Datagram;
use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::Header;

use super::counters::Tally;
use crate::mode::tunnel::Route;
use crate::table::{Endpoint, Tables};

/// What the stages found out about one packet. Each stage reads what those before it wrote.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// The outer headers, from parse.
    pub(super) datagram: Datagram,
    /// The SATP header, from parse.
    pub(super) header: Header,
    /// Index of the service it was sent to, from parse.
    pub(super) service: u32,
    /// Number of the client that sent it, from look up.
    pub(super) client: u32,
    /// Its place among those that were authenticated together, from open.
    pub(super) place: usize,
    /// Whether it is the newest of its sender ID, from open.
    pub(super) newest: bool,
    /// Where it goes, from route.
    pub(super) route: Route,
}

/// How a packet leaves: outer headers of `head` octets, then a SATP packet, `total` octets in all.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) endpoint: Endpoint,
    pub(super) head: usize,
    pub(super) total: usize,
    /// The SATP header.
    pub(super) header: Header,
    /// That of the outer IPv4 header.
    pub(super) identification: u16,
}

/// A packet and the frame it lies in.
#[derive(Debug)]
pub(super) struct Item<F> {
    pub(super) frame: F,
    pub(super) packet: Packet,
}

/// Why a packet goes no further, and the client to whose account that goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) verdict: Verdict,
    pub(super) client: Option<u32>,
}

impl End {
    /// An end on a client's account.
    #[inline]
    pub(super) fn of(client: u32) -> impl FnOnce(Verdict) -> End {
        move |verdict| End { verdict, client: Some(client) }
    }
}

/// Counts an end for the worker and, if there is one, the client.
#[inline]
pub(super) fn account(end: End, tables: &Tables, worker: usize, tally: &mut Tally) {
    tally.count(end.verdict, 1);
    let client = end.client.and_then(|client| tables.clients.get(client as usize));
    if let Some(counters) = client.and_then(|client| client.counters.get(worker)) {
        counters.dropped(end.verdict);
    }
}

/// Runs one stage over all items. Those that end are counted, and their frames go to `ended`.
#[inline]
pub(super) fn stage<F>(
    items: &mut Vec<Item<F>>,
    ended: &mut Vec<F>,
    mut account: impl FnMut(End),
    mut step: impl FnMut(&mut F, &mut Packet) -> Result<(), End>,
) {
    let ends = items.extract_if(.., |item| match step(&mut item.frame, &mut item.packet) {
        Ok(()) => false,
        Err(end) => {
            account(end);
            true
        }
    });
    ended.extend(ends.map(|item| item.frame));
}
