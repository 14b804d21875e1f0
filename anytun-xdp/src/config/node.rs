//! The tables `[node]` and `[[interface]]`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anytun_common::map::{MAX_INTERFACES, QUEUES_PER_INTERFACE};

use super::document::{At, Table};
use super::error::Report;
use super::names::{Names, check_name};
use super::{Idle, Interface, Node, Queues, Scheduling, SenderIds, XdpMode};

const STATE_DIR: &str = "/var/lib/anytun-xdp";
pub(super) const CONTROL: &str = "/run/anytun-xdp/control.sock";

/// Seconds of the longest `drain_time`.
const LONGEST_DRAIN: i64 = 600;

/// ICMP errors a second, by default and at most.
pub(super) const ICMP_RATE: u32 = 100;
const HIGHEST_ICMP_RATE: i64 = 100_000;

/// Octets of the longest path of a unix socket: `sun_path` without its closing zero (unix(7)).
const SOCKET_PATH: usize = 107;

/// Octets of the longest name of an interface: `IFNAMSIZ` without its closing zero (netdevice(7)).
pub(super) const INTERFACE_NAME: usize = 15;

/// The interface on which a host talks to itself.
const LOOPBACK: &str = "lo";

/// Reads `[node]`. Relative paths are relative to `directory`.
pub(super) fn node(report: &mut Report, table: &Table<'_>, directory: &Path) -> Option<Node> {
    table.require(report, "name");
    let name = table.string(report, "name").and_then(|At { line, value }| {
        let checked = check_name(value).map_err(|why| report.error(line, format!("the name of the node {why}")));
        checked.ok().map(|()| value.to_owned())
    });
    let state_dir = path(report, table, "state_dir", STATE_DIR, directory);
    let control = path(report, table, "control", CONTROL, directory);
    if let Some(octets) = control.as_ref().map(|path| path.as_os_str().len()).filter(|octets| *octets > SOCKET_PATH) {
        report.error(
            table.line_of("control"),
            format!("`control` is a path of {octets} octets; a unix socket can have {SOCKET_PATH}"),
        );
    }
    table.require(report, "sender_ids");
    let sender_ids = sender_ids(report, table);
    let metrics = match table.has("metrics") {
        true => Some(metrics(report, table)?),
        false => None,
    };
    let drain_time = match table.has("drain_time") {
        true => table.integer(report, "drain_time", 0..=LONGEST_DRAIN)?.value,
        false => 0,
    };
    let idle = match table.has("idle") {
        true => table.choice(report, "idle", &[("sleep", Idle::Sleep), ("spin", Idle::Spin)])?.value,
        false => Idle::Sleep,
    };
    let scheduling = scheduling(report, table, idle)?;
    let icmp_rate = match table.has("icmp_rate") {
        true => table.integer(report, "icmp_rate", 0..=HIGHEST_ICMP_RATE)?.value,
        false => ICMP_RATE,
    };
    Some(Node {
        name: name?,
        state_dir: state_dir?,
        sender_ids: sender_ids?,
        control: control?,
        metrics,
        drain_time: Duration::from_secs(drain_time),
        idle,
        scheduling,
        icmp_rate,
    })
}

/// A worker in real time that never sleeps would leave its processor to nobody, not even to the kernel.
fn scheduling(report: &mut Report, table: &Table<'_>, idle: Idle) -> Option<Scheduling> {
    const CHOICES: [(&str, Scheduling); 2] = [("fifo", Scheduling::Fifo), ("other", Scheduling::Other)];
    if !table.has("scheduling") {
        return Some(if idle == Idle::Spin { Scheduling::Other } else { Scheduling::Fifo });
    }
    let At { line, value } = table.choice(report, "scheduling", &CHOICES)?;
    if (value, idle) == (Scheduling::Fifo, Idle::Spin) {
        report.error(
            line,
            "`scheduling` is \"fifo\", but `idle` is \"spin\": workers that never sleep would leave their \
            processors to nobody; leave one of the two out",
        );
        return None;
    }
    Some(value)
}

fn path(report: &mut Report, table: &Table<'_>, key: &str, default: &str, directory: &Path) -> Option<PathBuf> {
    if !table.has(key) {
        return Some(PathBuf::from(default));
    }
    let At { line, value } = table.string(report, key)?;
    if value.is_empty() {
        report.error(line, format!("`{key}` is empty; leave it out for {default}"));
        return None;
    }
    Some(directory.join(value))
}

