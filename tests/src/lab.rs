//! The usual arrangement: a node with two links, a client at the end of each, and the anycast address on the node's
//! loopback, where the kernel answers for it.
//!
//! ```text
//! alice eth0 198.51.100.1 ---- 198.51.100.254 link0 [node] link1 203.0.113.254 ---- 203.0.113.1 eth0 bob
//!                                                192.0.2.53
//! ```
//! On one interface, bob is a neighbour of alice (`macvlan`) and has 198.51.100.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::config::{Client, Config, Service};
use crate::crypto::Crypto;
use crate::daemon::{Daemon, Kind, Settings};
use crate::namespace::{Namespace, output};
use crate::node::{self, Node};
use crate::traffic::Echo;
use crate::wait::PATIENCE;

/// The port of the services.
pub const PORT: u16 = 4444;
/// The anycast address.
pub const ANYCAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The anycast address of the second service.
pub const ANYCAST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
/// The node's own addresses on alice's link.
pub const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe))];

/// How the clients are attached.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Receive and transmit queues of every link.
    pub queues: u32,
    /// Both clients behind one interface of the node.
    pub one_interface: bool,
    /// Whether the clients leave UDP checksums to the hardware, which on a veth means to nobody.
    pub offload: bool,
    /// Whether the links are interfaces that this host has, wired to each other in pairs: `near0` to `far0` of alice, and
    /// `near1` to `far1` of bob. They are moved into the namespaces. Otherwise the links are made, as pairs of veth.
    pub wired: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { queues: 1, one_interface: false, offload: true, wired: false }
    }
}

/// Alice or bob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The client with MUX 1.
    Alice,
    /// The client with MUX 2.
    Bob,
}

impl Who {
    /// Both.
    pub const BOTH: [Who; 2] = [Who::Alice, Who::Bob];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Who::Alice => "alice",
            Who::Bob => "bob",
        }
    }

    /// The MUX.
    pub const fn mux(self) -> u16 {
        match self {
            Who::Alice => 1,
            Who::Bob => 2,
        }
    }

    /// The other one.
    pub const fn other(self) -> Who {
        match self {
            Who::Alice => Who::Bob,
            Who::Bob => Who::Alice,
        }
    }

    /// The passphrase. A marker: nothing a node prints may contain it.
    pub const fn passphrase(self) -> &'static str {
        match self {
            Who::Alice => "alice keeps this to herself 7c1f",
            Who::Bob => "bob tells nobody about this 93ae",
        }
    }

    /// The inner addresses.
    pub const fn inner(self) -> [IpAddr; 2] {
        let mux = self.mux();
        // The same digits in both families.
        let (v4, v6) = (Ipv4Addr::new(10, 9, 0, 10 + mux as u8), Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x10 + mux));
        [IpAddr::V4(v4), IpAddr::V6(v6)]
    }
}

/// Namespaces, links and a directory for files.
#[derive(Debug)]
pub struct Lab {
    /// Where the node runs.
    pub node: Namespace,
    clients: [Namespace; 2],
    directory: TempDir,
    layout: Layout,
}

impl Lab {
    /// Makes the namespaces, the links, the addresses and the routes.
    pub fn new(layout: Layout) -> Result<Self> {
        crate::namespace::sweep();
        let directory = tempfile::Builder::new().prefix("anytun-lab-").tempdir().context("cannot make a directory")?;
        let node = Namespace::new("node")?;
        node.ip(&format!("addr add {ANYCAST}/32 dev lo"))?;
        node.ip(&format!("addr add {ANYCAST6}/128 dev lo nodad"))?;
        let clients = [Namespace::new("alice")?, Namespace::new("bob")?];
        let lab = Self { node, clients, directory, layout };
        lab.link(0, "alice", &lab.clients[0])?;
        lab.address("link0", &lab.clients[0], "198.51.100", "2001:db8:1:", "1")?;
        if layout.one_interface {
            lab.move_in(Who::Alice, &lab.clients[1], 2)?;
        } else {
            lab.link(1, "bob", &lab.clients[1])?;
            lab.address("link1", &lab.clients[1], "203.0.113", "2001:db8:2:", "1")?;
        }
        Ok(lab)
    }

