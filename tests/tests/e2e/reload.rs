//! A configuration that changes while packets flow, and a node that stops.

use anyhow::{Result, ensure};
use anytun_tests::config::Client;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::http;
use anytun_tests::lab::{ANYCAST, Layout, PORT, Running, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node;
use anytun_tests::wait::{PATIENCE, until};
use std::net::Ipv4Addr;

use crate::endpoint::inner;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("reload/clients-prefixes-and-keys", clients),
        case("reload/bad-configuration-is-refused", refused),
        case("reload/by-command", by_command),
        case("forget/restarted-client-is-heard-again", forget),
        case("stop/leaves-the-host-as-it-was", stop),
        case("stop/by-command", drain),
        case("metrics/served-while-running", metrics),
    ]
}

/// Carol, who comes, changes and goes.
const CAROL: u16 = 3;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 13);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 14);

fn carol(address: Ipv4Addr, crypto: &Crypto) -> Client {
    Client {
        endpoint: None,
        name: "carol".to_owned(),
        service: "anycast".to_owned(),
        mux: CAROL,
        addresses: vec![address.into()],
        crypto: crypto.clone(),
    }
}

/// Carol is added, gets another prefix, gets another key, and is removed. Alice and bob lose no packet.
fn clients() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flows = running.both_ways(1_000, 0)?;
    let outlet = Outlet::bind(running.lab.client(Who::Alice), Ipv4Addr::new(198, 51, 100, 1).into(), 5_555)?;
    let (old, new) = (Crypto::passphrase("carol's first words"), Crypto::passphrase("carol's second words"));
    let forger = |crypto: &Crypto| Forger::new(crypto, CAROL, (ANYCAST, PORT).into());
    let (old_keys, new_keys) = (forger(&old), forger(&new));
    let send = |forger: &Forger, sequence: u32, from: Ipv4Addr, reason: &str| -> Result<()> {
        let before = running.node.status()?;
        outlet.send(&forger.seal(sequence, IPV4, &datagram(from, inner(Who::Bob), 32)), forger.service())?;
        let what = format!("carol's packet {sequence} is counted as {reason}");
        running.node.await_status(&what, |now| now.verdict(reason) > before.verdict(reason))?;
        Ok(())
    };
    send(&old_keys, 1, FIRST, "unknown-mux")?;

    let mut config = running.config.clone();
    config.clients.push(carol(FIRST, &old));
    running.node.reconfigure(&config)?;
    answered(&old_keys, 2, FIRST, &outlet)?;
    send(&old_keys, 3, SECOND, "foreign-source")?;

    config.clients[2] = carol(SECOND, &old);
    running.node.reconfigure(&config)?;
    answered(&old_keys, 4, SECOND, &outlet)?;
    send(&old_keys, 5, FIRST, "foreign-source")?;
    // Her window has survived the change of her prefix.
    send(&old_keys, 4, SECOND, "replayed")?;

    config.clients[2] = carol(SECOND, &new);
    running.node.reconfigure(&config)?;
    send(&old_keys, 6, SECOND, "bad-tag")?;
    // With a new key the numbers may start again.
    answered(&new_keys, 1, SECOND, &outlet)?;

    config.clients.pop();
    running.node.reconfigure(&config)?;
    send(&new_keys, 2, SECOND, "unknown-mux")?;

    for (flow, who) in flows.into_iter().zip(Who::BOTH) {
        flow.stop()?.ensure_none_lost(&format!("{} to {}, over five reloads", who.name(), who.other().name()))?;
    }
    running.node.status()?.ensure_ledgers_hold()
}

/// Carol's packet reaches bob's kernel, whose ICMP error about the closed port comes back to her.
fn answered(forger: &Forger, sequence: u32, from: Ipv4Addr, outlet: &Outlet) -> Result<()> {
    outlet.send(&forger.seal(sequence, IPV4, &datagram(from, inner(Who::Bob), 32)), forger.service())?;
    let got = outlet.receive().map_err(|error| error.context(format!("carol's packet {sequence} was not answered")))?;
    ensure!(got[6..8] == CAROL.to_be_bytes(), "carol got a packet with another MUX: {:02x?}", &got[..8]);
    Ok(())
}

