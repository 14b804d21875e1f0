//! Starts each subject on its topology.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::{Client, Config, Service};
use anytun_tests::crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::process::Process;
use anytun_tests::server::{Served, Server};
use anytun_tests::wait::{PATIENCE, until};

use crate::subject::{Crypto, Shape, Subject};
use crate::topology::{Confined, GENERATOR_CPU, RELAY_CPU, RELAY_IN, RELAY_OUT, SERVICE, SINK, SOURCE, Topology};
use crate::traffic::{PORT, SOURCE_PORT, Traffic, What};
use crate::turn;

/// The port of the first service.
const SERVICE_PORT: u16 = 4444;
/// The port of STUN and TURN.
const TURN_PORT: u16 = 3478;
/// Source ports of relays that serve many at once.
const FLOWS: u16 = 16;
/// Where packets come out.
const SINK_SOCKET: SocketAddrV4 = SocketAddrV4::new(SINK, PORT);
/// The module of nginx, where it is not a part of the program.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A relay at work.
#[derive(Debug)]
pub(crate) enum Relay {
    /// In the kernel alone.
    Kernel,
    Processes(Vec<Process>),
    Node(Node),
    Server(Server),
}

/// Programs of this workspace.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) node: PathBuf,
    pub(crate) reflector: PathBuf,
}

impl Relay {
    /// Starts a subject, confines it to its processor, and says what it is to be sent. Files go to `directory`.
    pub(crate) fn start(
        subject: Subject,
        topology: &Topology,
        directory: &Path,
        programs: &Programs,
    ) -> Result<(Self, Traffic)> {
        // Two workers share both processors with the generator: this machine may have no others. The processes are confined
        // from their start on, as what they start in turn is.
        let cpus: &[usize] = if subject.shape().queues() > 1 { &[GENERATOR_CPU, RELAY_CPU] } else { &[RELAY_CPU] };
        let _confined = Confined::to(cpus)?;
        let relay = &topology.relay;
        let through = SocketAddrV4::new(RELAY_IN, PORT);
        let (started, what) = match subject {
            Subject::Node(crypto, shape) => node(crypto, shape, topology, directory, &programs.node)?,
            Subject::Reflector(shape) => {
                (reflector(shape, false, topology, directory, &programs.reflector)?, plain(SINK_SOCKET, FLOWS))
            }
            Subject::Xdp => {
                let shape = Shape::TwoInterfaces;
                (reflector(shape, true, topology, directory, &programs.reflector)?, plain(SINK_SOCKET, FLOWS))
            }
            Subject::Kernel => (Relay::Kernel, plain(SINK_SOCKET, FLOWS)),
            Subject::NftNat => (nft_nat(relay)?, plain(through, FLOWS)),
            Subject::Nginx => (nginx(relay, directory)?, plain(through, FLOWS)),
            Subject::Socat => (socat(relay, directory)?, plain(through, 1)),
            Subject::Coturn => {
                let destination = SocketAddrV4::new(RELAY_IN, TURN_PORT);
                let what = What::Plain { destination, flows: 1, prefix: Some(turn::channel_data) };
                (coturn(topology, directory)?, what)
            }
            Subject::Daemon(kind) => daemon(kind, relay, directory)?,
        };
        let one_interface = subject.shape() == Shape::OneInterface;
        Ok((started, Traffic { one_interface, queues: subject.shape().queues(), what }))
    }

    /// The processes, without what descends from them.
    pub(crate) fn pids(&self) -> Vec<u32> {
        match self {
            Relay::Kernel => Vec::new(),
            Relay::Processes(processes) => processes.iter().map(Process::pid).collect(),
            Relay::Node(node) => vec![node.pid()],
            Relay::Server(server) => server.pids(),
        }
    }
}

fn plain(destination: SocketAddrV4, flows: u16) -> What {
    What::Plain { destination, flows, prefix: None }
}

