//! The search for the highest rate that loses next to nothing.

use crate::error::Error;
use crate::outcome::Outcome;

/// Steps at most, the confirmations apart.
const STEPS: usize = 16;
/// Confirmations at most: each that fails lowers the rate.
const CONFIRMATIONS: usize = 8;
/// How near the bounds come to each other, as a share of the upper one.
const NEAR: f64 = 0.02;
/// What a failed confirmation leaves of the rate.
const LOWER: f64 = 0.95;
/// What is tried first, of what came through when too much was offered.
const ABOVE: f64 = 1.2;

/// A rate that was tried.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    /// Packets sent a second.
    pub offered: f64,
    /// Packets received a second.
    pub received: f64,
    /// The share of packets that did not arrive.
    pub loss: f64,
}

impl From<&Outcome> for Step {
    fn from(outcome: &Outcome) -> Self {
        Self { offered: outcome.send_rate(), received: outcome.receive_rate(), loss: outcome.loss() }
    }
}

/// What the search came to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// The highest rate that passed, also the second time; 0 when none did.
    pub lossless: f64,
    /// Every rate tried, in order. The last one is that of the result.
    pub steps: Vec<Step>,
}

/// Looks for the highest rate up to `most` with a loss of `limit` or less by halving the interval. `measure` tries a rate;
/// `watch` sees every step.
///
/// # Errors
///
/// Those of `measure`.
pub fn search(
    most: u64,
    limit: f64,
    mut measure: impl FnMut(u64) -> Result<Option<Step>, Error>,
    mut watch: impl FnMut(&Step),
) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut attempt = |rate: f64, found: &mut Found| -> Result<Option<bool>, Error> {
        let Some(step) = measure((rate as u64).max(1))? else { return Ok(None) };
        watch(&step);
        found.steps.push(step);
        Ok(Some(step.loss <= limit))
    };
    let (mut low, mut high) = (0.0, most as f64);
    let mut next = high;
    for _ in 0..STEPS {
        let Some(passed) = attempt(next, &mut found)? else { return Ok(found) };
        let step = found.steps[found.steps.len() - 1];
        if passed {
            // A sender that cannot do more than this has no higher rate to try.
            low = next.min(step.offered.max(low));
            if step.offered < next * (1.0 - NEAR) {
                break;
            }
        } else {
            high = next.min(step.offered.max(low));
            if low == 0.0 {
                // Far too much was offered: what came through is a better hint than the middle.
                high = high.min((step.received * ABOVE).max(1.0)).min(next * LOWER);
            }
        }
        if high - low <= high * NEAR {
            break;
        }
        next = if low == 0.0 && found.steps.len() == 1 { high } else { (low + high) / 2.0 };
    }
    for _ in 0..CONFIRMATIONS {
        if low < 1.0 {
            break;
        }
        match attempt(low, &mut found)? {
            None => break,
            Some(true) => {
                found.lossless = found.steps[found.steps.len() - 1].offered;
                break;
            }
            Some(false) => low *= LOWER,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A way that carries `capacity`, and a sender that sends `speed` at most.
    fn way(capacity: f64, speed: f64) -> impl FnMut(u64) -> Result<Option<Step>, Error> {
        move |rate| {
            let offered = (rate as f64).min(speed);
            let received = offered.min(capacity);
            Ok(Some(Step { offered, received, loss: (offered - received) / offered }))
        }
    }

    #[test]
    fn finds_what_the_way_carries() {
        for capacity in [900.0, 12_345.0, 820_000.0, 7_900_000.0] {
            let found = search(8_000_000, 0.001, way(capacity, 1e9), |_| {}).unwrap();
            let share = found.lossless / capacity;
            assert!((0.96..=1.002).contains(&share), "{capacity}: {found:?}");
            assert!(found.steps.len() <= STEPS + CONFIRMATIONS);
        }
    }

    #[test]
    fn a_way_faster_than_the_sender_gives_what_the_sender_can() {
        let found = search(8_000_000, 0.001, way(1e9, 2e6), |_| {}).unwrap();
        assert_eq!(found.lossless, 2e6);
        assert_eq!(found.steps.len(), 2, "one step and its confirmation");
    }

    #[test]
    fn a_result_that_does_not_hold_is_lowered() {
        let mut tries = 0;
        let mut first = way(1_000_000.0, 1e9);
        let mut later = way(900_000.0, 1e9);
        let found = search(
            2_000_000,
            0.001,
            |rate| {
                tries += 1;
                if tries <= 8 { first(rate) } else { later(rate) }
            },
            |_| {},
        )
        .unwrap();
        assert!((800_000.0..=901_000.0).contains(&found.lossless), "{found:?}");
    }

    #[test]
    fn a_way_that_carries_nothing_has_no_rate() {
        let found = search(1_000, 0.001, way(0.0, 1e9), |_| {}).unwrap();
        assert_eq!(found.lossless, 0.0);
    }
}
