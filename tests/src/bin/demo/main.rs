//! The demonstration: a node between a real `anytun` and a real `uanytun`, in namespaces of its own, with a live table.

use std::fs::{self, Permissions};
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use anytun_tests::crypto::{Crypto, Source};
use anytun_tests::daemon::Kind;
use anytun_tests::evidence;
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT, Running, Who, client};
use anytun_tests::namespace::obstacle;
use anytun_tests::node;
use anytun_tests::stop::Stop;
use anytun_tests::traffic::{Echo, Report};
use clap::Parser;

mod table;

/// Exit codes: nothing or not everything was carried; the host cannot do it.
const FAILED: u8 = 1;
const HOST: u8 = 3;
/// Which program each client runs.
const KINDS: [Kind; 2] = [Kind::Anytun, Kind::Uanytun];
/// How often the table is drawn on a terminal, and how often it is printed elsewhere.
const REDRAW: Duration = Duration::from_secs(1);
const REPRINT: Duration = Duration::from_secs(5);

/// Shows a node at work between two real clients, in network namespaces that are removed at the end.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// The program anytun-xdp [default: the one built last beside this program]
    #[arg(long, value_name = "PATH")]
    node: Option<PathBuf>,
    /// End by itself after this time, such as 20s or 2m; otherwise Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Pings a second each way
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(obstacle) = obstacle() {
        eprintln!("demo: {obstacle}");
        return ExitCode::from(HOST);
    }
    match demonstrate(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("demo: {error:#}\n{}", evidence::take());
            ExitCode::from(FAILED)
        }
    }
}

/// Whether traffic flowed both ways and nothing was lost. When it returns everything is tidied up.
fn demonstrate(arguments: &Arguments) -> Result<bool> {
    let stop = Stop::new()?;
    let mut running = set_up(arguments.node.as_deref())?;
    println!("Both clients reach each other. Pinging both ways, {} a second each:\n", arguments.rate);
    let flows = running.both_ways(arguments.rate, 0)?;
    watch(&running, &flows, arguments.time, &stop)?;
    let [alice, bob] = flows.map(Echo::stop);
    let reports = [alice?, bob?];
    let status = running.node.status()?;
    running.node.stop()?;
    drop(running);
    println!("{}", closing_line(&reports, &table::Sum::of(&status)));
    Ok(reports.iter().all(|report| report.ensure_none_lost("").is_ok()))
}

/// Makes the namespaces, shows the configuration, starts the node and the clients.
fn set_up(program: Option<&Path>) -> Result<Running> {
    let program = program.map_or_else(node::program, |path| Ok(path.to_owned()))?;
    let lab = Lab::new(Layout::default())?;
    let crypto = |who: Who| Crypto {
        source: Source::PassphraseFile(format!("{}.pass", who.name()).into(), who.passphrase().to_owned()),
        ..Crypto::passphrase("")
    };
    for who in Who::BOTH {
        let file = lab.directory().join(format!("{}.pass", who.name()));
        fs::write(&file, who.passphrase()).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    }
    println!("The node is in the namespace {}; its two interfaces lead to the clients:", lab.node.name());
    for (who, kind) in Who::BOTH.into_iter().zip(KINDS) {
        let [v4, v6] = who.inner();
        let (name, place) = (who.name(), lab.client(who).name());
        println!("  {name}: {} in {place} behind {}, inside {v4} and {v6}", kind.program(), lab.interface(who));
    }
    println!("They know one address, {ANYCAST} port {PORT}, and each has a passphrase of its own.\n");
    let mut config = lab.config();
    config.services.truncate(1);
    let mut shown = config.clone();
    shown.clients.extend(Who::BOTH.map(|who| client(who, "anycast", crypto(who))));
    println!("The configuration of the node, {}:\n", lab.directory().join("node.toml").display());
    for line in shown.toml(lab.directory()).lines() {
        println!("    {line}");
    }
    println!("\nStarting the node and the clients ...");
    Running::start(lab, &program, config, KINDS, ["anycast"; 2], crypto)
}

/// Draws the table until the time is over or a signal comes.
fn watch(running: &Running, flows: &[Echo; 2], time: Option<Duration>, stop: &Stop) -> Result<()> {
    let (start, terminal) = (Instant::now(), std::io::stdout().is_terminal());
    let (mut printed, mut lines) = (None::<Instant>, 0);
    loop {
        let left = time.map_or(REDRAW, |time| time.saturating_sub(start.elapsed()).min(REDRAW));
        if left.is_zero() || stop.requested(left) {
            return Ok(());
        }
        if terminal || printed.is_none_or(|printed| printed.elapsed() >= REPRINT) {
            let text = table::render(&running.node.status()?, flows, KINDS.map(Kind::program), start.elapsed());
            if terminal && lines > 0 {
                // Up to the first line of the table before, and clear from there on.
                print!("\x1b[{lines}A\x1b[J");
            }
            println!("{text}");
            lines = text.lines().count() + 1;
            printed = Some(Instant::now());
        }
    }
}

fn closing_line(reports: &[Report; 2], sum: &table::Sum) -> String {
    let [alice, bob] = reports;
    let sent = alice.sent + bob.sent;
    let received = alice.received + bob.received;
    let drops = if sum.drops.is_empty() { "nothing".to_owned() } else { sum.drops.clone() };
    format!(
        "Carried {received} of {sent} pings (alice to bob {} of {}, bob to alice {} of {}), {} packets ({}) sent to clients; \
         lost {}; the node dropped {drops}.",
        alice.received,
        alice.sent,
        bob.received,
        bob.sent,
        sum.packets,
        table::octets(sum.bytes),
        sent - received + alice.refused + bob.refused
    )
}

/// Reads a time such as `20s`, `500ms`, `2m`; a bare number means seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no time; write it like 20s, 500ms or 2m"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        unit => Err(format!("{unit} is no unit of time; use ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(["", "s", "20h", "-1s", "1.5s"].iter().all(|text| duration(text).is_err()));
    }
}