fn node(crypto: Crypto, shape: Shape, topology: &Topology, directory: &Path, program: &Path) -> Result<(Relay, What)> {
    let interfaces: &[&str] = if shape == Shape::OneInterface { &["link0"] } else { &["link0", "link1"] };
    let idle = if shape == Shape::Spinning { "spin" } else { "sleep" };
    // A pair for each queue: the packets of one client stay on one.
    let config = Config { idle, ..config(interfaces, shape.queues() as u16, crypto) };
    let node = Node::start(program, &topology.relay, directory, &config)?;
    Ok((Relay::Node(node), What::Tunnel { config: directory.join("node.toml"), sealed: crypto == Crypto::Default }))
}

/// Daemons know nothing of the node's configuration, but the generator does.
fn daemon(kind: Kind, namespace: &Namespace, directory: &Path) -> Result<(Relay, What)> {
    let config = config(&["link0", "link1"], 1, Crypto::Default);
    let file = node::write_config(directory, &config.toml(directory))?;
    let served = |(index, client): (u16, &Client)| Served {
        service: SocketAddr::from((SERVICE, SERVICE_PORT + index)),
        mux: client.mux,
        inner: client.addresses[0],
        passphrase: passphrase(client.mux),
    };
    let clients: Vec<_> = (0..).zip(&config.clients).map(served).collect();
    if kind == Kind::Uanytun {
        // Each client needs a daemon with a port of its own; both think that they talk to the first one's. No connection
        // is tracked: that is some 1 % of what the daemons cost.
        let (first, second) = (SERVICE_PORT, SERVICE_PORT + 1);
        let rules = format!(
            "chain in {{ type filter hook prerouting priority raw; iifname link1 udp dport {first} udp dport set {second}; }}\n\
             chain out {{ type filter hook output priority raw; oifname link1 udp sport {second} udp sport set {first}; }}"
        );
        nft(namespace, &rules)?;
    }
    let server = Server::start(kind, namespace, directory, &clients)?;
    Ok((Relay::Server(server), What::Tunnel { config: file, sealed: true }))
}

/// A node with pairs of clients at one service.
fn config(interfaces: &[&str], pairs: u16, crypto: Crypto) -> Config {
    let client = |mux: u16| Client {
        name: format!("client-{mux}"),
        service: "service".to_owned(),
        mux,
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 9, 0, 10 + mux as u8))],
        endpoint: None,
        crypto: crypto::Crypto::passphrase(&passphrase(mux)).with(crypto.suite()),
    };
    Config {
        name: "bench".to_owned(),
        metrics: None,
        services: vec![Service::new("service", SocketAddr::from((SERVICE, SERVICE_PORT)))],
        clients: (1..=2 * pairs).map(client).collect(),
        ..Config::new(interfaces)
    }
}

fn passphrase(mux: u16) -> String {
    format!("what client {mux} and the node know")
}

fn reflector(shape: Shape, in_kernel: bool, topology: &Topology, directory: &Path, program: &Path) -> Result<Relay> {
    let macs = &topology.macs;
    let mut words = vec!["--port".to_owned(), format!("link0={}", macs.gen0)];
    if shape != Shape::OneInterface {
        words.extend(["--port".to_owned(), format!("link1={}", macs.sink0)]);
    }
    words.extend(["--queues".to_owned(), shape.queues().to_string()]);
    words.extend(in_kernel.then(|| "--in-kernel".to_owned()));
    words.extend((shape == Shape::Spinning).then(|| "--spin".to_owned()));
    let log = fresh(directory, "reflector.log")?;
    let process = Process::start("the reflector", &topology.relay, program, words, &log)?;
    ready(process, |process| Ok(process.log().contains("ready")))
}

fn nft_nat(namespace: &Namespace) -> Result<Relay> {
    let rules = format!(
        "chain in {{ type nat hook prerouting priority dstnat; iifname link0 udp dport {PORT} dnat to {SINK_SOCKET}; }}\n\
         chain out {{ type nat hook postrouting priority srcnat; oifname link1 snat to {RELAY_OUT}; }}"
    );
    nft(namespace, &rules)?;
    Ok(Relay::Kernel)
}

