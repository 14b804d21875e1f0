//! More than a node can carry: what it must drop, it drops from those who send too much.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use anytun_tests::counters::Counters;
use anytun_tests::crypto::{Crypto, combinations};
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::PORT;
use anytun_tests::namespace::output;
use anytun_tests::node::{self, Node};
use anytun_tests::process::Process;
use anytun_tests::status::Status;
use anytun_tests::wait::{PATIENCE, until};

use crate::generator::{Bench, SERVICE, SOURCE, inner};
use crate::{Case, case};

/// The first clients of the node: the flood goes from the one to the other.
const FLOOD: u16 = 2;
/// Quiet clients, each with one that it sends to. Who shares a bucket of the XDP program with the flood is treated as the
/// flood is; buckets are drawn by lot when the program is loaded, 256 of them, so it may happen to one client.
const QUIET: u16 = 3;
const UNLUCKY: usize = 1;
/// What each of them sends, and how many packets a second they send together.
const PACKETS: u32 = 1_000;
const RATE: u32 = 2_000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("overload/quiet-clients-keep-their-packets", quiet_clients),
        case("overload/sequence-numbers-last-on-one-processor", one_processor),
    ]
}

/// A quiet client and the one that it sends to, behind the same interfaces as the flood.
struct Quiet {
    /// Their names in the status.
    names: [String; 2],
    forger: Forger,
    /// What every packet carries.
    inside: Vec<u8>,
    outlets: [Outlet; 2],
    /// What has arrived, by sequence number and sender ID.
    arrived: HashSet<Vec<u8>>,
}

/// Beside a flood that the node cannot carry, clients that send little lose nothing in the node.
fn quiet_clients() -> Result<()> {
    let bench = Bench::relayed()?;
    let node = bench.node(FLOOD + 2 * QUIET, &crypto)?;
    let mut clients = (0..QUIET).map(|index| Quiet::new(&bench, &node, index)).collect::<Result<Vec<_>>>()?;
    let flood = flood(&bench)?;
    let refused = u64::from(PACKETS) * u64::from(QUIET);
    let before = node.await_status("the node is overloaded", |status| status.program("overload") > refused)?;
    // In front of the XDP program is a ring of 256: what finds it full is dropped by the kernel, whoever sent it.
    let lost_before_node = || -> Result<u64> {
        let counters = Counters::read(&bench.generator, "gen0")?;
        Ok(counters.dropped.saturating_sub(counters.frames_refused))
    };
    let at_first = lost_before_node()?;
    let behind_node = Counters::read(&bench.relay, "link1")?;
    let start = Instant::now();
    for number in 0..PACKETS * u32::from(QUIET) {
        let due = start + Duration::from_secs(1) * number / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        clients[(number % u32::from(QUIET)) as usize].send(1 + number / u32::from(QUIET))?;
    }
    let mut report = String::new();
    let taken = until("the node has taken what quiet clients sent", PATIENCE, || {
        let (status, lost) = (node.status()?, lost_before_node()? - at_first);
        let mut missing = clients.iter().map(|quiet| quiet.missing(&status)).collect::<Result<Vec<_>>>()?;
        report = format!("{missing:?} of {PACKETS} each are missing; {lost} of all were lost before the node");
        missing.sort_unstable();
        let without_unlucky: u64 = missing[..missing.len() - UNLUCKY].iter().sum();
        Ok((without_unlucky <= lost).then_some(status))
    });
    let taken = taken.map_err(|error| error.context(report.clone()))?;
    ensure!(taken.program("overload") > before.program("overload") + refused, "the flood was not refused meanwhile");
    for quiet in &mut clients {
        quiet.ensure_delivered(&bench, &taken, &behind_node)?;
    }
    taken.ensure_ledgers_hold()?;
    drop(flood);
    node.status()?.ensure_ledgers_hold()
}

/// Whoever writes leases has no processor but that of a worker in real time, which never rests: packets have sequence
/// numbers all the same.
fn one_processor() -> Result<()> {
    /// Leases of one client, each longer than the one before.
    const LEASES: u64 = 4;
    let bench = Bench::relayed()?;
    let node = bench.node(FLOOD, &crypto)?;
    let leased = node.status()?.sequences.leases_written;
    output(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", "1", &node.pid().to_string()]))?;
    let flood = flood(&bench)?;
    output(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", "0", &flood.pid().to_string()]))?;
    let status =
        node.await_status("leases were used up", |status| status.sequences.leases_written >= leased + LEASES)?;
    drop(flood);
    ensure!(status.verdict("no-sequence") == 0, "packets went without a number: {:?}", status.workers[0].verdicts);
    status.ensure_ledgers_hold()
}

/// The flood has none, so that the generator sends the same packets again and again.
fn crypto(number: u16) -> Crypto {
    let [default, null, ..] = combinations(&format!("passphrase of client {number}"));
    if number < FLOOD { null.1 } else { default.1 }
}

/// Starts to send all that the generator can, for longer than anything here takes.
fn flood(bench: &Bench) -> Result<Process> {
    let line = format!(
        "run --interface gen0 --sink sink0 {} --clients 0-{} --engine xdp --sink-engine xdp --rate max --duration 60s --quiet",
        bench.clients()?,
        FLOOD - 1
    );
    let program = node::generator()?;
    let log = bench.directory.path().join("flood.log");
    Process::start("the flood", &bench.generator, Path::new(&program), line.split_whitespace(), &log)
}

impl Quiet {
    /// Both clients, whose places the node knows.
    fn new(bench: &Bench, node: &Node, index: u16) -> Result<Self> {
        let numbers = [FLOOD + 2 * index, FLOOD + 2 * index + 1];
        let names = numbers.map(|number| format!("client{number}"));
        let service = (SERVICE.parse::<IpAddr>()?, PORT).into();
        let [forger, receiver] = numbers.map(|number| Forger::new(&crypto(number), number, service));
        let bind = |address: &str| Outlet::bind(&bench.generator, address.parse()?, 8000 + index);
        let outlets = [bind(SOURCE)?, bind("198.19.0.1")?];
        outlets[0].send(&forger.seal(0, IPV4, &[]), service)?;
        outlets[1].send(&receiver.seal(0, IPV4, &[]), service)?;
        node.await_status("quiet clients are known", |status| {
            names.iter().all(|name| status.client(name).is_ok_and(|client| client.endpoint.is_some()))
        })?;
        let inside = datagram(inner(numbers[0]), inner(numbers[1]), 32);
        Ok(Self { names, forger, inside, outlets, arrived: HashSet::new() })
    }

    fn send(&self, sequence: u32) -> Result<()> {
        self.outlets[0].send(&self.forger.seal(sequence, IPV4, &self.inside), self.forger.service())
    }

    /// Packets that the node has not sent on.
    fn missing(&self, status: &Status) -> Result<u64> {
        Ok(u64::from(PACKETS).saturating_sub(status.client(&self.names[1])?.tx.packets))
    }

    /// Waits until what the node has sent on is there, but for what was lost since `before` at the ring of the receiving
    /// interface.
    fn ensure_delivered(&mut self, bench: &Bench, status: &Status, before: &Counters) -> Result<()> {
        let sent = status.client(&self.names[1])?.tx.packets;
        until("packets of a quiet client have arrived", PATIENCE, || {
            while let Some(packet) = self.outlets[1].waiting()? {
                ensure!(self.arrived.insert(packet[..6].to_vec()), "a packet of a quiet client came twice");
            }
            let lost = Counters::read(&bench.relay, "link1")?.since(before).dropped;
            Ok((self.arrived.len() as u64 + lost >= sent).then_some(()))
        })
    }
}
