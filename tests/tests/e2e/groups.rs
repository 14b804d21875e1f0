//! Multicast: what one client sends reaches the members of a group, and nobody else.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::config::Client;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Daemon, Kind, Settings, TUN};
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::traffic::{Echo, ping};
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("groups/three-members-get-each-packet-once-and-others-none", members),
        case("groups/broadcast-reaches-every-client-but-the-sender", broadcast),
        case("groups/a-flood-to-a-group-costs-a-quiet-client-nothing", flood),
    ]
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// That of the subnet that the daemons are told.
const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 255);
const UDP: u16 = 5004;
/// The clients beside alice, who sends. The first three are members. Carol and dave are neighbours of alice, erin and frank
/// of bob.
const OTHERS: [(&str, Kind); 5] = [
    ("bob", Kind::Uanytun),
    ("carol", Kind::Anytun),
    ("dave", Kind::Uanytun),
    ("erin", Kind::Anytun),
    ("frank", Kind::Uanytun),
];
const MEMBERS: usize = 3;

/// A node with six clients.
struct Groups {
    node: Node,
    _daemons: Vec<Daemon>,
    /// Of carol and the further ones.
    neighbours: Vec<Namespace>,
    lab: Lab,
}

/// The inner IPv4 address of a client, by its place among the others.
fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, 12 + place as u8)
}

impl Groups {
    fn start() -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let mut neighbours = Vec::new();
        for (place, (name, _)) in OTHERS.iter().enumerate().skip(1) {
            let namespace = Namespace::new(name)?;
            let (of, subnet) = if place < MEMBERS { (Who::Alice, "198.51.100") } else { (Who::Bob, "203.0.113") };
            let words = format!("link add link eth0 name eth1 netns {} type macvlan mode bridge", namespace.name());
            lab.client(of).ip(&words)?;
            namespace.ip("link set eth1 name eth0")?;
            namespace.ip(&format!("addr add {subnet}.{}/24 dev eth0", 10 + place))?;
            namespace.ip("link set eth0 up")?;
            namespace.ip(&format!("route add default via {subnet}.254"))?;
            neighbours.push(namespace);
        }
        let mut config = lab.config();
        config.network = format!(
            "broadcast = [\"{BROADCAST}\"]\n\n[[group]]\naddress = \"{GROUP}\"\nmembers = [\"bob\", \"carol\", \"dave\"]\n"
        );
        let crypto = |name: &str| Crypto::passphrase(&format!("only {name} knows"));
        let clients: Vec<(&str, Kind)> = [("alice", Kind::Anytun)].into_iter().chain(OTHERS).collect();
        for (index, (name, _)) in clients.iter().enumerate() {
            config.clients.push(Client {
                endpoint: None,
                name: (*name).to_owned(),
                service: "anycast".to_owned(),
                mux: 1 + index as u16,
                addresses: vec![Ipv4Addr::new(10, 9, 0, 11 + index as u8).into()],
                crypto: crypto(name),
            });
        }
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let mut groups = Self { node, _daemons: Vec::new(), neighbours, lab };
        for (index, (name, kind)) in clients.iter().enumerate() {
            let settings = Settings {
                kind: *kind,
                mux: 1 + index as u16,
                inner: [Ipv4Addr::new(10, 9, 0, 11 + index as u8).into(), Who::Alice.inner()[1]],
                ..groups.lab.settings(Who::Alice, *kind, (ANYCAST, PORT).into(), &crypto(name))
            };
            let namespace = match index.checked_sub(1) {
                None => groups.lab.client(Who::Alice),
                Some(place) => groups.namespace(place),
            };
            let daemon = Daemon::start(namespace, groups.lab.directory(), &settings)?;
            groups._daemons.push(daemon);
        }
        for place in 0..OTHERS.len() {
            // Until both have spoken the node has nowhere to send to.
            until("a client and alice reach each other", PATIENCE, || {
                let there = ping(groups.namespace(place), Who::Alice.inner()[0], 1, 56);
                let back = ping(groups.lab.client(Who::Alice), address(place).into(), 1, 56);
                Ok(there.and(back).ok())
            })?;
        }
        Ok(groups)
    }

    fn namespace(&self, place: usize) -> &Namespace {
        match place.checked_sub(1) {
            None => self.lab.client(Who::Bob),
            Some(neighbour) => &self.neighbours[neighbour],
        }
    }

    /// A socket from which alice sends.
    fn sender(&self) -> Result<UdpSocket> {
        let alice = self.lab.client(Who::Alice);
        alice.ip(&format!("route add {GROUP}/32 dev {TUN}"))?;
        let socket = alice.enter(|| UdpSocket::bind((Who::Alice.inner()[0], UDP)))??;
        socket.set_multicast_ttl_v4(8)?;
        socket.set_broadcast(true)?;
        Ok(socket)
    }

    /// A socket by which a client listens to an address, as a member would.
    fn listener(&self, place: usize, to: Ipv4Addr) -> Result<UdpSocket> {
        let socket = self.namespace(place).enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((to, UDP))?;
            if to.is_multicast() {
                socket.join_multicast_v4(&to, &address(place))?;
            }
            Ok(socket)
        })??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(socket)
    }
}

