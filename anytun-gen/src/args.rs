//! The arguments, and the plan they make.

mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anytun_gen::error::Error;
use anytun_gen::hop::{self, Mac};
use anytun_gen::plan::{Engine, Plan};
use anytun_gen::rate::{Ramp, Rate};
use anytun_gen::size::Sizes;
use anytun_gen::traffic::headers::Ends;
use anytun_gen::traffic::{Arriving, Places, Plain, Receivers, Satp, Traffic};
use anytun_xdp::config::{self, XdpMode};
use anytun_xdp::kernel::Link;
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::value::{Octets, Range, duration, octets, pause, range, share, socket};

/// Probes a second when nothing is said, alone and among other packets.
const PROBES: [u64; 2] = [1_000, 1_500];

/// Exit codes, the same for every command.
const EXIT_CODES: &str = "Exit codes: 0 fine, whatever was lost; 1 failure while running; 2 bad usage or configuration; 3 \
                          the host cannot do it (no such interface, no route, not permitted, another XDP program in the way).";

const EXAMPLES: &str = "\
Examples:
  Plain UDP through whatever forwards it from gen0 to sink0, every packet checked:
    anytun-gen run --interface gen0 --sink sink0 --source 198.18.0.1:7000 --destination 198.19.0.1:9000 --rate 100k
  Clients of a node, the first half of each pair behind gen0, the other behind sink0:
    anytun-gen run --interface gen0 --sink sink0 --config node.toml --source 198.18.0.1:7000 \\
        --sink-source 198.19.0.1:7000 --size imix --search
  Clients of a node in open tunnel mode, whose packets come out of it plain, for a host behind sink0:
    anytun-gen run --interface gen0 --sink sink0 --config node.toml --source 198.18.0.1:7000 \\
        --destination 198.19.0.1:9000 --search
  What clients send to each other as a file for tcpreplay or TRex:
    anytun-gen pcap --interface gen0 --sink sink0 --config node.toml --source 198.18.0.1:7000 \\
        --sink-source 198.19.0.1:7000 --out sealed.pcap --count 100000";

/// A packet generator and sink for nodes of anytun-xdp and for whatever else relays UDP.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send packets, receive them where they come out, and say what became of them.
    ///
    /// One process has both ends: packets leave --interface and must come out at --sink. Packets that the sink does not
    /// know go to the kernel. An interface that runs an XDP program already is refused. VLAN tags are not sent: use an
    /// access port of the VLAN.
    #[command(after_long_help = EXAMPLES, after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Write the packets that `run` would send to a pcap file, for tcpreplay, TRex or pktgen.
    ///
    /// Sealed packets carry sequence numbers from --first-sequence on, so a node accepts a file once.
    #[command(after_help = EXIT_CODES)]
    Pcap(PcapArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) traffic: TrafficArgs,
    /// How packets are sent.
    #[arg(long, value_enum, default_value = "xsk")]
    engine: EngineArg,
    /// How packets are received.
    #[arg(long, value_enum, default_value = "xsk")]
    sink_engine: EngineArg,
    /// Mode of XDP programs and AF_XDP sockets, as in the configuration of a node.
    #[arg(long, value_enum, default_value = "auto")]
    xdp: ModeArg,
    /// Queues of both interfaces, such as 0 or 0-3: with a thread, a share of the flows and a share of the rate each.
    #[arg(long, value_name = "RANGE", default_value = "0", value_parser = range)]
    queues: Range,
    /// Packets a second, such as 5000, 100k or 1.5M, or `max` for as many as can be sent; with --search the highest rate
    /// that is tried [default: max; with --round-trip only probes].
    #[arg(long, value_name = "PPS", conflicts_with = "ramp")]
    pub(crate) rate: Option<Rate>,
    /// Packets a second at the start and at the end, such as 100k:1M; in between the rate grows evenly.
    #[arg(long, value_name = "FROM:TO", conflicts_with = "search")]
    pub(crate) ramp: Option<Ramp>,
    /// Search the highest rate whose loss is at most --loss, by halving the interval; every step takes --duration. The
    /// result is confirmed by a step of its own.
    #[arg(long)]
    pub(crate) search: bool,
    /// The share of packets that a search allows to be lost, such as 0.1% or 0.001.
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share, requires = "search")]
    pub(crate) loss: f64,
    /// How long to send, such as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long to send before that without counting; 0s for not at all.
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = pause)]
    pub(crate) warm_up: Duration,
    /// Let the sink answer probes, and measure the time there and back. With --rate, probes are among other packets.
    #[arg(long)]
    round_trip: bool,
    /// Probes a second [default: 1000, or about 1500 among other packets].
    #[arg(long, value_name = "PPS", requires = "round_trip", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    probes: Option<u64>,
    /// Packets to prepare for --engine xdp where they must be sealed, because each can be sent once only
    /// [default: as many as rate and duration need; for `max` 5 million a second].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pool: Option<u64>,
    /// Run on this processor alone.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu: Option<usize>,
    /// Write the result as JSON to a file, or to standard output for `-`.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// No progress on standard error.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PcapArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// The file to write; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// How many packets.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// The rate that the times in the file follow.
    #[arg(long, value_name = "PPS", default_value = "100k")]
    pub(crate) rate: Rate,
}

