//! A [`Status`] as Prometheus metrics, in the text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Written directly: the `prometheus-client` crate speaks OpenMetrics only, whose names of counters differ from those of
//! 0.0.4, and renders into one string, while this has to stream 60,000 clients.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use super::status::{Bridge, Client, Counts, Device, Groups, Interface, Nat, Queue, State, Status, Worker};

/// The media type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes all metrics of `status`. `out` should be buffered.
///
/// # Errors
///
/// Those of `out`.
pub fn render(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut text = Text { out, escaped: String::new() };
    node(&mut text, status)?;
    interfaces(&mut text, &status.interfaces)?;
    workers(&mut text, &status.workers)?;
    mirror(&mut text, status)?;
    devices(&mut text, &status.devices)?;
    nats(&mut text, &status.nats)?;
    bridges(&mut text, &status.bridges)?;
    groups(&mut text, &status.groups)?;
    clients(&mut text, status)
}

fn mirror(text: &mut Text<'_>, status: &Status) -> io::Result<()> {
    let mirror = &status.mirror;
    for (name, kind, help, value) in [
        ("rules", Kind::Gauge, "Policy rules of the kernel that are followed.", mirror.rules),
        ("routes", Kind::Gauge, "Routes of the kernel that are mirrored.", mirror.routes),
        ("neighbours", Kind::Gauge, "Neighbours whose Ethernet address is known.", mirror.neighbours),
        ("mirror_listings_total", Kind::Counter, "Times that the kernel's tables were listed.", mirror.listings),
        (
            "mirror_resynchronisations_total",
            Kind::Counter,
            "Times that the kernel lost messages.",
            mirror.resynchronisations,
        ),
        (
            "neighbours_asked_total",
            Kind::Counter,
            "Times that the kernel was asked for a neighbour.",
            mirror.neighbours_asked,
        ),
    ] {
        text.family(name, kind, help)?;
        text.sample(name, &[], value)?;
    }
    text.family("path_errors_total", Kind::Counter, "ICMP errors about tunnel packets that were too big.")?;
    text.counts("path_errors_total", &[], "outcome", &status.path_errors)?;
    let help = "Datagrams that the kernel received for services, such as those that came in fragments.";
    text.family("datagrams_total", Kind::Counter, help)?;
    text.counts("datagrams_total", &[], "outcome", &status.datagrams)
}

const NATS: [Field<Nat>; 3] = [
    ("nat_mappings", "Ports that are lent to clients.", |nat| nat.mappings),
    ("nat_resting_ports", "Ports that rest after their last use.", |nat| nat.resting),
    ("nat_sessions", "Pairs of a lent port and somebody outside.", |nat| nat.sessions),
];

fn bridges(text: &mut Text<'_>, bridges: &[Bridge]) -> io::Result<()> {
    text.family("mac_addresses", Kind::Gauge, "MAC addresses that are known in an Ethernet network.")?;
    bridges
        .iter()
        .try_for_each(|bridge| text.sample("mac_addresses", &[("network", &*bridge.network)], bridge.stations))
}

const GROUPS: [(Kind, Field<Groups>); 3] = [
    (Kind::Gauge, ("groups", "Groups that clients of the network have joined.", |of| of.groups)),
    (Kind::Gauge, ("group_members", "Clients in those, each once for every group.", |of| of.members)),
    (Kind::Counter, ("group_members_refused_total", "Reports of a new member that a limit stopped.", |of| of.refused)),
];

fn groups(text: &mut Text<'_>, networks: &[Groups]) -> io::Result<()> {
    for (kind, (name, help, value)) in GROUPS {
        text.family(name, kind, help)?;
        for of in networks {
            text.sample(name, &[("network", &*of.network)], value(of))?;
        }
    }
    Ok(())
}

fn nats(text: &mut Text<'_>, nats: &[Nat]) -> io::Result<()> {
    for (name, help, value) in NATS {
        text.family(name, Kind::Gauge, help)?;
        for nat in nats {
            let (address, network) = (nat.address.to_string(), &*nat.network);
            text.sample(name, &[("network", network), ("address", &address), ("ports", &nat.ports)], value(nat))?;
        }
    }
    Ok(())
}

