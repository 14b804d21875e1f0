//! An Ethernet network on plain memory.

use anytun_common::verdict::Verdict;
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG};

const ETHERNET: u16 = 0x6558;
const ALL: [u8; 6] = [0xff; 6];
const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A bench whose network `office` is an Ethernet with these keys. Carol is in a network of her own.
fn bench(keys: &str) -> Bench {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let text = CONFIG
        .replace("name = \"office\"\n[[", &format!("name = \"office\"\nkind = \"ethernet\"\n{keys}\n[["))
        .replace("name = \"lab\"\n", "name = \"lab\"\nkind = \"ethernet\"\n");
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("prefixes")).collect();
    bench.configure(&without.join("\n"));
    bench
}

fn frame(to: [u8; 6], from: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x88, 0xb5]].concat();
    frame.extend((0..length).map(|place| place as u8));
    frame
}

fn alice_sends(bench: &mut Bench, frame: &[u8]) {
    bench.alice.sequence += 1;
    let packet = bench.alice.seal(bench.alice.sequence - 1, ETHERNET, frame);
    bench.arrive(0, &packet);
}

fn bob_sends(bench: &mut Bench, frame: &[u8]) {
    bench.bob.sequence += 1;
    let packet = bench.bob.seal(bench.bob.sequence - 1, ETHERNET, frame);
    bench.arrive(1, &packet);
}

#[test]
fn frames_arrive_as_they_were_sent_and_where_their_station_is() {
    let mut bench = bench("");
    alice_sends(&mut bench, &frame(ALL, A, 46));
    let sent = bench.sent(1);
    assert_eq!(bench.bob.open_as(ETHERNET, &sent[0]).1, frame(ALL, A, 46));
    assert_eq!(bench.worker.io_mut().sent(0).len(), 0, "neither back, nor into another network");
    for length in [0, 46, 1400] {
        bob_sends(&mut bench, &frame(A, B, length));
        let sent = bench.sent(0);
        assert_eq!(bench.alice.open_as(ETHERNET, &sent[0]).1, frame(A, B, length));
    }
    assert_eq!((bench.count(Verdict::Copied), bench.count(Verdict::Forwarded)), (1, 4));
}

#[test]
fn what_has_nowhere_to_go_has_one_verdict() {
    let mut bench = bench("");
    bench.carol.sequence += 1;
    let alone = bench.carol.seal(bench.carol.sequence - 1, ETHERNET, &frame(ALL, A, 46));
    bench.arrive(0, &alone);
    bench.turn();
    assert_eq!((bench.count(Verdict::NoMember), bench.count(Verdict::Copied)), (1, 0));
    alice_sends(&mut bench, &frame(B, A, 46));
    bob_sends(&mut bench, &frame(A, B, 46));
    bench.turn();
    bench.turn();
    // Larger than the way: neither cut nor told, as nothing in it is an IP packet.
    alice_sends(&mut bench, &frame(B, A, 1490));
    bench.turn();
    assert_eq!(bench.count(Verdict::TooBig), 1);
    let ip = bench.alice.seal(90, 0x0800, &[0x45; 40]);
    bench.arrive(0, &ip);
    bench.turn();
    assert_eq!(bench.count(Verdict::PayloadType), 1);
    let counted: u64 = Verdict::ALL.iter().map(|verdict| bench.count(*verdict)).sum();
    assert_eq!(counted, bench.counters.rx_packets() + bench.counters.copies());
}

#[test]
fn a_reload_that_changes_no_client_forgets_no_station() {
    let mut bench = bench("");
    alice_sends(&mut bench, &frame(ALL, A, 46));
    bench.turn();
    bench.turn();
    let stations = |bench: &Bench| bench.tables.load().bridges[0].as_ref().map_or(0, |bridge| bridge.stations());
    assert_eq!(stations(&bench), 1);
    let text = CONFIG
        .replace("name = \"office\"\n[[", "name = \"office\"\nkind = \"ethernet\"\n[[")
        .replace("name = \"lab\"\n", "name = \"lab\"\nkind = \"ethernet\"\n");
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("prefixes")).collect();
    bench.configure(&text.join("\n"));
    assert_eq!(stations(&bench), 1);
    bench.configure(&text.join("\n").replace("name = \"bob\"", "name = \"dave\""));
    assert_eq!(stations(&bench), 0, "numbers may mean others");
}
