//! Every kind of client with every kind of client, over every outer and inner family, with every crypto combination, in
//! both XDP modes, with one queue and two, on one interface and on two. Each row is a run; together they cover each
//! value of each column, and the pairs that share code.

use anyhow::{Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::combinations;
use anytun_tests::daemon::Kind;
use anytun_tests::lab::{Lab, Layout, Running, Who};
use anytun_tests::node;
use anytun_tests::traffic::Echo;

use crate::{Case, case};

const A: Kind = Kind::Anytun;
const U: Kind = Kind::Uanytun;
/// Outer families of alice and bob, by the service they use.
const V4: [&str; 2] = ["anycast", "anycast"];
const V6: [&str; 2] = ["anycast6", "anycast6"];
const V46: [&str; 2] = ["anycast", "anycast6"];
const V64: [&str; 2] = ["anycast6", "anycast"];

/// One run.
struct Row {
    kinds: [Kind; 2],
    services: [&'static str; 2],
    crypto: &'static str,
    xdp: &'static str,
    layout: Layout,
    udp_checksum: &'static str,
}

/// A row in the order of the columns: clients, outer families, crypto, XDP mode, queues, one interface, checksum
/// offload of the clients, outgoing UDP checksum.
type Columns = ([Kind; 2], [&'static str; 2], &'static str, &'static str, u32, bool, bool, &'static str);

const ROWS: [Columns; 10] = [
    ([A, U], V4, "default", "native", 1, false, true, "full"),
    ([A, A], V4, "default", "native", 2, false, false, "full"),
    ([U, U], V6, "default", "native", 1, true, true, "full"),
    ([A, U], V46, "null", "generic", 1, false, true, "full"),
    ([A, A], V6, "kd-null", "native", 2, false, true, "full"),
    ([U, U], V4, "aes-256", "generic", 2, true, false, "full"),
    ([A, A], V64, "aes-256", "native", 1, false, true, "zero"),
    ([U, A], V6, "cipher-null", "generic", 1, false, false, "full"),
    ([A, U], V4, "kd-128-cipher-256", "native", 2, true, true, "zero"),
    ([U, A], V4, "cipher-null", "native", 1, true, true, "full"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ROWS.iter().map(|&columns| (name(&columns), work(columns))).collect();
    cases.push(case("pings/10000-at-5000-a-second-each-way", many));
    cases
}

fn name(&(kinds, services, crypto, xdp, queues, one_interface, offload, udp_checksum): &Columns) -> String {
    let [a, b] = kinds.map(Kind::program);
    let outer = services.map(|service| if service == "anycast" { "v4" } else { "v6" }).join("-");
    let interfaces = if one_interface { "one-interface" } else { "two-interfaces" };
    let offload = if offload { "" } else { "-sums-by-clients" };
    let zero = if udp_checksum == "zero" { "-zero-sums" } else { "" };
    format!("matrix/{a}-{b}-outer-{outer}-{crypto}-{xdp}-{queues}-queue-{interfaces}{offload}{zero}")
}

fn work(columns: Columns) -> Box<dyn Fn() -> Result<()> + Send> {
    let (kinds, services, crypto, xdp, queues, one_interface, offload, udp_checksum) = columns;
    let layout = Layout { queues, one_interface, offload, ..Layout::default() };
    Box::new(move || run(&Row { kinds, services, crypto, xdp, layout, udp_checksum }))
}

/// 500 pings at 500/s each way, over IPv4 and over IPv6 inside, all four at once.
fn run(row: &Row) -> Result<()> {
    let lab = Lab::new(row.layout)?;
    let mut config = Config { xdp: row.xdp, ..lab.config() };
    for service in &mut config.services {
        service.udp_checksum = row.udp_checksum;
    }
    let crypto = |who: Who| {
        let found = combinations(who.passphrase()).into_iter().find(|(name, _)| *name == row.crypto);
        found.map(|(_, crypto)| crypto).unwrap_or_else(|| panic!("no combination is called {}", row.crypto))
    };
    let running = Running::start(lab, &node::program()?, config, row.kinds, row.services, crypto)?;
    let flows: Vec<(String, Echo)> = Who::BOTH
        .into_iter()
        .flat_map(|from| from.other().inner().map(|to| (from, to)))
        .map(|(from, to)| Ok((format!("{} to {to}", from.name()), running.lab.echo(from, to, 500, 500)?)))
        .collect::<Result<_>>()?;
    for (what, flow) in flows {
        flow.finish()?.ensure_none_lost(&what)?;
    }
    let status = running.node.status()?;
    status.ensure_ledgers_hold()?;
    let wanted = row.layout.queues as usize;
    for interface in &status.interfaces {
        ensure!(interface.queues.len() == wanted, "{}: {:?}", interface.name, interface.queues);
        ensure!(
            interface.xdp.asked == row.xdp && interface.xdp.got == row.xdp,
            "{}: {:?}",
            interface.name,
            interface.xdp
        );
        ensure!(interface.queues.iter().all(|queue| queue.mode.got == "copy"), "{:?}", interface.queues);
    }
    ensure!(status.verdict("forwarded") >= 4 * 2 * 500, "status does not show what was carried");
    Ok(())
}

/// 10,000 pings at 5,000/s from each client to the other, at once.
fn many() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let [alice, bob] = running.both_ways(5_000, 10_000)?;
    let (alice, bob) = (alice.finish()?, bob.finish()?);
    alice.ensure_none_lost("alice to bob")?;
    bob.ensure_none_lost("bob to alice")?;
    running.node.status()?.ensure_ledgers_hold()
}
