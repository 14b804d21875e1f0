//! A batch of packets on its way through the stages: one array of what was found out about each, and the list of those that
//! still go on. Packets stay where they are; only the list gets shorter.

use std::num::NonZeroU64;

use anytun_common::classify::{Datagram, Network};
use anytun_common::verdict::Verdict;
use anytun_common::wire::satp::{HEADER, Header, PAYLOAD_TYPE};

use super::BATCH;
use crate::mode::encapsulate::Unsummed;
use crate::mode::tunnel::Route;
use crate::table::{NOBODY, OUTSIDE};

/// What the stages found out about one packet, in a cache line. Each stage reads what those before it wrote.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct Packet {
    /// The outer address it came from, or its own source when it came from outside as it is, an IPv4 one mapped; this and
    /// the next four are from parse.
    pub(super) source: [u8; 16],
    /// The outer port it came from.
    pub(super) source_port: u16,
    /// DSCP and ECN of the outer header.
    pub(super) tos: u8,
    /// Offset of the outer IP header.
    network: u8,
    /// Where in its frame the SATP packet lies: of what was received until lay out, of what leaves from then on.
    start: u16,
    end: u16,
    /// The SATP header: that it came with, from parse; that it leaves with, from lay out.
    pub(super) header: Header,
    /// Index of the service it was sent to, from parse.
    pub(super) service: u32,
    /// Number of the client that sent it, from look up; [`OUTSIDE`] when it came from there as it is, from parse.
    pub(super) client: u32,
    /// Where it goes, from route.
    pub(super) route: Route,
    /// What its UDP checksum lacks, from lay out.
    pub(super) unsummed: Unsummed,
    /// Its place among those that were authenticated together, from accept.
    pub(super) place: u8,
    /// Whether it is the newest of its sender ID, from accept.
    pub(super) newest: bool,
    /// Slot of the interface it leaves through, from lay out.
    pub(super) slot: u8,
    /// Whether the outer packet has to be cut in two, from lay out.
    pub(super) is_halved: bool,
    /// Whether it waits for the first fragment of its datagram, from route.
    pub(super) is_early: bool,
}

const _: () = assert!(size_of::<Packet>() == 64);

impl Packet {
    /// A packet that was just parsed. Nothing where no UDP datagram reaches.
    #[inline]
    pub(super) fn new(datagram: &Datagram, header: Header, service: u32) -> Option<Self> {
        let mut packet = Self {
            source: datagram.source,
            source_port: datagram.source_port,
            tos: datagram.tos,
            network: u8::try_from(datagram.network).ok()?,
            header,
            service,
            ..Self::default()
        };
        packet.place_at(datagram.payload, datagram.payload + datagram.length)?;
        Some(packet)
    }

    /// A packet that came from outside as it is. It counts as the SATP packet that it is to be: where the payload type is
    /// expected stands the EtherType, which is the same, and the header may be anything.
    #[inline]
    pub(super) fn from_outside(network: &Network) -> Option<Self> {
        let mut packet = Self { source: network.source, client: OUTSIDE, ..Self::default() };
        packet.place_at(network.header.checked_sub(HEADER + PAYLOAD_TYPE)?, network.transport + network.length)?;
        Some(packet)
    }

    /// A packet of the node's kernel, of which only the way is known. Nobody is told what becomes of it.
    #[inline]
    pub(super) fn from_kernel(route: Route) -> Self {
        Self { client: NOBODY, route, ..Self::default() }
    }

    /// Whether it came from outside as it is.
    #[inline]
    pub(super) fn is_from_outside(&self) -> bool {
        self.client == OUTSIDE
    }

    /// Says where in its frame the SATP packet lies. Nothing where no UDP datagram reaches.
    #[inline]
    pub(super) fn place_at(&mut self, start: usize, end: usize) -> Option<()> {
        (self.start, self.end) = (u16::try_from(start).ok()?, u16::try_from(end).ok()?);
        Some(())
    }

    /// Where its SATP packet begins.
    #[inline]
    pub(super) fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Where its SATP packet ends, and with it all that leaves.
    #[inline]
    pub(super) fn end(&self) -> usize {
        usize::from(self.end)
    }

    /// Octets of its SATP packet.
    #[inline]
    pub(super) fn length(&self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// Offset of the outer IP header that it came with.
    #[inline]
    pub(super) fn network(&self) -> usize {
        usize::from(self.network)
    }
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

/// The places of the packets of a batch that still go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Live(u64);

const _: () = assert!(BATCH <= u64::BITS as usize);

impl Live {
    /// The first `count` places.
    #[inline]
    pub(super) fn all(count: usize) -> Self {
        Self(u64::MAX.checked_shr((BATCH - count.min(BATCH)) as u32).unwrap_or(0))
    }

    /// Whether the packet at `place` goes on.
    #[inline]
    pub(super) fn contains(self, place: usize) -> bool {
        place < BATCH && self.0 >> place & 1 == 1
    }

    /// The places, in order.
    #[inline]
    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            // Not zero, so less than 64, which spares the checks of indices.
            let first = NonZeroU64::new(rest)?;
            rest &= rest - 1;
            Some(first.trailing_zeros() as usize)
        })
    }

    /// Those of `items`, in order, that still go on.
    #[inline]
    pub(super) fn of<T>(self, items: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        items.into_iter().enumerate().filter_map(move |(place, item)| self.contains(place).then_some(item))
    }

    /// Takes out those that `belongs` says; they go on apart from the others until they [`join`](Self::join) them again.
    #[inline]
    pub(super) fn part(&mut self, mut belongs: impl FnMut(usize) -> bool) -> Self {
        let all = *self;
        self.retain(|place| !belongs(place));
        Self(all.0 & !self.0)
    }

    /// Adds a place.
    #[inline]
    pub(super) fn add(&mut self, place: usize) {
        self.0 |= 1 << (place % BATCH);
    }

    /// Adds others of the same batch.
    #[inline]
    pub(super) fn join(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Asks for every place, in order, whether its packet goes on; those that do not end there.
    #[inline]
    pub(super) fn retain(&mut self, mut goes_on: impl FnMut(usize) -> bool) {
        for place in self.places() {
            if !goes_on(place) {
                self.0 &= !(1 << place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH, Live};

    #[test]
    fn those_that_go_on_keep_their_places() {
        let mut live = Live::all(10);
        live.retain(|place| place % 3 != 0);
        assert_eq!(live.places().collect::<Vec<_>>(), [1, 2, 4, 5, 7, 8]);
        assert_eq!(live.of(10..).take(6).collect::<Vec<_>>(), [11, 12, 14, 15, 17, 18]);
        let mut asked = Vec::new();
        live.retain(|place| {
            asked.push(place);
            place > 4
        });
        assert_eq!(asked, [1, 2, 4, 5, 7, 8]);
        assert_eq!(live.places().collect::<Vec<_>>(), [5, 7, 8]);
        let odd = live.part(|place| place % 2 == 1);
        assert_eq!((live.places().collect::<Vec<_>>(), odd.places().collect::<Vec<_>>()), (vec![8], vec![5, 7]));
        live.join(odd);
        assert_eq!(live.places().collect::<Vec<_>>(), [5, 7, 8]);
        assert!(live.contains(8) && !live.contains(9) && !live.contains(1000));
        for count in [0, 1, BATCH - 1, BATCH, 1000] {
            assert_eq!(Live::all(count).places().count(), count.min(BATCH));
        }
    }
}