    /// The namespace of a client.
    pub fn client(&self, who: Who) -> &Namespace {
        &self.clients[who as usize]
    }

    /// Another host on a client's link: `host` is the last number of its outer addresses, 2 to 253.
    pub fn neighbour(&self, of: Who, role: &str, host: u8) -> Result<Namespace> {
        let namespace = Namespace::new(role)?;
        self.move_in(of, &namespace, host)?;
        Ok(namespace)
    }

    /// The node's end of a client's link.
    pub fn interface(&self, who: Who) -> &'static str {
        if self.layout.one_interface || who == Who::Alice { "link0" } else { "link1" }
    }

    /// Where files go. It is removed with the lab.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A configuration with the services `anycast` (IPv4) and `anycast6` (IPv6) on every interface, and no client.
    pub fn config(&self) -> Config {
        let interfaces: &[&str] = if self.layout.one_interface { &["link0"] } else { &["link0", "link1"] };
        let services =
            vec![Service::new("anycast", (ANYCAST, PORT).into()), Service::new("anycast6", (ANYCAST6, PORT).into())];
        Config { services, ..Config::new(interfaces) }
    }

    /// What the daemon of a client is usually told: its own inner addresses, role right, a window of 64.
    pub fn settings(&self, who: Who, kind: Kind, service: SocketAddr, crypto: &Crypto) -> Settings {
        Settings {
            kind,
            role: "right",
            mux: who.mux(),
            sender: 0,
            port: PORT,
            remote: service,
            device: "tun",
            inner: who.inner(),
            crypto: crypto.clone(),
            window: 64,
        }
    }

    /// Starts the daemon of a client.
    pub fn daemon(&self, who: Who, settings: &Settings) -> Result<Daemon> {
        Daemon::start(self.client(who), self.directory(), settings)
    }

    /// Sends echo requests from a client to an inner address of the other one.
    pub fn echo(&self, from: Who, to: IpAddr, rate: u32, count: u32) -> Result<Echo> {
        Echo::start(self.client(from), to, rate, count)
    }

    /// Lets the two clients find each other: until both have spoken the node has nowhere to send to.
    pub fn introduce(&self) -> Result<()> {
        for family in [0, 1] {
            let start = std::time::Instant::now();
            for from in Who::BOTH.into_iter().cycle() {
                let report = self.echo(from, from.other().inner()[family], 100, 1)?.finish()?;
                if report.received == 1 && from == Who::Bob {
                    break;
                }
                anyhow::ensure!(start.elapsed() < PATIENCE, "the clients do not reach each other through the node");
            }
        }
        Ok(())
    }

    /// Makes the node's interface `link0` or `link1` and its other end.
    fn link(&self, number: u8, what: &str, client: &Namespace) -> Result<()> {
        if self.layout.wired {
            return self.wired_link(number, client).with_context(|| format!("cannot take the link to {what}"));
        }
        let queues = format!("numtxqueues {0} numrxqueues {0}", self.layout.queues);
        let peer = client.name();
        self.node
            .ip(&format!("link add name link{number} {queues} type veth peer name eth0 {queues} netns {peer}"))
            .with_context(|| format!("cannot make the link to {what}"))?;
        if !self.layout.offload {
            output(client.command("ethtool").args(["-K", "eth0", "tx", "off"]))?;
        }
        Ok(())
    }

    /// Moves both ends of a link into their namespaces.
    fn wired_link(&self, number: u8, client: &Namespace) -> Result<()> {
        let ends = [("near", &self.node, format!("link{number}")), ("far", client, "eth0".to_owned())];
        for (end, namespace, name) in ends {
            let words = ["link", "set", &format!("{end}{number}"), "netns", namespace.name(), "name", &name];
            output(Command::new("ip").args(words))?;
        }
        Ok(())
    }

    /// Gives both ends of a link their addresses.
    fn address(&self, name: &str, client: &Namespace, v4: &str, v6: &str, host: &str) -> Result<()> {
        self.node.ip(&format!("addr add {v4}.254/24 dev {name}"))?;
        self.node.ip(&format!("addr add {v6}:fe/64 dev {name} nodad"))?;
        self.node.ip(&format!("link set {name} up"))?;
        self.attach(client, v4, v6, host)
    }

    /// Connects a host with the link of a client (`macvlan`).
    fn move_in(&self, of: Who, namespace: &Namespace, host: u8) -> Result<()> {
        let name = namespace.name();
        // Under a name that nothing has, until it is in its own namespace.
        self.client(of).ip(&format!("link add link eth0 name next netns {name} type macvlan mode bridge"))?;
        namespace.ip("link set next name eth0")?;
        let (v4, v6) = match of {
            Who::Alice => ("198.51.100", "2001:db8:1:"),
            Who::Bob => ("203.0.113", "2001:db8:2:"),
        };
        self.attach(namespace, v4, v6, &format!("{host}"))
    }

    /// Gives a client its outer addresses and its routes.
    fn attach(&self, client: &Namespace, v4: &str, v6: &str, host: &str) -> Result<()> {
        client.ip(&format!("addr add {v4}.{host}/24 dev eth0"))?;
        client.ip(&format!("addr add {v6}:{host}/64 dev eth0 nodad"))?;
        client.ip("link set eth0 up")?;
        client.ip(&format!("route add default via {v4}.254"))?;
        client.ip(&format!("-6 route add default via {v6}:fe"))?;
        Ok(())
    }
}

