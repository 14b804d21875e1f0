//! The results.

use std::collections::BTreeMap;

use anytun_xdp::worker::Stage;
use serde::Serialize;

use crate::common::Spread;

/// One kind of traffic and number of workers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) crypto: &'static str,
    /// Octets of the plain Ethernet frame without FCS that the inner packet would make.
    pub(crate) size: usize,
    pub(crate) clients: u16,
    pub(crate) workers: usize,
    /// Nanoseconds that a packet takes of a worker.
    pub(crate) ns: Spread,
    /// How many times as much as one worker two carry, and how many when they have no client in common.
    pub(crate) times_one: Option<Spread>,
    pub(crate) apart_times_one: Option<Spread>,
    /// Nanoseconds a packet; empty for two workers, as are the following.
    pub(crate) stages: Stages,
    pub(crate) cycles: Option<f64>,
    pub(crate) instructions: Option<f64>,
    pub(crate) stage_cycles: Option<Stages>,
    pub(crate) stage_instructions: Option<Stages>,
}

/// A figure for each stage.
pub(crate) type Stages = BTreeMap<&'static str, f64>;

/// The medians of several rounds.
pub(crate) fn medians(rounds: &[[f64; Stage::COUNT]]) -> Stages {
    let of = |stage: Stage| Spread::of(rounds.iter().map(|round| round[stage as usize]).collect()).median;
    Stage::ALL.iter().map(|&stage| (stage.name(), of(stage))).collect()
}

/// The rows as tables.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "Sizes are octets of the plain Ethernet frame without FCS; figures are ns a packet, median [least, most].\n"
    );
    println!("crypto   size clients  whole packet{:22}cycles  instructions", "");
    let (one, two): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.workers == 1);
    let count = |count: Option<f64>| count.map_or_else(|| "not counted here".to_owned(), |count| format!("{count:.0}"));
    for Row { crypto, size, clients, ns, cycles, instructions, .. } in &one {
        let (cycles, instructions) = (count(*cycles), count(*instructions));
        println!("{crypto:7} {size:5} {clients:7}  {:32} {cycles:>7}  {instructions}", ns.to_string());
    }
    print_stages("ns a packet by stage", &one, |row| Some(&row.stages));
    print_stages("cycles a packet by stage", &one, |row| row.stage_cycles.as_ref());
    print_stages("instructions a packet by stage", &one, |row| row.stage_instructions.as_ref());
    if two.is_empty() {
        return;
    }
    println!(
        "\nTwo workers\ncrypto   size clients  ns of a worker{:20}times one worker     with no client in common",
        ""
    );
    for Row { crypto, size, clients, ns, times_one, apart_times_one, .. } in two {
        let times = |times: &Option<Spread>| times.map_or_else(String::new, |times| format!("{times:.2}"));
        let (times_one, apart) = (times(times_one), times(apart_times_one));
        println!("{crypto:7} {size:5} {clients:7}  {:32} {times_one:20} {apart}", ns.to_string());
    }
}

fn print_stages(title: &str, rows: &[&Row], stages: impl Fn(&Row) -> Option<&Stages>) {
    if rows.iter().all(|row| stages(row).is_none()) {
        return;
    }
    print!("\n{title}\ncrypto   size clients");
    Stage::ALL.iter().for_each(|stage| print!(" {:>8}", stage.name()));
    println!(" {:>8}", "sum");
    for row in rows {
        let Some(stages) = stages(row) else { continue };
        print!("{:7} {:5} {:7}", row.crypto, row.size, row.clients);
        Stage::ALL.iter().for_each(|stage| print!(" {:8.1}", stages[stage.name()]));
        println!(" {:8.1}", stages.values().sum::<f64>());
    }
}
