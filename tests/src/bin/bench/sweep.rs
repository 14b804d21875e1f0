//! What becomes of every single packet at several loads: came it once, in its place, as it was sent?

use anyhow::Result;
use serde::Serialize;

use crate::contestant::Contestant;
use crate::generator::Outcome;
use crate::measure::{Bench, Samples, kilo, name};
use crate::spread::median;
use crate::traffic::Size;

/// A load at which every packet that arrived was checked.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Checked {
    /// Packets a second that were asked for, and that the generator sent: its sockets send fewer than its XDP program.
    pub(crate) asked_pps: u64,
    pub(crate) sent_pps: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Packets that came twice, were overtaken by a later one of their client and sender ID, or were changed.
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupt: u64,
}

impl Checked {
    /// What the generator saw when it was asked for a rate.
    pub(crate) fn new(asked_pps: u64, outcome: &Outcome) -> Self {
        let &Outcome { send_pps: sent_pps, sent, received, duplicated, reordered, corrupt, .. } = outcome;
        Self { asked_pps, sent_pps, sent, received, duplicated, reordered, corrupt }
    }

    /// Packets that were not as they should be.
    pub(crate) fn faults(&self) -> u64 {
        self.duplicated + self.reordered + self.corrupt
    }
}

impl Bench<'_> {
    /// Checks every packet at loads below the peak.
    pub(crate) fn sweep(&mut self, contestant: &mut Contestant, size: Size, samples: &mut Samples) -> Result<()> {
        if self.plan.checked_loads.is_empty() {
            return Ok(());
        }
        let peak = median(&samples.peak).unwrap_or_default();
        for part in self.plan.checked_loads {
            let load = (peak * part) as u64;
            let outcome = self.observe(contestant, size, &self.plan.checked(load), samples)?.outcome;
            samples.checked.push(Checked::new(load, &outcome));
        }
        let faults: u64 = samples.checked.iter().map(Checked::faults).sum();
        let line = format!("{size:>4}  {:<28} checked  up to {}, {faults} faults", name(contestant), kilo(peak));
        self.progress.done(self.plan.check_time(contestant.subject), &line);
        Ok(())
    }
}