/// A lab at work: a node and a daemon for each client.
#[derive(Debug)]
pub struct Running {
    /// The node.
    pub node: Node,
    /// Alice's daemon and bob's.
    pub daemons: [Daemon; 2],
    /// The configuration the node was started with.
    pub config: Config,
    /// The ground it stands on. Last, so that it is removed last.
    pub lab: Lab,
}

impl Running {
    /// Alice with `anytun` and bob with `uanytun`, defaults everywhere.
    pub fn usual(layout: Layout) -> Result<Self> {
        let lab = Lab::new(layout)?;
        let config = lab.config();
        Self::start(lab, &node::program()?, config, [Kind::Anytun, Kind::Uanytun], ["anycast"; 2], |who| {
            Crypto::passphrase(who.passphrase())
        })
    }

    /// Starts the node, adds the two clients to `config` under their services, starts their daemons and introduces them.
    pub fn start(
        lab: Lab,
        program: &Path,
        mut config: Config,
        kinds: [Kind; 2],
        services: [&str; 2],
        crypto: impl Fn(Who) -> Crypto,
    ) -> Result<Self> {
        for who in Who::BOTH {
            config.clients.push(client(who, services[who as usize], crypto(who)));
        }
        let node = Node::start(program, &lab.node, lab.directory(), &config)?;
        let daemon = |who: Who| {
            let service = config.services.iter().find(|service| service.name == services[who as usize]);
            let service = service.context("no such service")?.address;
            lab.daemon(who, &lab.settings(who, kinds[who as usize], service, &crypto(who)))
        };
        let daemons = [daemon(Who::Alice)?, daemon(Who::Bob)?];
        lab.introduce()?;
        Ok(Self { node, daemons, config, lab })
    }

    /// Echo requests both ways at once over IPv4, each at `rate` a second; 0 requests mean until told to stop.
    pub fn both_ways(&self, rate: u32, count: u32) -> Result<[Echo; 2]> {
        let echo = |from: Who| self.lab.echo(from, from.other().inner()[0], rate, count);
        Ok([echo(Who::Alice)?, echo(Who::Bob)?])
    }
}

/// The configuration of alice or bob.
pub fn client(who: Who, service: &str, crypto: Crypto) -> Client {
    Client {
        name: who.name().to_owned(),
        service: service.to_owned(),
        mux: who.mux(),
        addresses: who.inner().to_vec(),
        endpoint: None,
        crypto,
    }
}