#[derive(Debug, Args)]
pub(crate) struct TrafficArgs {
    /// The interface that packets are sent out of.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// The interface where packets must come out [default: the same].
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Source address and port of the packets; the ports of further flows, or clients, are counted up.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket)]
    source: SocketAddr,
    /// Destination address and port of the packets; with --config of the packets inside, which come out plain where a
    /// network is open.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket, required_unless_present = "sink_source")]
    destination: Option<SocketAddr>,
    /// Plain UDP: flows, each with a source port of its own.
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "config")]
    flows: u16,
    /// Plain UDP: destination port of the packets that arrive at the sink [default: that of --destination].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "config")]
    arrive_port: Option<u16>,
    /// Plain UDP: octets in front of the payload, such as a ChannelData header of TURN.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = octets, conflicts_with = "config", hide_default_value = true)]
    prefix: Octets,
    /// Plain UDP: octets in front of the payload of the packets that arrive at the sink.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = octets, conflicts_with = "config", hide_default_value = true)]
    arrive_prefix: Octets,
    /// SATP: the configuration of the node, for service, keys, roles and addresses of its clients. Of each two clients
    /// that follow each other the first is behind --interface and sends to the second, which is behind --sink. With
    /// --destination all are behind --interface and send there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// SATP: numbers of the clients in the configuration, from 0, such as 0-99 [default: all].
    #[arg(long, value_name = "FROM-TO", value_parser = range, requires = "config")]
    clients: Option<Range>,
    /// SATP: outer address and port of the clients behind the sink; the ports are counted up.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket, requires = "config", conflicts_with = "destination")]
    sink_source: Option<SocketAddr>,
    /// SATP: the sequence number that clients begin with. A node refuses numbers that it has seen, so runs that follow
    /// each other must count up: the result says where the next one may begin.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "config")]
    first_sequence: u32,
    /// SATP: the sender ID of all clients.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "config")]
    sender_id: u16,
    /// MAC address of the next hop at --interface [default: the kernel's route and neighbour].
    #[arg(long, value_name = "MAC")]
    gateway_mac: Option<Mac>,
    /// SATP: MAC address of the next hop at --sink [default: the kernel's route and neighbour].
    #[arg(long, value_name = "MAC", requires = "sink_source")]
    sink_gateway_mac: Option<Mac>,
    /// Octets of the Ethernet frames without FCS, before SATP: one size, a list such as 64,512, or `imix`, which is 64, 594
    /// and 1514 in the proportion 7:4:1. The IP packet has 14 less, and with SATP that is the one inside: the frame is
    /// longer, and 1514 becomes 1400 where the tunnel needs it.
    #[arg(long, value_name = "OCTETS", default_value = "64")]
    size: Sizes,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineArg {
    /// AF_XDP sockets: every packet is made, or checked, one by one.
    Xsk,
    /// XDP programs: prepared packets are sent as live frames (BPF_PROG_TEST_RUN), packets are counted and dropped. For
    /// overload.
    Xdp,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Xsk => Self::Xsk,
            EngineArg::Xdp => Self::Xdp,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Native; zero-copy where the driver is known to be good at it.
    Auto,
    /// Native and zero-copy, or nothing.
    Zerocopy,
    /// Native and copy.
    Native,
    /// For drivers without XDP of their own.
    Generic,
}

