//! Open tunnel mode behind an address of the node.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::config::Client;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::forge::{Forger, IPV4, Outlet, udp};
use anytun_tests::lab::{ANYCAST, ANYCAST6, Lab, Layout, PORT, Who};
use anytun_tests::node::{self, Node};
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};

use crate::open::{HTTP, OUTSIDE, Open, Server, body, fetch};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("nat/download-ipv4", || download(0, true)),
        case("nat/download-ipv6", || download(1, true)),
        case("nat/download-with-checksums-made-by-the-sender", || download(0, false)),
        case("nat/errors-from-outside-reach-their-client", errors),
        case("nat/20000-flows-of-50-clients", flows),
        case("nat/who-opens-ports-without-end-hits-a-limit-and-hurts-nobody", greedy),
    ]
}

/// A NAT of each family, at the addresses of the services.
pub(crate) const KEYS: &str = r#"open = "nat"
nat = [
  { address = "192.0.2.53", ports = "20000-49999" },
  { address = "2001:db8::53", ports = "20000-29999" },
]
"#;
/// Octets of a download.
const OCTETS: usize = 10_000_000;

/// A client downloads from a host that sees the node's address.
fn download(family: usize, offload: bool) -> Result<()> {
    let open = Open::with(if offload { Kind::Anytun } else { Kind::Uanytun }, offload, KEYS)?;
    let outside: IpAddr = OUTSIDE[family].parse()?;
    open.introduce(outside)?;
    let server = Server::start(open.lab.client(Who::Bob), (outside, HTTP).into(), OCTETS)?;
    let got = fetch(open.lab.client(Who::Alice), (outside, HTTP).into())?;
    ensure!(got == body(OCTETS), "the {} octets that arrived are not the {OCTETS} that were sent", got.len());
    let seen = server.finish()?;
    let own: [IpAddr; 2] = [ANYCAST.into(), ANYCAST6.into()];
    ensure!(seen == own[family], "the server saw {seen}, not the address of the node");
    // The node's own address still is the node's: it answers pings itself, and nobody outside reaches the client.
    let bob = open.lab.client(Who::Bob);
    ping(bob, own[family], 3, 56)?;
    let answered = bob.run(&format!("ping -n -c 2 -i 0.2 -W 1 {}", Who::Alice.inner()[family]));
    ensure!(answered.is_err(), "a host outside reached the client by its own address: {answered:?}");
    let status = open.node.status()?;
    let nat = status.nats.get(family).context("status shows no NAT")?;
    // One of the ping, one of the connection.
    ensure!(nat.mappings >= 2 && nat.sessions >= 2, "{nat:?}");
    status.ensure_ledgers_hold()
}

/// A port that nobody listens on is told to the client's socket; the error quotes the packet as the NAT sent it.
fn errors() -> Result<()> {
    let open = Open::with(Kind::Anytun, true, KEYS)?;
    for (outside, inner) in OUTSIDE.iter().zip(Who::Alice.inner()) {
        let outside: IpAddr = outside.parse()?;
        open.introduce(outside)?;
        let socket = open.lab.client(Who::Alice).enter(|| UdpSocket::bind((inner, 0)))??;
        socket.connect((outside, 9))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        until("the client's socket is told that nobody listens", PATIENCE, || {
            if let Err(error) = socket.send(b"anybody?") {
                ensure!(error.kind() == ErrorKind::ConnectionRefused, "{outside}: {error}");
                return Ok(Some(()));
            }
            match socket.recv(&mut [0; 8]) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Some(())),
                Err(_) => Ok(None),
                Ok(_) => bail!("{outside}: somebody answered"),
            }
        })?;
    }
    Ok(())
}

const CLIENTS: u16 = 50;
const FLOWS: u16 = 400;
/// Where the flows of a client begin.
const FIRST: u16 = 3000;
/// The echo service outside (RFC 862).
const ECHO: u16 = 7;
/// Flows that wait for their answer at once.
const WINDOW: usize = 100;

