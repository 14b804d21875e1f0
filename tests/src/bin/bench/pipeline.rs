//! The packet path without a kernel, as its own benchmark tells.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anytun_xdp::worker::Stage;
use serde::{Deserialize, Serialize};

use crate::spread::Spread;

/// What the tables mean.
pub(crate) const LEGEND: &str = "Workers on rings of plain memory, so all but the kernel's part: nanoseconds of processor \
    time a packet, median [least, most]. Sizes are octets of the plain Ethernet frame without FCS; each packet goes from a \
    client to a client that nothing foresees. x 100: times as much as with 100 clients. With two workers: how many times as \
    much as one they carry together, and how many when they have no client in common, which is what the machine allows.";

/// One kind of traffic and number of workers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct PipelineRow {
    /// `null` or `default`.
    pub(crate) crypto: String,
    /// Octets of the plain Ethernet frame without FCS.
    pub(crate) size: u32,
    pub(crate) clients: u32,
    pub(crate) workers: u32,
    /// Nanoseconds that a packet takes of a worker.
    pub(crate) ns: Spread,
    /// How many times as much as one worker two carry, and how many when they have no client in common.
    pub(crate) times_one: Option<Spread>,
    pub(crate) apart_times_one: Option<Spread>,
    /// Nanoseconds a packet; empty for two workers.
    pub(crate) stages: Stages,
    /// Of a packet; null where the machine does not count them.
    pub(crate) cycles: Option<f64>,
    pub(crate) instructions: Option<f64>,
    pub(crate) stage_cycles: Option<Stages>,
    pub(crate) stage_instructions: Option<Stages>,
}

/// A figure for each stage, by its name.
type Stages = BTreeMap<String, f64>;

impl PipelineRow {
    /// Crypto, octets and clients, as cells.
    fn kind(&self) -> String {
        format!("{} | {} | {}", self.crypto, self.size, self.clients)
    }
}

/// All tables.
pub(crate) fn tables(rows: &[PipelineRow]) -> String {
    let (one, two): (Vec<&PipelineRow>, Vec<&PipelineRow>) = rows.iter().partition(|row| row.workers == 1);
    let mut text = whole(&one);
    text += &stages("ns", &one, |row| Some(&row.stages));
    text += &stages("cycles", &one, |row| row.stage_cycles.as_ref());
    text += &stages("instructions", &one, |row| row.stage_instructions.as_ref());
    text + &pair(&two)
}

fn whole(rows: &[&PipelineRow]) -> String {
    let mut text = "| crypto | octets | clients | ns | x 100 | cycles | instructions |\n".to_owned();
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let count = |count: Option<f64>| count.map_or_else(|| "not counted here".to_owned(), |count| format!("{count:.0}"));
    for row in rows {
        let alike =
            |other: &&&PipelineRow| other.clients == 100 && other.crypto == row.crypto && other.size == row.size;
        let times = rows.iter().find(alike).map(|hundred| row.ns.median / hundred.ns.median);
        let times = times.map_or_else(|| "-".to_owned(), |times| format!("{times:.2}"));
        let (kind, ns) = (row.kind(), show(row.ns, 0));
        let (cycles, instructions) = (count(row.cycles), count(row.instructions));
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "| {kind} | {ns} | {times} | {cycles} | {instructions} |");
    }
    text
}

/// A column for each stage; nothing where no row has any.
fn stages(unit: &str, rows: &[&PipelineRow], of: impl Fn(&PipelineRow) -> Option<&Stages>) -> String {
    if rows.iter().all(|row| of(row).is_none()) {
        return String::new();
    }
    let names: Vec<&str> = Stage::ALL.iter().map(|stage| stage.name()).collect();
    let mut text = format!("\n| {unit} by stage | octets | clients | {} |\n| --- |", names.join(" | "));
    text += &" ---: |".repeat(names.len() + 2);
    text += "\n";
    for row in rows {
        let figure = |name: &&str| of(row).and_then(|stages| stages.get(*name));
        let cells =
            names.iter().map(|name| figure(name).map_or_else(|| "-".to_owned(), |figure| format!("{figure:.1}")));
        let _ = writeln!(text, "| {} | {} |", row.kind(), cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn pair(rows: &[&PipelineRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text =
        "\n| crypto | octets | clients | ns with two workers | x one worker | x one, no client in common |\n\
        | --- | ---: | ---: | ---: | ---: | ---: |\n"
            .to_owned();
    for row in rows {
        let times = |times: Option<Spread>| times.map_or_else(|| "-".to_owned(), |times| show(times, 2));
        let (shared, apart) = (times(row.times_one), times(row.apart_times_one));
        let _ = writeln!(text, "| {} | {} | {shared} | {apart} |", row.kind(), show(row.ns, 0));
    }
    text
}

fn show(Spread { min, median, max }: Spread, digits: usize) -> String {
    format!("{median:.digits$} [{min:.digits$}, {max:.digits$}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(clients: u32, workers: u32, ns: f64) -> PipelineRow {
        let spread = json!({"min": ns - 1.0, "median": ns, "max": ns + 1.0});
        let stages = if workers == 1 { json!({"receive": 2.0, "parse": 1.5}) } else { json!({}) };
        let times = (workers == 2).then_some(json!({"min": 1.7, "median": 1.8, "max": 2.0}));
        serde_json::from_value(json!({
            "crypto": "null", "size": 64, "clients": clients, "workers": workers, "ns": spread, "stages": stages,
            "times_one": times, "apart_times_one": times, "cycles": null, "instructions": null,
            "stage_cycles": null, "stage_instructions": null,
        }))
        .expect("a row")
    }

    #[test]
    fn a_row_has_what_its_kind_has() {
        let text = tables(&[row(100, 1, 200.0), row(60_000, 1, 250.0), row(100, 2, 210.0)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"| null | 64 | 60000 | 250 [249, 251] | 1.25 | not counted here | not counted here |"));
        let by_stage =
            lines.iter().position(|line| line.starts_with("| ns by stage | octets | clients | receive | parse |"));
        let first = by_stage.and_then(|line| lines.get(line + 2)).expect("a row below the title");
        assert!(first.starts_with("| null | 64 | 100 | 2.0 | 1.5 | - |"), "in the order of the stages: {first}");
        assert!(lines.contains(&"| null | 64 | 100 | 210 [209, 211] | 1.80 [1.70, 2.00] | 1.80 [1.70, 2.00] |"));
        assert!(!text.contains("cycles by stage"));
    }
}