/// Sends `count` numbered datagrams. Every listener has to get each before the next leaves: nothing is lost because a daemon
/// is slow, and nothing comes twice.
fn exchange(sender: &UdpSocket, to: Ipv4Addr, listeners: &[UdpSocket], count: u32) -> Result<()> {
    let mut buffer = [0; 2048];
    for number in 0..count {
        let mut datagram = vec![number as u8; 4 + number as usize % 1200];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sender.send_to(&datagram, (to, UDP))?;
        for (listener, (name, _)) in listeners.iter().zip(OTHERS) {
            let (length, from) =
                listener.recv_from(&mut buffer).with_context(|| format!("datagram {number} did not reach {name}"))?;
            ensure!(buffer[..length] == datagram, "{name} got something else than datagram {number}");
            ensure!(from.ip() == Who::Alice.inner()[0], "{name} got datagram {number} from {from}");
        }
    }
    Ok(())
}

/// Fails if there is anything to be read.
fn ensure_silent(listener: &UdpSocket, name: &str) -> Result<()> {
    listener.set_nonblocking(true)?;
    match listener.recv(&mut [0; 2048]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        other => bail!("{name} got a datagram that was not for it, or one twice: {other:?}"),
    }
}

fn members() -> Result<()> {
    const COUNT: u32 = 2_000;
    let groups = Groups::start()?;
    // All join, as far as their own kernels are concerned: whoever gets nothing was sent nothing.
    let listeners = (0..OTHERS.len()).map(|place| groups.listener(place, GROUP)).collect::<Result<Vec<_>>>()?;
    let sender = groups.sender()?;
    let sent = |name: &str| -> Result<u64> { Ok(groups.node.status()?.client(name)?.tx.packets) };
    let before = OTHERS.map(|(name, _)| sent(name).ok());
    exchange(&sender, GROUP, &listeners[..MEMBERS], COUNT)?;
    // What alice sent before this was carried before this.
    ping(groups.lab.client(Who::Alice), address(MEMBERS).into(), 1, 56)?;
    for (listener, (name, _)) in listeners.iter().zip(OTHERS) {
        ensure_silent(listener, name)?;
    }
    for (place, (name, _)) in OTHERS.iter().enumerate() {
        let got = sent(name)? - before[place].context("no such client")?;
        let wanted = if place < MEMBERS { u64::from(COUNT) } else { u64::from(place == MEMBERS) };
        ensure!(got == wanted, "{name} was sent {got} packets, not {wanted}");
    }
    let status = groups.node.status()?;
    let copies: u64 = status.workers.iter().map(|worker| worker.copies).sum();
    let (copied, wanted) = (status.verdict("copied"), u64::from(COUNT));
    ensure!((copied, copies) == (wanted, 3 * wanted), "{copied} packets were copied, {copies} copies made");
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

fn broadcast() -> Result<()> {
    let groups = Groups::start()?;
    let listeners = (0..OTHERS.len()).map(|place| groups.listener(place, BROADCAST)).collect::<Result<Vec<_>>>()?;
    let sender = groups.sender()?;
    exchange(&sender, BROADCAST, &listeners, 200)?;
    for (listener, (name, _)) in listeners.iter().zip(OTHERS) {
        ensure_silent(listener, name)?;
    }
    groups.node.status()?.ensure_every_packet_has_a_verdict()
}

/// Alice sends to the group as fast as she can while erin pings frank.
fn flood() -> Result<()> {
    const PINGS: u32 = 500;
    let groups = Groups::start()?;
    let sender = groups.sender()?;
    let quiet = Echo::start(groups.namespace(3), address(4).into(), 100, PINGS)?;
    let end = || quiet.sent() >= PINGS;
    let datagram = [7; 64];
    let mut sent = 0u64;
    while !end() {
        ensure!(sent < 50_000_000, "erin does not come to an end");
        // The queue of the device may be full.
        sent += u64::from(sender.send_to(&datagram, (GROUP, UDP)).is_ok());
    }
    quiet.finish()?.ensure_none_lost("erin to frank while alice floods a group")?;
    let status = groups.node.status()?;
    let copied = status.verdict("copied");
    ensure!(copied > 10_000, "there was no flood: {copied} packets were copied");
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}
