//! AF_XDP sockets over veth: what goes in comes out, and every frame of the UMEM stays accounted for.

mod namespace;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anytun_common::map::ServiceKey;
use anytun_common::verdict::Verdict;
use anytun_common::wire::{checksum, mapped};
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::{HostError, Link, PortSpec, Program, Steered, Waker, Xsk};
use anytun_xdp::worker::io::PacketIo;
use namespace::{Namespace, Wire, permitted, veth};

const PATIENCE: Duration = Duration::from_secs(10);
const SERVICE: [u8; 4] = [192, 0, 2, 53];
const PORT: u16 = 4444;

/// A UDP datagram for the service with a number in it; `length` octets of payload.
fn datagram(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    let total = (28 + length) as u16;
    let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 7, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[16..20].copy_from_slice(&SERVICE);
    let sum = checksum::of(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&[0x30, 0x39]);
    frame.extend_from_slice(&PORT.to_be_bytes());
    frame.extend_from_slice(&(8 + length as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend((0..length).map(|at| (number as usize * 31 + at) as u8));
    frame[42..46].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A node with two ports, in a namespace, and the other ends in a second one.
struct Lab {
    node: Namespace,
    world: Namespace,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { node: Namespace::new(), world: Namespace::new() };
        for (ours, theirs) in [("p0", "q0"), ("p1", "q1")] {
            veth(&lab.node, ours, &lab.world, theirs);
        }
        lab
    }
}

fn open(program: &mut Program, mode: XdpMode) -> Xsk {
    let links = [Link::find("p0").unwrap(), Link::find("p1").unwrap()];
    program.steer(&Steered::services([ServiceKey::new(mapped(SERVICE), PORT)])).unwrap();
    let ports: Vec<_> = links.iter().map(|link| Some(PortSpec { link: link.clone(), queue: 0, mode })).collect();
    let mut xsk = Xsk::open(&ports).unwrap();
    for (slot, link) in links.iter().enumerate() {
        program.set_slot(link.ifindex, slot as u32).unwrap();
    }
    program.set_sockets(&mut xsk).unwrap();
    for link in &links {
        program.attach(link, mode).unwrap();
    }
    xsk
}

/// Sends what port 0 receives out of port 1 until `stop`, and checks the ledger all the time.
fn relay(xsk: &mut Xsk, stop: &AtomicBool, waiting: &AtomicUsize) {
    let mut frames = Vec::with_capacity(64);
    let mut stopped = None;
    loop {
        let room = 64 - frames.len();
        let count = xsk.receive(0, &mut frames, room);
        assert!(count <= room, "no more than asked for");
        xsk.transmit(1, &mut frames);
        xsk.reclaim();
        xsk.kick();
        let ledger = xsk.ledger();
        assert!(ledger.holds(), "{ledger:?}");
        assert_eq!(ledger.received, frames.len() as u64);
        waiting.store(ledger.tx as usize, Ordering::SeqCst);
        if stop.load(Ordering::SeqCst) {
            if ledger.tx == 0 && frames.is_empty() {
                break;
            }
            let stopped = stopped.get_or_insert_with(Instant::now);
            assert!(stopped.elapsed() < PATIENCE, "packets are not completed: {ledger:?}");
        }
        if count == 0 {
            xsk.wait(Duration::from_millis(100));
        }
    }
}

/// Runs a relay in the node's namespace, and `world` in the other one.
fn with_relay(lab: &Lab, mode: XdpMode, world: impl FnOnce(&AtomicUsize) + Send) {
    let stop = AtomicBool::new(false);
    let waiting = AtomicUsize::new(0);
    let (ready, is_ready) = mpsc::channel::<Waker>();
    thread::scope(|scope| {
        let node = scope.spawn(|| {
            lab.node.enter(|| {
                let mut program = Program::load().unwrap();
                let mut xsk = open(&mut program, mode);
                ready.send(xsk.waker()).unwrap();
                relay(&mut xsk, &stop, &waiting);
                let ledger = xsk.ledger();
                assert_eq!((ledger.received, ledger.tx), (0, 0), "{ledger:?}");
                let statistics = xsk.statistics(0).unwrap().unwrap();
                assert_eq!((statistics.rx_dropped, statistics.rx_invalid_descs), (0, 0), "{statistics:?}");
                assert_eq!(xsk.statistics(1).unwrap().unwrap().tx_invalid_descs, 0);
                program.verdicts().unwrap()[Verdict::Steered as usize]
            })
        });
        let waker = is_ready.recv_timeout(PATIENCE).expect("the relay starts");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.world.enter(|| world(&waiting))));
        stop.store(true, Ordering::SeqCst);
        waker.wake();
        let steered = node.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(steered > 0);
    });
}

