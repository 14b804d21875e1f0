//! What clients send in outer fragments arrives whole: the kernel puts it together, and the node carries it as any other
//! packet.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::{Config, Service};
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::{ANYCAST, ANYCAST6, Lab, Layout, PORT, Running, Who, client};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::status::Status;
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use crate::endpoint::inner;
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("fragments/a-narrow-way-to-the-node/v4-outside", || narrow(0, "native", 1)),
        case("fragments/a-narrow-way-to-the-node/v6-outside", || narrow(1, "native", 1)),
        case("fragments/a-narrow-way-to-the-node/generic-two-queues", || narrow(0, "generic", 2)),
        case("fragments/a-tunnel-larger-than-the-way", large_tunnel),
        case("fragments/in-any-order-from-a-client-never-heard", any_order),
        case("fragments/another-program-has-the-port", occupied),
        case("fragments/sockets-follow-the-services", reload),
    ]
}

/// Datagrams of each size that go there and back.
const EACH: u64 = 20;

/// The node with `anytun` for alice and `uanytun` for bob, both at the service of one family.
fn start(service: &'static str, xdp: &'static str, queues: u32) -> Result<Running> {
    let lab = Lab::new(Layout { queues, ..Layout::default() })?;
    let config = Config { xdp, ..lab.config() };
    let kinds = [Kind::Anytun, Kind::Uanytun];
    Running::start(lab, &node::program()?, config, kinds, [service; 2], |who| Crypto::passphrase(who.passphrase()))
}

/// Datagrams that took the slow path.
fn taken(status: &Status) -> u64 {
    status.datagrams.get("taken").copied().unwrap_or(0)
}

/// What clients send to the node leaves them in fragments, as by a route that takes little; the tunnels and the ways back are
/// as usual.
fn narrow(outer: usize, xdp: &'static str, queues: u32) -> Result<()> {
    let running = start(["anycast", "anycast6"][outer], xdp, queues)?;
    for (who, v4, v6) in
        [(Who::Alice, "198.51.100.254", "2001:db8:1::fe"), (Who::Bob, "203.0.113.254", "2001:db8:2::fe")]
    {
        running.lab.client(who).ip(&match outer {
            0 => format!("route add {ANYCAST}/32 via {v4} mtu 600"),
            _ => format!("-6 route add {ANYCAST6}/128 via {v6} mtu 1280"),
        })?;
    }
    let before = running.node.status()?;
    for to in Who::Bob.inner() {
        ping(running.lab.client(Who::Alice), to, 20, 56)?;
    }
    let small = running.node.status()?;
    ensure!(taken(&small) == taken(&before), "{} small packets took the slow path", taken(&small) - taken(&before));
    // Outside there are 48 octets more, or 68.
    let sizes = [[600, 1000, 1300], [1240, 1300, 1332]][outer];
    for to in Who::Bob.inner() {
        sizes.into_iter().try_for_each(|size| exchange(&running, to, size))?;
    }
    let after = running.node.status()?;
    let (took, expected) = (taken(&after) - taken(&small), 2 * 2 * 3 * EACH);
    ensure!(took == expected, "{took} datagrams took the slow path, not {expected}: {:?}", after.datagrams);
    ensure!(after.program("fragment") >= small.program("fragment") + 2 * expected, "there were fewer fragments");
    after.ensure_every_packet_has_a_verdict()?;
    after.ensure_ledgers_hold()
}

