use std::collections::{BTreeMap, HashSet};

use super::super::sample;
use super::super::status::Status;
use super::*;

type Labels = BTreeMap<String, String>;

/// The metrics of `status`, each once: what a strict reader of the text format 0.0.4 makes of them.
fn metrics(status: &Status) -> BTreeMap<(String, Labels), f64> {
    let mut text = Vec::new();
    render(status, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut families = HashSet::new();
    let mut lines = text.lines().peekable();
    while let Some(help) = lines.next() {
        let (family, help) = help.strip_prefix("# HELP ").expect(help).split_once(' ').unwrap();
        assert!(help.ends_with('.'), "{family}: {help}");
        assert!(families.insert(family), "{family} occurs twice");
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).expect(family);
        assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (name, labels, value) = sample_of(line);
            assert_eq!(name, family);
            assert!(value >= 0.0, "{line}");
            assert!(samples.insert((name.clone(), labels), value).is_none(), "{line} occurs twice");
        }
    }
    samples
}

/// Name, labels and value of a line.
fn sample_of(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert_name(name);
    assert!(name.starts_with("anytun_xdp_"), "{name}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").expect(line);
            assert_name(label);
            let (value, behind) = quoted(behind);
            assert!(labels.insert(label.into(), value).is_none(), "label {label} occurs twice");
            if let Some(behind) = behind.strip_prefix('}') {
                rest = behind;
                break;
            }
            rest = behind.strip_prefix(',').expect(line);
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    (name.into(), labels, value.parse().expect(line))
}

fn assert_name(name: &str) {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(good), "{name}");
}

/// A label value up to its closing quote, and what is behind that.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                '\\' => '\\',
                '"' => '"',
                'n' => '\n',
                other => panic!("\\{other} is no escape"),
            }),
            character => value.push(character),
        }
    }
    panic!("no closing quote in {text}");
}

fn key(name: &str, labels: &[(&str, &str)]) -> (String, Labels) {
    let labels = labels.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect();
    (format!("anytun_xdp_{name}"), labels)
}

#[test]
fn every_part_of_the_status_is_there() {
    let metrics = metrics(&sample::status());
    let alice = [("client", "alice"), ("network", "office"), ("service", "anycast")];
    let queue = [("interface", "eth0"), ("queue", "0")];
    let with = |labels: &[(&'static str, &'static str)], more: (&'static str, &'static str)| [labels, &[more]].concat();
    for (name, labels, expected) in [
        ("info", vec![("node", "vie1"), ("version", "0.1.0")], 1.0),
        ("ready", vec![], 1.0),
        ("draining", vec![], 0.0),
        ("uptime_seconds", vec![], 3723.5),
        ("config_generation", vec![], 2.0),
        ("config_last_reload_success", vec![], 0.0),
        ("config_last_reload_timestamp_seconds", vec![], 1_763_800_000.0),
        ("resident_memory_bytes", vec![], 45_123_456.0),
        ("umem_bytes", vec![], 33_554_432.0),
        ("sequence_exhausted_keys", vec![], 0.0),
        ("sequence_leases_written_total", vec![], 3.0),
        ("routes", vec![], 12.0),
        ("neighbours", vec![], 2.0),
        ("mirror_resynchronisations_total", vec![], 1.0),
        ("neighbours_asked_total", vec![], 4.0),
        ("path_errors_total", vec![("outcome", "not-sent")], 5.0),
        ("datagrams_total", vec![("outcome", "taken")], 20.0),
        ("sequence_lease_failures_total", vec![], 0.0),
        ("program_packets_total", vec![("verdict", "not-udp")], 17.0),
        ("program_packets_total", vec![("verdict", "fragment")], 0.0),
        ("interface_mode", vec![("interface", "eth0"), ("driver", "veth"), ("asked", "auto"), ("got", "native")], 1.0),
        ("interface_up", vec![("interface", "eth0")], 1.0),
        ("queue_mode", [queue, [("asked", "auto"), ("got", "copy")]].concat(), 1.0),
        ("queue_need_wakeup", queue.to_vec(), 1.0),
        ("queue_huge_pages", queue.to_vec(), 0.0),
        ("xsk_rx_ring_full_total", queue.to_vec(), 5.0),
        ("xsk_tx_invalid_descs_total", queue.to_vec(), 0.0),
        ("worker_mode", vec![("worker", "0"), ("asked", "fifo"), ("got", "other"), ("idle", "sleep")], 1.0),
        ("worker_frames", vec![("worker", "0"), ("state", "fill")], 2048.0),
        ("worker_umem_frames", vec![("worker", "0")], 8192.0),
        ("worker_ledger_holds", vec![("worker", "0")], 1.0),
        ("worker_system_calls_total", vec![("worker", "0"), ("call", "tx_kick")], 900.0),
        ("worker_batches_total", vec![("worker", "0"), ("direction", "rx")], 950.0),
        ("worker_io_packets_total", vec![("worker", "0"), ("direction", "tx")], 1234.0),
        ("worker_packets_total", vec![("worker", "0"), ("verdict", "bad-tag")], 3.0),
        ("worker_copies_total", vec![("worker", "0")], 12.0),
        ("icmp_errors_total", vec![("worker", "0"), ("kind", "time-exceeded")], 7.0),
        ("worker_injected_packets_total", vec![("worker", "0")], 50.0),
        ("device_packets_total", vec![("device", "office"), ("network", "office"), ("what", "delivered")], 40.0),
        ("device_packets_total", vec![("device", "office"), ("network", "office"), ("what", "overrun")], 3.0),
        ("groups", vec![("network", "office")], 2.0),
        ("group_members", vec![("network", "office")], 5.0),
        ("group_members_refused_total", vec![("network", "office")], 1.0),
        ("service_clients", vec![("service", "anycast")], 2.0),
        ("client_rx_packets_total", alice.to_vec(), 1234.0),
        ("client_rx_bytes_total", alice.to_vec(), 103_656.0),
        ("client_tx_packets_total", alice.to_vec(), 66.0),
        ("client_tx_bytes_total", alice.to_vec(), 5544.0),
        ("client_drops_total", with(&alice, ("reason", "replayed")), 1000.0),
        ("client_idle_seconds", alice.to_vec(), 1.2),
    ] {
        assert_eq!(metrics.get(&key(name, &labels)), Some(&expected), "{name} {labels:?}");
    }
    let bob = [("client", "bob"), ("network", "office"), ("service", "anycast")];
    assert_eq!(metrics.get(&key("client_rx_packets_total", &bob)), Some(&0.0));
    assert_eq!(metrics.get(&key("client_idle_seconds", &bob)), None, "never heard from is not a number");
}

#[test]
fn names_with_any_character_come_back_as_they_are() {
    let name = "a\"b\\c\nd}=é, \\n";
    let mut status = sample::status();
    status.clients[0].name = name.into();
    let labels = [("client", name), ("network", "office"), ("service", "anycast")];
    assert_eq!(metrics(&status).get(&key("client_tx_packets_total", &labels)), Some(&66.0));
}
