//! The two halves never disagree: the loaded XDP program and the user half decide alike about the same octets.

mod namespace;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::Mutex;

use anytun_common::classify::{Network, classify, fragment, network, port};
use anytun_common::map::{FragmentKey, ServiceKey};
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::config::{PortRange, XdpMode};
use anytun_xdp::kernel::{Inside, Link, PortSpec, Program, Steered, Xsk};
use anytun_xdp::worker::io::PacketIo;
use namespace::{Namespace, permitted, veth};

const V4: [u8; 4] = [192, 0, 2, 53];
const V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53];
const PORT: u16 = 4444;
/// The only addresses of clients that packets from outside are for.
const INSIDE: [[u8; 16]; 2] =
    [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 0, 11], [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]];
/// Ports of a NAT at both addresses, and at one where it is alone.
const NAT: (u16, u16) = (20_000, 29_999);
const ALONE: [u8; 4] = [192, 0, 2, 54];
/// Where the socket is.
const SLOT: u32 = 3;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
/// Frames shorter than this are not taken by `BPF_PROG_TEST_RUN`.
const SHORTEST: usize = 14;

/// The program with the services of this test, and a socket for loopback, which is where test runs happen.
struct Kernel {
    program: Program,
    services: HashSet<ServiceKey>,
    /// Datagrams in fragments whose first one has come, and whether they are for the NAT.
    fragments: HashMap<FragmentKey, bool>,
    /// Keeps the socket in the map.
    xsk: Xsk,
}

impl Kernel {
    fn new() -> Self {
        let services = [ServiceKey::new(mapped(V4), PORT), ServiceKey::new(V6, PORT)];
        let mut program = Program::load().unwrap();
        let ports = PortRange::parse(&format!("{}-{}", NAT.0, NAT.1)).unwrap();
        let nats = nats().into_iter().flat_map(|address| Inside::ports(address, ports));
        let alone = [Inside::fragments(mapped(ALONE))];
        let inside =
            INSIDE.map(|address| Inside::prefix((address, 128))).into_iter().chain(nats).chain(alone).collect();
        program.steer(&Steered { inside, ..Steered::services(services) }).unwrap();
        let link = Link::find("p0").unwrap();
        let port = PortSpec { link, queue: 0, mode: XdpMode::Native };
        let mut xsk = Xsk::open(&[None, None, None, Some(port)]).unwrap();
        program.set_sockets(&mut xsk).unwrap();
        program.set_slot(nix::net::if_::if_nametoindex("lo").unwrap(), SLOT).unwrap();
        Self { program, services: services.into(), fragments: HashMap::new(), xsk }
    }

    /// Lets the worker find that nothing waits.
    fn drain(&mut self) {
        assert_eq!(self.xsk.receive(SLOT as usize, &mut Vec::new(), 64), 0, "a test run hands nothing over");
    }

    /// What the user half says about a frame.
    fn expected(&mut self, frame: &[u8]) -> Verdict {
        if network(frame).is_ok_and(|network| self.is_inside(frame, &network)) {
            return Verdict::Steered;
        }
        match classify(frame) {
            Err(verdict) => verdict,
            Ok(datagram) if self.services.contains(&datagram.service_key()) => Verdict::Steered,
            Ok(_) => Verdict::NotService,
        }
    }

    /// Whether a packet is for a client, or behind a fragment that was.
    fn is_inside(&mut self, frame: &[u8], network: &Network) -> bool {
        let is_nat = |port: u16| nats().contains(&network.destination) && (NAT.0..=NAT.1).contains(&port);
        let is_alone = network.destination == mapped(ALONE);
        match fragment(frame, network).filter(|_| network.fragment) {
            _ if INSIDE.contains(&network.destination) => true,
            None => is_nat(port(frame, network)),
            Some(fragment) => match fragment.port {
                Some(port) => {
                    self.fragments.insert(fragment.key, is_nat(port));
                    is_nat(port)
                }
                None => self.fragments.get(&fragment.key).copied().unwrap_or(is_alone),
            },
        }
    }
}

/// The addresses of the NAT.
fn nats() -> [[u8; 16]; 3] {
    [mapped(V4), V6, mapped(ALONE)]
}

