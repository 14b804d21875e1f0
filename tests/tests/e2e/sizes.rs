//! What a client hears of packets that go no further, and packets of every size.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use anytun_common::wire::checksum;
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::daemon::Kind;
use anytun_tests::lab::{ANYCAST, ANYCAST6, Lab, Layout, PORT, Running, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node;
use anytun_tests::status::Status;
use anytun_tests::wait::{PATIENCE, until};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto};

use crate::{Case, case};

/// What an inner packet may have in an MTU of 1500: without UDP, SATP, payload type, tag, and IPv6 outside.
const LARGEST_V6: usize = 1500 - 40 - 8 - 8 - 2 - 10;
/// The same with IPv4 outside.
const LARGEST_V4: usize = LARGEST_V6 + 20;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("sizes/who-sends-too-far-or-to-nobody-is-told", told),
        case("sizes/each-arrives-or-is-answered/v4-outside", || every_size("anycast", LARGEST_V4)),
        case("sizes/each-arrives-or-is-answered/v6-outside", || every_size("anycast6", LARGEST_V6)),
        case("sizes/tcp-fits-by-its-segment-size", || tcp(true, 0)),
        case("sizes/tcp-learns-by-errors", || tcp(false, 100)),
        case("sizes/a-narrow-way-behind-a-router/v4-outside", || narrow(0)),
        case("sizes/a-narrow-way-behind-a-router/v6-outside", || narrow(1)),
        case("sizes/the-least-mtu-of-ipv6-passes-whatever-is-around-it", least),
        case("sizes/tcp-over-a-narrow-way-fits-by-its-segment-size", || tcp_over_a_narrow_way(true)),
        case("sizes/tcp-over-a-narrow-way-learns-by-errors", || tcp_over_a_narrow_way(false)),
        case("sizes/forged-errors-change-no-path-mtu", forged),
        case("sizes/a-flood-is-answered-as-the-rate-allows", flood),
    ]
}

/// A node with alice behind a link that takes larger packets than bob's. Her device has an MTU larger than the way to bob
/// takes; his has the daemon's own, so his answers come in fragments.
fn wide(service: &'static str) -> Result<Running> {
    wide_with(service, |config| config)
}

/// The same with another configuration.
pub(crate) fn wide_with(service: &'static str, change: impl FnOnce(Config) -> Config) -> Result<Running> {
    wide_in(Lab::new(Layout::default())?, service, change)
}

/// The same in a lab that is there already.
fn wide_in(lab: Lab, service: &'static str, change: impl FnOnce(Config) -> Config) -> Result<Running> {
    lab.node.ip("link set link0 mtu 2000")?;
    lab.client(Who::Alice).ip("link set eth0 mtu 2000")?;
    let config = change(lab.config());
    let program = node::program()?;
    let kinds = [Kind::Anytun, Kind::Uanytun];
    let running =
        Running::start(lab, &program, config, kinds, [service; 2], |who| Crypto::passphrase(who.passphrase()))?;
    running.lab.client(Who::Alice).ip("link set tun0 mtu 1500")?;
    Ok(running)
}

/// Runs ping for one packet of a client; whether it was answered, and what ping said.
fn ping(running: &Running, words: &str, to: IpAddr) -> Result<(bool, String)> {
    let mut command = running.lab.client(Who::Alice).command("ping");
    command.args(["-n", "-c", "1", "-W", "2"]).args(words.split_whitespace()).arg(to.to_string());
    let output = command.output().context("cannot run ping")?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    Ok((output.status.success(), text))
}

