//! The node's own address in a network: clients reach the node and its services, and it them.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Kind, TUN};
use anytun_tests::lab::{Lab, Layout, Running, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node;
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};

use crate::open::{Server, body, fetch};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("home/clients-and-the-node-ping-each-other", pings),
        case("home/download-of-10-MB-from-the-node", downloads),
        case("home/nobody-passes-for-another", spoofing),
        case("home/a-reload-takes-routes-along", reload),
    ]
}

/// The node's addresses in the network.
const HOME: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
/// Octets of a download.
const LONG: usize = 10_000_000;
/// Where the server listens.
const HTTP: u16 = 8080;

/// Alice with anytun and bob with uanytun, in a network in which the node has addresses.
fn start() -> Result<Running> {
    start_with(|config| config)
}

fn start_with(change: impl FnOnce(Config) -> Config) -> Result<Running> {
    let lab = Lab::new(Layout::default())?;
    let mut config = lab.config();
    config.network = format!("address = [\"{}/24\", \"{}/64\"]\ndevice = \"home\"\n", HOME[0], HOME[1]);
    let config = change(config);
    let kinds = [Kind::Anytun, Kind::Uanytun];
    let running = Running::start(lab, &node::program()?, config, kinds, ["anycast"; 2], |who| {
        Crypto::passphrase(who.passphrase())
    })?;
    for who in Who::BOTH {
        for (home, inner) in HOME.iter().zip(who.inner()) {
            let length = if inner.is_ipv4() { 32 } else { 128 };
            running.lab.client(who).ip(&format!("route replace {home}/{length} dev {TUN} src {inner}"))?;
        }
    }
    Ok(running)
}

fn answers(from: &Namespace, to: IpAddr) -> Result<()> {
    until("an answer", PATIENCE, || Ok(ping(from, to, 1, 56).ok())).map(drop)
}

fn pings() -> Result<()> {
    let running = start()?;
    for who in Who::BOTH {
        for (home, inner) in HOME.iter().zip(who.inner()) {
            answers(running.lab.client(who), home.parse()?)?;
            ping(running.lab.client(who), home.parse()?, 5, 1000)?;
            ping(&running.lab.node, inner, 5, 1000)?;
        }
    }
    let before = running.node.status()?;
    ensure!(before.device(|device| device.delivered) >= 40, "too few packets: {:?}", before.devices);
    ensure!(before.device(|device| device.injected) >= 40, "too few packets: {:?}", before.devices);
    for inner in Who::Bob.inner() {
        ping(running.lab.client(Who::Alice), inner, 20, 56)?;
    }
    let after = running.node.status()?;
    let through = after.device(|device| device.delivered) - before.device(|device| device.delivered);
    // The kernel of a client may send something of its own meanwhile, but not 40 packets.
    ensure!(through < 20, "{through} packets between clients went through the kernel");
    after.ensure_every_packet_has_a_verdict()?;
    Ok(())
}

fn downloads() -> Result<()> {
    let running = start()?;
    let expected = body(LONG);
    for who in Who::BOTH {
        for (home, inner) in HOME.iter().zip(who.inner()) {
            let home: IpAddr = home.parse()?;
            answers(running.lab.client(who), home)?;
            let server = Server::start(&running.lab.node, (home, HTTP).into(), LONG)?;
            let got = fetch(running.lab.client(who), (home, HTTP).into())?;
            ensure!(got == expected, "{} octets arrived, not those {LONG} that were sent", got.len());
            let seen = server.finish()?;
            ensure!(seen == inner, "the server saw {seen}, not the client's own address {inner}");
        }
    }
    running.node.status()?.ensure_every_packet_has_a_verdict()
}

/// Neither does a client pass for the node or for another client, nor the node's host for a client.
fn spoofing() -> Result<()> {
    let running = start()?;
    let (alice, bob) = (running.lab.client(Who::Alice), Who::Bob.inner()[0]);
    answers(alice, HOME[0].parse()?)?;
    answers(running.lab.client(Who::Bob), HOME[0].parse()?)?;
    let foreign = || Ok::<_, anyhow::Error>(running.node.status()?.verdict("foreign-source"));
    for (from, to) in [(bob.to_string(), HOME[0].to_owned()), (HOME[0].to_owned(), bob.to_string())] {
        let before = foreign()?;
        alice.ip(&format!("addr add {from}/32 dev lo"))?;
        let answered = alice.run(&format!("ping -n -c 3 -i 0.2 -W 1 -I {from} {to}"));
        ensure!(answered.is_err(), "alice passed for {from}: {answered:?}");
        ensure!(foreign()? - before == 3, "{} of 3 packets were refused", foreign()? - before);
        alice.ip(&format!("addr del {from}/32 dev lo"))?;
    }
    let before = foreign()?;
    let [to, _] = Who::Alice.inner();
    running.lab.node.ip(&format!("addr add {bob}/32 dev lo"))?;
    let answered = running.lab.node.run(&format!("ping -n -c 3 -i 0.2 -W 1 -I {bob} {to}"));
    ensure!(answered.is_err(), "the host passed for the client bob: {answered:?}");
    ensure!(foreign()? - before == 3, "{} of 3 packets were refused", foreign()? - before);
    Ok(())
}

/// Prefixes that a client gets by a reload are routed to it; another address of the node takes a restart.
fn reload() -> Result<()> {
    let running = start()?;
    let alice = running.lab.client(Who::Alice);
    answers(alice, HOME[0].parse()?)?;
    let further: IpAddr = "10.20.0.11".parse()?;
    alice.ip(&format!("addr add {further}/32 dev {TUN}"))?;
    ensure!(ping(&running.lab.node, further, 1, 56).is_err(), "the node reaches {further} before it is told");
    let before = running.config.toml(running.node.directory());
    let prefix = format!("\"{}/32\"", Who::Alice.inner()[0]);
    running.node.reload(&before.replacen(&prefix, &format!("{prefix}, \"10.20.0.0/16\""), 1))?;
    running.node.await_status("further prefixes", |status| status.config_generation == 2)?;
    ping(&running.lab.node, further, 3, 56)?;
    running.node.reload(&before.replace(&format!("{}/24", HOME[0]), "10.9.0.2/24"))?;
    let status =
        running.node.await_status("a refusal", |status| status.last_reload.as_ref().is_some_and(|last| !last.ok))?;
    let message = status.last_reload.map(|reload| reload.message).unwrap_or_default();
    ensure!(message.contains("`address` or `device` of a [[network]] changed, which takes a restart"), "{message}");
    running.node.reload(&before)?;
    running.node.await_status("the prefixes of before", |status| status.config_generation == 3)?;
    ensure!(!running.lab.node.run("ip route show 10.20.0.0/16")?.contains("home"), "the route outlived its prefix");
    Ok(())
}