/// Runs `work` where a socket can be opened.
fn with_kernel(work: impl FnOnce(&mut Kernel) + Send) {
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    node.enter(|| work(&mut Kernel::new()));
}

fn ethernet(ethertypes: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for (index, ethertype) in ethertypes.iter().enumerate() {
        if index > 0 {
            frame.extend_from_slice(&[0x00, 0x07]);
        }
        frame.extend_from_slice(&ethertype.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

fn udp(port: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![0x30, 0x39];
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(&(8 + payload as u16).to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.resize(8 + payload, 0xa5);
    datagram
}

/// An echo request with an identifier of the NAT's range (RFC 792).
const QUERY: [u8; 8] = [8, 0, 0, 0, 0x4e, 0x20, 0, 1];

fn tcp(source: u16, destination: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.resize(20, 0);
    segment
}

/// An ICMP error that quotes a packet whose header has options (RFC 792).
fn error_v4(kind: u8, protocol: u8, quoted: &[u8]) -> Vec<u8> {
    let mut error = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ipv4(0, protocol, 4, quoted));
    error
}

/// An ICMPv6 error (RFC 4443 §3).
fn error_v6(kind: u8, next: u8, quoted: &[u8]) -> Vec<u8> {
    let mut error = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    error.extend(ipv6(next, quoted));
    error
}

/// An IPv4 packet with `options` octets of options (a multiple of 4), and a right checksum.
fn ipv4(fragment: u16, protocol: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0xb8];
    packet.extend_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0x12, 0x34]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0, 198, 51, 100, 7]);
    packet.extend_from_slice(&V4);
    packet.resize(header, 0x01);
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet.extend_from_slice(&V6);
    packet.extend_from_slice(payload);
    packet
}

/// The fragment header and the payload of a first fragment (RFC 8200 §4.5).
fn first_v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut fragment = vec![next, 0, 0, 1, 0, 0, 0, 2];
    fragment.extend_from_slice(payload);
    fragment
}

/// The same packet for a client inside, with a right checksum.
fn to_client_v4(packet: Vec<u8>) -> Vec<u8> {
    to_v4(packet, &INSIDE[0][12..])
}

/// The same packet for the address of the NAT where there is nothing else.
fn alone(packet: Vec<u8>) -> Vec<u8> {
    to_v4(packet, &ALONE)
}