impl From<ModeArg> for XdpMode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Auto => Self::Auto,
            ModeArg::Zerocopy => Self::Zerocopy,
            ModeArg::Native => Self::Native,
            ModeArg::Generic => Self::Generic,
        }
    }
}

impl RunArgs {
    /// The rate to send at.
    pub(crate) fn offered(&self) -> Rate {
        let alone = Rate::Fixed(self.probes.unwrap_or(PROBES[0]));
        self.rate.unwrap_or(if self.round_trip { alone } else { Rate::Max })
    }

    /// The plan.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        if self.search && self.round_trip {
            return Err(Error::usage("--search looks for a rate and --round-trip for a time; choose one"));
        }
        let alone = self.rate.is_none() && self.ramp.is_none();
        let (links, traffic) = self.traffic.resolve()?;
        if self.search && Engine::from(self.engine) == Engine::Xdp && traffic.is_sealed() {
            return Err(Error::usage(
                "--search with --engine xdp would need sealed packets for every step; use --engine xsk",
            ));
        }
        let [interface, sink] = links;
        Ok(Plan {
            interface,
            sink,
            engine: self.engine.into(),
            sink_engine: self.sink_engine.into(),
            mode: self.xdp.into(),
            queues: self.queues.0.clone(),
            traffic,
            first_sequence: self.traffic.first_sequence,
            round_trip: self.round_trip.then(|| self.probes.unwrap_or(PROBES[usize::from(!alone)])),
        })
    }
}

impl PcapArgs {
    /// The packets, and the first sequence number of SATP.
    pub(crate) fn traffic(&self) -> Result<(Traffic, u32), Error> {
        Ok((self.traffic.resolve()?.1, self.traffic.first_sequence))
    }
}

impl TrafficArgs {
    /// The interfaces and the packets.
    fn resolve(&self) -> Result<([Link; 2], Traffic), Error> {
        let interface = Link::find(&self.interface)?;
        let sink = self.sink.as_deref().map_or_else(|| Ok(interface.clone()), Link::find)?;
        let traffic = match (&self.config, self.destination) {
            (Some(file), destination) => Traffic::Satp(self.satp(file, destination, [&interface, &sink])?),
            (None, Some(destination)) => {
                let mac = hop(self.gateway_mac, &interface, destination.ip(), "--gateway-mac")?;
                let arrival = Arriving {
                    port: self.arrive_port.unwrap_or(destination.port()),
                    prefix: self.arrive_prefix.0.clone(),
                };
                let ends = Ends { source: self.source, destination };
                let (prefix, sizes) = (self.prefix.0.clone(), self.size.clone());
                Traffic::Plain(Plain::new([mac, interface.mac], ends, self.flows, prefix, arrival, sizes)?)
            }
            (None, None) => return Err(Error::usage("--destination for plain UDP, or --config for SATP")),
        };
        Ok(([interface, sink], traffic))
    }

