//! Idle costs nothing; load costs about one system call per batch and direction.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::lab::{Lab, Layout, Running};
use anytun_tests::node;
use anytun_tests::process::Process;
use anytun_tests::status::Io;
use anytun_tests::wait::{PATIENCE, until};
use nix::sys::signal::Signal;

use crate::{Case, case};

/// How long CPU time is counted.
const WINDOW: Duration = Duration::from_secs(3);
/// Clock ticks of /proc/PID/stat (proc_pid_stat(5)) a second. The kernel's interface fixes them on every common
/// architecture.
const TICKS: f64 = 100.0;
/// The share of a core that an idle node may use.
const IDLE: f64 = 0.01;
/// System calls that have nothing to do with packets: housekeeping, and polls that find nothing.
const HOUSEKEEPING: u64 = 200;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("idle/under-one-percent-of-a-core", idle),
        case("idle/workers-that-spin-never-sleep", spin),
        case("scheduling/workers-and-their-leases-alone-run-in-real-time", scheduling),
        case("load/one-system-call-per-batch", counters),
        case("load/strace-agrees-with-the-counters", strace),
    ]
}

fn idle() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let (start, before) = (Instant::now(), ticks(running.node.pid())?);
    // Time has to pass here: the share of it is what is asserted.
    std::thread::sleep(WINDOW);
    let (elapsed, used) = (start.elapsed().as_secs_f64(), ticks(running.node.pid())? - before);
    let share = used as f64 / TICKS / elapsed;
    ensure!(share < IDLE, "the idle node used {:.1} % of a core over {elapsed:.1} s", share * 100.0);
    Ok(())
}

fn spin() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let config = Config { idle: "spin", ..lab.config() };
    let kinds = [Kind::Anytun, Kind::Uanytun];
    let running = Running::start(lab, &node::program()?, config, kinds, ["anycast"; 2], |who| {
        Crypto::passphrase(who.passphrase())
    })?;
    for flow in running.both_ways(1_000, 1_000)? {
        let report = flow.finish()?;
        ensure!(report.received == 1_000, "not all pings were answered: {report:?}");
    }
    let status = running.node.status()?;
    ensure!(status.io().polls == 0, "a worker slept: {:?}", status.io());
    status.ensure_ledgers_hold()
}

/// `status` and the kernel say the same of every thread.
fn scheduling() -> Result<()> {
    /// Of sched.h.
    const SCHED_FIFO: &str = "1";
    for (asked, idle) in [("fifo", "sleep"), ("other", "spin")] {
        let lab = Lab::new(Layout::default())?;
        let config = Config { idle, ..lab.config() };
        let kinds = [Kind::Anytun, Kind::Uanytun];
        let running = Running::start(lab, &node::program()?, config, kinds, ["anycast"; 2], |who| {
            Crypto::passphrase(who.passphrase())
        })?;
        let status = running.node.status()?;
        let said: Vec<_> = status.workers.iter().map(|worker| &worker.scheduling).collect();
        ensure!(said.iter().all(|said| said.asked == asked && said.got == asked), "asked for {asked}: {said:?}");
        for thread in fs::read_dir(format!("/proc/{}/task", running.node.pid()))? {
            let path = thread?.path();
            let name = fs::read_to_string(path.join("comm"))?;
            let stat = fs::read_to_string(path.join("stat"))?;
            // The policy is the 41st field of proc_pid_stat(5).
            let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
            let policy = fields.split_whitespace().nth(38).context("a short stat")?;
            let expected = asked == "fifo" && (name.starts_with("worker-") || name.trim() == "leases");
            ensure!((policy == SCHED_FIFO) == expected, "{} has the policy {policy} ({asked})", name.trim());
        }
    }
    Ok(())
}

/// User and system time of a process in clock ticks.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may contain anything; utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    fields.split_whitespace().skip(11).take(2).map(|field| Ok(field.parse::<u64>()?)).sum()
}

/// The counters over 20,000 pings at full speed.
fn counters() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let before = running.node.status()?.io();
    for flow in running.both_ways(5_000, 10_000)? {
        flow.finish()?;
    }
    let io = difference(running.node.status()?.io(), before);
    ensure!(io.rx_packets >= 20_000 && io.tx_packets >= 20_000, "the load did not pass the workers: {io:?}");
    ensure!(io.rx_batches <= io.rx_packets && io.tx_batches <= io.tx_packets, "empty batches are counted: {io:?}");
    ensure!(io.tx_kicks <= io.tx_batches + HOUSEKEEPING, "more than one kick per batch sent: {io:?}");
    ensure!(io.polls + io.fill_kicks <= io.rx_batches + HOUSEKEEPING, "more than one call per batch received: {io:?}");
    Ok(())
}

/// What strace sees of the whole process is what the counters say.
fn strace() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let directory = running.lab.directory();
    let (table, log) = (directory.join("strace.txt"), directory.join("strace.log"));
    let (pid, output) = (running.node.pid().to_string(), table.to_string_lossy().into_owned());
    let words = ["-f", "-c", "-U", "name,calls", "-o", &output, "-p", &pid];
    let mut tracer = Process::start("strace", &running.lab.node, Path::new("strace"), words, &log)?;
    until("strace is attached", PATIENCE, || {
        ensure!(tracer.ended()?.is_none(), "strace ended (`cargo xtask setup` installs it): {}", tracer.log_tail());
        Ok(tracer.log().contains("attached").then_some(()))
    })?;
    let before = running.node.status()?.io();
    for flow in running.both_ways(1_000, 2_000)? {
        flow.finish()?;
    }
    let io = difference(running.node.status()?.io(), before);
    tracer.signal(Signal::SIGINT)?;
    tracer.wait(PATIENCE)?;
    let calls = calls(&fs::read_to_string(&table)?);
    let seen: u64 = calls.values().sum();
    let counted = io.tx_kicks + io.fill_kicks + io.polls;
    ensure!(io.tx_kicks > 0, "no kick was counted under load: {io:?}");
    // The rest are the threads that answer `status` and keep the leases.
    ensure!(seen >= counted, "strace saw {seen} calls, the counters have {counted}: {calls:?}, {io:?}");
    ensure!(
        seen <= counted + counted / 10 + 2_000,
        "strace saw {seen} calls, the counters have {counted}: {calls:?}, {io:?}"
    );
    Ok(())
}

/// System calls by name from the table of `strace -c`.
fn calls(table: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let (name, calls) = (fields.next()?, fields.next()?.parse().ok()?);
        (name != "total").then(|| (name.to_owned(), calls))
    };
    table.lines().filter_map(row).collect()
}

fn difference(after: Io, before: Io) -> Io {
    Io {
        tx_kicks: after.tx_kicks - before.tx_kicks,
        fill_kicks: after.fill_kicks - before.fill_kicks,
        polls: after.polls - before.polls,
        rx_batches: after.rx_batches - before.rx_batches,
        tx_batches: after.tx_batches - before.tx_batches,
        rx_packets: after.rx_packets - before.rx_packets,
        tx_packets: after.tx_packets - before.tx_packets,
    }
}