fn to_v4(mut packet: Vec<u8>, destination: &[u8]) -> Vec<u8> {
    packet[16..20].copy_from_slice(destination);
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0x0f) * 4;
    let sum = checksum::of(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn to_client_v6(mut packet: Vec<u8>) -> Vec<u8> {
    packet[24..40].copy_from_slice(&INSIDE[1]);
    packet
}

/// Frames and what has to become of them, by the standards and not by the decoder.
fn fixtures() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let v4 = || ipv4(0, 17, 0, &udp(PORT, 32));
    let v6 = || ipv6(17, &udp(PORT, 32));
    let changed = |mut frame: Vec<u8>, at: usize, octet: u8| {
        frame[at] = octet;
        frame
    };
    let cut = |mut frame: Vec<u8>, length: usize| {
        frame.truncate(length);
        frame
    };
    let mut padded = ethernet(&[0x0800], &v4());
    padded.extend_from_slice(&[0; 18]);
    vec![
        ("IPv4", ethernet(&[0x0800], &v4()), Verdict::Steered),
        ("IPv4 and padding", padded, Verdict::Steered),
        ("IPv4 without payload", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 0))), Verdict::Steered),
        ("IPv4 with Don't Fragment", ethernet(&[0x0800], &ipv4(0x4000, 17, 0, &udp(PORT, 4))), Verdict::Steered),
        ("IPv4 with options", ethernet(&[0x0800], &ipv4(0, 17, 4, &udp(PORT, 32))), Verdict::Steered),
        ("IPv4 with most options", ethernet(&[0x0800], &ipv4(0, 17, 40, &udp(PORT, 32))), Verdict::Steered),
        ("IPv6", ethernet(&[0x86dd], &v6()), Verdict::Steered),
        ("802.1Q, IPv4", ethernet(&[0x8100, 0x0800], &v4()), Verdict::Steered),
        ("802.1Q, IPv6", ethernet(&[0x8100, 0x86dd], &v6()), Verdict::Steered),
        ("QinQ, IPv4", ethernet(&[0x88a8, 0x8100, 0x0800], &v4()), Verdict::Steered),
        ("QinQ, IPv6", ethernet(&[0x88a8, 0x8100, 0x86dd], &v6()), Verdict::Steered),
        ("three tags", ethernet(&[0x88a8, 0x8100, 0x8100, 0x0800], &v4()), Verdict::VlanDepth),
        ("broadcast MAC", changed(ethernet(&[0x0800], &v4()), 0, 0xff), Verdict::GroupAddress),
        ("ARP", ethernet(&[0x0806], &[0; 28]), Verdict::NotIp),
        ("header only", ethernet(&[0x0800], &[]), Verdict::Truncated),
        ("cut in the IPv4 header", cut(ethernet(&[0x0800], &v4()), 33), Verdict::Truncated),
        ("cut in the payload", cut(ethernet(&[0x0800], &v4()), 60), Verdict::Truncated),
        ("cut in the IPv6 header", cut(ethernet(&[0x86dd], &v6()), 53), Verdict::Truncated),
        ("version 5", changed(ethernet(&[0x0800], &v4()), 14, 0x55), Verdict::MalformedIp),
        ("IHL 4", changed(ethernet(&[0x0800], &v4()), 14, 0x44), Verdict::MalformedIp),
        ("IHL 0", changed(ethernet(&[0x0800], &v4()), 14, 0x40), Verdict::MalformedIp),
        ("IPv4 under the EtherType of IPv6", ethernet(&[0x86dd], &v4()), Verdict::MalformedIp),
        ("wrong IPv4 checksum", changed(ethernet(&[0x0800], &v4()), 22, 65), Verdict::IpChecksum),
        ("wrong option", changed(ethernet(&[0x0800], &ipv4(0, 17, 40, &udp(PORT, 32))), 73, 9), Verdict::IpChecksum),
        ("first fragment", ethernet(&[0x0800], &ipv4(0x2000, 17, 0, &udp(PORT, 32))), Verdict::Fragment),
        ("last fragment", ethernet(&[0x0800], &ipv4(0x00b9, 17, 0, &udp(PORT, 32))), Verdict::Fragment),
        ("IPv6 fragment", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 1, 0, 0])), Verdict::Fragment),
        ("ICMP", ethernet(&[0x0800], &ipv4(0, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1])), Verdict::NotUdp),
        ("IPv6 hop-by-hop", ethernet(&[0x86dd], &ipv6(0, &[17, 0, 1, 4, 0, 0, 0, 0])), Verdict::NotUdp),
        ("half a UDP header", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 0)[..4])), Verdict::Truncated),
        ("UDP length 7", changed(ethernet(&[0x0800], &v4()), 39, 7), Verdict::MalformedUdp),
        ("UDP longer than IP", changed(ethernet(&[0x0800], &v4()), 39, 41), Verdict::MalformedUdp),
        (
            "source port 0",
            {
                let mut datagram = udp(PORT, 32);
                datagram[..2].fill(0);
                ethernet(&[0x0800], &ipv4(0, 17, 0, &datagram))
            },
            Verdict::MalformedUdp,
        ),
        ("TCP for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), Verdict::Steered),
        ("UDP for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0, 17, 0, &udp(PORT, 8)))), Verdict::Steered),
        ("a fragment for a client", ethernet(&[0x0800], &to_client_v4(ipv4(0x00b9, 17, 0, &[0; 9]))), Verdict::Steered),
        ("options, for a client", ethernet(&[0x8100, 0x0800], &to_client_v4(ipv4(0, 1, 8, &[0; 8]))), Verdict::Steered),
        ("IPv6 for a client", ethernet(&[0x86dd], &to_client_v6(ipv6(58, &[128, 0, 0, 0]))), Verdict::Steered),
        ("IPv6 fragment for a client", ethernet(&[0x86dd], &to_client_v6(ipv6(44, &[0; 16]))), Verdict::Steered),
        (
            "for a client, but sent to all",
            changed(ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), 0, 0x01),
            Verdict::GroupAddress,
        ),
        (
            "for a client, but damaged",
            changed(ethernet(&[0x0800], &to_client_v4(ipv4(0, 6, 0, &[0; 20]))), 22, 65),
            Verdict::IpChecksum,
        ),
        ("TCP for the NAT", ethernet(&[0x0800], &ipv4(0, 6, 0, &tcp(80, 20_000))), Verdict::Steered),
        ("UDP for the NAT", ethernet(&[0x0800], &ipv4(0, 17, 8, &udp(29_999, 5))), Verdict::Steered),
        ("behind the NAT's ports", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(30_000, 5))), Verdict::NotService),
        ("before the NAT's ports", ethernet(&[0x86dd], &ipv6(6, &tcp(80, 19_999))), Verdict::NotUdp),
        ("IPv6 for the NAT", ethernet(&[0x86dd], &ipv6(6, &tcp(80, 20_001))), Verdict::Steered),
        ("a fragment for the NAT", ethernet(&[0x0800], &ipv4(0x2000, 17, 0, &udp(20_000, 8))), Verdict::Steered),
        ("the next fragment", ethernet(&[0x0800], &ipv4(0x2002, 17, 0, &[0; 8])), Verdict::Steered),
        ("the last fragment", ethernet(&[0x0800], &ipv4(0x0003, 17, 4, &[0; 3])), Verdict::Steered),
        ("one of another protocol", ethernet(&[0x0800], &ipv4(0x0003, 6, 4, &[0; 3])), Verdict::Fragment),
        ("the first one in IPv6", ethernet(&[0x86dd], &ipv6(44, &first_v6(6, &tcp(80, 20_000)))), Verdict::Steered),
        ("the last one in IPv6", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 24, 0, 0, 0, 2, 9])), Verdict::Steered),
        ("a fragment of another", ethernet(&[0x86dd], &ipv6(44, &[17, 0, 0, 24, 0, 0, 0, 3, 9])), Verdict::Fragment),
        ("a fragment that comes early", ethernet(&[0x0800], &alone(ipv4(0x0003, 17, 0, &[0; 3]))), Verdict::Steered),
        ("a fragment for the host", ethernet(&[0x0800], &alone(ipv4(0x2000, 17, 0, &udp(53, 8)))), Verdict::Fragment),
        ("the fragment behind it", ethernet(&[0x0800], &alone(ipv4(0x0003, 17, 0, &[0; 3]))), Verdict::Fragment),
        ("a query to the NAT alone", ethernet(&[0x0800], &alone(ipv4(0, 1, 0, &QUERY))), Verdict::NotUdp),
        ("a query to the NAT", ethernet(&[0x0800], &ipv4(0, 1, 0, &[8, 0, 0, 0, 0x4e, 0x20])), Verdict::NotUdp),
        ("an answer to the NAT", ethernet(&[0x0800], &ipv4(0, 1, 0, &[0, 0, 0, 0, 0x4e, 0x20])), Verdict::Steered),
        ("an answer to another", ethernet(&[0x0800], &ipv4(0, 1, 0, &[0, 0, 0, 0, 0x4e, 0x1f])), Verdict::NotUdp),
        ("an ICMPv6 answer", ethernet(&[0x86dd], &ipv6(58, &[129, 0, 0, 0, 0x4e, 0x20])), Verdict::Steered),
        ("time exceeded", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(11, 17, &udp(80, 0)))), Verdict::NotUdp),
        (
            "time exceeded, NAT",
            ethernet(&[0x0800], &ipv4(0, 1, 4, &error_v4(11, 17, &tcp(25_000, 80)))),
            Verdict::Steered,
        ),
        ("unreachable, a query", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(3, 1, &QUERY))), Verdict::Steered),
        ("redirect", ethernet(&[0x0800], &ipv4(0, 1, 0, &error_v4(5, 17, &tcp(25_000, 80)))), Verdict::NotUdp),
        ("too big, NAT", ethernet(&[0x86dd], &ipv6(58, &error_v6(2, 6, &tcp(25_000, 80)))), Verdict::Steered),
        ("too big, another", ethernet(&[0x86dd], &ipv6(58, &error_v6(2, 6, &tcp(2_500, 80)))), Verdict::NotUdp),
        (
            "cut in what is quoted",
            ethernet(&[0x0800], &ipv4(0, 1, 0, &[11, 0, 0, 0, 0, 0, 0, 0, 0x45])),
            Verdict::NotUdp,
        ),
        ("another port", ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT + 1, 32))), Verdict::NotService),
        ("another IPv6 address", changed(ethernet(&[0x86dd], &v6()), 53, 0x54), Verdict::NotService),
    ]
}

