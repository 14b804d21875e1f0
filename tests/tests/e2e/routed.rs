//! Open tunnel mode, routed: many clients at once, and ways that change while packets flow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use anytun_tests::config::{Client, Config};
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Daemon, Kind, Settings, TUN};
use anytun_tests::lab::{Lab, Layout, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::status::Status;
use anytun_tests::traffic::{Echo, ping};
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("routed/ten-clients-download-at-once", ten_clients),
        case("routed/a-packet-waits-for-a-neighbour-that-is-not-known", waits),
        case("routed/traffic-follows-a-neighbour-to-its-new-mac/ipv4", || new_mac(0)),
        case("routed/traffic-follows-a-neighbour-to-its-new-mac/ipv6", || new_mac(1)),
        case("routed/traffic-follows-a-route-to-another-interface/ipv4", || new_route(0)),
        case("routed/traffic-follows-a-route-to-another-interface/ipv6", || new_route(1)),
        case("routed/traffic-follows-an-interface-down-and-up/ipv4", || down_and_up(0)),
        case("routed/traffic-follows-an-interface-down-and-up/ipv6", || down_and_up(1)),
    ]
}

/// Clients, half of them with each daemon.
const CLIENTS: u8 = 10;
/// Octets that each fetches over each family.
const OCTETS: u32 = 2_000_000;
/// Addresses of the host outside, which is in bob's place.
const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:2::1"];
/// Addresses that the node has routes to.
const BEYOND: [&str; 2] = ["192.0.2.77", "2001:db8:77::1"];
/// The prefix lengths of single addresses.
const WHOLE: [u8; 2] = [32, 128];
/// Where the servers listen.
const HTTP: u16 = 8080;

/// Clients with real daemons, all on alice's link, behind a node whose network is open.
struct Open {
    node: Node,
    daemons: Vec<Daemon>,
    clients: Vec<Namespace>,
    lab: Lab,
}

impl Open {
    fn start(clients: u8) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let crypto = |number: u8| Crypto::passphrase(&format!("what client {number} and the node know"));
        let of = |number: u8| Client {
            name: format!("client-{number}"),
            service: "anycast".to_owned(),
            mux: number.into(),
            addresses: inner(number).into(),
            endpoint: None,
            crypto: crypto(number),
        };
        let network = "open = \"routed\"\n".to_owned();
        let config = Config { network, clients: (1..=clients).map(of).collect(), ..lab.config() };
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let mut open = Self { node, daemons: Vec::new(), clients: Vec::new(), lab };
        for number in 1..=clients {
            let host = open.lab.neighbour(Who::Alice, &format!("client{number}"), 100 + number)?;
            let kind = if number % 2 == 0 { Kind::Uanytun } else { Kind::Anytun };
            let usual = open.lab.settings(Who::Alice, kind, config.services[0].address, &crypto(number));
            let settings = Settings { mux: number.into(), inner: inner(number), ..usual };
            open.daemons.push(Daemon::start(&host, open.lab.directory(), &settings)?);
            for (family, own) in inner(number).into_iter().enumerate() {
                for outside in [OUTSIDE[family], BEYOND[family]] {
                    host.ip(&format!("route add {outside}/{} dev {TUN} src {own}", WHOLE[family]))?;
                }
            }
            open.clients.push(host);
        }
        Ok(open)
    }

    /// Waits until each client has had an answer from an address outside: the kernel has to find the neighbours first.
    fn introduce(&self, outside: &str) -> Result<()> {
        let to: IpAddr = outside.parse()?;
        self.clients.iter().try_for_each(|client| {
            until(&format!("{to} answers {}", client.name()), PATIENCE, || Ok(ping(client, to, 1, 56).ok()))
        })
    }

    /// Changes the way to an address outside while a client pings it: pings that are sent after that come back.
    fn change(&self, outside: &str, change: impl FnOnce(&Echo) -> Result<()>) -> Result<()> {
        self.introduce(outside)?;
        let flow = Echo::start(&self.clients[0], outside.parse()?, 500, 0)?;
        answered(&flow, "before the change")?;
        change(&flow)?;
        self.node.status()?.ensure_ledgers_hold()?;
        answered(&flow, "after the change")?;
        flow.stop()?;
        let at_rest =
            |status: &Status| status.workers.iter().all(|worker| worker.ledger.received == 0 && worker.ledger.tx == 0);
        let status = self.node.await_status("no frame is received or in TX", at_rest)?;
        status.ensure_ledgers_hold()?;
        status.ensure_every_packet_has_a_verdict()
    }
}