fn told() -> Result<()> {
    let running = wide("anycast6")?;
    let before = running.node.status()?;
    for (family, from) in [(0, "192.0.0.8".to_owned()), (1, ANYCAST6.to_string())] {
        let bob = Who::Bob.inner()[family];
        let (arrived, text) = ping(&running, "-t 1", bob)?;
        let is_from = text.lines().any(|line| line.contains(&format!("From {from}")));
        let exceeded = text.contains("Time to live exceeded") || text.contains("Time exceeded: Hop limit");
        ensure!(!arrived && is_from && exceeded, "not told of the hop limit by {from}: {text}");
        let nobody = ["10.9.0.99", "fd00:9::99"][family].parse()?;
        let device = if family == 0 { "" } else { "-6 " };
        running.lab.client(Who::Alice).ip(&format!("{device}route replace {nobody} dev tun0"))?;
        let (arrived, text) = ping(&running, "", nobody)?;
        let unreachable =
            text.contains("Destination Net Unreachable") || text.contains("Destination unreachable: No route");
        ensure!(!arrived && text.contains(&format!("From {from}")) && unreachable, "not told of nobody: {text}");
    }
    let status = running.node.status()?;
    for kind in ["time-exceeded", "unreachable"] {
        let errors = status.icmp_errors(kind) - before.icmp_errors(kind);
        ensure!(errors == 2, "{errors} errors of the kind {kind} were sent");
    }
    status.ensure_ledgers_hold()
}

fn every_size(service: &'static str, largest: usize) -> Result<()> {
    let running = wide(service)?;
    let [bob, bob6] = Who::Bob.inner();
    let sizes = || (60..=1500).step_by(90).chain([largest - 1, largest, largest + 1, largest + 2, 1500]);
    // First, as clients that have learned of the way cut packets themselves.
    for size in sizes() {
        let (arrived, text) = ping(&running, &format!("-M dont -s {}", size - 28), bob)?;
        ensure!(arrived, "{size} octets that may be fragmented did not go there and back: {text}");
    }
    let whole = |size: usize, headers: usize, to: IpAddr| {
        let (arrived, text) = ping(&running, &format!("-M do -s {}", size - headers), to)?;
        // By the node, or by the kernel of the client, which the node has told before.
        let told = ["mtu = ", "mtu=", "mtu: "].iter().any(|word| text.contains(&format!("{word}{largest}")));
        ensure!(arrived == (size <= largest) && arrived != told, "{size} octets that must stay whole: {text}");
        Ok(())
    };
    for size in sizes() {
        whole(size, 28, bob)?;
        whole(size, 48, bob6)?;
    }
    let status = running.node.status()?;
    let errors = status.icmp_errors("too-big");
    ensure!(errors >= 2, "{errors} errors were sent");
    status.ensure_ledgers_hold()
}

/// Alice sends half a megabyte to bob by TCP, whose device says that it takes more than the way does.
fn tcp(clamp: bool, icmp_rate: u32) -> Result<()> {
    let running = wide_with("anycast", |config| Config { mss_clamp: clamp, icmp_rate, ..config })?;
    upload(&running)?;
    let status = running.node.status()?;
    let (dropped, told) = (status.verdict("too-big"), status.icmp_errors("too-big"));
    ensure!(if clamp { dropped == 0 } else { told > 0 && dropped >= told }, "{dropped} too big, {told} answered");
    status.ensure_ledgers_hold()
}

/// Sends what [`tcp`] says from alice to bob.
fn upload(running: &Running) -> Result<()> {
    const OCTETS: usize = 1 << 19;
    let [alice, bob] = Who::BOTH.map(|who| running.lab.client(who));
    bob.ip("link set tun0 mtu 1500")?;
    let place = SocketAddr::new(Who::Bob.inner()[0], 8080);
    let listener = bob.enter(|| TcpListener::bind(place))?.context("bob cannot listen")?;
    let server = thread::spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets)?;
        stream.write_all(b"done")?;
        Ok(octets.iter().filter(|octet| **octet == 0x5a).count())
    });
    let mut stream = alice.enter(|| TcpStream::connect_timeout(&place, PATIENCE))?.context("alice cannot connect")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![0x5a; OCTETS])?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("bob did not get all of it")?;
    let received = server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    ensure!(answer == "done" && received == OCTETS, "{received} octets arrived");
    Ok(())
}

/// What the link behind the router takes.
const NARROW: usize = 1400;

