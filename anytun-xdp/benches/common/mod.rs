//! What the benchmarks have in common: how they are asked, and figures that are measured in rounds.

use std::fmt;
use std::process::exit;

use serde::Serialize;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// JSON for programs instead of tables for people.
    pub(crate) json: bool,
    /// Rounds of which the median is taken.
    pub(crate) rounds: usize,
    /// Fewer rounds and cases.
    pub(crate) quick: bool,
}

impl Asked {
    /// What this program's command line says; ends the program when it cannot be understood.
    pub(crate) fn new() -> Self {
        let mut asked = Self { json: false, rounds: 15, quick: false };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--json" => asked.json = true,
                "--quick" => (asked.quick, asked.rounds) = (true, 7),
                // Cargo gives the first; the second is what happens anyway.
                "--bench" | "--table" => {}
                _ => {
                    eprintln!("{argument} is no option; there are --table (which is the default), --json and --quick");
                    exit(2);
                }
            }
        }
        asked
    }
}

/// The least, the middle and the greatest of several measurements.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these measurements, of which there is at least one.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_unstable_by(f64::total_cmp);
        let (half, last) = (samples.len() / 2, samples.len() - 1);
        Self { min: samples[0], median: samples[half], max: samples[last] }
    }
}

/// `median [least, most]`, with the precision that is asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        write!(f, "{:7.digits$} [{:.digits$}, {:.digits$}]", self.median, self.min, self.max)
    }
}