fn refused() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let flows = running.both_ways(1_000, 0)?;
    let good = running.config.toml(running.lab.directory());
    for (what, find, put) in [
        ("a duplicate MUX", "mux = 2", "mux = 1"),
        ("an unknown key", "mux = 2", "mux = 2\nwindw = 7"),
        ("no TOML", "[[client]]", "[[client"),
        ("an interface that is not there", "name = \"link1\"", "name = \"link7\""),
    ] {
        let before = running.node.status()?;
        running.node.reload(&good.replacen(find, put, 1))?;
        let after = running.node.await_status(&format!("{what} is refused"), |status| {
            status.last_reload.as_ref().is_some_and(|reload| !reload.ok)
        })?;
        ensure!(after.config_generation == before.config_generation, "{what} has come into force");
        let message = after.last_reload.map(|reload| reload.message).unwrap_or_default();
        ensure!(!message.is_empty(), "{what} was refused without a reason");
        running.node.reload(&good)?;
        running.node.await_status("the good configuration is accepted", |status| {
            status.last_reload.as_ref().is_some_and(|reload| reload.ok)
        })?;
    }
    for (flow, who) in flows.into_iter().zip(Who::BOTH) {
        flow.stop()?.ensure_none_lost(&format!("{} to {}, over refused reloads", who.name(), who.other().name()))?;
    }
    Ok(())
}

/// `reload` says what came of it: exit code 0, or 2 with file and line.
fn by_command() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let directory = running.node.directory();
    let file = node::write_config(directory, &running.config.toml(directory))?;
    let control = running.node.control();
    let words = ["reload", "--control", &control.to_string_lossy()];
    let good = node::command(&running.lab.node, directory, &words)?;
    ensure!(good.code == Some(0) && good.text.contains("generation 2"), "{:?}: {}", good.code, good.text);
    node::write_config(directory, &running.config.toml(directory).replacen("mux = 2", "mux = 1", 1))?;
    let bad = node::command(&running.lab.node, directory, &words)?;
    let place = format!("{}:", file.display());
    ensure!(bad.code == Some(2) && bad.text.contains(&place), "{:?}: {}", bad.code, bad.text);
    let status = running.node.status()?;
    ensure!(status.config_generation == 2, "the bad one has come into force: generation {}", status.config_generation);
    Ok(())
}

/// Alice's daemon restarts and counts from 0 again: it is refused as replayed until the node is told to forget.
fn forget() -> Result<()> {
    let mut running = Running::usual(Layout::default())?;
    for (flow, who) in running.both_ways(1_000, 1_000)?.into_iter().zip(Who::BOTH) {
        flow.finish()?.ensure_none_lost(who.name())?;
    }
    running.daemons[Who::Alice as usize].kill()?;
    let crypto = Crypto::passphrase(Who::Alice.passphrase());
    let settings = running.lab.settings(Who::Alice, Kind::Anytun, (ANYCAST, PORT).into(), &crypto);
    running.daemons[Who::Alice as usize] = running.lab.daemon(Who::Alice, &settings)?;
    until("the node refuses what alice sends as replayed", PATIENCE, || {
        let report = running.lab.echo(Who::Alice, Who::Bob.inner()[0], 100, 10)?.finish()?;
        ensure!(report.received == 0, "{} pings came through before the node forgot", report.received);
        let replayed = running.node.status()?.client("alice")?.drops.get("replayed").copied();
        Ok((replayed >= Some(10)).then_some(()))
    })?;

    let control = running.node.control();
    let control = control.to_string_lossy();
    let directory = running.node.directory();
    let nobody = node::command(&running.lab.node, directory, &["forget", "alyce", "--control", &control])?;
    ensure!(nobody.code == Some(2) && nobody.text.contains("alyce"), "{:?}: {}", nobody.code, nobody.text);
    let done = node::command(&running.lab.node, directory, &["forget", "alice", "--control", &control])?;
    ensure!(done.code == Some(0) && done.text.contains("alice"), "{:?}: {}", done.code, done.text);
    running.lab.introduce()?;
    for (flow, who) in running.both_ways(500, 500)?.into_iter().zip(Who::BOTH) {
        flow.finish()?.ensure_none_lost(&format!("{} after the restart of alice", who.name()))?;
    }
    running.node.status()?.ensure_ledgers_hold()
}