/// A router between the node and bob.
struct Router {
    running: Running,
    router: Namespace,
    /// What the link behind it takes.
    mtu: usize,
}

impl Router {
    /// The way from the router to bob takes [`NARROW`] octets, and the node does not know.
    fn start(service: &'static str, change: impl FnOnce(Config) -> Config) -> Result<Self> {
        Self::with(NARROW, service, change)
    }

    /// The same with another link.
    fn with(mtu: usize, service: &'static str, change: impl FnOnce(Config) -> Config) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        let router = Namespace::new("router")?;
        let bob = lab.client(Who::Bob);
        bob.ip(&format!("link set eth0 netns {} name near", router.name()))?;
        router.ip(&format!("link add name far mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}", bob.name()))?;
        for (setting, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            router.set(setting, value)?;
        }
        for (namespace, words) in [
            (&router, "addr add 203.0.113.253/24 dev near"),
            (&router, "addr add 2001:db8:2::fd/64 dev near nodad"),
            (&router, "addr add 198.18.0.254/24 dev far"),
            (&router, "addr add 2001:db8:3::fe/64 dev far nodad"),
            (&router, "link set near up"),
            (&router, "link set far up"),
            (&router, "route add default via 203.0.113.254"),
            (&router, "-6 route add default via 2001:db8:2::fe"),
            (bob, "addr add 198.18.0.1/24 dev eth0"),
            (bob, "addr add 2001:db8:3::1/64 dev eth0 nodad"),
            (bob, "link set eth0 up"),
            (bob, "route add default via 198.18.0.254"),
            (bob, "-6 route add default via 2001:db8:3::fe"),
            (&lab.node, "route add 198.18.0.0/24 via 203.0.113.253"),
            (&lab.node, "-6 route add 2001:db8:3::/64 via 2001:db8:2::fd"),
        ] {
            namespace.ip(words)?;
        }
        Ok(Self { running: wide_in(lab, service, change)?, router, mtu })
    }

    fn status(&self) -> Result<Status> {
        self.running.node.status()
    }

    /// Waits until the node has learned the path MTU to bob.
    fn await_path(&self) -> Result<()> {
        until("the path MTU to bob is known", PATIENCE, || {
            let mtu = self.status()?.client("bob")?.path_mtu;
            ensure!(mtu.is_none_or(|mtu| usize::from(mtu) == self.mtu), "the path MTU to bob is {mtu:?}");
            Ok(mtu)
        })?;
        Ok(())
    }
}

/// The first packet that is too large for the way behind the router is lost; the next one is answered with the size that fits,
/// and what has this size arrives.
fn narrow(outer: usize) -> Result<()> {
    let way = Router::start(["anycast", "anycast6"][outer], |config| config)?;
    let largest = [LARGEST_V4, LARGEST_V6][outer] - (1500 - NARROW);
    let first = [LARGEST_V4, LARGEST_V6][outer];
    let bob = Who::Bob.inner();
    let (arrived, text) = ping(&way.running, &format!("-M do -s {}", first - 28), bob[0])?;
    ensure!(!arrived, "{first} octets passed a link that takes {NARROW}: {text}");
    way.await_path()?;
    ensure!(far_errors(&way.router, outer)? > 0, "the router found nothing too large");
    for (to, headers) in bob.into_iter().zip([28, 48]).take(1 + outer) {
        for size in [largest - 1, largest] {
            let (arrived, text) = ping(&way.running, &format!("-M do -s {}", size - headers), to)?;
            ensure!(arrived, "{size} octets did not go to {to} and back: {text}");
        }
        let (arrived, text) = ping(&way.running, &format!("-M do -s {}", largest + 1 - headers), to)?;
        let told = ["mtu = ", "mtu=", "mtu: "].iter().any(|word| text.contains(&format!("{word}{largest}")));
        ensure!(!arrived && told, "{to} takes {largest} octets, but one more: {text}");
    }
    // Fragmented inside, as the way takes it.
    let (before, far) = (way.status()?, far_errors(&way.router, outer)?);
    let running = &way.running;
    running.lab.client(Who::Bob).ip(&format!("link set tun0 mtu {largest}"))?;
    let (arrived, text) = ping(running, "-M dont -s 1400", bob[0])?;
    ensure!(arrived, "1428 octets that may be fragmented did not go there and back: {text}");
    let status = way.status()?;
    ensure!(far == far_errors(&way.router, outer)?, "the router was still sent packets that are too large");
    ensure!(status.path_errors == before.path_errors, "the node was told once more: {:?}", status.path_errors);
    status.ensure_ledgers_hold()
}