/// Each of 20,000 flows is seen outside under a port of its own, and each answer finds its client and port.
fn flows() -> Result<()> {
    let Crowd { lab: _lab, node, outside, echo, outlet, forgers, mut sequence } = Crowd::new(CLIENTS)?;
    for round in 0..2 {
        let mut missing = HashSet::new();
        for port in FIRST..FIRST + FLOWS {
            sequence += 1;
            for (number, forger) in (1..).zip(&forgers) {
                let packet = udp((address(number), port), (outside, ECHO), &tag(number, port));
                outlet.send(&forger.seal(sequence, IPV4, &packet), forger.service())?;
                missing.insert((number, port));
                while missing.len() >= WINDOW {
                    collect(&outlet, &forgers, outside, &mut missing)?;
                }
            }
        }
        while !missing.is_empty() {
            collect(&outlet, &forgers, outside, &mut missing).with_context(|| format!("round {round}"))?;
        }
    }
    let seen = echo.finish()?;
    let (clients, flows) = (u64::from(CLIENTS), u64::from(FLOWS));
    ensure!(seen.len() as u64 == clients * flows, "{} ports were seen outside", seen.len());
    ensure!(seen.iter().all(|from| from.ip() == IpAddr::from(ANYCAST)), "not all came from the node");
    ensure!(seen.iter().all(|from| (20_000..50_000).contains(&from.port())), "not all came from the range");
    let status = node.status()?;
    let nat = status.nats.first().context("status shows no NAT")?;
    ensure!((nat.mappings, nat.sessions) == (clients * flows, clients * flows), "{nat:?}");
    status.ensure_ledgers_hold()
}

/// Ports that a client may have when nothing is said.
const PORTS: u16 = 1024;

/// One client sends from three times as many ports as it may have and is told so; another one, meanwhile, has all of its own.
fn greedy() -> Result<()> {
    /// Ports of the quiet client, and after how many of the other one each has its turn.
    const QUIET: u16 = 100;
    const EACH: u16 = 3 * PORTS / QUIET;
    let Crowd { lab: _lab, node, outside, echo, outlet, forgers, mut sequence } = Crowd::new(2)?;
    let [greedy, quiet] = &forgers[..] else { bail!("two clients") };
    let mut told = 0;
    for port in FIRST..FIRST + 3 * PORTS {
        sequence += 1;
        let packet = udp((address(1), port), (outside, ECHO), &tag(1, port));
        outlet.send(&greedy.seal(sequence, IPV4, &packet), greedy.service())?;
        let number = port - FIRST;
        if !number.is_multiple_of(EACH) || number / EACH >= QUIET {
            continue;
        }
        let port = FIRST + number / EACH;
        let packet = udp((address(2), port), (outside, ECHO), &tag(2, port));
        outlet.send(&quiet.seal(sequence, IPV4, &packet), quiet.service())?;
        // What is for the other one comes in between: its answers, and errors (RFC 792: 3, 1 is host unreachable).
        loop {
            let packet = outlet.receive().with_context(|| format!("the quiet client's port {port} has no answer"))?;
            if packet[6..8] == 1_u16.to_be_bytes() {
                let inner = greedy.open(&packet)?;
                told += u32::from(inner[9] == 1 && inner[20..22] == [3, 1]);
                continue;
            }
            let inner = quiet.open(&packet)?;
            ensure!(inner[20..24] == [ECHO.to_be_bytes(), port.to_be_bytes()].concat(), "not the answer: {inner:02x?}");
            break;
        }
    }
    ensure!(told > 0, "nobody told the client that it has no more ports");
    let status = until("every packet has a verdict", PATIENCE, || {
        let status = node.status()?;
        let limited = status.client("client1")?.drops.get("nat-limit").copied();
        Ok((limited == Some(u64::from(2 * PORTS))).then_some(status))
    })?;
    ensure!(status.client("client2")?.drops.is_empty(), "{:?}", status.client("client2")?.drops);
    let nat = status.nats.first().context("status shows no NAT")?;
    ensure!(nat.mappings == u64::from(PORTS + QUIET), "{nat:?}");
    let seen = echo.finish()?;
    ensure!(seen.len() == usize::from(PORTS + QUIET), "{} ports were seen outside", seen.len());
    status.ensure_ledgers_hold()
}

