//! A host behind a router outside, which a client reaches through a NAT: what routers on the way say finds the client.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use anytun_tests::daemon::{Kind, TUN};
use anytun_tests::lab::{ANYCAST6, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::wait::PATIENCE;

use crate::nat::KEYS;
use crate::open::{OUTSIDE, Open, body};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("nat/traceroute", traceroute),
        case("nat/path-mtu-discovery-by-udp-and-echo", datagrams),
        case("nat/path-mtu-discovery-by-tcp-with-mss-clamp", || segments(true)),
        case("nat/path-mtu-discovery-by-tcp-without-mss-clamp", || segments(false)),
    ]
}

/// The host, and the router's addresses on the link to it.
const HOST: [&str; 2] = ["198.18.0.1", "2001:db8:3::1"];
const ROUTER: [&str; 2] = ["198.18.0.254", "2001:db8:3::fe"];
/// What the link between them takes; that in front of the router takes 1500.
const NARROW: usize = 1300;
/// Where the host listens.
const PORT: u16 = 8080;

/// Alice behind a node with a NAT; bob's place is that of a router, behind which is the host.
struct Beyond {
    open: Open,
    host: Namespace,
}

impl Beyond {
    /// With these keys of the network besides.
    fn start(network: &str) -> Result<Self> {
        let open = Open::with(Kind::Anytun, true, &format!("{KEYS}{network}"))?;
        let (alice, router) = (open.lab.client(Who::Alice), open.lab.client(Who::Bob));
        let host = Namespace::new("host")?;
        let peer = host.name();
        router.ip(&format!("link add name far mtu {NARROW} type veth peer name eth0 mtu {NARROW} netns {peer}"))?;
        for (setting, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
            router.set(setting, value)?;
        }
        host.ip("link set eth0 up")?;
        router.ip("link set far up")?;
        for (family, (inner, segment)) in Who::Alice.inner().into_iter().zip([1460, 1440]).enumerate() {
            let (to, via) = (HOST[family], ROUTER[family]);
            let (subnet, whole) = if inner.is_ipv4() { (24, 32) } else { (64, 128) };
            router.ip(&format!("addr add {via}/{subnet} dev far"))?;
            host.ip(&format!("addr add {to}/{subnet} dev eth0"))?;
            // It does not say that its link is narrow, as if another one were.
            let default = if inner.is_ipv4() { "default" } else { "::/0" };
            host.ip(&format!("route add {default} via {via} advmss {segment}"))?;
            open.lab.node.ip(&format!("route add {to}/{whole} via {}", OUTSIDE[family]))?;
            alice.ip(&format!("route add {to}/{whole} dev {TUN} src {inner}"))?;
        }
        // As large as packets can be that the node says are too large.
        alice.ip(&format!("link set {TUN} mtu 1500"))?;
        let beyond = Self { open, host };
        HOST.iter().try_for_each(|to| beyond.open.introduce(to.parse()?))?;
        Ok(beyond)
    }

    fn alice(&self) -> &Namespace {
        self.open.lab.client(Who::Alice)
    }

    /// The path MTU that alice's kernel has learned to the host.
    fn path_mtu(&self, family: usize) -> Result<Option<usize>> {
        let route = self.alice().ip(&format!("route get {}", HOST[family]))?;
        let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1).map(|mtu| mtu.parse().with_context(|| format!("no route: {route}"))).transpose()
    }

    /// Runs traceroute(8) for the host and returns its lines, one for each hop.
    fn trace(&self, words: &str, family: usize) -> Result<Vec<String>> {
        let text = self.alice().run(&format!("traceroute -n -q 1 -N 1 -w 5 -m 5 {words} {}", HOST[family]))?;
        Ok(text.lines().skip(1).map(str::to_owned).collect())
    }
}

