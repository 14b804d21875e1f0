//! Clients whose configuration says where they are before they have spoken.

use std::sync::Arc;

use anytun_common::classify::classify;
use anytun_common::verdict::Verdict;
use anytun_common::wire::mapped;
use anytun_xdp::satp::Role;
use anytun_xdp::table::Link;
use anytun_xdp::table::ways::{Next, Ways};
use anytun_xdp::worker::memory::Kernel;

use super::bench::{Bench, CONFIG};
use super::open::{ETH1, GATEWAY, MACS, ways, ways_by};

/// Bob is behind the gateway at port 1, as far as the configuration says.
fn configuration() -> String {
    CONFIG.replace("name = \"bob\"\n", "name = \"bob\"\nendpoint = \"203.0.113.9:5005\"\n")
}

/// A bench to which nobody has spoken, and on which bob is expected.
fn bench() -> Bench {
    let mut bench = Bench::new(Kernel::default(), 512);
    bench.configure(&configuration());
    bench.ways.store(Arc::new(ways()));
    bench
}

/// Finds the ways to clients that are expected, as a node does each second.
fn expect(bench: &Bench) {
    bench.tables.load().expect(&bench.ways.load(), &bench.asks);
}

/// Alice sends a packet to bob; the frames that leave through port 1.
fn alice_sends(bench: &mut Bench) -> Vec<Vec<u8>> {
    let frame = bench.alice.send(bench.alice.inner, bench.bob.inner, 84);
    bench.arrive(0, &frame);
    bench.sent(1)
}

#[test]
fn a_client_is_sent_to_where_it_is_expected_until_it_speaks() {
    let mut bench = bench();
    expect(&bench);
    let sent = alice_sends(&mut bench);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][..12], *Link::new(MACS[0], MACS[1]).as_bytes());
    let datagram = classify(&*sent[0]).expect("a datagram");
    assert_eq!((datagram.destination, datagram.destination_port), (mapped([203, 0, 113, 9]), 5005));
    assert_eq!((datagram.source, datagram.source_port), (mapped([192, 0, 2, 53]), 4444));
    let satp = &sent[0][datagram.payload..datagram.payload + datagram.length];
    assert!(bench.bob.keys.verify(Role::Left, satp), "sealed for bob");

    let keepalive = bench.bob.seal(0, 0x0800, &[]);
    bench.arrive(1, &keepalive);
    bench.turn();
    expect(&bench);
    let sent = alice_sends(&mut bench);
    assert_eq!(bench.bob.open(&sent[0]).1.len(), 84, "where bob was heard counts from then on");
}

#[test]
fn a_neighbour_on_the_way_is_asked_for_and_one_that_changes_is_followed() {
    let mut bench = bench();
    bench.ways.store(Arc::new(Ways { neighbours: Arc::default(), ..ways() }));
    expect(&bench);
    assert_eq!(bench.asks.take().collect::<Vec<_>>(), [Next { ifindex: ETH1, address: mapped(GATEWAY) }]);
    assert_eq!(alice_sends(&mut bench).len(), 0);
    assert_eq!(bench.count(Verdict::NoEndpoint), 1);

    bench.ways.store(Arc::new(ways()));
    expect(&bench);
    assert_eq!(bench.asks.take().count(), 0);
    assert_eq!(alice_sends(&mut bench)[0][..6], MACS[0]);

    let other = [2, 0, 0, 0, 9, 2];
    bench.ways.store(Arc::new(ways_by(other)));
    expect(&bench);
    assert_eq!(alice_sends(&mut bench)[0][..6], other);
}

#[test]
fn an_endpoint_that_is_taken_out_of_the_configuration_is_no_longer_sent_to() {
    let mut bench = bench();
    expect(&bench);
    assert_eq!(alice_sends(&mut bench).len(), 1);
    bench.configure(&configuration().replace("203.0.113.9:5005", "203.0.113.9:6006"));
    expect(&bench);
    assert_eq!(bench.endpoint_port(1), Some(6006));
    bench.configure(CONFIG);
    expect(&bench);
    assert_eq!(alice_sends(&mut bench).len(), 0);
    assert_eq!((bench.count(Verdict::NoEndpoint), bench.totals(1).tx_packets), (1, 1), "counters stay");

    bench.configure(&configuration());
    let keepalive = bench.bob.seal(0, 0x0800, &[]);
    bench.arrive(1, &keepalive);
    bench.turn();
    bench.configure(CONFIG);
    assert_eq!(alice_sends(&mut bench).len(), 1, "where a client was heard stays");
}

#[test]
fn a_client_that_was_heard_but_has_not_told_where_it_is_stays_where_it_is_expected() {
    let mut bench = bench();
    expect(&bench);
    // Authentic, but of a source that is not bob's: such a packet changes nothing.
    let foreign = bench.bob.send(bench.alice.inner, bench.bob.inner, 84);
    bench.arrive(1, &foreign);
    bench.turn();
    assert_eq!((bench.count(Verdict::ForeignSource), bench.totals(1).rx_packets), (1, 1));
    let other = [2, 0, 0, 0, 9, 2];
    bench.ways.store(Arc::new(ways_by(other)));
    expect(&bench);
    assert_eq!(alice_sends(&mut bench)[0][..6], other, "it is still followed");
    bench.configure(CONFIG);
    assert_eq!(alice_sends(&mut bench).len(), 0, "and given up when it is no longer expected");

    bench.configure(&configuration());
    let keepalive = bench.bob.seal(7, 0x0800, &[]);
    bench.arrive(1, &keepalive);
    bench.turn();
    expect(&bench);
    let sent = alice_sends(&mut bench);
    assert_eq!(bench.bob.open(&sent[0]).1.len(), 84, "until a packet tells");
}