#[test]
fn every_fixture_gets_its_verdict_from_both_halves() {
    if !permitted("decoder fixtures") {
        return;
    }
    with_kernel(|kernel| {
        for (name, frame, verdict) in fixtures() {
            assert_eq!(kernel.expected(&frame), verdict, "{name}, user half");
            let run = kernel.program.test_run(&frame).unwrap();
            assert_eq!(run.verdict, verdict, "{name}, XDP program");
            let action = if verdict == Verdict::Steered { XDP_REDIRECT } else { XDP_PASS };
            assert_eq!(run.action, action, "{name}");
        }
    });
}

/// What was logged.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Writes to [`LOG`].
struct Log;

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_packet_without_a_socket_goes_to_the_kernel_and_the_first_is_logged() {
    if !permitted("no socket") {
        return;
    }
    tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init();
    with_kernel(|kernel| {
        let frame = ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 32)));
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        kernel.program.set_slot(lo, 4).unwrap();
        let run = kernel.program.test_run(&frame).unwrap();
        assert_eq!((run.action, run.verdict), (XDP_PASS, Verdict::NoSocket), "a slot without a socket");
        kernel.program.flush_log();
        let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
        assert!(log.contains(&format!("no AF_XDP socket for queue 0 of interface index {lo}")), "{log}");
        kernel.program.set_slot(lo, SLOT).unwrap();
        assert_eq!(kernel.program.test_run(&frame).unwrap().verdict, Verdict::Steered);
    });
}