fn devices(text: &mut Text<'_>, devices: &[Device]) -> io::Result<()> {
    let name = "device_packets_total";
    text.family(name, Kind::Counter, "Packets through the device of a network, by what became of them.")?;
    for device in devices {
        let counts = [
            ("delivered", device.delivered),
            ("refused", device.refused),
            ("injected", device.injected),
            ("overrun", device.overrun),
        ];
        for (what, count) in counts {
            text.sample(name, &[("device", &device.name), ("network", &device.network), ("what", what)], count)?;
        }
    }
    Ok(())
}

fn node(text: &mut Text<'_>, status: &Status) -> io::Result<()> {
    text.family("info", Kind::Gauge, "The node; always 1.")?;
    text.sample("info", &[("node", &status.node), ("version", &status.version)], 1)?;
    let reload = status.last_reload.as_ref();
    let gauges: [(&str, &str, &dyn Display); 9] = [
        ("ready", "Whether the node wants traffic.", &u8::from(status.ready)),
        ("draining", "Whether the node drains and will stop.", &u8::from(status.state == State::Draining)),
        ("uptime_seconds", "Time since the start.", &status.uptime_seconds),
        (
            "config_generation",
            "1 for the configuration of the start, and 1 for each reload.",
            &status.config_generation,
        ),
        (
            "config_last_reload_success",
            "0 when the last reload was refused.",
            &u8::from(reload.is_none_or(|reload| reload.ok)),
        ),
        (
            "config_last_reload_timestamp_seconds",
            "When the last reload was asked for; 0 when none was.",
            &reload.map_or(0, |reload| reload.at_unix),
        ),
        ("resident_memory_bytes", "Resident set size, UMEM included.", &status.memory.rss_bytes),
        ("umem_bytes", "Size of all UMEMs.", &status.memory.umem_bytes),
        (
            "sequence_exhausted_keys",
            "Keys with no sequence number left for at least one worker.",
            &status.sequences.exhausted_keys,
        ),
    ];
    for (name, help, value) in gauges {
        text.family(name, Kind::Gauge, help)?;
        text.sample(name, &[], value)?;
    }
    text.family("sequence_leases_written_total", Kind::Counter, "Leases of sequence numbers written to the state.")?;
    text.sample("sequence_leases_written_total", &[], status.sequences.leases_written)?;
    text.family("sequence_lease_failures_total", Kind::Counter, "Attempts to write leases that failed.")?;
    text.sample("sequence_lease_failures_total", &[], status.sequences.lease_failures)?;
    text.family("program_packets_total", Kind::Counter, "Packets by the verdict of the XDP program.")?;
    text.counts("program_packets_total", &[], "verdict", &status.program.verdicts)
}

/// The name of a family, its help, and where its value is.
type Field<T> = (&'static str, &'static str, fn(&T) -> u64);

const XSK_STATISTICS: [Field<Queue>; 6] = [
    ("xsk_rx_dropped_total", "Packets the kernel dropped for other reasons.", |q| q.statistics.rx_dropped),
    ("xsk_rx_invalid_descs_total", "Invalid descriptors in the FILL ring.", |q| q.statistics.rx_invalid_descs),
    ("xsk_tx_invalid_descs_total", "Invalid descriptors in the TX ring.", |q| q.statistics.tx_invalid_descs),
    ("xsk_rx_ring_full_total", "Packets dropped for a full RX ring.", |q| q.statistics.rx_ring_full),
    ("xsk_rx_fill_ring_empty_descs_total", "Packets for which the FILL ring had no frame.", |q| {
        q.statistics.rx_fill_ring_empty_descs
    }),
    ("xsk_tx_ring_empty_descs_total", "Times the kernel found the TX ring empty.", |q| {
        q.statistics.tx_ring_empty_descs
    }),
];

