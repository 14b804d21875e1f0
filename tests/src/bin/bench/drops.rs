//! What the interfaces count: packets that arrived, and packets that found the relay's receiving ring full.

use anyhow::Result;
use anytun_tests::counters::Counters;

use crate::topology::Topology;

/// Counters of the links at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Links {
    /// Packets that came out of the relay, at the interface where they are expected.
    pub(crate) arrived: f64,
    /// Packets that were sent into link0, those that were dropped there included.
    pub(crate) sent: f64,
    /// Of these, packets that were dropped because its ring of 256 was full: the relay has not seen them.
    pub(crate) ring_full: f64,
}

impl Links {
    /// Reads them.
    pub(crate) fn read(topology: &Topology, one_interface: bool) -> Result<Self> {
        let source = Counters::read(&topology.generator, "gen0")?;
        let sink = if one_interface { source } else { Counters::read(&topology.generator, "sink0")? };
        let ring_full = source.dropped.max(source.frames_refused) as f64;
        Ok(Self { arrived: sink.received as f64, sent: source.sent as f64 + ring_full, ring_full })
    }

    /// What was added since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            arrived: self.arrived - before.arrived,
            sent: self.sent - before.sent,
            ring_full: self.ring_full - before.ring_full,
        }
    }
}