/// Sends `count` packets in windows, and awaits every one, byte for byte.
fn exchange(from: &Wire, to: &Wire, count: u32, length: usize) {
    const WINDOW: u32 = 128;
    for first in (0..count).step_by(WINDOW as usize) {
        let window = first..(first + WINDOW).min(count);
        for number in window.clone() {
            from.send(&datagram(number, length));
        }
        for number in window {
            let frame = to.receive(PATIENCE).unwrap_or_else(|| panic!("packet {number} of {count} was lost"));
            assert_eq!(frame, datagram(number, length), "packet {number}");
        }
    }
}

#[test]
fn a_hundred_thousand_packets_cross_native_sockets_unchanged() {
    if !permitted("xsk native") {
        return;
    }
    let lab = Lab::new();
    with_relay(&lab, XdpMode::Auto, |_| {
        let (from, to) = (Wire::new("q0"), Wire::new("q1"));
        exchange(&from, &to, 100_000, 64);
        exchange(&from, &to, 1_000, 1472);
    });
}

#[test]
fn packets_cross_generic_sockets_unchanged() {
    if !permitted("xsk generic") {
        return;
    }
    let lab = Lab::new();
    with_relay(&lab, XdpMode::Generic, |_| {
        exchange(&Wire::new("q0"), &Wire::new("q1"), 20_000, 200);
    });
}

#[test]
fn packets_wait_for_an_interface_that_is_down_and_go_when_it_is_up() {
    if !permitted("xsk down and up") {
        return;
    }
    let lab = Lab::new();
    with_relay(&lab, XdpMode::Native, |waiting| {
        let (from, to) = (Wire::new("q0"), Wire::new("q1"));
        exchange(&from, &to, 128, 64);
        for _ in 0..3 {
            lab.node.ip(&["link", "set", "p1", "down"]);
            // As many as the TX ring holds, in bursts that veth takes, and some more, which stay with the worker.
            for first in (0..2048).step_by(128) {
                (first..first + 128).for_each(|number| from.send(&datagram(number, 64)));
                let patience = Instant::now() + PATIENCE;
                while waiting.load(Ordering::SeqCst) < first as usize + 128 {
                    assert!(Instant::now() < patience, "the packets do not reach the TX ring");
                    thread::yield_now();
                }
            }
            (2048..2248).for_each(|number| from.send(&datagram(number, 64)));
            lab.node.ip(&["link", "set", "p1", "up"]);
            for number in 0..2248 {
                assert_eq!(to.receive(PATIENCE), Some(datagram(number, 64)), "packet {number}");
            }
            lab.node.ip(&["link", "set", "p0", "down"]);
            lab.node.ip(&["link", "set", "p0", "up"]);
            exchange(&from, &to, 256, 64);
        }
    });
}

#[test]
fn sockets_can_be_opened_again_at_once() {
    if !permitted("xsk reopen") {
        return;
    }
    let lab = Lab::new();
    for _ in 0..3 {
        with_relay(&lab, XdpMode::Native, |_| exchange(&Wire::new("q0"), &Wire::new("q1"), 256, 64));
    }
}

#[test]
fn frames_keep_their_buffer_and_their_owner() {
    if !permitted("xsk frames") {
        return;
    }
    let lab = Lab::new();
    lab.node.enter(|| {
        let mut program = Program::load().unwrap();
        let mut xsk = open(&mut program, XdpMode::Native);
        let room = xsk.port_report(0).unwrap().frame_room as usize;
        lab.world.enter(|| Wire::new("q0").send(&datagram(7, 100)));
        let mut frames = Vec::new();
        while xsk.receive(0, &mut frames, 64) == 0 {
            xsk.wait(PATIENCE);
        }
        let mut frame = frames.pop().unwrap();
        assert_eq!(xsk.packet(&frame), datagram(7, 100));
        assert_eq!(xsk.buffer(&mut frame).len(), room);
        xsk.buffer(&mut frame)[42..46].copy_from_slice(&8u32.to_be_bytes());
        xsk.set_length(&mut frame, 60);
        assert_eq!(xsk.packet(&frame)[42..], [&8u32.to_be_bytes()[..], &datagram(7, 100)[46..60]].concat());
        xsk.set_length(&mut frame, room + 1);
        assert_eq!(xsk.packet(&frame).len(), room, "a packet never reaches beyond its frame");

        let mut other = Xsk::open(&[]).unwrap();
        assert!(other.packet(&frame).is_empty() && other.buffer(&mut frame).is_empty());
        other.set_length(&mut frame, 1);
        assert_eq!(xsk.packet(&frame).len(), room);
        assert!(xsk.ledger().holds() && xsk.ledger().received == 1);
        xsk.recycle(frame);
        assert!(xsk.ledger().holds() && xsk.ledger().received == 0);
        other.reclaim();
        assert!(other.ledger().holds());
    });
}