fn interfaces(text: &mut Text<'_>, interfaces: &[Interface]) -> io::Result<()> {
    text.family("interface_mode", Kind::Gauge, "XDP mode asked for and got; always 1.")?;
    for interface in interfaces {
        let labels = [
            ("interface", interface.name.as_str()),
            ("driver", &interface.driver),
            ("asked", &interface.xdp.asked),
            ("got", &interface.xdp.got),
        ];
        text.sample("interface_mode", &labels, 1)?;
    }
    text.family("interface_up", Kind::Gauge, "Whether the interface is up and has a carrier.")?;
    for interface in interfaces {
        text.sample("interface_up", &[("interface", &interface.name)], u8::from(interface.up))?;
    }
    let queues = || {
        interfaces.iter().flat_map(|interface| {
            interface.queues.iter().map(|queue| (interface.name.as_str(), queue.queue.to_string(), queue))
        })
    };
    text.family("queue_mode", Kind::Gauge, "Mode of the AF_XDP socket asked for and got; always 1.")?;
    for (interface, number, queue) in queues() {
        let labels = [("interface", interface), ("queue", &number), ("asked", &queue.asked), ("got", &queue.got)];
        text.sample("queue_mode", &labels, 1)?;
    }
    text.family("queue_need_wakeup", Kind::Gauge, "Whether the socket was bound with XDP_USE_NEED_WAKEUP.")?;
    for (interface, number, queue) in queues() {
        let labels = [("interface", interface), ("queue", number.as_str())];
        text.sample("queue_need_wakeup", &labels, u8::from(queue.need_wakeup))?;
    }
    text.family("queue_huge_pages", Kind::Gauge, "Whether the packets' memory lies in huge pages.")?;
    for (interface, number, queue) in queues() {
        let labels = [("interface", interface), ("queue", number.as_str())];
        text.sample("queue_huge_pages", &labels, u8::from(queue.huge_pages))?;
    }
    for (name, help, value) in XSK_STATISTICS {
        text.family(name, Kind::Counter, help)?;
        for (interface, number, queue) in queues() {
            text.sample(name, &[("interface", interface), ("queue", &number)], value(queue))?;
        }
    }
    Ok(())
}

/// A family with one label besides the worker: its kind, name, help, label, and the label's values with theirs.
type WorkerFamily<'a> = (Kind, &'a str, &'a str, &'a str, &'a [(&'a str, fn(&Worker) -> u64)]);

const WORKER_FAMILIES: [WorkerFamily<'static>; 4] = [
    (
        Kind::Gauge,
        "worker_frames",
        "Frames of the UMEM by state.",
        "state",
        &[
            ("free", |w| w.ledger.free),
            ("fill", |w| w.ledger.fill),
            ("received", |w| w.ledger.received),
            ("tx", |w| w.ledger.tx),
        ],
    ),
    (
        Kind::Counter,
        "worker_system_calls_total",
        "System calls for packet I/O.",
        "call",
        &[("tx_kick", |w| w.io.tx_kicks), ("fill_kick", |w| w.io.fill_kicks), ("poll", |w| w.io.polls)],
    ),
    (
        Kind::Counter,
        "worker_batches_total",
        "Batches received and handed over for transmission.",
        "direction",
        &[("rx", |w| w.io.rx_batches), ("tx", |w| w.io.tx_batches)],
    ),
    (
        Kind::Counter,
        "worker_io_packets_total",
        "Packets received and handed over for transmission.",
        "direction",
        &[("rx", |w| w.io.rx_packets), ("tx", |w| w.io.tx_packets)],
    ),
];

