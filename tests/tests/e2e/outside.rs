//! The generator through open tunnel mode: what clients send sealed comes out plain, once and unchanged, and is answered.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::node::Node;

use crate::generator::{Bench, CLIENTS, SOURCE, crypto, ensure_clean, number};
use crate::{Case, case};

/// Addresses of sink0, where the host outside is, and of link1, which a NAT may have.
const OUTSIDE: [&str; 2] = ["198.19.0.1", "2001:db8:19::1"];
const NAT: [&str; 2] = ["198.19.0.2", "2001:db8:19::2"];
/// Senders with sinks, of both kinds, and answers.
const WAYS: [&str; 5] = [
    "--engine xsk --sink-engine xsk",
    "--engine xdp --sink-engine xsk",
    "--engine xsk --sink-engine xdp",
    "--engine xdp --sink-engine xdp",
    "--round-trip --rate 200",
];

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("generator/open-routed", || open("open = \"routed\"\n", false)),
        case("generator/open-nat", || {
            let nat = NAT.map(|address| format!("{{ address = \"{address}\", ports = \"20000-29999\" }}"));
            open(&format!("open = \"nat\"\nnat = [{}]\n", nat.join(", ")), true)
        }),
        case("generator/open-refusals", refusals),
    ]
}

/// All clients send to a host outside, over either family, with either engine, with default crypto and none.
fn open(network: &str, nat: bool) -> Result<()> {
    for name in ["default", "null"] {
        let (bench, node) = start(network, name)?;
        let mut first = 0;
        for (family, outside) in OUTSIDE.iter().enumerate() {
            for way in WAYS {
                let context = || format!("{name} to {outside}, {way}");
                // Below what a debug build carries on a busy machine.
                let line =
                    format!("{way} --first-sequence {first} --duration 500ms --warm-up 100ms --size 86,512,1380");
                let rate = if way.contains("--rate") { "" } else { "--rate 500" };
                let result =
                    bench.measure(&format!("{} {line} {rate}", clients(&bench, outside)?)).with_context(context)?;
                ensure_clean(&result, 30).with_context(context)?;
                ensure!(number(&result, "clients")? == u64::from(CLIENTS), "{}: {result}", context());
                ensure!(number(&result, "flows")? == u64::from(CLIENTS), "{}: {result}", context());
                if way.contains("--round-trip") {
                    ensure!(result["round_trip_us"].is_object(), "{}: nothing came back: {result}", context());
                }
                first = number(&result, "last_sequence")? + 1;
            }
            let status = node.status()?;
            status.ensure_ledgers_hold()?;
            if nat {
                let seen = status.nats.get(family).context("status shows no NAT")?;
                ensure!(seen.mappings == u64::from(CLIENTS), "{name} to {outside}: {seen:?}");
            }
        }
        // The node has seen these numbers, but for those of rounds that ended before their last client.
        let again = bench.generate(&format!(
            "run --interface gen0 --sink sink0 {} --rate 500 --duration 500ms",
            clients(&bench, OUTSIDE[0])?
        ))?;
        ensure!(again.code == Some(1) && again.text.contains("--first-sequence"), "{name}: {again:?}");
        ensure!(again.text.contains("come out of the node at sink0"), "{name}: {again:?}");
    }
    Ok(())
}

/// What can never arrive is said before anything is sent.
fn refusals() -> Result<()> {
    let (bench, _node) = start("", "default")?;
    let closed = bench.generate(&format!("run --interface gen0 --sink sink0 {}", clients(&bench, OUTSIDE[0])?))?;
    ensure!(closed.code == Some(2) && closed.text.contains("open = \"routed\""), "{closed:?}");
    let more = bench.generate(&format!(
        "run --interface gen0 --sink sink0 {} --sink-source 198.19.0.1:7000",
        clients(&bench, OUTSIDE[0])?
    ))?;
    ensure!(more.code == Some(2) && more.text.contains("--sink-source"), "{more:?}");
    Ok(())
}

/// A node whose network says this.
fn start(network: &str, name: &str) -> Result<(Bench, Node)> {
    let bench = Bench::relayed()?;
    for (namespace, link, address) in [(&bench.generator, "sink0", OUTSIDE[1]), (&bench.relay, "link1", NAT[1])] {
        namespace.ip(&format!("addr add {address}/64 dev {link} nodad"))?;
    }
    let mut config = Config { network: network.to_owned(), ..bench.config(CLIENTS, &|number| crypto(name, number))? };
    for (number, client) in (0..).zip(&mut config.clients) {
        client.addresses.push(IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x20, number)));
    }
    let node = bench.start(&config)?;
    Ok((bench, node))
}

/// What the options are for clients of the node that send to a host outside.
fn clients(bench: &Bench, outside: &str) -> Result<String> {
    let config = bench.directory.path().join("node.toml");
    let destination = std::net::SocketAddr::new(outside.parse()?, 9000);
    Ok(format!("--config {} --source {SOURCE}:7000 --destination {destination}", config.display()))
}