/// The devices of both daemons take all that their buffers hold, which is more than goes through the links in one packet. The
/// node puts together outside, and cuts inside.
fn large_tunnel() -> Result<()> {
    /// 1600 octets without header, payload type and tag.
    const LARGEST: usize = 1600 - 8 - 2 - 10;
    let running = start("anycast", "native", 1)?;
    for who in Who::BOTH {
        running.lab.client(who).ip(&format!("link set tun0 mtu {LARGEST}"))?;
        // So that packets inside may be cut.
        running.lab.client(who).set("ipv4/ip_no_pmtu_disc", "1")?;
    }
    let before = running.node.status()?;
    let bob = Who::Bob.inner()[0];
    let sizes = [1500 - 48 - 28 + 1, 1500 - 28, LARGEST - 28];
    sizes.into_iter().try_for_each(|size| exchange(&running, bob, size))?;
    let after = running.node.status()?;
    let (took, expected) = (taken(&after) - taken(&before), 2 * 3 * EACH);
    ensure!(took == expected, "{took} datagrams took the slow path, not {expected}: {:?}", after.datagrams);
    ping(running.lab.client(Who::Alice), bob, 20, LARGEST as u32 - 28)?;
    let status = running.node.status()?;
    ensure!(status.datagrams.iter().all(|(what, count)| what == "taken" || *count == 0), "{:?}", status.datagrams);
    status.ensure_ledgers_hold()
}

/// Alice sends datagrams of `size` octets to bob, who sends them back. No octet is changed.
fn exchange(running: &Running, to: IpAddr, size: usize) -> Result<()> {
    let [alice, bob] = Who::BOTH.map(|who| running.lab.client(who));
    let from = Who::Alice.inner()[usize::from(to.is_ipv6())];
    let bind = |address: IpAddr| move || UdpSocket::bind((address, 0));
    let server = bob.enter(bind(to))?.context("bob cannot bind")?;
    let socket = alice.enter(bind(from))?.context("alice cannot bind")?;
    server.set_read_timeout(Some(Duration::from_millis(20)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server.local_addr()?)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    // If this fails alice waits in vain and says so.
                    let _ = server.send_to(&buffer[..length], from);
                }
            }
        });
        let all = (0..EACH).try_for_each(|number| {
            let sent: Vec<u8> = (0..size).map(|place| (place ^ place >> 8) as u8 ^ number as u8).collect();
            socket.send(&sent)?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer).with_context(|| format!("datagram {number} did not come back"))?;
            ensure!(buffer[..length] == sent, "datagram {number} came back changed");
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        all.with_context(|| format!("{size} octets to {to}"))
    })
}

/// A node with two forgers, and what sends alice's packets in fragments.
struct Cutter {
    node: Node,
    lab: Lab,
    alice: Forger,
    bob: Forger,
    home: Outlet,
    bobs: Outlet,
    raw: OwnedFd,
}

/// Alice's outer address and port.
const HOME: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), PORT);
/// The service.
const SERVICE: SocketAddrV4 = SocketAddrV4::new(ANYCAST, PORT);
/// Octets of a fragment's data: a multiple of 8.
const PART: usize = 400;

impl Cutter {
    /// Bob is heard at once, alice never.
    fn start(lab: Lab) -> Result<Self> {
        let mut config = lab.config();
        let forger = |who: Who| Forger::new(&Crypto::passphrase(who.passphrase()), who.mux(), SERVICE.into());
        config.clients = Who::BOTH.map(|who| client(who, "anycast", Crypto::passphrase(who.passphrase()))).into();
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let raw = raw_socket(lab.client(Who::Alice))?;
        let home = Outlet::bind(lab.client(Who::Alice), (*HOME.ip()).into(), PORT)?;
        let bobs = Outlet::bind(lab.client(Who::Bob), Ipv4Addr::new(203, 0, 113, 1).into(), PORT)?;
        let cutter = Self { node, lab, alice: forger(Who::Alice), bob: forger(Who::Bob), home, bobs, raw };
        cutter.bobs.send(&cutter.bob.seal(0, IPV4, &[]), SERVICE.into())?;
        cutter.node.await_status("bob's endpoint is known", |status| {
            status.client("bob").is_ok_and(|bob| bob.endpoint.is_some())
        })?;
        Ok(cutter)
    }