#[test]
fn each_queue_has_a_worker_of_its_own() {
    if !permitted("xsk queues") {
        return;
    }
    let lab = Lab { node: Namespace::new(), world: Namespace::new() };
    let queues = ["numrxqueues", "2", "numtxqueues", "2"];
    let peer = ["type", "veth", "peer", "name", "q0", "netns", lab.world.name()];
    lab.node.ip(&[&["link", "add", "p0"], &queues[..], &peer, &queues].concat());
    lab.node.ip(&["link", "set", "p0", "up"]);
    lab.world.ip(&["link", "set", "q0", "up"]);
    lab.node.enter(|| {
        let link = Link::find("p0").unwrap();
        assert_eq!(link.queues, 2);
        let mut program = Program::load().unwrap();
        program.steer(&Steered::services([ServiceKey::new(mapped(SERVICE), PORT)])).unwrap();
        program.set_slot(link.ifindex, 0).unwrap();
        let port = |queue| Some(PortSpec { link: link.clone(), queue, mode: XdpMode::Native });
        let mut workers: Vec<Xsk> = (0..2).map(|queue| Xsk::open(&[port(queue)]).unwrap()).collect();
        workers.iter_mut().for_each(|xsk| program.set_sockets(xsk).unwrap());
        program.attach(&link, XdpMode::Native).unwrap();
        lab.world.enter(|| {
            let wire = Wire::new("q0");
            (0..256).for_each(|number| wire.send(&datagram(number, 64)));
        });
        let mut frames = Vec::new();
        let patience = Instant::now() + PATIENCE;
        while frames.len() < 256 {
            assert!(Instant::now() < patience, "only {} packets came", frames.len());
            for (index, worker) in workers.iter_mut().enumerate() {
                let mut batch = Vec::new();
                worker.receive(0, &mut batch, 64);
                frames.extend(batch.into_iter().map(|frame| (index, frame)));
                worker.reclaim();
                assert!(worker.ledger().holds());
            }
        }
        let mut numbers: Vec<_> =
            frames.iter().map(|(index, frame)| workers[*index].packet(frame)[42..46].to_vec()).collect();
        numbers.sort();
        assert!(
            numbers.iter().eq((0..256u32)
                .map(u32::to_be_bytes)
                .map(|number| number.to_vec())
                .collect::<Vec<_>>()
                .iter())
        );
        frames.into_iter().for_each(|(index, frame)| workers[index].recycle(frame));
        assert!(workers.iter().all(|worker| worker.ledger().holds() && worker.ledger().received == 0));
    });
}

#[test]
fn a_node_outlives_an_interface_that_is_removed() {
    if !permitted("xsk removed") {
        return;
    }
    let lab = Lab::new();
    lab.node.enter(|| {
        let mut program = Program::load().unwrap();
        let mut xsk = open(&mut program, XdpMode::Native);
        let wire = lab.world.enter(|| Wire::new("q0"));
        (0..32).for_each(|number| wire.send(&datagram(number, 64)));
        let mut frames = Vec::new();
        while frames.len() < 32 {
            let room = 64 - frames.len();
            if xsk.receive(0, &mut frames, room) == 0 {
                xsk.wait(PATIENCE);
            }
        }
        lab.node.ip(&["link", "del", "p1"]);
        assert_eq!(xsk.transmit(1, &mut frames), 32, "the ring is still there");
        for _ in 0..3 {
            xsk.kick();
            xsk.wait(Duration::from_millis(1));
            xsk.reclaim();
            assert!(xsk.ledger().holds(), "{:?}", xsk.ledger());
        }
        assert_eq!(xsk.ledger().tx, 32);
        wire.send(&datagram(99, 64));
        while xsk.receive(0, &mut frames, 64) == 0 {
            xsk.wait(PATIENCE);
        }
        assert_eq!(xsk.packet(&frames[0]), datagram(99, 64), "the other port goes on");
        frames.drain(..).for_each(|frame| xsk.recycle(frame));
    });
}