/// Replaces all rules of a namespace by these chains.
fn nft(namespace: &Namespace, chains: &str) -> Result<()> {
    let rules = format!("flush ruleset\ntable ip bench {{\n{chains}\n}}\n");
    let mut nft = namespace.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("cannot run nft")?;
    nft.stdin.take().context("nft has no stdin")?.write_all(rules.as_bytes())?;
    let status = nft.wait()?;
    ensure!(status.success(), "nft refuses the rules: {status}");
    Ok(())
}

fn nginx(namespace: &Namespace, directory: &Path) -> Result<Relay> {
    let module =
        if Path::new(NGINX_STREAM).exists() { format!("load_module {NGINX_STREAM};\n") } else { String::new() };
    let place = directory.display();
    let text = format!(
        "{module}daemon off;\nworker_processes 1;\npid {place}/nginx.pid;\nerror_log {place}/nginx.log;\n\
         events {{ worker_connections 4096; }}\n\
         stream {{ server {{ listen {RELAY_IN}:{PORT} udp; proxy_pass {SINK_SOCKET}; proxy_timeout 60s; }} }}\n"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let log = fresh(directory, "nginx.out")?;
    let words =
        ["-c", &file.to_string_lossy(), "-e", &directory.join("nginx.log").to_string_lossy()].map(str::to_owned);
    let process = Process::start("nginx", namespace, Path::new("nginx"), words, &log)?;
    ready(process, |_| listens(namespace, PORT))
}

fn socat(namespace: &Namespace, directory: &Path) -> Result<Relay> {
    let words = [format!("UDP4-LISTEN:{PORT},bind={RELAY_IN},fork"), format!("UDP4:{SINK_SOCKET}")];
    let log = fresh(directory, "socat.log")?;
    let process = Process::start("socat", namespace, Path::new("socat"), words, &log)?;
    ready(process, |_| listens(namespace, PORT))
}

fn coturn(topology: &Topology, directory: &Path) -> Result<Relay> {
    let (listen, relay, place) = (RELAY_IN.to_string(), RELAY_OUT.to_string(), directory.to_string_lossy());
    let (pid, database) = (format!("--pidfile={place}/turn.pid"), format!("--userdb={place}/turn.db"));
    let words = [
        "-n",
        "--no-auth",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--no-tcp",
        "--no-tcp-relay",
        "--log-file=stdout",
        "--relay-threads=1",
        "--channel-lifetime=86400",
        "--permission-lifetime=86400",
        "--max-allocate-lifetime=86400",
        "--listening-ip",
        &listen,
        "--relay-ip",
        &relay,
        &pid,
        &database,
    ];
    let log = fresh(directory, "coturn.log")?;
    let process = Process::start("coturn", &topology.relay, Path::new("turnserver"), words.map(str::to_owned), &log)?;
    let relay = ready(process, |_| listens(&topology.relay, TURN_PORT))?;
    let client = SocketAddrV4::new(SOURCE, SOURCE_PORT);
    turn::bind(&topology.generator, client, SocketAddrV4::new(RELAY_IN, TURN_PORT), SINK_SOCKET)?;
    Ok(relay)
}

/// Waits until a process is ready, and fails if it ends instead.
fn ready(mut process: Process, is_ready: impl Fn(&Process) -> Result<bool>) -> Result<Relay> {
    until("the relay is ready", PATIENCE, || {
        let ended = process.ended()?;
        ensure!(ended.is_none(), "it ended instead of relaying: {ended:?}\n{}", process.log_tail());
        Ok(is_ready(&process)?.then_some(()))
    })?;
    Ok(Relay::Processes(vec![process]))
}

/// Whether something in a namespace has a UDP socket at a port.
fn listens(namespace: &Namespace, port: u16) -> Result<bool> {
    Ok(namespace.run("ss -Hlun")?.contains(&format!(":{port} ")))
}

/// A log without what was there.
fn fresh(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
