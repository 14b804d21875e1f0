//! The two halves never disagree: the loaded XDP program and the user half decide alike about the same octets.

mod frames;
#[path = "../namespace/mod.rs"]
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
use frames::{ethernet, fixtures, ipv4, ipv6, udp};
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

/// The first few are looked up elsewhere than the others.
#[test]
fn every_service_is_found_however_many_there_are() {
    if !permitted("many services") {
        return;
    }
    with_kernel(|kernel| {
        let to = |port: u16| ethernet(&[0x86dd], &ipv6(17, &udp(port, 32)));
        let ports: Vec<u16> = (PORT..PORT + 12).collect();
        for count in [0, 1, 4, 5, 12, 5, 4, 3, 0] {
            // Those that come last stay longest.
            let wanted = &ports[ports.len() - count..];
            let keys = wanted.iter().map(|port| ServiceKey::new(V6, *port));
            kernel.program.steer(&Steered::services(keys)).unwrap();
            for port in &ports {
                let verdict = if wanted.contains(port) { Verdict::Steered } else { Verdict::NotService };
                assert_eq!(kernel.program.test_run(&to(*port)).unwrap().verdict, verdict, "{port} of {wanted:?}");
            }
            let mut zeros = to(0);
            zeros[14 + 24..14 + 40].fill(0);
            assert_eq!(kernel.program.test_run(&zeros).unwrap().verdict, Verdict::NotService, "of {wanted:?}");
        }
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
