//! The mirror of the kernel's routes and neighbours says what the kernel says.

mod namespace;

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anytun_common::wire::mapped;
use anytun_xdp::kernel::{Link, Mirror, Mirrored};
use anytun_xdp::table::ways::{Way, Wayless};
use namespace::{Namespace, permitted, veth};
use serde_json::Value;

/// How long something may take that the kernel has been told.
const PATIENCE: Duration = Duration::from_secs(10);
const NOWHERE: [u8; 16] = [0; 16];

/// A node with two interfaces, and what they are wired to.
struct Ground {
    node: Namespace,
    world: Namespace,
}

impl Ground {
    fn new() -> Self {
        let (node, world) = (Namespace::new(), Namespace::new());
        for (index, ours, theirs) in [(1, "p0", "q0"), (2, "p1", "q1")] {
            veth(&node, ours, &world, theirs);
            node.ip(&["addr", "add", &format!("10.{index}.0.254/24"), "dev", ours]);
            world.ip(&["addr", "add", &format!("10.{index}.0.1/24"), "dev", theirs]);
        }
        Self { node, world }
    }

    fn mirror(&self) -> Mirror {
        self.node.enter(|| Mirror::open(&["p0", "p1"].map(|name| Link::find(name).unwrap())).unwrap())
    }

