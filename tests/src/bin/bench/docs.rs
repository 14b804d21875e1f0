//! `docs/benchmarks.md` and its charts.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use anytun_tests::namespace::output;

use crate::pipeline;
use crate::plot::Chart;
use crate::report::{Report, Row, RttRow};
use crate::spread::Spread;
use crate::table::{self, LEGEND, size_title};
use crate::traffic::Size;

/// What is between these lines is written by the benchmark; the rest of the document is not touched.
const BEGIN: &str = "<!-- measured: written by cargo xtask bench --docs -->";
const END: &str = "<!-- end of measured -->";
/// Where the charts are, beside the document.
const CHARTS: &str = "benchmarks";
/// What the profiles are.
const PROFILED: &str = "Samples of the relay's processor at the peak (`perf record -e cpu-clock`), those of the worker and \
    of the threads that receive for the relay's interfaces. Where interrupts are off a sample is late: it counts where they \
    are on again, so locks and what ends them have too much, and what they protect too little.";
/// What the round trips are.
const ROUND_TRIPS: &str = "Microseconds there and back, median of the rounds [least, most], without load and beside one. What \
    the generator takes for sealing and opening the packets of a tunnel is in the time.";
/// What turns SVG into PNG.
const PNG: &str = "rsvg-convert";

/// Writes the charts, and the tables into the document in the directory `docs`.
pub(crate) fn write(report: &Report, docs: &Path) -> Result<()> {
    let directory = docs.join(CHARTS);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut names = Vec::new();
    for (name, chart) in charts(report) {
        let Some(svg) = chart.svg() else { continue };
        let path = directory.join(format!("{name}.svg"));
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        let png = path.with_extension("png");
        let made = output(Command::new(PNG).args(["--zoom", "1.5", "--output"]).arg(&png).arg(&path));
        if let Err(error) = made {
            eprintln!("bench: no {}: {error:#}; `cargo xtask bench` asks for {PNG}", png.display());
        }
        names.push((name, chart.title));
    }
    let path = docs.join("benchmarks.md");
    let before = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let text = replace(&before, &measured(report, &names))
        .with_context(|| format!("{} lacks the lines {BEGIN} and {END}", path.display()))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts `text` between the two marks.
fn replace(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{text}\n{END}{after}"))
}

fn measured(report: &Report, charts: &[(&str, String)]) -> String {
    let mut text = format!("Made by `{}`.\n\n| | |\n| --- | --- |\n", report.header.command);
    for (name, words) in report.header.lines() {
        text += &format!("| {name} | {} |\n", words.replace('|', "\\|"));
    }
    text += &format!("\n{LEGEND}\n");
    for (name, title) in charts {
        text += &format!("\n![{title}]({CHARTS}/{name}.svg)\n");
    }
    for size in report.sizes() {
        text += &format!("\n### {}\n\n{}", size_title(size), table::markdown(report, size));
    }
    let round_trips = report.round_trip_rows();
    if !round_trips.is_empty() {
        text += &format!("\n### Round trips\n\n{ROUND_TRIPS}\n\n{}", table::round_trips(&round_trips));
    }
    let checked = report.checked_rows();
    if !checked.is_empty() {
        text += &format!("\n### Every packet checked\n\n{}", table::checked(&checked));
    }
    if !report.profiles.is_empty() {
        text += &format!("\n### Where the time goes\n\n{PROFILED}\n\n{}", table::profiles(&report.profiles));
    }
    if !report.crypto.is_empty() {
        text += &format!("\n### Sealing and opening\n\n{}", table::crypto(&report.crypto));
    }
    if !report.pipeline.is_empty() {
        let (tables, legend) = (pipeline::tables(&report.pipeline), pipeline::LEGEND);
        text += &format!("\n### The packet path without a kernel\n\n{legend}\n\n{tables}");
    }
    text += "\nThe subjects:\n\n";
    let mut subjects: Vec<_> = report.rows.iter().map(|row| row.subject).collect();
    subjects.dedup();
    subjects.sort_by_key(|subject| subject.to_string());
    subjects.dedup();
    for subject in subjects {
        text += &format!("- `{subject}`: {}\n", subject.description());
    }
    text
}

/// The charts, by the names of their files.
fn charts(report: &Report) -> [(&'static str, Chart); 4] {
    let sizes = report.sizes();
    let smallest: Vec<Size> = sizes.first().copied().into_iter().collect();
    let header = &report.header;
    let subtitle = format!(
        "{}, {} processors, Linux {}; veth, AF_XDP in copy mode; {}",
        header.cpu, header.cores, header.kernel, header.date
    );
    let names = |sizes: &[Size]| sizes.iter().map(|size| size_title(*size)).collect::<Vec<_>>();
    let chart = |title: &str, axis: &str, series: Vec<String>, groups| Chart {
        title: title.to_owned(),
        subtitle: subtitle.clone(),
        axis: axis.to_owned(),
        series,
        groups,
    };
    let trips = |trip: Option<RttRow>| [trip.map(|trip| trip.p50_spread), trip.map(|trip| trip.p99_spread)];
    let first = smallest.first().map_or_else(String::new, |size| size_title(*size).to_lowercase());
    let four = |names: [&str; 4]| names.map(str::to_owned).to_vec();
    [
        (
            "peak",
            chart(
                "Packets a second at the peak",
                "packets a second (logarithmic; whiskers: least and greatest of all rounds)",
                names(&sizes),
                groups(report, &sizes, |row| vec![row.peak_pps]),
            ),
        ),
        (
            "cpu",
            chart(
                "Processor time of a packet at the peak",
                "nanoseconds a packet (logarithmic)",
                names(&sizes),
                groups(report, &sizes, |row| vec![row.cpu_ns_per_packet]),
            ),
        ),
        (
            "overload",
            chart(
                &format!("Overload: {first}, 8 times the peak or all that the generator sends"),
                "packets a second that come out (logarithmic)",
                vec!["peak".to_owned(), "overload".to_owned()],
                groups(report, &smallest, |row| vec![row.peak_pps, row.overload_pps]),
            ),
        ),
        (
            "latency",
            chart(
                &format!("Round trips: {first}"),
                "microseconds (logarithmic)",
                four(["idle, p50", "idle, p99", "half the peak, p50", "half the peak, p99"]),
                groups(report, &smallest, |row| [trips(row.rtt_idle_us), trips(row.rtt_us)].concat()),
            ),
        ),
    ]
}

/// The bars of every subject, those of one size after those of the other.
fn groups(
    report: &Report,
    sizes: &[Size],
    bars: impl Fn(&Row) -> Vec<Option<Spread>>,
) -> Vec<(String, Vec<Option<Spread>>)> {
    let mut subjects = Vec::new();
    for row in &report.rows {
        if !subjects.contains(&row.subject) {
            subjects.push(row.subject);
        }
    }
    let of = |subject| {
        let rows = sizes.iter().map(|&size| report.rows_of(size).find(|row| row.subject == subject));
        rows.flat_map(|row| row.map_or_else(|| vec![None], &bars)).collect()
    };
    let groups = subjects.into_iter().map(|subject| (subject.to_string(), of(subject)));
    groups.filter(|(_, bars): &(String, Vec<Option<Spread>>)| bars.iter().any(Option::is_some)).collect()
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replace};

    #[test]
    fn only_what_was_measured_is_replaced() {
        let document = format!("# A\n{BEGIN}\nold\n{END}\n## B\n");
        assert_eq!(replace(&document, "new\n"), Some(format!("# A\n{BEGIN}\n\nnew\n\n{END}\n## B\n")));
        assert_eq!(replace("# A\n", "new"), None);
    }
}
