//! Packets of one batch: what is known of one is used for those behind it, and must not be held of others.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anytun_common::verdict::Verdict;
use anytun_common::wire::checksum;
use anytun_xdp::satp::{AesCtr, Auth, Keys, Secret, Suite};
use anytun_xdp::worker::BATCH;
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG, Peer, inner};
use super::nat::{NAT, port, udp};
use super::open::{HOST, opened, ways};

/// In one batch, whatever came right before: the last one counts.
#[test]
fn every_packet_of_a_batch_moves_its_client() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    // Port and last octet of the address.
    for (ports, last) in [([5001, 5001, 5002], [1, 1, 1]), ([5002, 5003, 5002], [1, 1, 1]), ([7, 7, 7], [9, 9, 9])] {
        for (port, last) in ports.into_iter().zip(last) {
            bench.alice.port = port;
            bench.alice.outer[3] = last;
            let frame = bench.alice.send(alice, bob, 84);
            bench.arrive(0, &frame);
        }
        // Of another client from the same port.
        bench.carol.port = ports[2];
        let frame = bench.carol.send(bench.carol.inner, bob, 84);
        bench.arrive(0, &frame);
        // Carol is told that she has no way there.
        assert_eq!(bench.sent(0).len(), 1);
        assert_eq!(bench.endpoint_port(2), Some(ports[2]));
        assert_eq!(bench.endpoint_port(0), Some(ports[2]));
        let frame = bench.bob.send(bob, alice, 84);
        bench.arrive(1, &frame);
        let sent = bench.sent(0);
        assert_eq!(sent.len(), 1);
        // Checks address and port of the client.
        bench.alice.open(&sent[0]);
    }
    bench.alice.tags = &[0x81, 0, 0, 7];
    for tags in [&[0x81, 0, 0, 7][..], &[], &[0x81, 0, 0, 8], &[0x81, 0, 0, 9]] {
        bench.alice.tags = tags;
        let frame = bench.alice.send(alice, bob, 84);
        bench.arrive(0, &frame);
    }
    bench.turn();
    let frame = bench.bob.send(bob, alice, 84);
    bench.arrive(1, &frame);
    let sent = bench.sent(0);
    bench.alice.open(&sent[0]);
}

/// One behind the other, to the same address in two networks, and to what is the same number in another family.
#[test]
fn every_packet_of_a_batch_goes_where_its_own_destination_leads() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob, carol) = (bench.alice.inner, bench.bob.inner, bench.carol.inner);
    let address = "\"10.9.0.11/32\"";
    bench.configure(&CONFIG.replace(address, &format!("{address}, \"fd00:9::11/128\"")));
    let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    v6.extend_from_slice(&[0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
    v6.extend_from_slice(&[0; 12]);
    v6.extend_from_slice(&bob.octets());
    let to_bob = |bench: &mut Bench| {
        let frame = bench.alice.send(alice, bob, 84);
        bench.arrive(0, &frame);
    };
    to_bob(&mut bench);
    let frame = bench.carol.send(carol, bob, 84);
    bench.arrive(0, &frame);
    to_bob(&mut bench);
    bench.alice.sequence += 1;
    let frame = bench.alice.seal(bench.alice.sequence - 1, 0x86dd, &v6);
    bench.arrive(0, &frame);
    let frame = bench.alice.send(alice, "10.9.0.99".parse().expect("an address"), 84);
    bench.arrive(0, &frame);
    to_bob(&mut bench);
    // What goes between the same two, but is not hers to send.
    let frame = bench.carol.send(alice, bob, 84);
    bench.arrive(0, &frame);
    let frame = bench.carol.send(alice, bob, 84);
    bench.arrive(0, &frame);
    to_bob(&mut bench);
    assert_eq!(bench.sent(1).len(), 4);
    assert_eq!(bench.count(Verdict::NoRoute), 3, "carol's, and two of alice's");
    assert_eq!(bench.count(Verdict::ForeignSource), 2);
}

/// Where there is nothing to open, nothing is: for whoever comes behind that, and whoever came before.
#[test]
fn every_packet_of_a_batch_is_opened_as_its_own_client_seals() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    let mux = "mux = 1\n";
    bench.configure(&CONFIG.replace(mux, &format!("{mux}kd_prf = \"null\"\ncipher = \"null\"\nauth = \"null\"\n")));
    let plain = Suite { kd_prf: AesCtr::Null, cipher: AesCtr::Null, auth: Auth::Null, ..Suite::DEFAULT };
    bench.alice.keys = Keys::new(&Secret::from_passphrase(b"the passphrase of alice", AesCtr::Null), &plain);
    let stranger = Peer::new("mallory", 2);
    // Bob moves to the port of the others first.
    for (round, order) in ["b", "a", "ab", "ba", "amb", "mab", "abma", "a", "aa"].into_iter().enumerate() {
        for (place, who) in order.chars().enumerate() {
            let length = 40 + 10 * round + place;
            let frame = match who {
                'a' => bench.alice.send(alice, bob, length),
                'b' => bench.bob.send(bob, alice, length),
                _ => stranger.seal(1 << 20, 0x0800, &inner(bob, alice, 64, length)),
            };
            bench.arrive(0, &frame);
        }
        let sent: Vec<(u16, usize)> = bench
            .sent(0)
            .iter()
            .map(|frame| {
                let to = u16::from(frame[5]);
                let peer = if to == 1 { &bench.alice } else { &bench.bob };
                (to, peer.open(frame).1.len())
            })
            .collect();
        let wanted: Vec<(u16, usize)> = order
            .chars()
            .enumerate()
            .filter(|(_, who)| *who != 'm')
            .map(|(place, who)| (if who == 'a' { 2 } else { 1 }, 40 + 10 * round + place))
            .collect();
        assert_eq!(sent, wanted, "{order}");
    }
    assert_eq!(bench.count(Verdict::BadTag), 3);
}

