//! Ethernet networks: real daemons with tap devices.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::Client;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Daemon, Kind, Settings, TUN};
use anytun_tests::forge::{ETHERNET, Forger, Outlet};
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::traffic::{Echo, ping};
use anytun_tests::wait::{PATIENCE, until};

use crate::open::{Server, body, fetch};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("ethernet/three-clients-reach-each-other-and-stations-move", reach),
        case("ethernet/storms-and-many-addresses-are-limited", limits),
        case("ethernet/clients-and-the-node-reach-each-other", node_address),
        case("ethernet/a-bridge-of-the-host-joins-a-lan", lan),
    ]
}

/// Three clients with daemons, and a fourth under full control beside alice.
struct Yard {
    node: Node,
    daemons: Vec<Daemon>,
    carol: Namespace,
    dave: Namespace,
    lab: Lab,
}

/// Inner addresses of the client with a MUX.
fn inner(mux: u16) -> [IpAddr; 2] {
    [[10, 9, 0, 10 + mux as u8].into(), format!("fd00:9::{:x}", 0x10 + mux).parse().unwrap_or([0; 16].into())]
}

fn crypto(mux: u16) -> Crypto {
    Crypto::passphrase(&format!("passphrase of station {mux}"))
}

impl Yard {
    fn start(network: &str) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let (carol, dave) = (lab.neighbour(Who::Alice, "carol", 2)?, lab.neighbour(Who::Alice, "dave", 3)?);
        let mut config = lab.config();
        config.kind = "ethernet";
        config.network = network.to_owned();
        config.clients = (1..=4)
            .map(|mux| Client {
                endpoint: None,
                name: format!("station{mux}"),
                service: "anycast".to_owned(),
                mux,
                addresses: Vec::new(),
                crypto: crypto(mux),
            })
            .collect();
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let mut daemons = Vec::new();
        for (mux, kind) in [(1, Kind::Anytun), (2, Kind::Uanytun), (3, Kind::Anytun)] {
            let namespace = match mux {
                1 => lab.client(Who::Alice),
                2 => lab.client(Who::Bob),
                _ => &carol,
            };
            let usual = lab.settings(Who::Alice, kind, (ANYCAST, PORT).into(), &crypto(mux));
            let settings = Settings { mux, device: "tap", inner: inner(mux), ..usual };
            daemons.push(Daemon::start(namespace, lab.directory(), &settings)?);
        }
        Ok(Self { node, daemons, carol, dave, lab })
    }

    /// Where a station lives, by its MUX.
    fn namespace(&self, mux: u16) -> &Namespace {
        match mux {
            1 => self.lab.client(Who::Alice),
            2 => self.lab.client(Who::Bob),
            3 => &self.carol,
            _ => &self.dave,
        }
    }

    /// Waits until each station reaches each other one in both families, which takes ARP and neighbour discovery.
    fn introduce(&self) -> Result<()> {
        for (from, to) in [(1, 2), (2, 3), (3, 1), (2, 1), (3, 2), (1, 3)] {
            for address in inner(to) {
                until(&format!("station {from} reaches {address}"), PATIENCE, || {
                    Ok(ping(self.namespace(from), address, 1, 56).ok())
                })?;
            }
        }
        Ok(())
    }

    fn stations(&self, mux: u16) -> Result<u64> {
        let status = self.node.status()?;
        status.client(&format!("station{mux}"))?.stations.context("no stations in an Ethernet network")
    }
}

/// The MAC address of a device.
fn mac(namespace: &Namespace, device: &str) -> Result<String> {
    let shown = namespace.ip(&format!("-o link show dev {device}"))?;
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(mac.with_context(|| format!("no MAC address in {shown:?}"))?.to_owned())
}