    /// Runs `ip` in the node with many lines at once.
    fn batch(&self, lines: &str) {
        let mut ip = Command::new("ip");
        let mut ip = ip.args(["-n", self.node.name(), "-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }

    /// What the kernel says of a destination: the interface and the gateway.
    fn asked(&self, to: Ipv4Addr) -> Option<(String, Option<String>)> {
        let words = ["-n", self.node.name(), "-j", "route", "get", &to.to_string()];
        let output = Command::new("ip").args(words).output().unwrap();
        let routes: Value = serde_json::from_slice(&output.stdout).ok()?;
        let text = |key: &str| routes[0][key].as_str().map(str::to_owned);
        (text("type").is_none()).then_some(())?;
        Some((text("dev")?, text("gateway")))
    }
}

/// A mirror at work.
struct AtWork {
    shown: Mirrored,
    stop: Arc<AtomicBool>,
    waker: anytun_xdp::kernel::Waker,
    thread: Option<thread::JoinHandle<()>>,
}

impl AtWork {
    fn new(mirror: Mirror) -> Self {
        let (shown, stop, waker) = (mirror.shown(), Arc::new(AtomicBool::new(false)), mirror.waker());
        let own = stop.clone();
        Self { shown, stop, waker, thread: Some(thread::spawn(move || mirror.run(&own))) }
    }

    fn find(&self, to: [u8; 4]) -> Result<Way, Wayless> {
        self.shown.ways.load().find(&mapped(to), &NOWHERE, 0)
    }

    /// Waits until the way to `to` is as `wanted`. Neighbours that are missed are asked for, as workers do.
    fn until(&self, to: [u8; 4], wanted: impl Fn(&Result<Way, Wayless>) -> bool) -> Result<Way, Wayless> {
        let start = Instant::now();
        loop {
            let found = self.find(to);
            if wanted(&found) {
                return found;
            }
            if let Err(Wayless::Neighbour(next)) = found {
                self.shown.asks.ask(next);
            }
            assert!(start.elapsed() < PATIENCE, "still {found:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the mirror panicked");
    }
}

#[test]
fn random_destinations_have_the_way_that_the_kernel_gives_them() {
    if !permitted("routes") {
        return;
    }
    let ground = Ground::new();
    let mut lines = String::new();
    for (network, device) in [(1, "p0"), (2, "p1")] {
        for host in 1..=9 {
            lines += &format!("neigh add 10.{network}.0.{host} lladdr 02:00:00:00:0{network}:0{host} dev {device}\n");
        }
    }
    lines += "route add default via 10.1.0.1 metric 100\n\
              route add default via 10.2.0.2 metric 50\n\
              route add 20.0.0.0/8 via 10.1.0.3\n\
              route add 20.128.0.0/9 via 10.2.0.3\n\
              route add 20.192.0.0/10 via 10.1.0.4\n\
              route add blackhole 30.0.0.0/8\n\
              route add unreachable 31.0.0.0/8\n\
              route add prohibit 32.0.0.0/8\n\
              route add 32.64.0.0/10 via 10.2.0.5\n\
              route add 40.0.0.0/8 via 10.1.0.6 table 77\n\
              route add throw 40.1.0.0/16 table 77\n\
              rule add to 40.0.0.0/7 lookup 77 priority 1000\n\
              rule add to 50.0.0.0/8 prohibit priority 1001\n\
              route add 60.0.0.0/8 nexthop via 10.1.0.7 weight 1 nexthop via 10.2.0.8 weight 2\n\
              nexthop add id 9 via 10.2.0.9 dev p1\n\
              route add 61.0.0.0/8 nhid 9\n";
    ground.batch(&lines);
    let shown = ground.mirror().shown();
    let ways = shown.ways.load();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut found = 0;
    for turn in 0..300u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [_, b, c, d, ..] = random.to_be_bytes();
        let first = [20, 20, 30, 31, 32, 40, 41, 50, 60, 61, 70, 9][turn as usize % 12];
        let to = [first, b, c, d];
        let answer = ways.find(&mapped(to), &NOWHERE, random as u32);
        let kernel = ground.asked(to.into());
        match (&answer, &kernel) {
            (Ok(way), Some((device, gateway))) => {
                found += 1;
                let [.., network, host] = *way.link.as_bytes().first_chunk::<6>().unwrap();
                let said = (["p0", "p1"][usize::from(way.slot)], format!("10.{network}.0.{host}"));
                let one_of = [("p0", "10.1.0.7".to_owned()), ("p1", "10.2.0.8".to_owned())];
                let gateway = gateway.clone().unwrap();
                match first {
                    60 => assert!(one_of.contains(&said), "{to:?}: {said:?}"),
                    _ => assert_eq!(said, (device.as_str(), gateway), "{to:?}"),
                }
            }
            (Err(Wayless::Unreachable | Wayless::Blackhole | Wayless::Prohibited), None) => {}
            _ => panic!("{to:?}: the mirror says {answer:?}, the kernel {kernel:?}"),
        }
    }
    assert!(found > 150, "{found}");
    assert_eq!(ways.find(&mapped([10, 1, 0, 254]), &NOWHERE, 0), Err(Wayless::Kernel), "the node itself");
    assert_eq!(ways.find(&mapped([10, 1, 0, 255]), &NOWHERE, 0), Err(Wayless::Kernel), "a broadcast");
}

#[test]
fn neighbours_are_found_when_asked_for_and_followed() {
    if !permitted("neighbours") {
        return;
    }
    let ground = Ground::new();
    let work = AtWork::new(ground.mirror());
    let to = [10, 1, 0, 1];
    assert!(matches!(work.find(to), Err(Wayless::Neighbour(_))), "nobody spoke yet");
    let first = work.until(to, Result::is_ok).unwrap();
    ground.world.ip(&["link", "set", "q0", "address", "02:aa:00:00:00:07"]);
    // As a router does that takes over: it says where it is.
    ground.world.enter(|| {
        let announced = Command::new("ip").args(["neigh", "flush", "dev", "q0"]).status().unwrap();
        assert!(announced.success());
        let socket = std::net::UdpSocket::bind("10.1.0.1:0").unwrap();
        socket.send_to(b"here", "10.1.0.254:9").unwrap();
    });
    let moved = work.until(to, |found| found.is_ok_and(|way| way.link != first.link)).unwrap();
    assert_eq!(moved.link.as_bytes()[..6], [2, 0xaa, 0, 0, 0, 7]);
}

#[test]
fn routes_and_interfaces_are_followed() {
    if !permitted("changes") {
        return;
    }
    let ground = Ground::new();
    let work = AtWork::new(ground.mirror());
    let to = [192, 0, 2, 1];
    assert_eq!(work.find(to), Err(Wayless::Unreachable));
    ground.node.ip(&["route", "add", "192.0.2.0/24", "via", "10.1.0.1"]);
    assert_eq!(work.until(to, Result::is_ok).map(|way| (way.slot, way.mtu)), Ok((0, 1500)));
    ground.node.ip(&["route", "replace", "192.0.2.0/24", "via", "10.2.0.1", "mtu", "1280"]);
    assert_eq!(work.until(to, |found| found.is_ok_and(|way| way.slot == 1)).map(|way| way.mtu), Ok(1280));
    ground.node.ip(&["link", "set", "p1", "down"]);
    work.until(to, |found| *found == Err(Wayless::Unreachable)).unwrap_err();
    ground.node.ip(&["link", "set", "p1", "up"]);
    ground.node.ip(&["route", "add", "192.0.2.0/24", "via", "10.2.0.1"]);
    assert_eq!(work.until(to, Result::is_ok).map(|way| way.slot), Ok(1));
    ground.node.ip(&["link", "set", "p1", "mtu", "1400"]);
    work.until(to, |found| found.is_ok_and(|way| way.mtu == 1400)).unwrap();
}

#[test]
fn lost_messages_lose_nothing() {
    if !permitted("lost messages") {
        return;
    }
    let ground = Ground::new();
    let mirror = ground.mirror();
    // While nobody reads, what the kernel has to tell of 20,000 routes does not fit into the socket.
    let line = |n: u32| format!("route add 100.{}.{}.0/24 via 10.1.0.1\n", n >> 8, n & 255);
    ground.batch(&(0..20_000).map(line).collect::<String>());
    let work = AtWork::new(mirror);
    for n in [0u32, 777, 19_999] {
        work.until([100, (n >> 8) as u8, n as u8, 1], Result::is_ok).unwrap();
    }
    assert!(work.shown.counters.resynchronisations.load(Ordering::Relaxed) > 0);
    assert!(work.shown.ways.load().routes.len() >= 20_000);
}