/// One MUX of two services, of which one is alice's and one carol's.
#[test]
fn every_packet_of_a_batch_is_of_the_client_of_its_own_service() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let (alice, bob, carol) = (bench.alice.inner, bench.bob.inner, bench.carol.inner);
    let service = |name, address| format!("[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 4444\n");
    let mut text = CONFIG.replace(
        "[[network]]\nname = \"office\"",
        &(service("second", "192.0.2.54") + "[[network]]\nname = \"office\""),
    );
    for (before, after) in [
        ("name = \"alice\"\n", "name = \"alice\"\nservice = \"anycast\"\n"),
        ("name = \"bob\"\n", "name = \"bob\"\nservice = \"anycast\"\n"),
        ("name = \"carol\"\n", "name = \"carol\"\nservice = \"second\"\n"),
        ("mux = 3\n", "mux = 1\n"),
    ] {
        assert!(text.contains(before), "{before}");
        text = text.replace(before, after);
    }
    bench.configure(&text);
    bench.carol.mux = 1;
    for who in "acacca".chars() {
        let frame = match who {
            'a' => bench.alice.send(alice, bob, 84),
            _ => readdressed(bench.carol.send(carol, bob, 84), [192, 0, 2, 54]),
        };
        bench.arrive(0, &frame);
    }
    assert_eq!(bench.sent(1).len(), 3, "alice's");
    assert_eq!(
        (bench.count(Verdict::NoRoute), bench.count(Verdict::BadTag)),
        (3, 0),
        "carol's, whose network has no bob"
    );
}

