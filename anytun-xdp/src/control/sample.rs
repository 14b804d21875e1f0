//! A small status for tests.

use super::status::*;

/// A node with one interface, one worker and two clients, of which one was never heard from.
pub(super) fn status() -> Status {
    Status {
        node: "vie1".into(),
        version: "0.1.0".into(),
        pid: 4711,
        state: State::Running,
        ready: true,
        uptime_seconds: 3723.5,
        config_file: "/etc/anytun-xdp/node.toml".into(),
        config_generation: 2,
        last_reload: Some(Reload {
            ok: false,
            at_unix: 1_763_800_000,
            message: "node.toml:7: unknown key `muks`, did you mean `mux`?".into(),
        }),
        memory: Memory { rss_bytes: 45_123_456, umem_bytes: 33_554_432 },
        program: Program { id: 12, verdicts: counts(&[("steered", 2237), ("not-udp", 17), ("fragment", 0)]) },
        interfaces: vec![interface()],
        workers: vec![Worker {
            worker: 0,
            sender_id: 1,
            scheduling: Mode { asked: "fifo".into(), got: "other".into() },
            idle: "sleep".into(),
            ledger: Ledger { free: 6000, fill: 2048, received: 64, tx: 80, total: 8192, holds: true },
            io: Io {
                tx_kicks: 900,
                fill_kicks: 10,
                polls: 30,
                rx_batches: 950,
                tx_batches: 900,
                rx_packets: 1300,
                tx_packets: 1234,
            },
            verdicts: counts(&[("forwarded", 1234), ("bad-tag", 3), ("replayed", 1000), ("short", 0)]),
            copies: 12,
            icmp_errors: counts(&[("time-exceeded", 7), ("unreachable", 0), ("too-big", 2)]),
            injected: 50,
        }],
        services: vec![Service { name: "anycast".into(), address: [192, 0, 2, 53].into(), port: 4444, clients: 2 }],
        clients: vec![alice(), bob()],
        sequences: Sequences { exhausted_keys: 0, leases_written: 3, lease_failures: 0 },
        bridges: vec![Bridge { network: "yard".into(), stations: 11 }],
        groups: vec![Groups { network: "office".into(), groups: 2, members: 5, refused: 1 }],
        nats: vec![Nat {
            network: "office".into(),
            address: [192, 0, 2, 53].into(),
            ports: "20000-29999".into(),
            mappings: 7,
            resting: 2,
            sessions: 9,
        }],
        mirror: Mirror { rules: 6, routes: 12, neighbours: 2, listings: 5, resynchronisations: 1, neighbours_asked: 4 },
        devices: vec![office(), yard()],
        path_errors: counts(&[("accepted", 2), ("not-sent", 5)]),
        datagrams: counts(&[("taken", 20), ("over-share", 2), ("overrun", 1), ("too-large", 0)]),
    }
}

fn office() -> Device {
    Device {
        name: "office".into(),
        network: "office".into(),
        mac: None,
        addresses: vec!["10.9.0.1/24".into()],
        delivered: 40,
        refused: 0,
        injected: 50,
        overrun: 3,
    }
}

fn yard() -> Device {
    Device {
        name: "yard0".into(),
        network: "yard".into(),
        mac: Some("02:11:22:33:44:55".into()),
        addresses: Vec::new(),
        delivered: 6,
        refused: 0,
        injected: 7,
        overrun: 0,
    }
}

fn interface() -> Interface {
    Interface {
        name: "eth0".into(),
        slot: 0,
        ifindex: 3,
        mac: "02:00:00:00:00:01".into(),
        mtu: 1500,
        driver: "veth".into(),
        up: true,
        xdp: Mode { asked: "auto".into(), got: "native".into() },
        queues: vec![Queue {
            queue: 0,
            worker: 0,
            asked: "auto".into(),
            got: "copy".into(),
            need_wakeup: true,
            huge_pages: false,
            statistics: XskStatistics { rx_ring_full: 5, ..XskStatistics::default() },
        }],
    }
}

fn alice() -> Client {
    Client {
        name: "alice".into(),
        network: "office".into(),
        service: "anycast".into(),
        mux: 1,
        endpoint: Some(([198, 51, 100, 7], 4444).into()),
        interface: Some("eth0".into()),
        path_mtu: Some(1400),
        vlan: vec![10],
        last_seen_seconds_ago: Some(1.2),
        rx: Traffic { packets: 1234, bytes: 103_656 },
        tx: Traffic { packets: 66, bytes: 5544 },
        nat: Some(NatUsage { ports: 5, sessions: 6 }),
        stations: Some(3),
        groups: Some(2),
        drops: counts(&[("bad-tag", 3), ("replayed", 1000)]),
    }
}

fn bob() -> Client {
    Client {
        name: "bob".into(),
        mux: 2,
        endpoint: None,
        interface: None,
        path_mtu: None,
        vlan: vec![],
        last_seen_seconds_ago: None,
        rx: Traffic::default(),
        tx: Traffic::default(),
        nat: None,
        stations: None,
        groups: None,
        drops: Counts::new(),
        ..alice()
    }
}

fn counts(counts: &[(&'static str, u64)]) -> Counts {
    counts.iter().map(|&(name, count)| (name.into(), count)).collect()
}