    /// Sends what alice seals under a sequence number, in fragments of [`PART`] octets, in the order of these places; returns
    /// the inner packet.
    fn send(&self, sequence: u32, places: &[usize]) -> Result<Vec<u8>> {
        let mut packet = datagram(inner(Who::Alice), inner(Who::Bob), 1200);
        for (octet, place) in packet[28..].iter_mut().zip(0_u32..) {
            *octet = place as u8 ^ sequence as u8;
        }
        let sealed = self.alice.seal(sequence, IPV4, &packet);
        let mut udp = [PORT, PORT, 8 + sealed.len() as u16, 0].map(u16::to_be_bytes).concat();
        udp.extend(sealed);
        send_cut(&self.raw, [*HOME.ip(), ANYCAST], 1 + sequence as u16, &udp, places)?;
        Ok(packet)
    }

    /// Waits until bob gets this inner packet of alice's, with one hop less.
    fn arrives(&self, packet: &[u8]) -> Result<()> {
        let got = self.bob.open(&self.bobs.receive()?)?;
        ensure!(got.len() == packet.len() && got[12..] == packet[12..], "bob got another packet: {got:02x?}");
        Ok(())
    }
}

/// A socket for [`send_cut`].
pub(crate) fn raw_socket(namespace: &Namespace) -> Result<OwnedFd> {
    let raw = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    Ok(namespace.enter(raw)??)
}

/// Sends a UDP datagram from an address to another in fragments of [`PART`] octets: those with these places, in this order.
pub(crate) fn send_cut(
    raw: &OwnedFd,
    [from, to]: [Ipv4Addr; 2],
    identification: u16,
    udp: &[u8],
    places: &[usize],
) -> Result<()> {
    let parts: Vec<&[u8]> = udp.chunks(PART).collect();
    ensure!(places.iter().max() == Some(&(parts.len() - 1)), "there are {} fragments", parts.len());
    for &place in places {
        let more = if place + 1 < parts.len() { 0x2000 } else { 0 };
        // The kernel writes lengths and checksums (raw(7)).
        let mut fragment = vec![0x45, 0, 0, 0];
        let words = [identification, more | (place * PART / 8) as u16];
        fragment.extend(words.into_iter().flat_map(u16::to_be_bytes));
        fragment.extend([64, 17, 0, 0]);
        fragment.extend(from.octets().into_iter().chain(to.octets()));
        fragment.extend(parts[place]);
        sendto(raw.as_raw_fd(), &fragment, &SockaddrIn::from(SocketAddrV4::new(to, 0)), MsgFlags::empty())?;
    }
    Ok(())
}

