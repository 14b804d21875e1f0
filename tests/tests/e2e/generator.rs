//! The generator and sink, `anytun-gen`: what it sends arrives, what it receives it knows again.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use anytun_tests::capture::{Frames, ensure_unique};
use anytun_tests::config::{Client, Config, Service};
use anytun_tests::counters::Counters;
use anytun_tests::crypto::{Crypto, combinations};
use anytun_tests::forge::Outlet;
use anytun_tests::lab::PORT;
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node, Outcome};
use anytun_tests::wait::{PATIENCE, until};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Case, case};

/// Clients of the node: two pairs.
pub(crate) const CLIENTS: u16 = 4;
/// Where the service is.
pub(crate) const SERVICE: &str = "192.0.2.53";
/// The outer address of the sending clients.
pub(crate) const SOURCE: &str = "198.18.0.1";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("generator/plain", plain),
        case("generator/round-trip", round_trip),
        case("generator/search", search),
        case("generator/satp", satp),
        case("generator/ipv6", ipv6),
        case("generator/two-queues", two_queues),
        case("generator/every-load", every_load),
        case("generator/carrier", carrier),
        case("generator/pcap", pcap),
        case("generator/refusals", refusals),
    ]
}

/// A namespace with both interfaces of the generator, and one for whatever is between them.
pub(crate) struct Bench {
    pub(crate) generator: Namespace,
    pub(crate) relay: Namespace,
    pub(crate) directory: TempDir,
    outside: &'static Outside,
}

/// The addresses outside.
struct Outside {
    service: &'static str,
    source: &'static str,
    /// The outer address of the receiving clients.
    sink_source: &'static str,
    /// The addresses of the relay's interfaces.
    relay: [&'static str; 2],
    /// Of the prefixes of both links.
    length: u8,
}

const V4: Outside = Outside {
    service: SERVICE,
    source: SOURCE,
    sink_source: "198.19.0.1",
    relay: ["198.18.0.2", "198.19.0.2"],
    length: 24,
};

const V6: Outside = Outside {
    service: "2001:db8:53::53",
    source: "2001:db8:18::1",
    sink_source: "2001:db8:19::1",
    relay: ["2001:db8:18::2", "2001:db8:19::2"],
    length: 64,
};

impl Bench {
    /// Two interfaces with nothing between.
    fn direct() -> Result<Self> {
        let bench = Self::empty(&V4)?;
        bench.generator.ip("link add gen0 type veth peer name sink0")?;
        bench.generator.ip(&format!("addr add {SOURCE}/24 dev gen0"))?;
        bench.up(&bench.generator, &["gen0", "sink0"])?;
        Ok(bench)
    }

    /// Two interfaces with a relay between, which has the address of the service.
    pub(crate) fn relayed() -> Result<Self> {
        Self::relayed_over(&V4, 1)
    }

    /// The same with these addresses outside and so many queues of each interface.
    fn relayed_over(outside: &'static Outside, queues: u32) -> Result<Self> {
        let bench = Self::empty(outside)?;
        let Self { generator, relay, .. } = &bench;
        let Outside { service, source, sink_source, relay: [near, far], length } = outside;
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        // Addresses of IPv6 are of use at once only where nobody looks for duplicates.
        let flags = if service.contains(':') { "nodad" } else { "" };
        for (here, there, ours, theirs) in [("gen0", "link0", source, near), ("sink0", "link1", sink_source, far)] {
            generator
                .ip(&format!("link add {here} {queues} type veth peer name {there} {queues} netns {}", relay.name()))?;
            generator.ip(&format!("addr add {ours}/{length} dev {here} {flags}"))?;
            relay.ip(&format!("addr add {theirs}/{length} dev {there} {flags}"))?;
        }
        relay.ip(&format!("addr add {service} dev lo {flags}"))?;
        bench.up(generator, &["gen0", "sink0"])?;
        bench.up(relay, &["link0", "link1"])?;
        generator.ip(&format!("route add {service} via {near}"))?;
        Ok(bench)
    }

    fn empty(outside: &'static Outside) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("anytun-lab-").tempdir().context("cannot make a directory")?;
        Ok(Self { generator: Namespace::new("generator")?, relay: Namespace::new("relay")?, directory, outside })
    }

    fn up(&self, namespace: &Namespace, links: &[&str]) -> Result<()> {
        links.iter().try_for_each(|link| namespace.ip(&format!("link set {link} up")).map(drop))
    }