/// A worker takes its sockets to a thread of its own, and control reads from another one.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Xsk>();
    is_send::<Program>();
    is_send::<Waker>();
    is_send::<anytun_xdp::kernel::XskStats>();
};

#[test]
fn zero_copy_is_refused_by_name_where_the_driver_has_none() {
    if !permitted("xsk zero-copy") {
        return;
    }
    let lab = Lab::new();
    lab.node.enter(|| {
        let port = |name, mode| Some(PortSpec { link: Link::find(name).unwrap(), queue: 0, mode });
        let error = Xsk::open(&[port("p0", XdpMode::Zerocopy)]).err().unwrap();
        assert!(matches!(&error, HostError::Unsupported { interface, .. } if interface == "p0"), "{error}");
        assert!(error.to_string().contains("xdp = \"native\""), "{error}");
        let error = Xsk::open(&[port("p0", XdpMode::Native), port("p1", XdpMode::Zerocopy)]).err().unwrap();
        assert!(error.to_string().contains("p0"), "{error}");
        let xsk = Xsk::open(&[port("p0", XdpMode::Auto), None]).unwrap();
        assert!(!xsk.port_report(0).unwrap().zero_copy);
        assert_eq!(xsk.port_report(1), None);
        let missing = Some(PortSpec { link: Link::find("p1").unwrap(), queue: 9, mode: XdpMode::Native });
        let error = Xsk::open(&[missing]).err().unwrap();
        assert!(error.to_string().contains("no receive queue 9"), "{error}");
    });
}

#[test]
fn a_queue_that_stays_in_use_is_named() {
    if !permitted("xsk busy") {
        return;
    }
    let lab = Lab::new();
    lab.node.enter(|| {
        let port = |name| Some(PortSpec { link: Link::find(name).unwrap(), queue: 0, mode: XdpMode::Native });
        let first = Xsk::open(&[port("p1")]).unwrap();
        let error = Xsk::open(&[port("p0"), port("p1")]).err().unwrap();
        assert!(matches!(&error, HostError::Unsupported { interface, .. } if interface == "p1"), "{error}");
        assert!(error.to_string().contains("queue 0 stays in use"), "{error}");
        drop(first);
        assert!(Xsk::open(&[port("p0"), port("p1")]).is_ok());
    });
}

#[test]
fn an_mtu_beyond_a_frame_is_refused_with_the_limit() {
    if !permitted("xsk mtu") {
        return;
    }
    let lab = Lab::new();
    lab.node.ip(&["link", "set", "p0", "mtu", "3000"]);
    lab.node.ip(&["link", "set", "p1", "mtu", "9000"]);
    lab.node.enter(|| {
        let port = |name| Some(PortSpec { link: Link::find(name).unwrap(), queue: 0, mode: XdpMode::Native });
        assert_eq!(Xsk::open(&[port("p0")]).unwrap().port_report(0).unwrap().frame_size, 4096);
        let error = Xsk::open(&[port("p1")]).err().unwrap().to_string();
        assert!(error.contains("9000") && error.contains("3818"), "{error}");
    });
}

#[test]
fn an_interface_with_another_program_is_left_alone() {
    if !permitted("foreign program") {
        return;
    }
    let lab = Lab::new();
    lab.node.enter(|| {
        let link = Link::find("p0").unwrap();
        let mut first = Program::load().unwrap();
        first.attach(&link, XdpMode::Generic).unwrap();
        let mut second = Program::load().unwrap();
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let error = second.attach(&link, mode).unwrap_err();
            let HostError::ForeignProgram { interface, id, name, mode } = error else { panic!("{error}") };
            assert_eq!((interface.as_str(), id, mode), ("p0", first.id().unwrap(), "generic"));
            assert_eq!(name, "anytun_xdp");
        }
        first.detach_all();
        assert_eq!(link.attached().unwrap(), None);
        second.attach(&link, XdpMode::Native).unwrap();
        assert_eq!(link.attached().unwrap().unwrap().mode, "native");
        drop(second);
        assert_eq!(link.attached().unwrap(), None, "a link goes with its owner");
    });
}

#[test]
fn a_wake_before_the_wait_is_not_lost() {
    if !permitted("waker") {
        return;
    }
    let mut xsk = Xsk::open(&[]).unwrap();
    let waker = xsk.waker();
    thread::spawn(move || waker.wake()).join().unwrap();
    // Without the wake this would take an hour.
    xsk.wait(Duration::from_secs(3600));
    assert_eq!(xsk.counters().polls, 1);
}