fn reach() -> Result<()> {
    let mut yard = Yard::start("")?;
    yard.introduce()?;
    let before = yard.node.status()?;
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        for address in inner(to) {
            ping(yard.namespace(from), address, 100, 1000)?;
        }
    }
    let after = yard.node.status()?;
    // Once stations are known nothing is copied but what they themselves send to everybody.
    let copies = |status: &anytun_tests::status::Status| status.workers.iter().map(|worker| worker.copies).sum::<u64>();
    let floods = copies(&after) - copies(&before);
    ensure!(floods < 100, "{floods} copies were made for 1200 packets to known stations");
    for mux in 1..=3 {
        ensure!(yard.stations(mux)? == 1, "{} stations are behind {mux}", yard.stations(mux)?);
    }

    // Alice's station goes, and comes back behind carol.
    let moved = mac(yard.namespace(1), TUN)?;
    yard.daemons[0].kill()?;
    let carol = yard.namespace(3);
    carol.ip(&format!("link set {TUN} down"))?;
    carol.ip(&format!("link set {TUN} address {moved}"))?;
    carol.ip(&format!("link set {TUN} up"))?;
    let bob = yard.namespace(2);
    bob.ip(&format!("neigh flush dev {TUN}"))?;
    until("bob reaches the station where it is now", PATIENCE, || Ok(ping(bob, inner(3)[0], 1, 56).ok()))?;
    ensure!(yard.stations(1)? == 0, "the station is still behind alice");
    ping(bob, inner(3)[0], 100, 56)?;
    yard.node.status()?.ensure_ledgers_hold()
}

