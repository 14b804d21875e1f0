use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, RandomState};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use arc_swap::ArcSwap;

use super::super::memory::{Kernel, Memory};
use super::super::snoop::Snoop;
use super::super::{LONGEST_SLEEP, REST, Snapshots, Worker};
use super::*;
use crate::table::ways::Asks;
use crate::table::{Host, Tables};

/// Bells that count, for ends that nobody sleeps at.
fn pair(parcels: usize, octets: usize) -> (WorkerHalf, ThreadHalf) {
    halves(parcels, octets, Arc::new(Bell::new(|| ())), Bell::new(|| ()))
}

/// What comes out for the kernel, all of it, parcels given back.
fn drained(thread: &mut ThreadHalf) -> Vec<(Way, Vec<u8>)> {
    let mut packets = Vec::new();
    while let Some(parcel) = thread.take() {
        packets.push((parcel.way(), parcel.packet().to_vec()));
        thread.give_back(parcel);
    }
    packets
}

#[test]
fn packets_come_out_as_they_went_in_and_in_order_however_often_parcels_go_round() {
    let (mut worker, mut thread) = pair(4, 64);
    for turn in 0..100u8 {
        for n in 0..1 + turn % 4 {
            worker.send(Way::Device(u32::from(n)), n.into(), &vec![turn; usize::from(n) + 20]).unwrap();
        }
        let expected: Vec<_> =
            (0..1 + turn % 4).map(|n| (Way::Device(u32::from(n)), vec![turn; usize::from(n) + 20])).collect();
        assert_eq!(drained(&mut thread), expected);
        assert!(thread.is_empty());
    }
}

#[test]
fn a_full_pipe_refuses_by_name_and_goes_on_when_there_is_room() {
    let (mut worker, mut thread) = pair(3, 64);
    for n in 0..3 {
        assert_eq!(worker.send(Way::Device(0), n, &[n as u8]), Ok(()));
    }
    assert_eq!(worker.send(Way::Device(0), 3, &[3]), Err(Verdict::SlowPathFull));
    let first = thread.take().unwrap();
    assert_eq!(worker.send(Way::Device(0), 4, &[4]), Err(Verdict::SlowPathFull), "a parcel in hand is not empty yet");
    thread.give_back(first);
    assert_eq!(worker.send(Way::Device(0), 5, &[5]), Ok(()));
    let octets: Vec<_> = drained(&mut thread).into_iter().map(|(_, packet)| packet[0]).collect();
    assert_eq!(octets, [1, 2, 5]);
}

#[test]
fn whoever_sends_without_end_leaves_parcels_for_others_in_both_directions() {
    let (mut worker, mut thread) = pair(64, 64);
    let mut parcel = Parcel::new(64);
    parcel.set(Way::Device(0), 20);
    for turn in 0..3 {
        let refused = |sent: Result<(), Verdict>| {
            sent.inspect_err(|verdict| assert_eq!(*verdict, Verdict::SlowPathShare, "turn {turn}")).is_err()
        };
        let flood = (0..100).take_while(|_| !refused(worker.send(Way::Device(0), 1, &[1]))).count();
        let other = (0..100).take_while(|_| !refused(worker.send(Way::Device(0), 2, &[2]))).count();
        assert_eq!((flood, other), (32, 16), "turn {turn}");
        assert_eq!(drained(&mut thread).len(), 48);
        let flood = (0..100).take_while(|_| !refused(thread.send(&mut parcel, 1))).count();
        let other = (0..100).take_while(|_| !refused(thread.send(&mut parcel, 2))).count();
        assert_eq!((flood, other), (32, 16), "turn {turn}");
        let taken = std::iter::from_fn(|| worker.take().map(|parcel| worker.give_back(parcel))).count();
        assert_eq!(taken, 48);
    }
}

#[test]
fn what_no_parcel_holds_is_too_big_and_costs_none() {
    let (mut worker, mut thread) = pair(1, 64);
    for _ in 0..3 {
        assert_eq!(worker.send(Way::Device(0), 0, &[0; 65]), Err(Verdict::TooBig));
    }
    assert_eq!(worker.send(Way::Device(0), 0, &[7; 64]), Ok(()));
    assert_eq!(drained(&mut thread), [(Way::Device(0), vec![7; 64])]);
}

#[test]
fn what_the_worker_has_no_parcel_for_stays_with_the_thread() {
    let (mut worker, mut thread) = pair(2, 64);
    let mut parcel = Parcel::new(64);
    for n in 1..=3 {
        parcel.memory()[..20].fill(n);
        parcel.set(Way::Device(9), 20);
        assert_eq!(thread.send(&mut parcel, n.into()).is_ok(), n < 3);
    }
    assert_eq!(parcel.packet(), [3; 20]);
    let first = worker.take().unwrap();
    assert_eq!((first.way(), first.packet()), (Way::Device(9), &[1; 20][..]));
    worker.give_back(first);
    assert_eq!(thread.send(&mut parcel, 3), Ok(()));
    let rest: Vec<u8> = std::iter::from_fn(|| worker.take()).map(|parcel| parcel.packet()[0]).collect();
    assert_eq!(rest, [2, 3]);
}