    /// Starts a node for so many clients.
    pub(crate) fn node(&self, clients: u16, crypto: &dyn Fn(u16) -> Crypto) -> Result<Node> {
        self.start(&self.config(clients, crypto)?)
    }

    /// Starts a node with this configuration.
    pub(crate) fn start(&self, config: &Config) -> Result<Node> {
        Node::start(&node::program()?, &self.relay, self.directory.path(), config)
    }

    /// The configuration of a node for so many clients.
    pub(crate) fn config(&self, clients: u16, crypto: &dyn Fn(u16) -> Crypto) -> Result<Config> {
        let service = Service::new("anycast", (self.outside.service.parse::<IpAddr>()?, PORT).into());
        let clients = (0..clients).map(|number| Client {
            endpoint: None,
            name: format!("client{number}"),
            service: "anycast".to_owned(),
            mux: number,
            addresses: vec![inner(number).into()],
            crypto: crypto(number),
        });
        Ok(Config { services: vec![service], clients: clients.collect(), ..Config::new(&["link0", "link1"]) })
    }

    /// Runs the generator with the words of `arguments`.
    pub(crate) fn generate(&self, arguments: &str) -> Result<Outcome> {
        let program = node::generator()?;
        let program = program.to_string_lossy();
        let line: Vec<&str> = [&*program].into_iter().chain(arguments.split_whitespace()).collect();
        node::run_to_end(&self.generator, self.directory.path(), &line)
    }

    /// Runs a measurement that must end well, and returns its result.
    pub(crate) fn measure(&self, arguments: &str) -> Result<Value> {
        let file = self.directory.path().join("result.json");
        let outcome =
            self.generate(&format!("run --interface gen0 --sink sink0 --json {} {arguments}", file.display()))?;
        ensure!(outcome.code == Some(0), "{arguments}: {outcome:?}");
        let json = fs::read(&file).with_context(|| format!("no result of {arguments}"))?;
        serde_json::from_slice(&json).context("the result is no JSON")
    }

    /// Plain UDP straight from one interface to the other.
    fn measure_direct(&self, arguments: &str) -> Result<Value> {
        let mac = mac(&self.generator, "sink0")?;
        self.measure(&format!("--source {SOURCE}:7000 --destination 198.18.0.2:9000 --gateway-mac {mac} {arguments}"))
    }

    /// What the options for the clients of the node are.
    pub(crate) fn clients(&self) -> Result<String> {
        let config = self.directory.path().join("node.toml");
        let mac = mac(&self.relay, "link1")?;
        let [source, sink_source] = [self.outside.source, self.outside.sink_source].map(str::parse::<IpAddr>);
        Ok(format!(
            "--config {} --source {} --sink-source {} --sink-gateway-mac {mac}",
            config.display(),
            SocketAddr::new(source?, 7000),
            SocketAddr::new(sink_source?, 7000)
        ))
    }
}

/// The inner address of a client.
pub(crate) fn inner(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, number as u8)
}

/// A number of a result.
pub(crate) fn number(result: &Value, name: &str) -> Result<u64> {
    result[name].as_u64().with_context(|| format!("the result has no {name}: {result}"))
}

/// Fails unless all that was sent arrived, once, as it was sent.
pub(crate) fn ensure_clean(result: &Value, least: u64) -> Result<()> {
    let sent = number(result, "sent")?;
    ensure!(sent >= least, "{sent} packets were sent, not {least}: {result}");
    ensure!(number(result, "received")? == sent, "{result}");
    for name in ["lost", "duplicated", "reordered", "corrupt", "foreign"] {
        ensure!(number(result, name)? == 0, "{name}: {result}");
    }
    Ok(())
}

fn mac(namespace: &Namespace, link: &str) -> Result<String> {
    let shown: Value = serde_json::from_str(&namespace.run(&format!("ip -json link show dev {link}"))?)?;
    shown[0]["address"].as_str().map(str::to_owned).with_context(|| format!("{link} has no address: {shown}"))
}

