//! Open tunnel mode: clients and hosts that do not speak anytun.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Daemon, Kind, TUN};
use anytun_tests::lab::{ANYCAST, ANYCAST6, Lab, Layout, Who, client};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::status::Status;
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("open/routed-download-of-100-MB-ipv4", || download(0, true)),
        case("open/routed-download-of-100-MB-ipv6", || download(1, true)),
        case("open/routed-download-with-checksums-made-by-the-sender", || download(0, false)),
        case("open/sizes-both-ways-and-who-sends-too-large-is-told", sizes),
        case("open/nobody-outside-passes-for-a-client", spoofing),
    ]
}

/// Octets of a download, and of one that need not be long.
const LONG: usize = 100_000_000;
const SHORT: usize = 2_000_000;
/// Where the servers listen.
pub(crate) const HTTP: u16 = 8080;
/// Addresses of the host outside, which is in bob's place.
pub(crate) const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:2::1"];

/// Alice, with a real daemon, behind a node whose network is open; bob's place has a host that knows nothing of anytun.
pub(crate) struct Open {
    pub(crate) node: Node,
    _daemon: Daemon,
    pub(crate) lab: Lab,
}

impl Open {
    fn start(kind: Kind, offload: bool) -> Result<Self> {
        Self::with(kind, offload, "open = \"routed\"\n")
    }

    /// With these keys of the network.
    pub(crate) fn with(kind: Kind, offload: bool, network: &str) -> Result<Self> {
        let lab = Lab::new(Layout { offload, ..Layout::default() })?;
        let mut config = lab.config();
        config.network = network.to_owned();
        let crypto = Crypto::passphrase(Who::Alice.passphrase());
        // Bob is a client too, but has no daemon: what is in his place is the host outside.
        config.clients = Who::BOTH.map(|who| client(who, "anycast", crypto.clone())).into();
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let service = config.services[0].address;
        let daemon = lab.daemon(Who::Alice, &lab.settings(Who::Alice, kind, service, &crypto))?;
        let alice = lab.client(Who::Alice);
        for (outside, inner) in OUTSIDE.iter().zip(Who::Alice.inner()) {
            let length = if inner.is_ipv4() { 32 } else { 128 };
            alice.ip(&format!("route add {outside}/{length} dev {TUN} src {inner}"))?;
        }
        Ok(Self { node, _daemon: daemon, lab })
    }

    /// Packets that workers refused for their source.
    fn refused(&self) -> Result<u64> {
        Ok(self.node.status()?.verdict("foreign-source"))
    }

    /// Waits until the way out and back is known: the kernel has to find the neighbours first.
    pub(crate) fn introduce(&self, to: IpAddr) -> Result<()> {
        let alice = self.lab.client(Who::Alice);
        until("the host outside answers", PATIENCE, || Ok(ping(alice, to, 1, 56).ok()))
    }
}

/// A client downloads from a host that sees the client's own address.
fn download(family: usize, offload: bool) -> Result<()> {
    let open = Open::start(if offload { Kind::Anytun } else { Kind::Uanytun }, offload)?;
    let outside: IpAddr = OUTSIDE[family].parse()?;
    open.introduce(outside)?;
    let octets = if offload { LONG } else { SHORT };
    let before = open.node.status()?;
    let server = Server::start(open.lab.client(Who::Bob), (outside, HTTP).into(), octets)?;
    let got = fetch(open.lab.client(Who::Alice), (outside, HTTP).into())?;
    ensure!(got.len() == octets, "{} of {octets} octets arrived", got.len());
    ensure!(got == body(octets), "the octets that arrived are not those that were sent");
    let seen = server.finish()?;
    ensure!(seen == Who::Alice.inner()[family], "the server saw {seen}, not the client's own address");
    let after = open.node.status()?;
    let ended = |status: &Status| ["no-neighbour", "no-way", "too-big"].map(|end| status.verdict(end));
    ensure!(ended(&before) == ended(&after), "packets found no way although all was known: {:?}", after.workers);
    // Both directions are sent: what goes to the client, and what leaves for the server as it was in the tunnel.
    let [into, out] = ["forwarded", "outward"].map(|way| after.verdict(way) - before.verdict(way));
    let sent = after.io().tx_packets - before.io().tx_packets;
    ensure!(
        into > 0 && out > 0 && sent > into.max(out),
        "{sent} packets sent, {into} into the tunnel and {out} out of it"
    );
    Ok(())
}