#[test]
fn a_bell_wakes_only_who_sleeps_and_once() {
    let (woken, wakes) = mpsc::channel();
    let thread = Arc::new(Bell::new(move || woken.send(()).unwrap()));
    let (mut worker, _thread_half) = halves(8, 64, thread.clone(), Bell::new(|| ()));
    worker.send(Way::Device(0), 0, &[1]).unwrap();
    worker.flush();
    assert_eq!((wakes.try_iter().count(), thread.rings()), (0, 0), "who is awake is left alone");
    thread.doze();
    worker.flush();
    assert_eq!(thread.rings(), 0, "there is nothing new");
    worker.send(Way::Device(0), 0, &[2]).unwrap();
    worker.flush();
    worker.send(Way::Device(0), 0, &[3]).unwrap();
    worker.flush();
    assert_eq!((wakes.try_iter().count(), thread.rings()), (1, 1));
    thread.doze();
    thread.rise();
    worker.send(Way::Device(0), 0, &[4]).unwrap();
    worker.flush();
    assert_eq!(wakes.try_iter().count(), 0);
}

#[test]
fn a_worker_with_packets_does_not_go_to_sleep() {
    let (worker, mut thread) = pair(4, 64);
    assert!(worker.doze());
    worker.rise();
    let mut parcel = Parcel::new(64);
    parcel.set(Way::Device(0), 20);
    thread.send(&mut parcel, 0).unwrap();
    assert!(!worker.doze());
    thread.flush();
    assert_eq!(thread.rings(), 0);
}

#[test]
fn parcels_of_an_inlet_get_their_memory_when_they_need_it() {
    let (mut inlet, mut feed) = inlet(2, 0, Bell::new(|| ()));
    let mut parcel = Parcel::new(0);
    for turn in 0..10u8 {
        parcel.grow(30);
        parcel.memory()[..20].fill(turn);
        parcel.set(Way::Service, 20);
        assert!(inlet.is_empty());
        feed.send(&mut parcel, 0).unwrap();
        assert!(!inlet.doze(), "a worker with packets does not go to sleep");
        let taken = inlet.take().unwrap();
        assert_eq!((taken.way(), taken.packet()), (Way::Service, &[turn; 20][..]));
        inlet.give_back(taken);
        assert!(inlet.doze());
        feed.flush();
        assert_eq!(feed.rings(), u64::from(turn) + 1, "a worker that sleeps is woken");
    }
    parcel.grow(30);
    parcel.memory()[29] = 7;
    parcel.grow(20);
    assert_eq!(parcel.memory().len(), 30, "what is large enough stays");
    assert_eq!(parcel.memory()[29], 7);
}

/// A worker with one port, without clients.
fn worker() -> Worker<Memory> {
    let text = "[node]\nname = \"n\"\nsender_ids = \"1\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
                address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"o\"\n";
    let config = crate::config::parse(text, Path::new("node.toml")).unwrap();
    let host = Host { workers: 1, mtus: vec![1500], partial: vec![false] };
    let snapshots = Snapshots {
        tables: Arc::new(ArcSwap::from_pointee(Tables::build(&config, &host, Vec::new(), None))),
        ways: Arc::default(),
        asks: Arc::new(Asks::new(|| ())),
        snoop: Arc::new(Snoop::new(Bell::new(|| ()))),
    };
    Worker::new(0, Memory::new(1, 64, 2048, Kernel::default()), snapshots, Arc::default())
}

/// A worker in real time leaves its processor to a thread that hands something over only while it sleeps.
#[test]
fn a_worker_sleeps_for_a_moment_while_something_is_handed_over_to_it() {
    let (half, mut thread) = pair(2, 64);
    let (inlet, mut feed) = inlet(2, 64, Bell::new(|| ()));
    let mut worker = worker();
    worker.connect(half);
    worker.receive_from(inlet);
    // As it does when it finds nothing: what it took, and how long it then sleeps.
    let mut rest = || {
        let taken = worker.turn(0);
        worker.lane.sleep(LONGEST_SLEEP);
        (taken, worker.io_mut().waited)
    };
    assert_eq!(rest(), (0, Some(LONGEST_SLEEP)));
    for feed in [&mut thread.feed, &mut feed] {
        feed.send(&mut Parcel::new(64), 0).unwrap();
        feed.mouth.pipe.full.stop(1);
        assert_eq!(rest(), (0, Some(REST)));
        assert_eq!(rest(), (0, Some(REST)), "as long as that takes");
        feed.mouth.pipe.full.stop(0);
        assert_eq!(rest(), (1, Some(LONGEST_SLEEP)));
    }
}

