//! Multicast: what one client sends reaches the members of a group, and nobody else.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::config::{Client, Config};
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::{Daemon, Kind, Settings, TUN};
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::status::Status;
use anytun_tests::traffic::{Echo, ping};
use anytun_tests::wait::{PATIENCE, until};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("groups/three-members-get-each-packet-once-and-others-none", members),
        case("groups/clients-join-and-leave-by-igmp", || joining(GROUP)),
        case("groups/clients-join-and-leave-by-mld", || joining(GROUP6)),
        case("groups/broadcast-reaches-every-client-but-the-sender", broadcast),
        case("groups/a-flood-to-a-group-costs-a-quiet-client-nothing", flood),
    ]
}

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3));
/// That of the subnet that the daemons are told.
const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 255));
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
    config: Config,
    /// Of alice, and of the others behind her.
    daemons: Vec<Daemon>,
    /// Of carol and the further ones.
    neighbours: Vec<Namespace>,
    lab: Lab,
}

/// What the network says where the first three of the others are members by the configuration.
fn given() -> String {
    format!(
        "broadcast = [\"{BROADCAST}\"]\n\n[[group]]\naddress = \"{GROUP}\"\nmembers = [\"bob\", \"carol\", \"dave\"]\n"
    )
}

/// The inner addresses of a client, by its place behind alice.
fn inner(index: usize) -> [IpAddr; 2] {
    let index = index as u8;
    [
        Ipv4Addr::new(10, 9, 0, 11 + index).into(),
        Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x11 + u16::from(index)).into(),
    ]
}

/// The inner IPv4 address of a client, by its place among the others.
fn address(place: usize) -> IpAddr {
    inner(1 + place)[0]
}

/// A socket by which a client listens to an address.
struct Listener {
    name: &'static str,
    socket: UdpSocket,
}