/// A frame with IPv4 outside, sent to another address.
fn readdressed(mut frame: Vec<u8>, to: [u8; 4]) -> Vec<u8> {
    frame[14 + 16..14 + 20].copy_from_slice(&to);
    frame[14 + 10..14 + 12].fill(0);
    let sum = checksum::of(&frame[14..14 + 20]);
    frame[14 + 10..14 + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn every_ipv6_packet_of_a_batch_is_checked_by_its_own_addresses() {
    let mut bench = Bench::introduced(Kernel::default(), 512);
    let with = |text: &str, last| {
        let address = format!("\"10.9.0.{last}/32\"");
        text.replace(&address, &format!("{address}, \"fd00:9::{last}/128\""))
    };
    bench.configure(&with(&with(CONFIG, 11), 12));
    let address = |last: u8| [0xfd, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let (alice, bob, nobody) = (address(0x11), address(0x12), address(0x99));
    for (from, to) in [(alice, bob), (bob, bob), (bob, bob), (alice, bob), (alice, nobody), (alice, bob)] {
        let packet = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &from, &to].concat();
        bench.alice.sequence += 1;
        let frame = bench.alice.seal(bench.alice.sequence - 1, 0x86dd, &packet);
        bench.arrive(0, &frame);
    }
    assert_eq!(bench.sent(1).len(), 3);
    assert_eq!((bench.count(Verdict::ForeignSource), bench.count(Verdict::NoRoute)), (2, 1));
}

/// Clients of two networks with the same address, who send from the same port to the same host.
#[test]
fn every_packet_of_a_batch_crosses_the_border_of_its_own_network() {
    let keys = |ports| format!("open = \"nat\"\nnat = {{ address = \"{NAT}\", ports = \"{ports}\" }}");
    for (office, is_open) in [(keys("20000-24999"), false), ("open = \"routed\"".to_owned(), true)] {
        let mut bench = opened(&office);
        let text = super::open::office(&office)
            .replace("name = \"lab\"\n", &format!("name = \"lab\"\n{}\n", keys("30000-39999")))
            .replace("10.9.0.13/32", "10.9.0.11/32");
        bench.configure(&text);
        let packet = udp((bench.alice.inner, 5000), (HOST, 53), 64, 33);
        let order = "acaaccac";
        for who in order.chars() {
            let peer = if who == 'a' { &mut bench.alice } else { &mut bench.carol };
            peer.sequence += 1;
            let frame = peer.seal(peer.sequence - 1, 0x0800, &packet);
            bench.arrive(0, &frame);
        }
        let left: String = bench
            .sent(1)
            .iter()
            .map(|frame| match (Ipv4Addr::from([frame[26], frame[27], frame[28], frame[29]]), port(frame, 14 + 20)) {
                (NAT, 20_000..=24_999) if !is_open => 'a',
                (from, 5000) if is_open && from == bench.alice.inner => 'a',
                (NAT, 30_000..=39_999) => 'c',
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(left, order);
    }
}

/// The kernel is to keep a neighbour known as long as packets are sent its way.
#[test]
fn a_neighbour_is_used_as_long_as_packets_go_its_way() {
    let mut bench = opened("open = \"routed\"");
    let ways = Arc::new(ways());
    bench.ways.store(ways.clone());
    let is_used = || ways.neighbours.values().any(|neighbour| neighbour.take_used());
    for now in [5, 5, 6, 7, 1000] {
        let frame = bench.alice.send(bench.alice.inner, HOST, 84);
        bench.arrive(0, &frame);
        assert_eq!(bench.worker.turn(now), 1);
        assert_eq!(bench.worker.turn(now), 0);
        // Within a millisecond it need not be said again.
        assert!(is_used() || now == 5, "{now}");
    }
    assert!(!is_used());
    assert_eq!(bench.count(Verdict::Outward), 5);
}

/// The kernel is told of full batches together, and at once of what is followed by nothing.
#[test]
fn one_call_sends_several_full_batches() {
    let mut bench = Bench::introduced(Kernel { tx_ring: 512, fill_ring: 512, ..Kernel::default() }, 2048);
    let (alice, bob) = (bench.alice.inner, bench.bob.inner);
    bench.turn();
    let calls = |bench: &mut Bench| bench.worker.io_mut().counters().tx_kicks;
    let arrive = |bench: &mut Bench, packets: usize| {
        for _ in 0..packets {
            let frame = bench.alice.send(alice, bob, 84);
            bench.arrive(0, &frame);
        }
    };
    arrive(&mut bench, 5 * BATCH + 1);
    let before = calls(&mut bench);
    let mut told = || {
        assert!(bench.turn() > 0);
        (calls(&mut bench) - before, bench.worker.io_mut().sent(1).len())
    };
    // The turn after the call collects what it sent.
    assert_eq!([0; 6].map(|_| told()), [(0, 0), (0, 0), (0, 0), (1, 0), (1, 4 * BATCH), (2, 0)]);
    assert_eq!(bench.sent(1).len(), BATCH + 1);
    let before = calls(&mut bench);
    arrive(&mut bench, 1);
    bench.turn();
    assert_eq!(calls(&mut bench), before + 1);
}