fn sender_ids(report: &mut Report, table: &Table<'_>) -> Option<SenderIds> {
    let At { line, value } = table.string(report, "sender_ids")?;
    let ids = range(value).and_then(|(first, last)| {
        Some(SenderIds { first: u16::try_from(first).ok()?, last: u16::try_from(last).ok()? })
    });
    if ids.is_none() {
        let form = "it must be one number or FIRST-LAST, from 0 to 65535, such as \"1-64\"";
        report.error(line, format!("`sender_ids` cannot be {value:?}; {form}"));
    }
    ids
}

/// "7" or "0-3", in order.
fn range(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn metrics(report: &mut Report, table: &Table<'_>) -> Option<SocketAddr> {
    let At { line, value } = table.string(report, "metrics")?;
    let address: Option<SocketAddr> = value.parse().ok();
    let wrong = match address {
        Some(address) if address.port() != 0 => return Some(address),
        Some(_) => "has port 0, which nobody could ask",
        None => "is no address and port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"",
    };
    report.error(line, format!("`metrics` {value:?} {wrong}"));
    None
}

/// Reads every `[[interface]]`; `None` stands for one that cannot be used.
pub(super) fn interfaces(report: &mut Report, tables: &[Table<'_>]) -> Vec<Option<Interface>> {
    if tables.is_empty() {
        report.error(0, "there is no [[interface]]; the node needs at least one to take packets from");
    }
    let limit = MAX_INTERFACES as usize;
    if let Some(table) = tables.get(limit) {
        report.error(table.line, format!("there are {} interfaces; a node can have {limit}", tables.len()));
    }
    let mut names = Names::new("interface");
    tables.iter().map(|table| interface(report, table, &mut names)).collect()
}

fn interface(report: &mut Report, table: &Table<'_>, names: &mut Names) -> Option<Interface> {
    let name = names.take(report, table).and_then(|name| {
        let usable = is_interface_name(report, table.line_of("name"), &name);
        if name == LOOPBACK {
            let line = table.line_of("name");
            report.error(line, "`lo` never carries packets of clients; name the interface that they arrive on");
        }
        (usable && name != LOOPBACK).then_some(name)
    });
    let modes = [
        ("auto", XdpMode::Auto),
        ("zerocopy", XdpMode::Zerocopy),
        ("native", XdpMode::Native),
        ("generic", XdpMode::Generic),
    ];
    let xdp = match table.has("xdp") {
        true => table.choice(report, "xdp", &modes).map(|at| at.value),
        false => Some(XdpMode::Auto),
    };
    let queues = match table.has("queues") {
        true => queues(report, table),
        false => Some(Queues::All),
    };
    Some(Interface { name: name?, xdp: xdp?, queues: queues? })
}

/// Whether an interface can have a name; reports it if not.
pub(super) fn is_interface_name(report: &mut Report, line: usize, name: &str) -> bool {
    let usable = name.len() <= INTERFACE_NAME && !name.contains(['/', ':']) && !name.contains(char::is_whitespace);
    if !usable {
        let rule = format!("at most {INTERFACE_NAME} octets without white space, `/` and `:`");
        report.error(line, format!("no interface can be named {name:?}; names have {rule}"));
    }
    usable
}

fn queues(report: &mut Report, table: &Table<'_>) -> Option<Queues> {
    let At { line, value } = table.string(report, "queues")?;
    if value == "all" {
        return Some(Queues::All);
    }
    match range(value) {
        Some((first, last)) if last < QUEUES_PER_INTERFACE => Some(Queues::Range(first, last)),
        Some(_) => {
            let last = QUEUES_PER_INTERFACE - 1;
            report.error(line, format!("`queues` is {value:?}; queues 0 to {last} can be used"));
            None
        }
        None => {
            report.error(line, format!("`queues` cannot be {value:?}; it must be \"all\", one queue or \"0-3\""));
            None
        }
    }
}

/// Reports a node with fewer sender IDs than workers: each worker sends under one of its own (design decision 2).
pub(super) fn check_sender_ids(report: &mut Report, line: usize, ids: SenderIds, interfaces: &[Option<Interface>]) {
    let ranges = interfaces.iter().flatten().filter_map(|interface| match interface.queues {
        Queues::All => None,
        Queues::Range(first, last) => Some(first..=last),
    });
    let workers = ranges.flatten().collect::<BTreeSet<u32>>().len();
    let count = ids.count();
    if workers > count as usize {
        report.error(
            line,
            format!("`sender_ids` has {count}, but there are {workers} queues and each worker needs one of its own"),
        );
    }
}