fn workers(text: &mut Text<'_>, workers: &[Worker]) -> io::Result<()> {
    let workers: Vec<_> = workers.iter().map(|worker| (worker.worker.to_string(), worker)).collect();
    text.family("worker_mode", Kind::Gauge, "Scheduling asked for and got, and the idle policy; always 1.")?;
    for (number, worker) in &workers {
        let labels = [
            ("worker", number.as_str()),
            ("asked", &worker.scheduling.asked),
            ("got", &worker.scheduling.got),
            ("idle", &worker.idle),
        ];
        text.sample("worker_mode", &labels, 1)?;
    }
    for (kind, name, help, label, values) in WORKER_FAMILIES {
        text.family(name, kind, help)?;
        for (number, worker) in &workers {
            for (label_value, value) in values {
                text.sample(name, &[("worker", number), (label, label_value)], value(worker))?;
            }
        }
    }
    text.family("worker_umem_frames", Kind::Gauge, "Frames of the UMEM.")?;
    for (number, worker) in &workers {
        text.sample("worker_umem_frames", &[("worker", number)], worker.ledger.total)?;
    }
    text.family("worker_ledger_holds", Kind::Gauge, "Whether the frames of all states sum up to the UMEM.")?;
    for (number, worker) in &workers {
        text.sample("worker_ledger_holds", &[("worker", number)], u8::from(worker.ledger.holds))?;
    }
    text.family("worker_packets_total", Kind::Counter, "Packets by the verdict of the worker.")?;
    for (number, worker) in &workers {
        text.counts("worker_packets_total", &[("worker", number)], "verdict", &worker.verdicts)?;
    }
    text.family(
        "worker_injected_packets_total",
        Kind::Counter,
        "Packets of the node's kernel that a worker took, and queries for members of groups.",
    )?;
    for (number, worker) in &workers {
        text.sample("worker_injected_packets_total", &[("worker", number)], worker.injected)?;
    }
    text.family("worker_copies_total", Kind::Counter, "Copies of packets to groups and broadcasts.")?;
    for (number, worker) in &workers {
        text.sample("worker_copies_total", &[("worker", number)], worker.copies)?;
    }
    text.family("icmp_errors_total", Kind::Counter, "ICMP errors sent to clients about their packets, by kind.")?;
    for (number, worker) in &workers {
        text.counts("icmp_errors_total", &[("worker", number)], "kind", &worker.icmp_errors)?;
    }
    Ok(())
}

const CLIENT_TRAFFIC: [Field<Client>; 4] = [
    ("client_rx_packets_total", "Authentic packets from the client.", |c| c.rx.packets),
    ("client_rx_bytes_total", "Octets of those, from SATP header to tag.", |c| c.rx.bytes),
    ("client_tx_packets_total", "Packets sealed for the client.", |c| c.tx.packets),
    ("client_tx_bytes_total", "Octets of those, from SATP header to tag.", |c| c.tx.bytes),
];

fn clients(text: &mut Text<'_>, status: &Status) -> io::Result<()> {
    text.family("service_clients", Kind::Gauge, "Clients of the service.")?;
    for service in &status.services {
        text.sample("service_clients", &[("service", &service.name)], service.clients)?;
    }
    fn labels(client: &Client) -> [(&str, &str); 3] {
        [("client", &client.name), ("network", &client.network), ("service", &client.service)]
    }
    for (name, help, value) in CLIENT_TRAFFIC {
        text.family(name, Kind::Counter, help)?;
        for client in &status.clients {
            text.sample(name, &labels(client), value(client))?;
        }
    }
    text.family("client_drops_total", Kind::Counter, "Dropped packets of the client by reason.")?;
    for client in &status.clients {
        text.counts("client_drops_total", &labels(client), "reason", &client.drops)?;
    }
    text.family("client_idle_seconds", Kind::Gauge, "Time since the last authentic packet of the client.")?;
    for client in &status.clients {
        if let Some(seconds) = client.last_seen_seconds_ago {
            text.sample("client_idle_seconds", &labels(client), seconds)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text format. Every name gets the prefix of the program.
struct Text<'a> {
    out: &'a mut dyn Write,
    escaped: String,
}

const PREFIX: &str = "anytun_xdp_";

impl Text<'_> {
    fn family(&mut self, name: &str, kind: Kind, help: &str) -> io::Result<()> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        writeln!(self.out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}")
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) -> io::Result<()> {
        self.escaped.clear();
        for (index, (label, label_value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            // Writing to a string cannot fail.
            let _ = write!(self.escaped, "{before}{label}=\"");
            escape(label_value, &mut self.escaped);
            self.escaped.push('"');
        }
        if !labels.is_empty() {
            self.escaped.push('}');
        }
        writeln!(self.out, "{PREFIX}{name}{} {value}", self.escaped)
    }

    /// A sample for each count, named by `label` after the `labels` (at most three).
    fn counts(&mut self, name: &str, labels: &[(&str, &str)], label: &str, counts: &Counts) -> io::Result<()> {
        let mut all = Vec::with_capacity(labels.len() + 1);
        for (reason, count) in counts {
            all.clear();
            all.extend_from_slice(labels);
            all.push((label, reason));
            self.sample(name, &all, count)?;
        }
        Ok(())
    }
}

/// The three characters a label value must not hold as they are.
fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            character => out.push(character),
        }
    }
}

#[cfg(test)]
mod tests;