/// Fragments that come last part first, or in no order at all, of somebody the node has heard nothing else of: it finds the way
/// back by its routes.
fn any_order() -> Result<()> {
    let cutter = Cutter::start(Lab::new(Layout::default())?)?;
    for (sequence, places) in (1..).zip([[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]]) {
        let packet = cutter.send(sequence, &places)?;
        cutter.arrives(&packet).with_context(|| format!("fragments in the order {places:?}"))?;
    }
    // The first may have been needed to ask for the neighbour.
    let mut sequence = 3;
    until("alice's endpoint is known", PATIENCE, || {
        sequence += 1;
        let packet = cutter.send(sequence, &[0, 1, 2, 3])?;
        cutter.arrives(&packet)?;
        let endpoint = cutter.node.status()?.client("alice")?.endpoint.clone();
        Ok((endpoint == Some(SocketAddr::from(HOME).to_string())).then_some(()))
    })?;
    let answer = datagram(inner(Who::Bob), inner(Who::Alice), 32);
    cutter.bobs.send(&cutter.bob.seal(1, IPV4, &answer), SERVICE.into())?;
    let got = cutter.alice.open(&cutter.home.receive()?)?;
    ensure!(got[12..] == answer[12..], "alice got another packet: {got:02x?}");

    // Her host gets another MAC address and says so (RFC 5227 section 3); no whole frame of hers comes.
    let alice = cutter.lab.client(Who::Alice);
    alice.set("ipv4/conf/eth0/arp_notify", "1")?;
    alice.ip("link set eth0 address 02:00:00:00:be:ef")?;
    let mut answers = 1;
    until("alice gets answers at her new MAC address", PATIENCE, || {
        (sequence, answers) = (sequence + 1, answers + 1);
        let packet = cutter.send(sequence, &[0, 1, 2, 3])?;
        cutter.arrives(&packet)?;
        cutter.bobs.send(&cutter.bob.seal(answers, IPV4, &answer), SERVICE.into())?;
        Ok((!cutter.home.is_silent()?).then_some(()))
    })?;
    let status = cutter.node.status()?;
    ensure!(taken(&status) == u64::from(sequence), "{sequence} were sent, counted are {:?}", status.datagrams);
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

/// A program that has the port of the service costs what comes in fragments and nothing else; the log says so, and a reload
/// gets the port once it is free.
fn occupied() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let program = lab.node.enter(|| UdpSocket::bind(SERVICE))?.context("cannot bind the port of the service")?;
    program.set_read_timeout(Some(PATIENCE))?;
    let cutter = Cutter::start(lab)?;
    let log = cutter.node.log();
    let told = format!("service anycast: UDP port {PORT} of {ANYCAST}: another program has a socket there");
    ensure!(log.contains(&told) && log.contains("in fragments are lost"), "the log does not tell: {log}");
    cutter.send(1, &[0, 1, 2, 3])?;
    program.recv(&mut [0; 2048]).context("the program does not get what the kernel puts together")?;
    let status = cutter.node.status()?;
    ensure!(taken(&status) == 0 && cutter.bobs.is_silent()?, "the node got it too: {:?}", status.datagrams);
    drop(program);
    let mut config = cutter.lab.config();
    config.clients = Who::BOTH.map(|who| client(who, "anycast", Crypto::passphrase(who.passphrase()))).into();
    cutter.node.reconfigure(&config)?;
    // The socket is there when the reload is through, shortly after the configuration is in force.
    cutter.node.await_status("the reload is through", |status| status.last_reload.as_ref().is_some_and(|it| it.ok))?;
    let packet = cutter.send(2, &[0, 1, 2, 3])?;
    cutter.arrives(&packet)?;
    cutter.node.status()?.ensure_ledgers_hold()
}

/// Sockets come and go with the services. One at a port below 1024 takes a right that the running node has no more.
fn reload() -> Result<()> {
    let mut running = start("anycast", "native", 1)?;
    let has = |running: &Running, port: u16| -> Result<bool> {
        match running.lab.node.enter(|| UdpSocket::bind((ANYCAST, port)))? {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(true),
            Err(error) => Err(error.into()),
        }
    };
    ensure!(has(&running, PORT)? && !has(&running, PORT + 1)?, "not the sockets of the configuration");
    let before = running.config.services.clone();
    running.config.services.push(Service::new("further", (ANYCAST, PORT + 1).into()));
    running.config.services.push(Service::new("low", (ANYCAST, 443).into()));
    running.node.reconfigure(&running.config)?;
    // When it is through, so that nothing here has the port when the node wants it.
    running.node.await_status("the reload is through", |status| status.last_reload.as_ref().is_some_and(|it| it.ok))?;
    ensure!(has(&running, PORT + 1)?, "the new service has no socket");
    let log = running.node.log();
    let told = log.lines().any(|line| line.contains("service low:") && line.contains("CAP_NET_BIND_SERVICE"));
    ensure!(told && !has(&running, 443)?, "port 443, without capabilities: {log}");
    running.config.services = before;
    running.node.reconfigure(&running.config)?;
    until("the socket of the service that went is closed", PATIENCE, || Ok((!has(&running, PORT + 1)?).then_some(())))?;
    // The one that stayed works on.
    running.lab.client(Who::Alice).ip(&format!("route add {ANYCAST}/32 via 198.51.100.254 mtu 600"))?;
    exchange(&running, Who::Bob.inner()[0], 1000)?;
    running.node.status()?.ensure_ledgers_hold()
}
