//! What a client hears of packets that go no further, and packets of every size.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::lab::{ANYCAST6, Lab, Layout, Running, Who};
use anytun_tests::node;
use anytun_tests::wait::PATIENCE;

use crate::{Case, case};

/// What an inner packet may have in an MTU of 1500: without UDP, SATP, payload type, tag, and IPv6 outside.
const LARGEST_V6: usize = 1500 - 40 - 8 - 8 - 2 - 10;
/// The same with IPv4 outside.
const LARGEST_V4: usize = LARGEST_V6 + 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("sizes/who-sends-too-far-or-to-nobody-is-told", told),
        case("sizes/each-arrives-or-is-answered/v4-outside", || every_size("anycast", LARGEST_V4)),
        case("sizes/each-arrives-or-is-answered/v6-outside", || every_size("anycast6", LARGEST_V6)),
        case("sizes/tcp-fits-by-its-segment-size", || tcp(true, 0)),
        case("sizes/tcp-learns-by-errors", || tcp(false, 100)),
        case("sizes/a-flood-is-answered-as-the-rate-allows", flood),
    ]
}

/// A node with alice behind a link that takes larger packets than bob's. Her device has an MTU larger than the way to bob
/// takes; his has the daemon's own, so his answers come in fragments.
fn wide(service: &'static str) -> Result<Running> {
    wide_with(service, |config| config)
}

/// The same with another configuration.
fn wide_with(service: &'static str, change: impl FnOnce(Config) -> Config) -> Result<Running> {
    let lab = Lab::new(Layout::default())?;
    lab.node.ip("link set link0 mtu 2000")?;
    lab.client(Who::Alice).ip("link set eth0 mtu 2000")?;
    let config = change(lab.config());
    let program = node::program()?;
    let kinds = [Kind::Anytun, Kind::Uanytun];
    let running =
        Running::start(lab, &program, config, kinds, [service; 2], |who| Crypto::passphrase(who.passphrase()))?;
    running.lab.client(Who::Alice).ip("link set tun0 mtu 1500")?;
    Ok(running)
}

/// Runs ping for one packet of a client; whether it was answered, and what ping said.
fn ping(running: &Running, words: &str, to: IpAddr) -> Result<(bool, String)> {
    let mut command = running.lab.client(Who::Alice).command("ping");
    command.args(["-n", "-c", "1", "-W", "2"]).args(words.split_whitespace()).arg(to.to_string());
    let output = command.output().context("cannot run ping")?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ok((output.status.success(), text))
}

fn told() -> Result<()> {
    let running = wide("anycast6")?;
    let before = running.node.status()?;
    for (family, from) in [(0, "192.0.0.8".to_owned()), (1, ANYCAST6.to_string())] {
        let bob = Who::Bob.inner()[family];
        let (arrived, text) = ping(&running, "-t 1", bob)?;
        let is_from = text.lines().any(|line| line.contains(&format!("From {from}")));
        let exceeded = text.contains("Time to live exceeded") || text.contains("Time exceeded: Hop limit");
        ensure!(!arrived && is_from && exceeded, "not told of the hop limit by {from}: {text}");
        let nobody = ["10.9.0.99", "fd00:9::99"][family].parse()?;
        let device = if family == 0 { "" } else { "-6 " };
        running.lab.client(Who::Alice).ip(&format!("{device}route replace {nobody} dev tun0"))?;
        let (arrived, text) = ping(&running, "", nobody)?;
        let unreachable =
            text.contains("Destination Net Unreachable") || text.contains("Destination unreachable: No route");
        ensure!(!arrived && text.contains(&format!("From {from}")) && unreachable, "not told of nobody: {text}");
    }
    let status = running.node.status()?;
    for kind in ["time-exceeded", "unreachable"] {
        let errors = status.icmp_errors(kind) - before.icmp_errors(kind);
        ensure!(errors == 2, "{errors} errors of the kind {kind} were sent");
    }
    status.ensure_ledgers_hold()
}