fn limits() -> Result<()> {
    let yard = Yard::start("mac_limit = 8\nflood_rate = 50\n")?;
    yard.introduce()?;
    let dave = Forger::new(&crypto(4), 4, (ANYCAST, PORT).into());
    let outlet = Outlet::bind(&yard.dave, [198, 51, 100, 3].into(), PORT)?;
    let frame = |to: [u8; 6], from: [u8; 6]| [&to[..], &from, &[0x88, 0xb5], &[0; 46]].concat();
    let flow = Echo::start(yard.namespace(1), inner(2)[0], 200, 400)?;
    let mut sequence = 0;
    let mut send = |to, from| {
        sequence += 1;
        outlet.send(&dave.seal(sequence, ETHERNET, &frame(to, from)), dave.service())
    };
    const STORM: u64 = 5000;
    for number in 0..STORM {
        send([0xff; 6], [2, 0, 0, 0, 4, 1])?;
        // As fast as a network is, not as fast as a socket is.
        if number % 100 == 99 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    flow.finish()?.ensure_none_lost("two stations beside a storm")?;
    let dropped = |name: &str| -> Result<u64> {
        Ok(yard.node.status()?.client("station4")?.drops.get(name).copied().unwrap_or(0))
    };
    let stopped = dropped("storm-limit")?;
    ensure!(stopped > STORM / 2, "{stopped} of {STORM} frames of a storm were stopped");
    for number in 0..100 {
        send([2, 0, 0, 0, 9, 9], [2, 0, 0, 0, 5, number])?;
    }
    until("addresses beyond the limit are refused", PATIENCE, || Ok((dropped("mac-limit")? >= 92).then_some(())))?;
    ensure!(yard.stations(4)? == 8, "{} stations are behind dave", yard.stations(4)?);
    yard.introduce()?;
    yard.node.status()?.ensure_ledgers_hold()
}

/// The node's device.
const PORT_OF_NODE: &str = "yard";
/// The node's addresses.
const HOME: [&str; 2] = ["10.9.0.1", "fd00:9::1"];
/// Those of a host behind the node.
const BEHIND: [&str; 2] = ["10.9.0.50", "fd00:9::50"];
/// Octets of a download.
const LONG: usize = 3_000_000;
/// Where servers listen.
const HTTP: u16 = 8080;

/// Sends echo requests, of which none may be lost.
fn none_lost(from: &Namespace, to: IpAddr) -> Result<()> {
    Echo::start(from, to, 100, 20)?.finish()?.ensure_none_lost(&format!("{} to {to}", from.name()))
}

impl Yard {
    /// Waits until the stations with daemons reach these addresses, which takes ARP and neighbour discovery.
    fn reach(&self, addresses: [&str; 2]) -> Result<()> {
        for mux in 1..=3 {
            for address in addresses {
                let address = address.parse()?;
                until(&format!("station {mux} reaches {address}"), PATIENCE, || {
                    Ok(ping(self.namespace(mux), address, 1, 56).ok())
                })?;
            }
        }
        Ok(())
    }

    /// Stations of both daemons get what a server in this namespace has, in both families, and it sees who they are.
    fn download(&self, from: &Namespace, addresses: [&str; 2]) -> Result<()> {
        let expected = body(LONG);
        for mux in [1, 2] {
            for (address, inner) in addresses.iter().zip(inner(mux)) {
                let address: IpAddr = address.parse()?;
                let server = Server::start(from, (address, HTTP).into(), LONG)?;
                let got = fetch(self.namespace(mux), (address, HTTP).into())?;
                ensure!(got == expected, "{} octets arrived, not those {LONG} that were sent", got.len());
                let seen = server.finish()?;
                ensure!(seen == inner, "the server saw {seen}, not the station's own address {inner}");
            }
        }
        Ok(())
    }
}

/// The node has addresses in the network, and a MAC address that nobody takes and that outlives it.
fn node_address() -> Result<()> {
    let mut yard =
        Yard::start(&format!("address = [\"{}/24\", \"{}/64\"]\ndevice = \"{PORT_OF_NODE}\"\n", HOME[0], HOME[1]))?;
    yard.reach(HOME)?;
    for mux in 1..=3 {
        for (home, inner) in HOME.iter().zip(inner(mux)) {
            none_lost(yard.namespace(mux), home.parse()?)?;
            none_lost(&yard.lab.node, inner)?;
        }
    }
    yard.introduce()?;
    yard.download(&yard.lab.node, HOME)?;

    let own = mac(&yard.lab.node, PORT_OF_NODE)?;
    let status = yard.node.status()?;
    ensure!(status.devices[0].mac.as_ref() == Some(&own), "{:?}, not {own}", status.devices);
    let octets: Vec<u8> = own.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
    let dave = Forger::new(&crypto(4), 4, (ANYCAST, PORT).into());
    let outlet = Outlet::bind(&yard.dave, [198, 51, 100, 3].into(), PORT)?;
    let spoofed = [&[0xff; 6][..], &octets, &[0x88, 0xb5], &[0; 46]].concat();
    for sequence in 1..=3 {
        outlet.send(&dave.seal(sequence, ETHERNET, &spoofed), dave.service())?;
    }
    until("frames from the node's address are refused", PATIENCE, || {
        let status = yard.node.status()?;
        Ok((status.client("station4")?.drops.get("foreign-source") == Some(&3)).then_some(()))
    })?;
    yard.reach(HOME)?;
    let status = yard.node.status()?;
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()?;

    yard.node.kill()?;
    yard.node.relaunch(&yard.lab.node)?;
    yard.node.await_ready(PATIENCE)?;
    ensure!(mac(&yard.lab.node, PORT_OF_NODE)? == own, "neighbours know the node no more");
    yard.reach(HOME)
}

/// A device without an address in a bridge of the node's host: a host behind it is in the network, and so is the node's own.
fn lan() -> Result<()> {
    let yard = Yard::start(&format!("device = \"{PORT_OF_NODE}\"\n"))?;
    let shown = yard.lab.node.ip(&format!("-o addr show dev {PORT_OF_NODE}"))?;
    ensure!(!shown.contains("inet"), "a device without an address has one: {shown}");
    let (node, host) = (&yard.lab.node, Namespace::new("host")?);
    node.ip("link add br0 type bridge")?;
    node.ip(&format!("link add port0 mtu 1434 type veth peer name eth0 mtu 1434 netns {}", host.name()))?;
    for port in ["port0", PORT_OF_NODE] {
        node.ip(&format!("link set {port} master br0 up"))?;
    }
    node.ip(&format!("addr add {}/24 dev br0", HOME[0]))?;
    node.ip(&format!("addr add {}/64 dev br0 nodad", HOME[1]))?;
    node.ip("link set br0 up")?;
    host.ip(&format!("addr add {}/24 dev eth0", BEHIND[0]))?;
    host.ip(&format!("addr add {}/64 dev eth0 nodad", BEHIND[1]))?;
    host.ip("link set eth0 up")?;
    yard.reach(BEHIND)?;
    yard.reach(HOME)?;
    yard.introduce()?;
    for address in inner(2) {
        none_lost(&host, address)?;
    }
    yard.download(&host, BEHIND)?;
    for mux in 1..=3 {
        ensure!(yard.stations(mux)? == 1, "{} stations are behind {mux}", yard.stations(mux)?);
    }
    let status = yard.node.status()?;
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}