/// Every engine with every sink, all sizes of the mix.
fn plain() -> Result<()> {
    let bench = Bench::direct()?;
    for engine in ["xsk", "xdp"] {
        for sink in ["xsk", "xdp"] {
            let result = bench
                .measure_direct(&format!("--engine {engine} --sink-engine {sink} --rate 10k --duration 1s --size imix"))
                .context(format!("{engine} to {sink}"))?;
            ensure_clean(&result, 1_000).context(format!("{engine} to {sink}"))?;
            ensure!(
                result["latency_us"].is_object() == (sink == "xsk"),
                "latency needs the time in each packet: {result}"
            );
        }
    }
    // A ramp sends as many as its mean, as far as the machine lets it.
    let result = bench.measure_direct("--ramp 2k:6k --duration 1s")?;
    ensure_clean(&result, 500)?;
    ensure!(number(&result, "sent")? + number(&result, "skipped")? <= 4_001, "{result}");
    let result =
        bench.measure_direct("--prefix 40000016 --arrive-prefix 40000016 --rate 2k --duration 500ms --size 100")?;
    ensure_clean(&result, 100)
}

/// Probes alone, and among other packets, are answered.
fn round_trip() -> Result<()> {
    let bench = Bench::direct()?;
    let result = bench.measure_direct("--round-trip --probes 500 --duration 1s")?;
    ensure_clean(&result, 50)?;
    ensure!(result["round_trip_us"]["count"] == result["sent"], "{result}");
    let result = bench.measure_direct("--round-trip --rate 10k --duration 1s")?;
    ensure_clean(&result, 1_000)?;
    let (answers, sent) = (result["round_trip_us"]["count"].as_u64(), number(&result, "sent")?);
    ensure!(answers.is_some_and(|count| count > 0 && count < sent / 2), "{result}");
    Ok(())
}

/// Nothing is sent before both interfaces have a carrier, which some lose as they get an XDP program.
fn carrier() -> Result<()> {
    let bench = Bench::relayed()?;
    let [link0, sink0] = [mac(&bench.relay, "link0")?, mac(&bench.generator, "sink0")?];
    bench.relay.set("ipv4/ip_forward", "1")?;
    bench.relay.ip(&format!("neigh add {} lladdr {sink0} dev link1 nud permanent", bench.outside.sink_source))?;
    bench.relay.ip("link set link0 down")?;
    let arguments = format!(
        "--source {SOURCE}:7000 --destination {}:9000 --gateway-mac {link0} --rate 5k --warm-up 0ms --duration 500ms",
        bench.outside.sink_source
    );
    let result = thread::scope(|scope| {
        let run = scope.spawn(|| bench.measure(&arguments));
        // Seen several times: one that did not wait would be sending by then.
        let mut seen = 0;
        until("the generator receives at sink0, and waits for gen0", PATIENCE, || {
            seen += u32::from(bench.generator.ip("link show dev sink0")?.contains("prog/xdp"));
            Ok((seen == 10).then_some(()))
        })?;
        bench.relay.ip("link set link0 up")?;
        run.join().map_err(|_| anyhow!("the generator's thread panicked"))?
    })?;
    ensure_clean(&result, 100)
}

/// A search ends with what a way without a bottleneck carries: the highest rate that it may try.
fn search() -> Result<()> {
    let result = Bench::direct()?.measure_direct("--search --rate 5k --duration 300ms")?;
    let steps = result["search"]["steps"].as_array().context("no steps")?;
    ensure!(steps.len() >= 2, "a step and its confirmation: {result}");
    ensure!(result["search"]["lossless_pps"].as_f64().is_some_and(|rate| rate > 0.0 && rate < 5_500.0), "{result}");
    Ok(())
}

/// The crypto of client `number`: `default` or `null`.
pub(crate) fn crypto(name: &str, number: u16) -> Crypto {
    let [default, null, ..] = combinations(&format!("passphrase of client {number}"));
    if name == "null" { null.1 } else { default.1 }
}

/// Clients of a node reach each other, with either engine, default crypto and none.
fn satp() -> Result<()> {
    for name in ["default", "null"] {
        let bench = Bench::relayed()?;
        let node = bench.node(CLIENTS, &|number| crypto(name, number))?;
        let clients = bench.clients()?;
        let mut first = 0;
        for more in ["--engine xsk", "--engine xdp", "--engine xsk --sink-engine xdp", "--round-trip"] {
            let line = format!("{clients} --first-sequence {first} --rate 5k --duration 1s --size 64,512,1400 {more}");
            let result = bench.measure(&line)?;
            ensure_clean(&result, 500).context(format!("{name}, {more}"))?;
            ensure!(number(&result, "clients")? == u64::from(CLIENTS), "{result}");
            ensure!(more != "--round-trip" || result["round_trip_us"].is_object(), "{name}: {result}");
            first = number(&result, "last_sequence")? + 1;
        }
        node.status()?.ensure_ledgers_hold()?;
        // The node has seen these numbers.
        let again = bench.generate(&format!("run --interface gen0 --sink sink0 {clients} --rate 5k --duration 1s"))?;
        ensure!(again.code == Some(1) && again.text.contains("--first-sequence"), "{name}: {again:?}");
    }
    Ok(())
}

