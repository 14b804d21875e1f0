//! The results as tables, for a terminal and for a document.

use std::fmt::Write as _;

use crate::measure::kilo;
use crate::profile::Part;
use crate::report::{CryptoRow, ProfileRow, Report, Row, RttRow};
use crate::spread::Spread;
use crate::sweep::Checked;
use crate::traffic::Size;

/// What the columns are called.
const COLUMNS: [&str; 12] = [
    "subject",
    "peak",
    "[least, most]",
    "lossless",
    "past ring",
    "overload",
    "ns/packet",
    "user+sys+irq",
    "rtt idle",
    "rtt half",
    "x reflector",
    "x best peer",
];

/// What the columns mean.
pub(crate) const LEGEND: &str = "Peak: packets a second that come out at the best rate. Lossless: the highest of which at \
    most 0.1 % is lost; past ring: the same without what is dropped at the receiving ring of 256 packets of the relay's \
    interface, which no relay here can empty in time at every moment. Overload: what comes out of 8 times the peak, or of \
    all that the generator can send (*). ns/packet: processor time of the relay at its peak, user + system + threads that \
    receive for its interfaces. Round trips, in microseconds, p50/p99, without load and at half the peak, but no more than 250 k: more would load the generator. The last \
    two columns divide the better of peak and overload by that of the reflector and by that of the best peer, round by \
    round: medians [least, most]. A peak marked > was limited by the generator. \
    Rows -spin have round trips only, beside 100 k at most: the worker never sleeps and has a processor to itself, and the \
    threads that receive for its interfaces run beside the generator, so that nothing else compares.";

/// The table of a size for a terminal.
pub(crate) fn terminal(report: &Report, size: Size) -> String {
    let rows: Vec<_> = report.rows_of(size).map(cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut text = format!("{}\n", size_title(size));
    for cells in [COLUMNS.map(str::to_owned)].iter().chain(&rows) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "{}", line(cells));
    }
    text
}

/// The table of a size for a document.
pub(crate) fn markdown(report: &Report, size: Size) -> String {
    let mut text = format!("| {} |\n| --- |{}\n", COLUMNS.join(" | "), " ---: |".repeat(COLUMNS.len() - 1));
    for row in report.rows_of(size) {
        let _ = writeln!(text, "| {} |", cells(row).join(" | "));
    }
    text
}

/// Round trips with what the rounds spread over.
pub(crate) fn round_trips(rows: &[&Row]) -> String {
    let mut text = "| subject | octets | idle p50 | idle p99 | beside, packets a second | p50 | p99 |\n".to_owned();
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let cell = |spread: Spread| format!("{:.0} [{:.0}, {:.0}]", spread.median, spread.min, spread.max);
    let cells = |trip: Option<RttRow>| match trip {
        Some(trip) => format!("{} | {}", cell(trip.p50_spread), cell(trip.p99_spread)),
        None => "- | -".to_owned(),
    };
    for row in rows {
        let (idle, beside, half) = (cells(row.rtt_idle_us), kilo(row.rtt_load_pps as f64), cells(row.rtt_us));
        let _ = writeln!(text, "| {} | {} | {idle} | {beside} | {half} |", row.subject, row.size);
    }
    text
}

/// What became of every packet at the loads of the sweep.
pub(crate) fn checked(rows: &[&Row]) -> String {
    let faults: u64 = rows.iter().map(|row| row.faults.packets).sum();
    let mut text = match faults {
        0 => {
            "No packet came twice, too late (by client and sender ID) or changed at any of these loads.\n\n".to_owned()
        }
        _ => format!("{faults} packets came twice, too late (by client and sender ID) or changed.\n\n"),
    };
    text += "| subject | octets | loads, packets a second | packets | twice | too late | changed |\n";
    text += "| --- | ---: | --- | ---: | ---: | ---: | ---: |\n";
    for row in rows {
        let loads = &row.faults.loads;
        let mut rates: Vec<f64> = loads.iter().map(|load| load.sent_pps).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let rates: Vec<_> = rates.into_iter().map(kilo).collect();
        let sum = |field: fn(&Checked) -> u64| loads.iter().map(field).sum::<u64>();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.subject,
            row.size,
            rates.join(", "),
            sum(|load| load.received),
            sum(|load| load.duplicated),
            sum(|load| load.reordered),
            sum(|load| load.corrupt)
        );
    }
    text
}