/// An inner IPv6 packet of 1280 octets has to pass any way (RFC 8200 §5), so what is around it comes in fragments where the way
/// takes no more than that.
fn least() -> Result<()> {
    const LEAST: usize = 1280;
    /// A port that no daemon has.
    const FREE: u16 = 7777;
    let way = Router::with(LEAST, "anycast6", |config| config)?;
    let [to, to6] = Who::Bob.inner();
    ping(&way.running, &format!("-M do -s {}", LARGEST_V6 - 28), to)?;
    way.await_path()?;
    let far = far_errors(&way.router, 1)?;
    let [alice, bob] = Who::BOTH.map(|who| way.running.lab.client(who));
    let there = bob.enter(|| UdpSocket::bind((to6, FREE)))?.context("bob cannot bind")?;
    there.set_read_timeout(Some(PATIENCE))?;
    let here = alice.enter(|| UdpSocket::bind((Who::Alice.inner()[1], FREE)))?.context("alice cannot bind")?;
    let mut buffer = [0; 2000];
    // Without IPv6 around them, UDP, SATP, payload type and tag.
    for size in [LEAST - 68, LEAST - 67, LEAST - 30, LEAST - 1, LEAST] {
        let datagram: Vec<u8> = (48..size).map(|at| (at * 7 + size) as u8).collect();
        here.send_to(&datagram, (to6, FREE))?;
        let length = there.recv(&mut buffer).with_context(|| format!("{size} octets did not arrive"))?;
        ensure!(buffer[..length] == datagram, "{size} octets arrived otherwise");
    }
    ensure!(far_errors(&way.router, 1)? == far, "the router was sent packets that are too large");
    way.status()?.ensure_ledgers_hold()
}

/// How many packets the router found too large.
fn far_errors(router: &Namespace, outer: usize) -> Result<u64> {
    let (file, name) = [("snmp", "FragFails"), ("snmp6", "Ip6InTooBigErrors")][outer];
    let text = router.enter(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")))??;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let value = if outer == 1 {
        lines.iter().find(|line| line.first() == Some(&name)).and_then(|line| line.get(1))
    } else {
        let place = lines[0].iter().position(|word| *word == name);
        place.and_then(|place| lines[1].get(place))
    };
    Ok(value.context("the kernel does not count what is too large")?.parse()?)
}

fn tcp_over_a_narrow_way(clamp: bool) -> Result<()> {
    let way = Router::start("anycast", |config| Config { mss_clamp: clamp, ..config })?;
    upload(&way.running)?;
    way.await_path()?;
    let status = way.status()?;
    ensure!(clamp || status.icmp_errors("too-big") > 0, "the sender was not told");
    // A connection made now is told of the narrow way from the start.
    upload(&way.running)?;
    let after = way.status()?;
    let dropped = after.verdict("too-big") - status.verdict("too-big");
    ensure!(!clamp || dropped == 0, "{dropped} packets were too large although the way was known");
    after.ensure_ledgers_hold()
}