/// Clients reach each other over IPv6, with either engine; so does plain UDP.
fn ipv6() -> Result<()> {
    ensure_clients_reach_each_other(
        &V6,
        1,
        &["--engine xsk", "--engine xdp", "--sink-engine xdp", "--round-trip --warm-up 0s"],
    )?;
    let bench = Bench::direct()?;
    bench.generator.ip("addr add 2001:db8:18::1/64 dev gen0 nodad")?;
    let mac = mac(&bench.generator, "sink0")?;
    for engine in ["xsk", "xdp"] {
        let result = bench.measure(&format!(
            "--source [2001:db8:18::1]:7000 --destination [2001:db8:18::2]:9000 --gateway-mac {mac} --engine {engine} \
             --rate 5k --duration 500ms --size 100"
        ))?;
        ensure_clean(&result, 200).context(format!("plain, {engine}"))?;
    }
    Ok(())
}

/// Two queues share flows and rate, on all interfaces.
fn two_queues() -> Result<()> {
    ensure_clients_reach_each_other(
        &V4,
        2,
        &[
            "--queues 0-1",
            "--queues 0-1 --engine xdp",
            "--queues 0-1 --sink-engine xdp",
            "--queues 0-1 --round-trip --warm-up 0s",
        ],
    )
}

/// Runs with each of `options` through a node with so many queues and workers: all that is sent arrives, in order.
fn ensure_clients_reach_each_other(outside: &'static Outside, queues: u32, options: &[&str]) -> Result<()> {
    for name in ["default", "null"] {
        let bench = Bench::relayed_over(outside, queues)?;
        let node = bench.node(CLIENTS, &|number| crypto(name, number))?;
        let clients = bench.clients()?;
        let mut first = 0;
        for more in options {
            // Below what a debug build carries on a busy machine.
            let line = format!("{clients} --first-sequence {first} --rate 500 --duration 1s --size 64,512,1380 {more}");
            let result = bench.measure(&line).context(format!("{name}, {more}"))?;
            ensure_clean(&result, 100).context(format!("{name}, {more}"))?;
            first = number(&result, "last_sequence")? + 1;
        }
        if name == "default" {
            let line = format!("{clients} --first-sequence {} --engine xdp --pool {}", first, u64::MAX);
            let huge = bench.generate(&format!("run --interface gen0 --sink sink0 {line}"))?;
            ensure!(huge.code == Some(2) && huge.text.contains("MB of memory are available"), "{huge:?}");
        }
        let status = node.status()?;
        status.ensure_ledgers_hold()?;
        let busy = status.workers.iter().filter(|worker| worker.io.rx_packets > 0).count();
        ensure!(busy == queues as usize, "{busy} of {queues} workers had packets, {name}");
    }
    Ok(())
}

/// Whatever the load is, above what the machine carries, too: packets may be lost, but none comes twice, overtakes another
/// one of its client, or is changed.
fn every_load() -> Result<()> {
    for name in ["default", "null"] {
        let bench = Bench::relayed()?;
        let node = bench.node(CLIENTS, &|number| crypto(name, number))?;
        let clients = bench.clients()?;
        let mut first = 0;
        for rate in ["5k", "20k", "100k", "300k", "max"] {
            let line = format!("{clients} --first-sequence {first} --rate {rate} --duration 1s --size imix");
            let result = bench.measure(&line)?;
            ensure!(number(&result, "received")? > 0, "{name} at {rate}: {result}");
            for fault in ["duplicated", "reordered", "corrupt", "foreign"] {
                ensure!(number(&result, fault)? == 0, "{fault}, {name} at {rate}: {result}");
            }
            first = number(&result, "last_sequence")? + 1;
            node.status()?.ensure_ledgers_hold()?;
        }
    }
    Ok(())
}