#[test]
fn a_worker_that_is_behind_gets_no_more_of_a_flood_and_all_of_a_quiet_sender() {
    if !permitted("overload") {
        return;
    }
    with_kernel(|kernel| {
        let flood = ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 32)));
        let quiet = ethernet(&[0x86dd], &ipv6(17, &udp(PORT, 32)));
        let run = |kernel: &Kernel, frame: &[u8]| {
            let run = kernel.program.test_run(frame).unwrap();
            (run.action, run.verdict)
        };
        let (steered, shed) = ((XDP_REDIRECT, Verdict::Steered), (XDP_DROP, Verdict::Overload));
        kernel.drain();
        // Half of what may wait, which is less than the RX ring of 4096 takes.
        let admitted = (0..10_000).take_while(|_| run(kernel, &flood) == steered).count();
        assert!((1024..2048).contains(&admitted), "{admitted}");
        assert_eq!(run(kernel, &flood), shed);
        for _ in 0..100 {
            assert_eq!(run(kernel, &quiet), steered);
        }
        kernel.drain();
        assert_eq!(run(kernel, &flood), steered, "what waited was taken");
    });
}

#[test]
fn services_come_and_go() {
    if !permitted("services") {
        return;
    }
    with_kernel(|kernel| {
        let v4 = ethernet(&[0x0800], &ipv4(0, 17, 0, &udp(PORT, 32)));
        let v6 = ethernet(&[0x86dd], &ipv6(17, &udp(PORT, 32)));
        let verdicts = |kernel: &Kernel| [&v4, &v6].map(|frame| kernel.program.test_run(frame).unwrap().verdict);
        assert_eq!(verdicts(kernel), [Verdict::Steered, Verdict::Steered]);
        kernel.program.steer(&Steered::services([ServiceKey::new(V6, PORT)])).unwrap();
        assert_eq!(verdicts(kernel), [Verdict::NotService, Verdict::Steered]);
        kernel.program.steer(&Steered::services([ServiceKey::new(mapped(V4), PORT), ServiceKey::new(V6, 1)])).unwrap();
        assert_eq!(verdicts(kernel), [Verdict::Steered, Verdict::NotService]);
        kernel.program.steer(&Steered::default()).unwrap();
        assert_eq!(verdicts(kernel), [Verdict::NotService, Verdict::NotService]);
    });
}