/// Each of ten clients downloads from a host outside, all at the same time and over both families. The host sees each under
/// its own address, and no packet lacks a neighbour or a route.
fn ten_clients() -> Result<()> {
    let open = Open::start(CLIENTS)?;
    OUTSIDE.iter().try_for_each(|outside| open.introduce(outside))?;
    let before = open.node.status()?;
    let server = |outside: &str| Server::start(open.lab.client(Who::Bob), (outside.parse::<IpAddr>()?, HTTP).into());
    let servers = [server(OUTSIDE[0])?, server(OUTSIDE[1])?];
    thread::scope(|scope| {
        let fetch = |(number, client)| {
            OUTSIDE.map(|outside| scope.spawn(move || fetch(client, (outside.parse::<IpAddr>()?, HTTP).into(), number)))
        };
        let fetching: Vec<_> = (1..).zip(&open.clients).flat_map(fetch).collect();
        fetching.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    for (family, server) in servers.into_iter().enumerate() {
        let mut seen = server.finish()?;
        seen.sort_unstable();
        let expected: Vec<_> = (1..=CLIENTS).map(|number| (number, inner(number)[family])).collect();
        ensure!(seen == expected, "the server saw {seen:?}, not each client under its own address");
    }
    let after = open.node.status()?;
    let ended = |status: &Status| ["no-neighbour", "no-way", "too-big"].map(|end| status.verdict(end));
    ensure!(ended(&before) == ended(&after), "packets found no way although all was known: {:?}", after.workers);
    after.ensure_ledgers_hold()
}

/// The first packet to a host that the kernel has to look for first is not lost.
fn waits() -> Result<()> {
    let open = Open::start(1)?;
    OUTSIDE.iter().try_for_each(|outside| open.introduce(outside))?;
    for outside in OUTSIDE {
        let known = open.node.status()?.mirror.neighbours;
        open.lab.node.ip("neigh flush dev link1")?;
        let before = open.node.await_status("the node knows of that", |status| status.mirror.neighbours < known)?;
        ping(&open.clients[0], outside.parse()?, 1, 56)?;
        let after = open.node.status()?;
        ensure!(after.mirror.neighbours_asked > before.mirror.neighbours_asked, "the kernel was not asked");
        ensure!(before.verdict("no-neighbour") == after.verdict("no-neighbour"), "a packet found no neighbour");
        after.ensure_ledgers_hold()?;
    }
    Ok(())
}

/// The host outside changes its MAC, and says so (RFC 5227 §3, RFC 4861 §7.2.6).
fn new_mac(family: usize) -> Result<()> {
    let open = Open::start(1)?;
    open.change(OUTSIDE[family], |_| {
        let outside = open.lab.client(Who::Bob);
        outside.set(["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"][family], "1")?;
        outside.ip("link set eth0 address 02:00:00:00:be:ef").map(drop)
    })
}

/// An address moves to a host on another interface, and the route with it.
fn new_route(family: usize) -> Result<()> {
    let open = Open::start(1)?;
    let (first, second) = (open.lab.client(Who::Bob), open.lab.neighbour(Who::Alice, "second", 9)?);
    let (beyond, whole) = (BEYOND[family], WHOLE[family]);
    first.ip(&format!("addr add {beyond}/{whole} dev lo"))?;
    second.ip(&format!("addr add {beyond}/{whole} dev lo"))?;
    open.lab.node.ip(&format!("route add {beyond}/{whole} via {}", OUTSIDE[family]))?;
    open.change(beyond, |_| {
        // What arrives there from now on is not answered.
        first.ip(&format!("addr del {beyond}/{whole} dev lo"))?;
        let via = ["198.51.100.9", "2001:db8:1::9"][family];
        open.lab.node.ip(&format!("route replace {beyond}/{whole} via {via}")).map(drop)
    })
}

/// The interface towards the host outside goes down and comes back.
fn down_and_up(family: usize) -> Result<()> {
    let open = Open::start(1)?;
    open.change(OUTSIDE[family], |flow| {
        open.lab.node.ip("link set link1 down")?;
        let sent = flow.sent();
        until("pings are sent that cannot arrive", PATIENCE, || Ok((flow.sent() > sent + 200).then_some(())))?;
        open.node.status()?.ensure_ledgers_hold()?;
        open.lab.node.ip("link set link1 up").map(drop)
    })
}

/// The inner addresses of a client.
fn inner(number: u8) -> [IpAddr; 2] {
    let last = 100 + number;
    [Ipv4Addr::new(10, 9, 0, last).into(), Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, last.into()).into()]
}

/// Waits until pings that are sent from now on come back.
fn answered(flow: &Echo, when: &str) -> Result<()> {
    let numbered = flow.numbered();
    until(&format!("pings come back {when}"), PATIENCE, || Ok((flow.latest() > numbered + 100).then_some(())))
}

/// An HTTP server (RFC 1945) that each client asks once, for what has its number.
struct Server(thread::JoinHandle<Result<Vec<(u8, IpAddr)>>>);

impl Server {
    fn start(namespace: &Namespace, at: SocketAddr) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind(at))?.with_context(|| format!("cannot listen at {at}"))?;
        Ok(Self(thread::spawn(move || {
            let serving: Vec<_> = (0..CLIENTS)
                .map(|_| listener.accept().map(|(stream, from)| thread::spawn(move || serve(stream, from.ip()))))
                .collect::<Result<_, _>>()?;
            serving.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("the server panicked"))?).collect()
        })))
    }

    /// Who asked for which number.
    fn finish(self) -> Result<Vec<(u8, IpAddr)>> {
        self.0.join().map_err(|_| anyhow!("the server panicked"))?
    }
}