/// A packet from outside that claims to come from a client is refused; the same host is heard under its own address.
fn spoofing() -> Result<()> {
    let open = Open::start(Kind::Anytun, true)?;
    let [alice, _] = Who::Alice.inner();
    let [bob, _] = Who::Bob.inner();
    let outside = open.lab.client(Who::Bob);
    open.introduce(OUTSIDE[0].parse()?)?;
    ping(outside, alice, 1, 56)?;
    let before = open.refused()?;
    outside.ip(&format!("addr add {bob}/32 dev lo"))?;
    let answered = outside.run(&format!("ping -n -c 3 -i 0.2 -W 1 -I {bob} {alice}"));
    ensure!(answered.is_err(), "a host outside passed for the client bob: {answered:?}");
    let refused = open.refused()? - before;
    ensure!(refused == 3, "{refused} of 3 packets were refused for their source");
    Ok(())
}

/// A host outside is told of what is too large for the tunnel, or comes too far; what may be fragmented is, in both directions.
fn sizes() -> Result<()> {
    const NARROW: usize = 1300;
    let open = Open::start(Kind::Anytun, true)?;
    let outside = open.lab.client(Who::Bob);
    open.introduce(OUTSIDE[0].parse()?)?;
    open.introduce(OUTSIDE[1].parse()?)?;
    let host = |words: &str, to: IpAddr| {
        let words = format!("-n -c 1 -W 2 {words} {to}");
        let output = outside.command("ping").args(words.split_whitespace()).output()?;
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        anyhow::Ok((output.status.success(), text))
    };
    // Without IPv4, UDP, SATP, payload type and tag.
    let largest = 1500 - 20 - 8 - 8 - 2 - 10;
    let froms = [ANYCAST.to_string(), ANYCAST6.to_string()];
    for ((to, from), headers) in Who::Alice.inner().into_iter().zip(froms).zip([28, 48]) {
        let (arrived, text) = host(&format!("-M do -s {}", largest - headers), to)?;
        ensure!(arrived, "{largest} octets did not go to {to} and back: {text}");
        let (arrived, text) = host(&format!("-M do -s {}", largest + 1 - headers), to)?;
        let told = ["mtu = ", "mtu=", "mtu: "].iter().any(|word| text.contains(&format!("{word}{largest}")));
        ensure!(!arrived && told && text.contains(&from), "not told of the size by {from}: {text}");
        let (arrived, text) = host("-t 1", to)?;
        let exceeded = text.contains("Time to live exceeded") || text.contains("Time exceeded: Hop limit");
        ensure!(!arrived && exceeded && text.contains(&from), "not told of the hop limit by {from}: {text}");
    }
    let status = open.node.status()?;
    let told = ["too-big", "time-exceeded"].map(|kind| status.icmp_errors(kind));
    ensure!(told == [2, 2], "{told:?} errors were sent");
    // The way outside becomes narrower than the tunnel.
    for (namespace, link) in [(&open.lab.node, "link1"), (outside, "eth0")] {
        namespace.ip(&format!("link set {link} mtu {NARROW}"))?;
    }
    let alice = open.lab.client(Who::Alice);
    let ping = |words: &str| {
        let words = format!("-n -c 1 -W 2 {words} {}", OUTSIDE[0]);
        let output = alice.command("ping").args(words.split_whitespace()).output()?;
        anyhow::Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let whole = || Ok(ping(&format!("-M do -s {}", NARROW + 1 - 28))?.1.contains("Frag needed").then_some(()));
    until("the node knows that the way is narrower", PATIENCE, whole)?;
    let (arrived, text) = ping("-M dont -s 1350")?;
    ensure!(arrived, "1378 octets that may be fragmented did not go outside and back: {text}");
    let status = open.node.status()?;
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

/// An HTTP server (RFC 1945) that answers once, with many octets.
pub(crate) struct Server(thread::JoinHandle<Result<IpAddr>>);

impl Server {
    pub(crate) fn start(namespace: &Namespace, at: SocketAddr, octets: usize) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind(at))?.with_context(|| format!("cannot listen at {at}"))?;
        Ok(Self(thread::spawn(move || {
            let (mut stream, from) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            let mut request = [0; 256];
            let length = stream.read(&mut request)?;
            ensure!(request[..length].starts_with(b"GET / HTTP/1.0\r\n"), "no request: {:?}", &request[..length]);
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {octets}\r\n\r\n")?;
            stream.write_all(&body(octets))?;
            Ok(from.ip())
        })))
    }

    /// Who asked.
    pub(crate) fn finish(self) -> Result<IpAddr> {
        match self.0.join() {
            Ok(seen) => seen,
            Err(_) => bail!("the server panicked"),
        }
    }
}

/// Octets that repeat too late to hide a packet that came twice or in another's place.
pub(crate) fn body(octets: usize) -> Vec<u8> {
    (0..octets as u32).map(|place| (place.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Gets what a server has.
pub(crate) fn fetch(namespace: &Namespace, at: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = namespace
        .enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(10)))?
        .with_context(|| format!("cannot connect to {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("{} octets came from {at}", answer.len()))?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").context("no HTTP answer")?;
    Ok(answer.split_off(head + 4))
}