/// `drain` ends the node as SIGTERM does.
fn drain() -> Result<()> {
    let mut running = Running::usual(Layout::default())?;
    let control = running.node.control();
    let words = ["drain", "--control", &control.to_string_lossy()];
    let asked = node::command(&running.lab.node, running.node.directory(), &words)?;
    ensure!(asked.code == Some(0), "{:?}: {}", asked.code, asked.text);
    let code = running.node.ended()?.code();
    ensure!(code == Some(0), "the node ended with {code:?}");
    ensure!(!control.exists(), "the control socket is left");
    Ok(())
}

/// SIGTERM: exit code 0, and links, addresses, routes and offloads are what they were before the start.
fn stop() -> Result<()> {
    let mut running = Running::usual(Layout::default())?;
    let code = running.node.stop()?.code();
    ensure!(code == Some(0), "the first run ended with {code:?}");
    let before = host(&running.lab.node)?;
    ensure!(!before.contains("xdp"), "an XDP program is left:\n{before}");
    running.node.relaunch(&running.lab.node)?;
    running.node.await_ready(anytun_tests::wait::PATIENCE)?;
    ensure!(host(&running.lab.node)?.contains("xdp"), "`ip link` does not show the XDP program of a running node");
    let flows = running.both_ways(500, 0)?;
    let code = running.node.stop()?.code();
    ensure!(code == Some(0), "SIGTERM under load ended with {code:?}");
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    let after = host(&running.lab.node)?;
    ensure!(before == after, "the host has changed from\n{before}\nto\n{after}");
    ensure!(!running.node.control().exists(), "the control socket is left");
    Ok(())
}

/// What a node could have changed on a host.
fn host(namespace: &Namespace) -> Result<String> {
    let mut all = String::new();
    for what in ["-d link show", "addr show", "route show table all", "-6 route show table all", "rule show"] {
        // The numbers of queue disciplines and lifetimes are not the node's; ip shows none of them here.
        all += &namespace.ip(what)?;
    }
    for interface in ["link0", "link1"] {
        all += &namespace.run(&format!("ethtool -k {interface}"))?;
    }
    Ok(all)
}

fn metrics() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let Some(address) = running.config.metrics else { unreachable!("the lab's configuration has metrics") };
    for (flow, who) in running.both_ways(500, 500)?.into_iter().zip(Who::BOTH) {
        flow.finish()?.ensure_none_lost(who.name())?;
    }
    for (path, code) in [("/healthz", 200), ("/readyz", 200), ("/nothing", 404)] {
        let (got, text) = http::get(&running.lab.node, address, path)?;
        ensure!(got == code, "{path}: {text}");
    }
    let (code, text) = http::get(&running.lab.node, address, "/metrics")?;
    ensure!(code == 200, "/metrics: {text}");
    for wanted in ["alice", "bob", "link0", "link1", "forwarded", "bad-tag", "copy", "native"] {
        ensure!(text.contains(wanted), "the metrics do not mention {wanted}:\n{text}");
    }
    // Every line is a comment or a sample: a name, perhaps labels, and a number.
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    for line in body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "no sample of Prometheus: {line}");
    }
    Ok(())
}