/// Errors of who does not see the packets to bob, but knows all addresses and ports, are not believed.
fn forged() -> Result<()> {
    let way = Router::start("anycast", |config| config)?;
    let bob = Who::Bob.inner()[0];
    ping(&way.running, "", bob)?;
    let endpoint = way.status()?.client("bob")?.endpoint.clone().context("bob was not heard")?;
    let SocketAddr::V4(endpoint) = endpoint.parse()? else { bail!("bob is at {endpoint}") };
    let other = SocketAddrV4::new(*endpoint.ip(), endpoint.port() ^ 1);
    let sender = way.status()?.workers[0].sender_id;
    let rows = [
        ("not-sent", endpoint, sender, 0x7fff_ffff, 2),
        ("not-sent", endpoint, sender ^ 0x4000, 1, 2),
        ("elsewhere", other, sender, 1, 2),
        ("elsewhere", endpoint, sender, 1, 1),
        ("unknown-client", endpoint, sender, 1, 77),
    ];
    let socket = way.router.enter(|| {
        let (family, kind) = (AddressFamily::Inet, SockType::Raw);
        nix::sys::socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
    })??;
    let mut expected = way.status()?.path_errors;
    for (heard, to, sender, sequence, mux) in rows {
        let message = fragmentation_needed(600, to, sequence, sender, mux);
        let node = SockaddrIn::from(SocketAddrV4::new(ANYCAST, 0));
        sendto(socket.as_raw_fd(), &message, &node, MsgFlags::empty())?;
        *expected.entry(heard.to_owned()).or_default() += 1;
        until("the error is counted", PATIENCE, || Ok((way.status()?.path_errors == expected).then_some(())))
            .with_context(|| {
                format!("{heard}: {:?}, not {expected:?}", way.status().map(|status| status.path_errors))
            })?;
    }
    let (arrived, text) = ping(&way.running, "-M do -s 1200", bob)?;
    ensure!(arrived, "1228 octets did not go to bob and back: {text}");
    ensure!(way.status()?.client("bob")?.path_mtu.is_none(), "a forged error was believed");
    // The router's own is.
    ping(&way.running, &format!("-M do -s {}", LARGEST_V4 - 28), bob)?;
    way.await_path()
}

/// The error of a router about a SATP packet of 1500 octets from the service to `to` (RFC 792, RFC 1191 §4).
fn fragmentation_needed(mtu: u16, to: SocketAddrV4, sequence: u32, sender: u16, mux: u16) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend([0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 63, 17, 0, 0]);
    message.extend(ANYCAST.octets().into_iter().chain(to.ip().octets()));
    message.extend([PORT, to.port(), 1480, 0].into_iter().flat_map(u16::to_be_bytes));
    message.extend(sequence.to_be_bytes());
    message.extend([sender, mux].into_iter().flat_map(u16::to_be_bytes));
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn flood() -> Result<()> {
    const PINGS: u64 = 2000;
    let running = wide("anycast")?;
    let before = running.node.status()?;
    let bob = Who::Bob.inner()[0];
    running
        .lab
        .client(Who::Alice)
        .command("ping")
        .args(["-q", "-n", "-t", "1", "-c", &PINGS.to_string()])
        .args(["-i", "0.001", "-W", "1", &bob.to_string()])
        .output()?;
    let status = running.node.status()?;
    let dropped = status.verdict("hop-limit") - before.verdict("hop-limit");
    let told = status.icmp_errors("time-exceeded") - before.icmp_errors("time-exceeded");
    // The bucket of ten, and a hundred in each second of the node's own time.
    let most = 10.0 + 100.0 * (status.uptime_seconds - before.uptime_seconds);
    // The daemon may lose one on a busy machine. All that arrived met it, but what its device says to its link.
    let arrived = status.client("alice")?.rx.packets - before.client("alice")?.rx.packets;
    let to_link = status.verdict("link-scope") - before.verdict("link-scope");
    ensure!(dropped + to_link == arrived, "{dropped} of {arrived} met the hop limit, and {to_link} were for the link");
    ensure!(dropped <= PINGS && dropped > PINGS * 9 / 10, "{dropped} of {PINGS} met the hop limit");
    ensure!(status.client("bob")?.tx.packets == before.client("bob")?.tx.packets, "one went further than it may");
    ensure!(told >= 10 && told as f64 <= most && told < PINGS, "{told} were answered, {most} at most");
    status.ensure_ledgers_hold()
}
