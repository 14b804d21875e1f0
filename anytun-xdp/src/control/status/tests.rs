//! The names in JSON.

use serde_json::json;

use super::*;
use crate::control::sample;

#[test]
fn the_json_has_these_names_and_comes_back_the_same() {
    let expected = json!({
        "node": "vie1", "version": "0.1.0", "pid": 4711, "state": "running", "ready": true,
        "uptime_seconds": 3723.5, "config_file": "/etc/anytun-xdp/node.toml", "config_generation": 2,
        "last_reload": {
            "ok": false, "at_unix": 1_763_800_000,
            "message": "node.toml:7: unknown key `muks`, did you mean `mux`?",
        },
        "memory": {"rss_bytes": 45_123_456, "umem_bytes": 33_554_432},
        "program": {"id": 12, "verdicts": {"steered": 2237, "not-udp": 17, "fragment": 0}},
        "interfaces": [{
            "name": "eth0", "slot": 0, "ifindex": 3, "mac": "02:00:00:00:00:01", "mtu": 1500, "driver": "veth",
            "up": true, "xdp": {"asked": "auto", "got": "native"},
            "queues": [{
                "queue": 0, "worker": 0, "asked": "auto", "got": "copy", "need_wakeup": true, "huge_pages": false,
                "statistics": {
                    "rx_dropped": 0, "rx_invalid_descs": 0, "tx_invalid_descs": 0, "rx_ring_full": 5,
                    "rx_fill_ring_empty_descs": 0, "tx_ring_empty_descs": 0,
                },
            }],
        }],
        "workers": [{
            "worker": 0, "sender_id": 1, "scheduling": {"asked": "fifo", "got": "other"}, "idle": "sleep",
            "ledger": {"free": 6000, "fill": 2048, "received": 64, "tx": 80, "total": 8192, "holds": true},
            "io": {
                "tx_kicks": 900, "fill_kicks": 10, "polls": 30, "rx_batches": 950, "tx_batches": 900,
                "rx_packets": 1300, "tx_packets": 1234,
            },
            "verdicts": {"forwarded": 1234, "bad-tag": 3, "replayed": 1000, "short": 0},
            "copies": 12,
            "icmp_errors": {"time-exceeded": 7, "unreachable": 0, "too-big": 2}, "injected": 50,
        }],
        "services": [{"name": "anycast", "address": "192.0.2.53", "port": 4444, "clients": 2}],
        "nats": [{
            "network": "office", "address": "192.0.2.53", "ports": "20000-29999", "mappings": 7, "resting": 2, "sessions": 9,
        }],
        "bridges": [{"network": "yard", "stations": 11}],
        "groups": [{"network": "office", "groups": 2, "members": 5, "refused": 1}],
        "clients": [
            {
                "name": "alice", "network": "office", "service": "anycast", "mux": 1,
                "endpoint": "198.51.100.7:4444", "interface": "eth0", "path_mtu": 1400, "vlan": [10], "last_seen_seconds_ago": 1.2,
                "rx": {"packets": 1234, "bytes": 103_656}, "tx": {"packets": 66, "bytes": 5544},
                "nat": {"ports": 5, "sessions": 6}, "stations": 3, "groups": 2,
                "drops": {"bad-tag": 3, "replayed": 1000},
            },
            {
                "name": "bob", "network": "office", "service": "anycast", "mux": 2,
                "endpoint": null, "interface": null, "path_mtu": null, "vlan": [], "last_seen_seconds_ago": null,
                "rx": {"packets": 0, "bytes": 0}, "tx": {"packets": 0, "bytes": 0}, "drops": {},
            },
        ],
        "sequences": {"exhausted_keys": 0, "leases_written": 3, "lease_failures": 0},
        "mirror": {
            "rules": 6, "routes": 12, "neighbours": 2, "listings": 5, "resynchronisations": 1, "neighbours_asked": 4,
        },
        "devices": [
            {
                "name": "office", "network": "office", "addresses": ["10.9.0.1/24"], "delivered": 40, "refused": 0,
                "injected": 50, "overrun": 3,
            },
            {
                "name": "yard0", "network": "yard", "mac": "02:11:22:33:44:55", "addresses": [], "delivered": 6,
                "refused": 0, "injected": 7, "overrun": 0,
            },
        ],
        "path_errors": {"accepted": 2, "not-sent": 5},
        "datagrams": {"taken": 20, "over-share": 2, "overrun": 1, "too-large": 0},
    });
    let status = sample::status();
    assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    assert_eq!(serde_json::from_str::<Status>(&expected.to_string()).unwrap(), status);
}