/// Where the time goes: the parts of all profiles side by side, then the functions of each.
pub(crate) fn profiles(rows: &[ProfileRow]) -> String {
    let heads: Vec<_> = rows.iter().map(|row| format!(" {} |", row.subject)).collect();
    let mut text = format!("| part |{}\n| --- |{}\n", heads.concat(), " ---: |".repeat(rows.len()));
    let line = |title: &str, counts: &dyn Fn(Part) -> bool| {
        let share = |row: &ProfileRow| {
            let parts = row.profile.parts.iter().filter(|(part, _)| counts(**part));
            format!(" {:.1} % |", 100.0 * parts.map(|(_, share)| share).sum::<f64>())
        };
        format!("| {title} |{}\n", rows.iter().map(share).collect::<String>())
    };
    for part in Part::ALL {
        text += &line(part.title(), &|other| other == part);
    }
    text += &line("all of the kernel's", &|part| part.is_of_kernel());
    text += &line("all of the node's", &|part| !part.is_of_kernel());
    for ProfileRow { subject, size, profile } in rows {
        let title = size_title(*size).to_lowercase();
        let _ = writeln!(text, "\n`{subject}`, {title}, {} samples:\n", profile.samples);
        text += "| share | thread | part | function |\n| ---: | --- | --- | --- |\n";
        for symbol in &profile.symbols {
            let thread = if symbol.receiving { "receiving" } else { "worker" };
            let (share, part) = (100.0 * symbol.share, symbol.part.title());
            let _ = writeln!(text, "| {share:.1} % | {thread} | {part} | `{}` |", symbol.name.replace('|', "\\|"));
        }
    }
    text
}

/// The table of the cryptography.
pub(crate) fn crypto(rows: &[CryptoRow]) -> String {
    let mut text = "| what | octets | ns in a batch of 64 | ns one by one | times faster |\n".to_owned();
    text += "| --- | ---: | ---: | ---: | ---: |\n";
    for row in rows {
        let CryptoRow { what, size, batched_ns, single_ns } = row;
        let times = single_ns / batched_ns;
        let _ = writeln!(text, "| {what} | {size} | {batched_ns:.0} | {single_ns:.0} | {times:.1} |");
    }
    text
}

/// What a size is called above its table.
pub(crate) fn size_title(size: Size) -> String {
    match size {
        Size::Octets(octets) => format!("Frames of {octets} octets"),
        Size::Imix => "IMIX".to_owned(),
    }
}

fn cells(row: &Row) -> [String; 12] {
    let pps = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| kilo(spread.median));
    let parts = row.cpu_parts_ns;
    let limit = if row.overload_is_generator_limit { "*" } else { "" };
    let bound = if row.generator_bound { "> " } else { "" };
    [
        row.subject.to_string(),
        format!("{bound}{}", pps(row.peak_pps)),
        row.peak_pps.map_or_else(String::new, |spread| format!("[{}, {}]", kilo(spread.min), kilo(spread.max))),
        pps(row.lossless_pps),
        pps(row.lossless_past_ring_pps),
        format!("{}{limit}", pps(row.overload_pps)),
        row.cpu_ns_per_packet.map_or_else(String::new, |spread| format!("{:.0}", spread.median)),
        match row.cpu_ns_per_packet {
            Some(_) => format!("{:.0}+{:.0}+{:.0}", parts.user, parts.system, parts.softirq),
            None => String::new(),
        },
        round_trip(row.rtt_idle_us),
        round_trip(row.rtt_us),
        ratio(row.ratio_to_reflector_spread),
        ratio(row.ratio_to_best_peer_spread),
    ]
}

fn round_trip(trip: Option<RttRow>) -> String {
    trip.map_or_else(|| "-".to_owned(), |RttRow { p50, p99, .. }| format!("{p50:.0}/{p99:.0}"))
}

fn ratio(ratio: Option<Spread>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |Spread { min, median, max }| format!("{median:.2} [{min:.2}, {max:.2}]"))
}