fn serve(mut stream: TcpStream, from: IpAddr) -> Result<(u8, IpAddr)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    BufReader::new(&stream).read_line(&mut text)?;
    let number = text.strip_prefix("GET /").and_then(|rest| rest.strip_suffix(" HTTP/1.0\r\n")?.parse().ok());
    let number = number.with_context(|| format!("no request: {text:?}"))?;
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {OCTETS}\r\n\r\n")?;
    stream.write_all(&body(number))?;
    Ok((number, from))
}

/// Fetches what has a number, and looks at every octet.
fn fetch(namespace: &Namespace, at: SocketAddr, number: u8) -> Result<()> {
    let mut stream = namespace
        .enter(|| TcpStream::connect_timeout(&at, PATIENCE))?
        .with_context(|| format!("client {number} cannot connect to {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /{number} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("{} octets came from {at} to client {number}", answer.len()))?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").context("no HTTP answer")?;
    let got = &answer[head + 4..];
    ensure!(got.len() == OCTETS as usize, "{} of {OCTETS} octets came from {at} to client {number}", got.len());
    ensure!(got == body(number), "the octets that came from {at} to client {number} are not those that were sent");
    Ok(())
}

/// Octets that repeat too late to hide a packet that came twice, in another's place or to another client.
fn body(number: u8) -> Vec<u8> {
    (0..OCTETS).map(|place| (place.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ number).collect()
}