    /// The packets of clients of a configuration, to each other or to a host outside.
    fn satp(&self, file: &Path, outside: Option<SocketAddr>, links: [&Link; 2]) -> Result<Satp, Error> {
        let config = config::read(file)?;
        let last = config.clients.len().saturating_sub(1);
        let clients =
            self.clients.as_ref().map_or([0, last], |Range(range)| [*range.start() as usize, *range.end() as usize]);
        let first = config.clients.get(clients[0]).map(|client| &config.services[client.service]);
        let service = first.ok_or_else(|| {
            Error::usage(format!("--clients: {} has {} clients, numbered from 0", file.display(), config.clients.len()))
        })?;
        let [interface, sink] = links;
        let near = hop(self.gateway_mac, interface, service.address, "--gateway-mac")?;
        let receivers = match (outside, self.sink_source) {
            (Some(outside), _) => Receivers::Outside(outside),
            (None, Some(source)) => {
                let hop = hop(self.sink_gateway_mac, sink, service.address, "--sink-gateway-mac")?;
                Receivers::Clients { hop, source }
            }
            (None, None) => return Err(Error::usage("--config goes with --destination or --sink-source")),
        };
        let places = Places { links, hop: near, source: self.source, receivers };
        Satp::new(&config, clients, &places, self.sender_id, self.size.clone())
    }
}

fn hop(given: Option<Mac>, link: &Link, to: std::net::IpAddr, option: &str) -> Result<[u8; 6], Error> {
    given.map_or_else(|| hop::resolve(link, to, option), Ok).map(|Mac(mac)| mac)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_are_what_the_program_takes() {
        let lines = EXAMPLES.replace("\\\n", " ");
        let examples: Vec<_> = lines.lines().filter(|line| line.trim_start().starts_with("anytun-gen ")).collect();
        assert!(examples.len() >= 4, "{examples:?}");
        for example in examples {
            let parsed = Cli::try_parse_from(example.split_whitespace());
            assert!(parsed.is_ok(), "{example}: {}", parsed.err().unwrap());
        }
    }

    #[test]
    fn addresses_have_a_port_that_somebody_can_have() {
        assert_eq!(socket("198.18.0.1:7000"), Ok(([198, 18, 0, 1], 7000).into()));
        assert!(socket("[2001:db8::1]:65535").is_ok());
        for text in ["198.18.0.1:0", "[2001:db8::1]:0"] {
            assert!(socket(text).unwrap_err().contains("ports are 1 to 65535"), "{text}");
        }
        for text in ["", "198.18.0.1", "2001:db8::1", "198.18.0.1:65536", "host:1"] {
            assert!(socket(text).unwrap_err().contains("198.18.0.1:7000"), "{text}");
        }
        let line = |option: &str| format!("anytun-gen run --interface a --config f {option}");
        for option in ["--source 198.18.0.1:0", "--source 198.18.0.1:1 --destination 198.18.0.2:0"] {
            let refused = Cli::try_parse_from(line(option).split_whitespace()).unwrap_err().to_string();
            assert!(refused.contains("ports are 1 to 65535"), "{refused}");
        }
    }

    #[test]
    fn plain_and_sealed_traffic_do_not_mix() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        let common = "anytun-gen run --interface a --source 198.18.0.1:7000";
        assert!(parse(&format!("{common} --destination 198.18.0.2:9000")).is_ok());
        assert!(parse(&format!("{common} --config f --sink-source 198.19.0.1:7000")).is_ok());
        assert!(parse(&format!("{common} --config f --destination 198.19.0.1:9000 --clients 0-1")).is_ok());
        assert!(parse(&format!("{common} --config f --destination 198.19.0.1:9000 --flows 2")).is_err());
        assert!(parse(&format!("{common} --sink-source 198.19.0.1:7000")).is_err());
        assert!(parse(common).is_err());
        assert!(parse(&format!("{common} --config f")).is_err());
        assert!(
            parse(&format!("{common} --config f --sink-source 198.19.0.1:7000 --destination 198.18.0.2:9")).is_err()
        );
        assert!(parse(&format!("{common} --destination 198.18.0.2:9000 --clients 0-1")).is_err());
    }
}