/// Packets may gather as long as nobody else wants the worker.
#[test]
fn a_worker_lets_nothing_gather_while_something_is_handed_over_to_it() {
    let (half, mut thread) = pair(2, 64);
    let (inlet, mut feed) = inlet(2, 64, Bell::new(|| ()));
    let mut worker = worker();
    worker.connect(half);
    worker.receive_from(inlet);
    let mut gather = || {
        worker.io_mut().waited = None;
        worker.lane.gather(REST);
        let waited = worker.io_mut().waited;
        worker.turn(0);
        waited
    };
    assert_eq!(gather(), Some(REST));
    for feed in [&mut thread.feed, &mut feed] {
        feed.send(&mut Parcel::new(64), 0).unwrap();
        assert_eq!(gather(), None);
        assert_eq!(gather(), Some(REST), "it was taken");
    }
}

/// Two threads, each of which sleeps whenever it finds nothing: a wake that got lost would leave both asleep for good.
#[test]
fn nothing_is_lost_between_threads_that_sleep() {
    const PACKETS: u32 = 50_000;
    let (wake_thread, thread_wakes) = mpsc::channel();
    let (wake_worker, worker_wakes) = mpsc::channel();
    let bell = Arc::new(Bell::new(move || wake_thread.send(()).unwrap()));
    let (mut worker, mut half) = halves(8, 64, bell.clone(), Bell::new(move || wake_worker.send(()).unwrap()));
    // Sends back whatever comes.
    let mirror = thread::spawn(move || {
        let mut spare = Parcel::new(64);
        let mut seen = 0;
        while seen < PACKETS {
            let Some(parcel) = half.take() else {
                half.flush();
                bell.doze();
                if half.is_empty() {
                    thread_wakes.recv().unwrap();
                }
                bell.rise();
                continue;
            };
            spare.memory()[..4].copy_from_slice(parcel.packet());
            spare.set(parcel.way(), 4);
            half.give_back(parcel);
            while half.send(&mut spare, 0).is_err() {
                half.flush();
                thread::yield_now();
            }
            seen += 1;
        }
        half.flush();
    });
    let (mut sent, mut received) = (0, 0);
    while received < PACKETS {
        while sent < PACKETS && worker.send(Way::Device(1), 0, &sent.to_be_bytes()).is_ok() {
            sent += 1;
        }
        worker.flush();
        let before = received;
        while let Some(parcel) = worker.take() {
            assert_eq!(parcel.packet(), received.to_be_bytes(), "in order");
            received += 1;
            worker.give_back(parcel);
        }
        if received == before && received < PACKETS && worker.doze() {
            worker_wakes.recv().unwrap();
            worker.rise();
        }
    }
    mirror.join().unwrap();
    assert!(worker.take().is_none());
}

#[test]
fn packets_between_two_addresses_are_one_flow_and_others_are_spread() {
    let key = &BuildHasherDefault::<DefaultHasher>::default();
    let v4 = |source: u8, destination: u8, port: u8| {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[12..20].copy_from_slice(&[10, 9, 0, source, 10, 9, 0, destination]);
        packet[20] = port;
        packet
    };
    let v6 = |source: u8, destination: u8| {
        let mut packet = vec![0; 60];
        packet[0] = 0x60;
        (packet[23], packet[39]) = (source, destination);
        packet
    };
    assert_eq!(flow(&v4(1, 11, 1), key), flow(&v4(1, 11, 2), key));
    assert_ne!(flow(&v4(1, 11, 1), key), flow(&v4(11, 1, 1), key));
    // Those that fall together with one key do so with another one as seldom as others do.
    let together = |key: &RandomState| -> HashSet<u8> {
        (2..=255).filter(|&n| flow(&v4(1, n, 0), key) % 8 == flow(&v4(1, 1, 0), key) % 8).collect()
    };
    let [one, other] = [RandomState::new(), RandomState::new()].map(|key| together(&key));
    assert!(one.intersection(&other).count() < 16, "of 254 pairs some 32 fall together, and 4 with both keys");
    for packets in [(2..66).map(|n| v4(1, n, 0)).collect::<Vec<_>>(), (2..66).map(|n| v6(1, n)).collect()] {
        for workers in [2, 3, 4, 8] {
            let mut counts = vec![0; workers];
            packets.iter().for_each(|packet| counts[flow(packet, key) as usize % workers] += 1);
            let least = 64 / workers / 4;
            assert!(counts.iter().all(|&count| count > least), "{counts:?}");
        }
        assert_eq!(packets.iter().map(|packet| flow(packet, key)).collect::<HashSet<_>>().len(), 64);
    }
    let frame = |to: u8, from: u8, last: u8| [2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0, 0x45, last];
    assert_eq!(frame_flow(&frame(1, 2, 3), key), frame_flow(&frame(1, 2, 4), key));
    assert_eq!((2..66).map(|from| frame_flow(&frame(1, from, 0), key)).collect::<HashSet<_>>().len(), 64);
    frame_flow(&[2; 11], key);
    for length in 0..40 {
        flow(&v6(1, 2)[..length], key);
        flow(&v4(1, 2, 3)[..length], key);
    }
}