/// Clients of a NAT that all are at one outer address, and a host outside that answers.
struct Crowd {
    node: Node,
    outside: Ipv4Addr,
    echo: Echo,
    outlet: Outlet,
    forgers: Vec<Forger>,
    /// The last sequence number that was used, for all alike.
    sequence: u32,
    lab: Lab,
}

impl Crowd {
    /// So many clients. The first one has a flow from its port [`FIRST`].
    fn new(clients: u16) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let mut config = lab.config();
        config.network = KEYS.to_owned();
        config.clients = (1..=clients).map(flow_client).collect();
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let outside: Ipv4Addr = OUTSIDE[0].parse()?;
        let echo = Echo::start(&lab, (outside, ECHO).into())?;
        let outlet = Outlet::bind(lab.client(Who::Alice), [198, 51, 100, 1].into(), PORT)?;
        let forger = |number: u16| Forger::new(&flow_client(number).crypto, number, (ANYCAST, PORT).into());
        let forgers: Vec<Forger> = (1..=clients).map(forger).collect();
        // The kernel has to find the way out first.
        let mut sequence = 0;
        until("the host outside answers", PATIENCE, || {
            sequence += 1;
            outlet.send(
                &forgers[0].seal(sequence, IPV4, &udp((address(1), FIRST), (outside, ECHO), &tag(1, FIRST))),
                forgers[0].service(),
            )?;
            thread::sleep(Duration::from_millis(20));
            Ok(outlet.waiting()?.map(drop))
        })?;
        Ok(Self { node, outside, echo, outlet, forgers, sequence, lab })
    }
}

/// Takes the next answer, which has to be one that is missing, or a late one of the round before.
fn collect(outlet: &Outlet, forgers: &[Forger], outside: Ipv4Addr, missing: &mut HashSet<(u16, u16)>) -> Result<()> {
    let packet = outlet.receive().with_context(|| format!("{} answers are missing", missing.len()))?;
    let mux = u16::from_be_bytes([packet[6], packet[7]]);
    let forger = forgers.get(usize::from(mux) - 1).context("for nobody")?;
    let inner = forger.open(&packet)?;
    let port = u16::from_be_bytes([inner[22], inner[23]]);
    let expected = udp((outside, ECHO), (address(mux), port), &tag(mux, port));
    ensure!(
        inner[12..20] == expected[12..20] && inner[20..] == expected[20..],
        "client {mux}, port {port}: {inner:02x?}"
    );
    missing.remove(&(mux, port));
    Ok(())
}

fn tag(number: u16, port: u16) -> Vec<u8> {
    [number.to_be_bytes(), port.to_be_bytes()].concat()
}

fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, number as u8)
}

fn flow_client(number: u16) -> Client {
    Client {
        name: format!("client{number}"),
        service: "anycast".to_owned(),
        mux: number,
        addresses: vec![address(number).into()],
        endpoint: None,
        crypto: Crypto::passphrase(&format!("passphrase of client {number}")),
    }
}

/// A host outside that sends back what it gets, and remembers from where.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<HashSet<SocketAddr>>>,
}

impl Echo {
    fn start(lab: &Lab, at: SocketAddr) -> Result<Self> {
        let socket = lab.client(Who::Bob).enter(|| UdpSocket::bind(at))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut seen, start) = (HashSet::new(), Instant::now());
            let mut buffer = [0; 64];
            while !told.load(Ordering::Relaxed) {
                ensure!(start.elapsed() < Duration::from_secs(120), "nobody stopped the echo service");
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..length], from)?;
                    seen.insert(from);
                }
            }
            Ok(seen)
        });
        Ok(Self { stop, thread })
    }

    /// From where packets came.
    fn finish(self) -> Result<HashSet<SocketAddr>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(seen) => seen,
            Err(_) => bail!("the echo service panicked"),
        }
    }
}