/// A file of sealed packets is what `tcpdump` reads and a node accepts, once.
fn pcap() -> Result<()> {
    const COUNT: u64 = 200;
    let bench = Bench::relayed()?;
    let node = bench.node(CLIENTS, &|number| Crypto::passphrase(&format!("passphrase of client {number}")))?;
    let file = bench.directory.path().join("sealed.pcap");
    let line = format!(
        "pcap --interface gen0 --sink sink0 {} --out {} --count {COUNT} --size imix --first-sequence 1000",
        bench.clients()?,
        file.display()
    );
    let outcome = bench.generate(&line)?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    let whole = fs::read(&file)?;
    // Two clients send: the last of these sequence numbers would be one too many.
    let last = u64::from(u32::MAX) - COUNT / 2 + 1;
    let refused = bench.generate(&line.replace("--first-sequence 1000", &format!("--first-sequence {last}")))?;
    ensure!(refused.code == Some(2) && refused.text.contains("--first-sequence"), "{refused:?}");
    ensure!(fs::read(&file)? == whole, "arguments that are refused must leave the file as it was");
    let read = bench.generator.run(&format!("tcpdump -nn -r {}", file.display()))?;
    ensure!(read.lines().count() as u64 == COUNT, "tcpdump reads {} packets", read.lines().count());
    let frames = Frames::read(Path::new(&file))?;
    ensure_unique(&frames.headers_from(SOURCE.parse()?, 7000))?;
    let service = (SERVICE.parse::<IpAddr>()?, PORT).into();
    let outlets = [7000, 7001].map(|port| Outlet::bind(&bench.generator, IpAddr::from([198, 18, 0, 1]), port));
    let [first, second] = outlets;
    let outlets = [first?, second?];
    for (port, payload) in frames.datagrams() {
        outlets[usize::from(port - 7000)].send(payload, service)?;
    }
    let accepted = |status: &anytun_tests::status::Status| {
        let packets = |name| status.client(name).map_or(0, |client| client.rx.packets);
        packets("client0") + packets("client2") == COUNT
    };
    node.await_status("the node has accepted the whole file", accepted)?;
    Ok(())
}

/// What cannot work is said with the way out, and with the exit code of its kind.
fn refusals() -> Result<()> {
    let bench = Bench::direct()?;
    let plain = "run --interface gen0 --sink sink0 --source 198.18.0.1:7000 --destination";
    for (arguments, code, words) in [
        ("run --interface gen0 --source 198.18.0.1:7000".to_owned(), 2, "--destination"),
        (format!("{plain} 198.18.0.2:9000 --rate fast"), 2, "100k"),
        (format!("{plain} 198.18.0.2:9000 --gateway-mac 02:00:00:00:00:01 --size 40"), 2, "at least 62"),
        (format!("{plain} 198.18.0.2:9000 --gateway-mac 02:00:00:00:00:01 --queues 7"), 2, "queues are 0 to"),
        (format!("{plain} 192.0.2.1:9000"), 3, "--gateway-mac"),
        (format!("{plain} 198.18.0.2:0"), 2, "ports are 1 to 65535"),
        ("run --interface nobody --source 198.18.0.1:7000 --destination 198.18.0.2:9".to_owned(), 3, "gen0"),
    ] {
        let outcome = bench.generate(&arguments)?;
        ensure!(outcome.code == Some(code) && outcome.text.contains(words), "{arguments}: {outcome:?}");
    }
    // What cannot be kept is not measured.
    let before = Counters::read(&bench.generator, "gen0")?;
    let rest = "--gateway-mac 02:00:00:00:00:01 --rate 5k --duration 1s --json /nowhere/result.json";
    let outcome = bench.generate(&format!("{plain} 198.18.0.2:9000 {rest}"))?;
    ensure!(outcome.code == Some(2) && outcome.text.contains("--json /nowhere/result.json"), "{outcome:?}");
    let sent = Counters::read(&bench.generator, "gen0")?.since(&before).sent;
    ensure!(sent < 100, "{sent} packets were sent, though their result could not be written");
    bench.generator.ip("link set gen0 down")?;
    let down = bench.generate(&format!("{plain} 198.18.0.2:9000"))?;
    ensure!(down.code == Some(3) && down.text.contains("ip link set dev gen0 up"), "{down:?}");
    Ok(())
}