fn every_size(service: &'static str, largest: usize) -> Result<()> {
    let running = wide(service)?;
    let [bob, bob6] = Who::Bob.inner();
    let sizes = || (60..=1500).step_by(90).chain([largest - 1, largest, largest + 1, largest + 2, 1500]);
    // First, as clients that have learned of the way cut packets themselves.
    for size in sizes() {
        let (arrived, text) = ping(&running, &format!("-M dont -s {}", size - 28), bob)?;
        ensure!(arrived, "{size} octets that may be fragmented did not go there and back: {text}");
    }
    let whole = |size: usize, headers: usize, to: IpAddr| {
        let (arrived, text) = ping(&running, &format!("-M do -s {}", size - headers), to)?;
        // By the node, or by the kernel of the client, which the node has told before.
        let told = ["mtu = ", "mtu=", "mtu: "].iter().any(|word| text.contains(&format!("{word}{largest}")));
        ensure!(arrived == (size <= largest) && arrived != told, "{size} octets that must stay whole: {text}");
        Ok(())
    };
    for size in sizes() {
        whole(size, 28, bob)?;
        // Without an IPv6 address of the node nobody can be told in IPv6.
        if service == "anycast6" {
            whole(size, 48, bob6)?;
        }
    }
    let status = running.node.status()?;
    let errors = status.icmp_errors("too-big");
    ensure!(errors >= if service == "anycast6" { 2 } else { 1 }, "{errors} errors were sent");
    status.ensure_ledgers_hold()
}

/// Alice sends half a megabyte to bob by TCP, whose device says that it takes more than the way does.
fn tcp(clamp: bool, icmp_rate: u32) -> Result<()> {
    const OCTETS: usize = 1 << 19;
    let running = wide_with("anycast", |config| Config { mss_clamp: clamp, icmp_rate, ..config })?;
    let [alice, bob] = Who::BOTH.map(|who| running.lab.client(who));
    bob.ip("link set tun0 mtu 1500")?;
    let place = SocketAddr::new(Who::Bob.inner()[0], 8080);
    let listener = bob.enter(|| TcpListener::bind(place))?.context("bob cannot listen")?;
    let server = thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets)?;
        stream.write_all(b"done")?;
        Ok(octets.iter().filter(|octet| **octet == 0x5a).count())
    });
    let mut stream = alice.enter(|| TcpStream::connect_timeout(&place, PATIENCE))?.context("alice cannot connect")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![0x5a; OCTETS])?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("bob did not get all of it")?;
    let received = server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    ensure!(answer == "done" && received == OCTETS, "{received} octets arrived");
    let status = running.node.status()?;
    let (dropped, told) = (status.verdict("too-big"), status.icmp_errors("too-big"));
    ensure!(if clamp { dropped == 0 } else { told > 0 && dropped >= told }, "{dropped} too big, {told} answered");
    status.ensure_ledgers_hold()
}

fn flood() -> Result<()> {
    const PINGS: u64 = 2000;
    let running = wide("anycast")?;
    let before = running.node.status()?;
    let bob = Who::Bob.inner()[0];
    running
        .lab
        .client(Who::Alice)
        .command("ping")
        .args(["-q", "-n", "-t", "1", "-c", &PINGS.to_string()])
        .args(["-i", "0.001", "-W", "1", &bob.to_string()])
        .output()?;
    let status = running.node.status()?;
    let dropped = status.verdict("hop-limit") - before.verdict("hop-limit");
    let told = status.icmp_errors("time-exceeded") - before.icmp_errors("time-exceeded");
    // The bucket of ten, and a hundred in each second of the node's own time.
    let most = 10.0 + 100.0 * (status.uptime_seconds - before.uptime_seconds);
    ensure!(dropped == PINGS, "{dropped} of {PINGS} met the hop limit");
    ensure!(told >= 10 && told as f64 <= most && told < PINGS, "{told} were answered, {most} at most");
    status.ensure_ledgers_hold()
}