#[test]
fn prefixes_of_clients_come_and_go_and_the_rest_of_them_stays() {
    if !permitted("prefixes of clients") {
        return;
    }
    with_kernel(|kernel| {
        let to = |address: [u8; 4]| {
            let mut packet = ipv4(0, 6, 0, &[0; 20]);
            packet[16..20].copy_from_slice(&address);
            packet[10..12].fill(0);
            let sum = checksum::of(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            ethernet(&[0x0800], &packet)
        };
        let mut steer = |prefixes: &[([u8; 4], u8)]| {
            let prefix = |(address, length): &([u8; 4], u8)| Inside::prefix((mapped(*address), 96 + length));
            let inside = prefixes.iter().map(prefix).collect();
            kernel.program.steer(&Steered { inside, ..Steered::default() }).unwrap();
            [[10, 9, 0, 1], [10, 9, 1, 1], [10, 10, 0, 1]]
                .map(|to_address| kernel.program.test_run(&to(to_address)).unwrap().verdict == Verdict::Steered)
        };
        assert_eq!(steer(&[([10, 9, 0, 0], 16)]), [true, true, false]);
        assert_eq!(steer(&[([10, 9, 0, 0], 24), ([10, 10, 0, 1], 32)]), [true, false, true]);
        assert_eq!(steer(&[([10, 10, 0, 0], 15)]), [false, false, true]);
        assert_eq!(steer(&[]), [false; 3]);
    });
}

/// xorshift64*: the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}

/// Writes a frame: random octets, or a fixture with damage, often repaired enough to get past the checksum.
fn mutate(random: &mut Random, fixtures: &[Vec<u8>], frame: &mut Vec<u8>) {
    frame.clear();
    if random.below(8) == 0 {
        let length = SHORTEST + random.below(100);
        frame.extend((0..length).map(|_| random.next() as u8));
        return;
    }
    frame.extend_from_slice(&fixtures[random.below(fixtures.len())]);
    for _ in 0..random.below(4) {
        let at = random.below(frame.len());
        // Small values hit lengths and types that matter; others anything.
        frame[at] = if random.below(2) == 0 { random.below(70) as u8 } else { random.next() as u8 };
    }
    match random.below(8) {
        0 => frame.truncate(SHORTEST + random.below(frame.len() - SHORTEST + 1)),
        1 => frame.resize(frame.len() + random.below(64), 0),
        _ => {}
    }
    let header = frame.get(14).map_or(0, |octet| usize::from(octet & 0x0f) * 4);
    if random.below(2) == 0 && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].fill(0);
        let sum = checksum::of(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn a_million_random_and_damaged_frames_get_the_same_verdict_from_both_halves() {
    if !permitted("decoder differential") {
        return;
    }
    const CHUNK: usize = 500;
    const CHUNKS: usize = 2_000;
    with_kernel(|kernel| {
        let originals: Vec<Vec<u8>> = fixtures().into_iter().map(|(_, frame, _)| frame).collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut frames = vec![Vec::new(); CHUNK];
        let mut seen = [0u64; Verdict::COUNT];
        let mut counted = kernel.program.verdicts().unwrap();
        for _ in 0..CHUNKS {
            kernel.drain();
            let mut expected = counted;
            for frame in &mut frames {
                mutate(&mut random, &originals, frame);
                let verdict = kernel.expected(frame);
                expected[verdict as usize] += 1;
                seen[verdict as usize] += 1;
                let action = if verdict == Verdict::Steered { XDP_REDIRECT } else { XDP_PASS };
                assert_eq!(kernel.program.test_action(frame).unwrap(), action, "{verdict:?}: {frame:02x?}");
            }
            counted = kernel.program.verdicts().unwrap();
            if counted != expected {
                for frame in &frames {
                    let verdict = kernel.program.test_run(frame).unwrap().verdict;
                    assert_eq!(verdict, kernel.expected(frame), "{frame:02x?}");
                }
                panic!("the counters differ, but no frame of the chunk does: {expected:?} {counted:?}");
            }
        }
        for verdict in fixtures().into_iter().map(|(_, _, verdict)| verdict) {
            assert!(seen[verdict as usize] > 100, "{verdict:?} was met {} times only", seen[verdict as usize]);
        }
    });
}