impl Groups {
    /// Starts it with what `network` says of the network.
    fn start(network: &str) -> Result<Self> {
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
        config.network = network.to_owned();
        let crypto = |name: &str| Crypto::passphrase(&format!("only {name} knows"));
        let clients: Vec<(&str, Kind)> = [("alice", Kind::Anytun)].into_iter().chain(OTHERS).collect();
        for (index, (name, _)) in clients.iter().enumerate() {
            config.clients.push(Client {
                endpoint: None,
                name: (*name).to_owned(),
                service: "anycast".to_owned(),
                mux: 1 + index as u16,
                addresses: inner(index).to_vec(),
                crypto: crypto(name),
            });
        }
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let mut groups = Self { node, config, daemons: Vec::new(), neighbours, lab };
        for (index, (name, kind)) in clients.iter().enumerate() {
            let settings = Settings {
                kind: *kind,
                mux: 1 + index as u16,
                inner: inner(index),
                ..groups.lab.settings(Who::Alice, *kind, (ANYCAST, PORT).into(), &crypto(name))
            };
            let namespace = match index.checked_sub(1) {
                None => groups.lab.client(Who::Alice),
                Some(place) => groups.namespace(place),
            };
            let daemon = Daemon::start(namespace, groups.lab.directory(), &settings)?;
            groups.daemons.push(daemon);
        }
        for place in 0..OTHERS.len() {
            // Until both have spoken the node has nowhere to send to.
            until("a client and alice reach each other", PATIENCE, || {
                let there = ping(groups.namespace(place), inner(0)[0], 1, 56);
                let back = ping(groups.lab.client(Who::Alice), address(place), 1, 56);
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

    /// A socket from which alice sends to `group`, and to broadcasts.
    fn sender(&self, group: IpAddr) -> Result<UdpSocket> {
        let alice = self.lab.client(Who::Alice);
        let [v4, v6] = inner(0);
        let socket = match group {
            IpAddr::V4(_) => {
                alice.ip(&format!("route add {group}/32 dev {TUN}"))?;
                let socket = alice.enter(|| UdpSocket::bind((v4, UDP)))??;
                socket.set_multicast_ttl_v4(8)?;
                socket.set_broadcast(true)?;
                socket
            }
            IpAddr::V6(_) => {
                // Where the kernel has a route for multicast through every interface.
                alice.ip(&format!("-6 route add multicast {group}/128 dev {TUN} table local"))?;
                let socket = alice.enter(|| UdpSocket::bind((v6, UDP)))??;
                setsockopt(&socket, sockopt::Ipv6MulticastHops, &8)?;
                socket
            }
        };
        Ok(socket)
    }

    /// A socket by which a client listens to an address, as a member would.
    fn listener(&self, place: usize, to: IpAddr) -> Result<Listener> {
        let namespace = self.namespace(place);
        let shown = namespace.ip(&format!("-o link show dev {TUN}"))?;
        let index: u32 = shown.split(':').next().and_then(|index| index.parse().ok()).context("no index")?;
        let socket = namespace.enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((to, UDP))?;
            match (to, address(place)) {
                (IpAddr::V4(group), IpAddr::V4(own)) if group.is_multicast() => {
                    socket.join_multicast_v4(&group, &own)?
                }
                (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, index)?,
                _ => {}
            }
            Ok(socket)
        })??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Listener { name: OTHERS[place].0, socket })
    }

    /// Those of the first three.
    fn listeners(&self, to: IpAddr) -> Result<Vec<Listener>> {
        (0..MEMBERS).map(|place| self.listener(place, to)).collect()
    }

    /// Waits until as many clients as `members` are in one group.
    fn await_members(&self, members: u64) -> Result<()> {
        let is_so = |status: &Status| {
            status.groups.first().is_some_and(|of| (of.groups, of.members) == (u64::from(members > 0), members))
        };
        until(&format!("{members} members are known"), LONGEST, || Ok(Some(self.node.status()?).filter(is_so)))
            .map(drop)
    }

    /// Sends to a group what each of `listeners` gets once, and nobody else.
    fn exchange_only(&self, sender: &UdpSocket, group: IpAddr, listeners: &[Listener], count: u32) -> Result<()> {
        let copies = || -> Result<u64> { Ok(self.node.status()?.workers.iter().map(|worker| worker.copies).sum()) };
        let before = copies()?;
        exchange(sender, group, listeners, count)?;
        // What alice sent before this was carried before this.
        ping(self.lab.client(Who::Alice), address(0), 1, 56)?;
        for listener in listeners {
            ensure_silent(listener)?;
        }
        let (made, wanted) = (copies()? - before, u64::from(count) * listeners.len() as u64);
        ensure!(made == wanted, "{made} copies were made for {} members, not {wanted}", listeners.len());
        Ok(())
    }
}

/// How long a member may be one that says nothing any more, and a little longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Sends `count` numbered datagrams. Every listener has to get each before the next leaves: nothing is lost because a daemon
/// is slow, and nothing comes twice.
fn exchange(sender: &UdpSocket, to: IpAddr, listeners: &[Listener], count: u32) -> Result<()> {
    let mut buffer = [0; 2048];
    for number in 0..count {
        let mut datagram = vec![number as u8; 4 + number as usize % 1200];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        sender.send_to(&datagram, (to, UDP))?;
        for Listener { name, socket } in listeners {
            let (length, from) =
                socket.recv_from(&mut buffer).with_context(|| format!("datagram {number} did not reach {name}"))?;
            ensure!(buffer[..length] == datagram, "{name} got something else than datagram {number}");
            ensure!(inner(0).contains(&from.ip()), "{name} got datagram {number} from {from}");
        }
    }
    Ok(())
}

/// Fails if there is anything to be read.
fn ensure_silent(Listener { name, socket }: &Listener) -> Result<()> {
    socket.set_nonblocking(true)?;
    let rest = socket.recv(&mut [0; 2048]);
    socket.set_nonblocking(false)?;
    match rest {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        other => bail!("{name} got a datagram that was not for it, or one twice: {other:?}"),
    }
}

fn members() -> Result<()> {
    const COUNT: u32 = 2_000;
    let groups = Groups::start(&given())?;
    // All join, as far as their own kernels are concerned: whoever gets nothing was sent nothing.
    let listeners = (0..OTHERS.len()).map(|place| groups.listener(place, GROUP)).collect::<Result<Vec<_>>>()?;
    let sender = groups.sender(GROUP)?;
    let sent = |name: &str| -> Result<u64> { Ok(groups.node.status()?.client(name)?.tx.packets) };
    let before = OTHERS.map(|(name, _)| sent(name).ok());
    exchange(&sender, GROUP, &listeners[..MEMBERS], COUNT)?;
    // What alice sent before this was carried before this.
    ping(groups.lab.client(Who::Alice), address(MEMBERS), 1, 56)?;
    listeners.iter().try_for_each(ensure_silent)?;
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

/// Clients say themselves of which group they are members. Dave's kernel speaks the older versions.
fn joining(group: IpAddr) -> Result<()> {
    const COUNT: u32 = 500;
    let mut groups = Groups::start("snooping = true\nquery_interval = 4\n")?;
    groups.namespace(2).set(&format!("ipv4/conf/{TUN}/force_igmp_version"), "2")?;
    groups.namespace(2).set(&format!("ipv6/conf/{TUN}/force_mld_version"), "1")?;
    let sender = groups.sender(group)?;
    sender.send_to(b"nobody wants this", (group, UDP))?;
    groups.node.await_status("nobody is a member", |status| status.verdict("no-member") > 0)?;
    let mut listeners = groups.listeners(group)?;
    groups.await_members(3)?;
    groups.exchange_only(&sender, group, &listeners, COUNT)?;
    for place in [1, 2] {
        drop(listeners.remove(place));
        groups.await_members(2)?;
        groups.exchange_only(&sender, group, &listeners, COUNT)?;
        listeners.insert(place, groups.listener(place, group)?);
        groups.await_members(3)?;
        groups.exchange_only(&sender, group, &listeners, COUNT)?;
    }
    // Erin goes, the others get other numbers, and are asked more often.
    let mut config = groups.config.clone();
    config.network = "snooping = true\nquery_interval = 3\n".to_owned();
    config.clients.retain(|client| client.name != "erin");
    config.clients.rotate_left(2);
    groups.node.reconfigure(&config)?;
    groups.exchange_only(&sender, group, &listeners, COUNT)?;
    // Who is gone without a word is forgotten, and who answers is not.
    groups.daemons[2].kill()?;
    groups.await_members(2)?;
    drop(listeners.remove(1));
    groups.exchange_only(&sender, group, &listeners, COUNT)?;
    let status = groups.node.status()?;
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

fn broadcast() -> Result<()> {
    let groups = Groups::start(&given())?;
    let listeners = (0..OTHERS.len()).map(|place| groups.listener(place, BROADCAST)).collect::<Result<Vec<_>>>()?;
    let sender = groups.sender(GROUP)?;
    exchange(&sender, BROADCAST, &listeners, 200)?;
    listeners.iter().try_for_each(ensure_silent)?;
    groups.node.status()?.ensure_every_packet_has_a_verdict()
}

/// Alice sends to the group as fast as she can while erin pings frank.
fn flood() -> Result<()> {
    const PINGS: u32 = 500;
    let groups = Groups::start(&given())?;
    let sender = groups.sender(GROUP)?;
    let quiet = Echo::start(groups.namespace(3), address(4), 100, PINGS)?;
    let end = || quiet.sent() >= PINGS;
    let datagram = [7; 64];
    let mut sent = 0u64;
    while !end() {
        ensure!(sent < 50_000_000, "erin does not come to an end");
        // The queue of the device may be full.
        sent += u64::from(sender.send_to(&datagram, (GROUP, UDP)).is_ok());
    }
    quiet.finish()?.ensure_none_lost("erin to frank while alice floods a group")?;
    // What is left of the flood in queues still comes.
    let status = groups
        .node
        .await_status("every packet has a verdict", |status| status.ensure_every_packet_has_a_verdict().is_ok())?;
    let came = status.verdict("copied") + status.verdict("copies-limit");
    ensure!(came > 10_000, "there was no flood: {came} packets came to the group");
    status.ensure_ledgers_hold()
}