/// traceroute hears of each hop: its kernel takes only errors that quote a packet of its own socket. UDP ends with "port
/// unreachable", echo requests and TCP with an answer.
fn traceroute() -> Result<()> {
    let beyond = Beyond::start("")?;
    // The node has no address in the network (RFC 7600), and for IPv6 that of a service.
    let node = ["192.0.0.8".parse::<IpAddr>()?, ANYCAST6.into()];
    for (family, node) in node.into_iter().enumerate() {
        for words in ["", "-I", "-T -p 81"] {
            let hops = beyond.trace(words, family)?;
            let from = |line: &String| line.split_whitespace().nth(1).and_then(|word| word.parse::<IpAddr>().ok());
            let expected = [Some(node), OUTSIDE[family].parse().ok(), HOST[family].parse().ok()];
            ensure!(hops.iter().map(from).eq(expected), "traceroute {words}: {hops:#?}");
            ensure!(!hops.iter().any(|hop| hop.contains('!')), "traceroute {words}: {hops:#?}");
        }
    }
    let status = beyond.open.node.status()?;
    ensure!(status.icmp_errors("time-exceeded") >= 6, "{:?}", status.workers);
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

/// The sender of a datagram that must stay whole is told by the router what fits, and this does.
fn datagrams() -> Result<()> {
    let beyond = Beyond::start("")?;
    for (family, headers) in [28, 48].into_iter().enumerate() {
        // Behind the router, and so at the third hop, only so much fits.
        let hops = beyond.trace("--mtu", family)?;
        ensure!(hops.len() == 3 && hops[2].contains(&format!("F={NARROW}")), "traceroute --mtu: {hops:#?}");
        ensure!(beyond.path_mtu(family)? == Some(NARROW), "alice was not told");
        let (fits, more) = (NARROW - headers, NARROW + 1 - headers);
        let ping = |size| beyond.alice().run(&format!("ping -n -c 1 -W 5 -M do -s {size} {}", HOST[family]));
        ensure!(ping(fits).is_ok() && ping(more).is_err(), "not {NARROW} octets fit");
    }
    for (family, headers) in [28, 48].into_iter().enumerate() {
        // An echo request is told by itself.
        beyond.alice().ip(&format!("{} route flush cache", ["-4", "-6"][family]))?;
        ensure!(beyond.path_mtu(family)?.is_none(), "alice still knows");
        let size = NARROW + 1 - headers;
        let words = format!("-n -c 1 -W 5 -M do -s {size} {}", HOST[family]);
        let output = beyond.alice().command("ping").args(words.split_whitespace()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = ["mtu = ", "mtu="].iter().any(|word| text.contains(&format!("{word}{NARROW}")));
        ensure!(told && text.contains(OUTSIDE[family]), "ping was not told by the router: {text}");
    }
    beyond.open.node.status()?.ensure_ledgers_hold()
}

/// Alice sends by TCP to a host that would take larger segments than the way does.
fn segments(clamp: bool) -> Result<()> {
    let beyond = Beyond::start(&format!("mss_clamp = {clamp}\n"))?;
    for (family, host) in HOST.iter().enumerate() {
        let place = SocketAddr::new(host.parse()?, PORT);
        upload(beyond.alice(), &beyond.host, place)?;
        ensure!(beyond.path_mtu(family)? == Some(NARROW), "the router told alice nothing");
    }
    let status = beyond.open.node.status()?;
    // What is larger than the tunnel takes comes in outer fragments, which the kernel puts together.
    let fragmented = status.datagrams.get("taken").copied().unwrap_or(0);
    ensure!((fragmented == 0) == clamp, "{fragmented} packets came in fragments");
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

/// Sends half a megabyte, which arrives as it was.
fn upload(from: &Namespace, to: &Namespace, place: SocketAddr) -> Result<()> {
    const OCTETS: usize = 1 << 19;
    let listener = to.enter(|| TcpListener::bind(place))?.context("the host cannot listen")?;
    let server = thread::spawn(move || -> Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets)?;
        Ok(octets)
    });
    let mut stream = from.enter(|| TcpStream::connect_timeout(&place, PATIENCE))?.context("nobody answers")?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&body(OCTETS))?;
    stream.shutdown(Shutdown::Write)?;
    let got = server.join().map_err(|_| anyhow!("the server panicked"))??;
    ensure!(got == body(OCTETS), "{} octets arrived, or not those that were sent", got.len());
    Ok(())
}
