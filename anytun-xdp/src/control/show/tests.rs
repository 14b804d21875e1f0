//! What people read.

use super::*;
use crate::control::sample;

#[test]
fn a_small_status_reads_like_this() {
    let expected = "\
node vie1: running, ready (anytun-xdp 0.1.0, pid 4711, up 1 h 2 min)
configuration: /etc/anytun-xdp/node.toml, generation 2; last reload REFUSED: node.toml:7: unknown key `muks`, did you mean `mux`?
memory: 45.1 MB resident, UMEM 33.6 MB; XDP program 12
sequence numbers: 3 leases written
ICMP errors sent: time-exceeded 7, too-big 2
datagrams that the kernel received, most in fragments: over-share 2, overrun 1, taken 20, too-large 0
routes: 12 by 6 rules, 2 neighbours known
device office: the node is 10.9.0.1/24 in network office; 40 packets to the kernel, 50 from it
  0 that the kernel did not take, 3 of it that found no room with a worker
device yard0: a port of network yard, MAC address 02:11:22:33:44:55; 6 packets to the kernel, 7 from it
service anycast: 192.0.2.53 port 4444, 2 clients
Ethernet yard: 11 MAC addresses
groups of office: 2 joined, 5 members, 1 refused
NAT of office: 192.0.2.53 ports 20000-29999, 7 lent, 2 at rest, 9 sessions

INTERFACE  DRIVER  LINK  XDP ASKED  XDP GOT  QUEUE  WORKER  QUEUE ASKED  QUEUE GOT  WAKEUP  HUGE PAGES  DROPPED  RX RING FULL  NO FILL FRAME
eth0       veth    up    auto       native       0       0  auto         copy       yes     no                0             5              0

WORKER  SENDER ID  SCHEDULING   FREE   FILL  RECEIVED  TX  FRAMES  LEDGER  TX KICKS  FILL KICKS  POLLS  RX BATCHES  TX BATCHES  RX PACKETS  TX PACKETS
     0          1  other       6,000  2,048        64  80   8,192  holds        900          10     30         950         900       1,300       1,234

CLIENT  NETWORK  ENDPOINT           LAST SEEN  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  DROPS
alice   office   198.51.100.7:4444      1.2 s       1,234  103.7 kB          66    5.5 kB  bad-tag 3, replayed 1,000
bob     office   -                      never           0       0 B           0       0 B  none

VERDICT    PACKETS  BY      MEANING
steered      2,237  XDP     handed to the AF_XDP socket of the packet's queue
not-udp         17  XDP     IP, but not UDP right behind the IP header
forwarded    1,234  worker  sealed for a client and handed to the kernel for transmission
bad-tag          3  worker  not authentic: forged, damaged, or made with another key or role
replayed     1,000  worker  a sequence number seen before, or older than the client's window
";
    assert_eq!(show(&sample::status(), None, Duration::ZERO), expected);
}

#[test]
fn rates_are_those_of_the_interval() {
    let previous = sample::status();
    let mut now = previous.clone();
    now.clients[0].rx.packets += 5_000;
    now.clients[0].rx.bytes += 420_000;
    now.workers[0].verdicts.insert("forwarded".into(), 6_234);
    let text = show(&now, Some(&previous), Duration::from_millis(2_000));
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace();
    let alice: Vec<_> = line("alice").skip(5).take(12).collect();
    assert_eq!(alice, ["6,234", "523.7", "kB", "66", "5.5", "kB", "2,500", "1.7", "Mbit/s", "0", "0", "bit/s"]);
    assert_eq!(line("forwarded").nth(2), Some("2,500"));
}

#[test]
fn a_restarted_node_has_no_rates() {
    let mut previous = sample::status();
    previous.pid = 1;
    assert!(!show(&sample::status(), Some(&previous), Duration::from_secs(1)).contains("BIT/S"));
}

#[test]
fn of_many_clients_the_busiest_are_shown() {
    let mut status = sample::status();
    let quiet = status.clients[1].clone();
    status.clients = (0..60_000)
        .map(|number| {
            let mut client = quiet.clone();
            client.name = format!("client-{number}").into();
            client.rx.bytes = number;
            client
        })
        .collect();
    let text = show(&status, None, Duration::ZERO);
    assert!(text.contains("the busiest 50 of 60,000 clients\n"));
    let shown: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("client-")?.split(' ').next()).collect();
    let expected: Vec<_> = (59_950..60_000).rev().map(|number| number.to_string()).collect();
    assert_eq!(shown, expected);
}

#[test]
fn what_is_wrong_stands_out() {
    let mut status = sample::status();
    status.workers[0].ledger.holds = false;
    status.interfaces[0].up = false;
    status.sequences.exhausted_keys = 1;
    status.sequences.lease_failures = 2;
    let text = show(&status, None, Duration::ZERO);
    for word in ["BROKEN", "DOWN", "EXHAUSTED for 1 keys", "2 times NOT WRITTEN"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
}
