//! A [`Status`] as text for people.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use anytun_common::verdict::{Outcome, Verdict};

use super::status::{Client, Counts, Interface, Queue, Status};
use super::table::{Align, Table, si, thousands, time};

use Align::{Left, Right};

/// Clients that are shown; of more than these the busiest.
pub const CLIENTS_SHOWN: usize = 50;

/// `status` as text: what the node is, its interfaces and queues, its workers, its clients and the verdicts that occurred.
///
/// With a `previous` status of the same node from `interval` ago there are rates, too.
pub fn show(status: &Status, previous: Option<&Status>, interval: Duration) -> String {
    let since = previous
        // A node that was restarted counts from zero.
        .filter(|previous| previous.pid == status.pid && !interval.is_zero())
        .map(|previous| Since { previous, seconds: interval.as_secs_f64() });
    let parts = [
        head(status),
        interfaces(&status.interfaces).text(),
        workers(status).text(),
        clients(status, since.as_ref()),
        verdicts(status, since.as_ref()),
    ];
    parts.join("\n")
}

/// What rates are computed from.
struct Since<'a> {
    previous: &'a Status,
    seconds: f64,
}

impl Since<'_> {
    /// Per second, rounded; 0 where the counter started again.
    fn rate(&self, now: u64, before: u64) -> u64 {
        (now.saturating_sub(before) as f64 / self.seconds).round() as u64
    }
}

fn head(status: &Status) -> String {
    let mut text = format!(
        "node {}: {}, {} (anytun-xdp {}, pid {}, up {})\n",
        status.node,
        status.state.name(),
        if status.ready { "ready" } else { "not ready" },
        status.version,
        status.pid,
        time(status.uptime_seconds),
    );
    text += &format!("configuration: {}, generation {}", status.config_file, status.config_generation);
    match &status.last_reload {
        None => text.push('\n'),
        Some(reload) => {
            let outcome = if reload.ok { "accepted" } else { "REFUSED" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "; last reload {outcome}: {}", reload.message);
        }
    }
    let memory = status.memory;
    let _ = writeln!(
        text,
        "memory: {} resident, UMEM {}; XDP program {}",
        si(memory.rss_bytes, "B"),
        si(memory.umem_bytes, "B"),
        status.program.id
    );
    let sequences = status.sequences;
    let _ = write!(text, "sequence numbers: {} leases written", thousands(sequences.leases_written));
    if sequences.lease_failures > 0 {
        let _ = write!(text, ", {} times NOT WRITTEN", thousands(sequences.lease_failures));
    }
    if sequences.exhausted_keys > 0 {
        let _ = write!(text, ", EXHAUSTED for {} keys", thousands(sequences.exhausted_keys));
    }
    text.push('\n');
    let errors: Vec<_> = icmp_errors(status).into_iter().filter(|(_, count)| *count > 0).collect();
    if !errors.is_empty() {
        let errors: Vec<_> = errors.iter().map(|(kind, count)| format!("{kind} {}", thousands(*count))).collect();
        let _ = writeln!(text, "ICMP errors sent: {}", errors.join(", "));
    }
    if status.datagrams.values().any(|count| *count > 0) {
        let counts: Vec<_> =
            status.datagrams.iter().map(|(what, count)| format!("{what} {}", thousands(*count))).collect();
        let _ = writeln!(text, "datagrams that the kernel received, most in fragments: {}", counts.join(", "));
    }
    let mirror = status.mirror;
    let _ = writeln!(
        text,
        "routes: {} by {} rules, {} neighbours known",
        thousands(mirror.routes),
        mirror.rules,
        thousands(mirror.neighbours)
    );
    for device in &status.devices {
        let own = match &device.addresses[..] {
            [] => format!("a port of network {}", device.network),
            some => format!("the node is {} in network {}", some.join(", "), device.network),
        };
        let mac = device.mac.iter().map(|mac| format!(", MAC address {mac}"));
        let _ = writeln!(
            text,
            "device {}: {own}{}; {} packets to the kernel, {} from it",
            device.name,
            mac.collect::<String>(),
            thousands(device.delivered),
            thousands(device.injected)
        );
        if device.refused + device.overrun > 0 {
            let _ = writeln!(
                text,
                "  {} that the kernel did not take, {} of it that found no room with a worker",
                thousands(device.refused),
                thousands(device.overrun)
            );
        }
    }
    for service in &status.services {
        let _ = writeln!(
            text,
            "service {}: {} port {}, {} clients",
            service.name,
            service.address,
            service.port,
            thousands(service.clients)
        );
    }
    for bridge in &status.bridges {
        let _ = writeln!(text, "Ethernet {}: {} MAC addresses", bridge.network, thousands(bridge.stations));
    }
    for groups in &status.groups {
        let _ = writeln!(
            text,
            "groups of {}: {} joined, {} members, {} refused",
            groups.network,
            thousands(groups.groups),
            thousands(groups.members),
            thousands(groups.refused)
        );
    }
    for nat in &status.nats {
        let _ = writeln!(
            text,
            "NAT of {}: {} ports {}, {} lent, {} at rest, {} sessions",
            nat.network,
            nat.address,
            nat.ports,
            thousands(nat.mappings),
            thousands(nat.resting),
            thousands(nat.sessions)
        );
    }
    text
}

fn interfaces(interfaces: &[Interface]) -> Table {
    let mut table = Table::new(&[
        ("INTERFACE", Left),
        ("DRIVER", Left),
        ("LINK", Left),
        ("XDP ASKED", Left),
        ("XDP GOT", Left),
        ("QUEUE", Right),
        ("WORKER", Right),
        ("QUEUE ASKED", Left),
        ("QUEUE GOT", Left),
        ("WAKEUP", Left),
        ("HUGE PAGES", Left),
        ("DROPPED", Right),
        ("RX RING FULL", Right),
        ("NO FILL FRAME", Right),
    ]);
    for interface in interfaces {
        if interface.queues.is_empty() {
            table.add(interface_row(interface, None));
        }
        for queue in &interface.queues {
            table.add(interface_row(interface, Some(queue)));
        }
    }
    table
}

fn interface_row(interface: &Interface, queue: Option<&Queue>) -> Vec<String> {
    let mut row = vec![
        interface.name.clone(),
        interface.driver.clone(),
        if interface.up { "up" } else { "DOWN" }.into(),
        interface.xdp.asked.clone(),
        interface.xdp.got.clone(),
    ];
    match queue {
        None => row.extend(std::iter::repeat_n("-".to_owned(), 9)),
        Some(queue) => row.extend([
            queue.queue.to_string(),
            queue.worker.to_string(),
            queue.asked.clone(),
            queue.got.clone(),
            yes_or_no(queue.need_wakeup),
            yes_or_no(queue.huge_pages),
            thousands(queue.statistics.rx_dropped),
            thousands(queue.statistics.rx_ring_full),
            thousands(queue.statistics.rx_fill_ring_empty_descs),
        ]),
    }
    row
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

fn workers(status: &Status) -> Table {
    let mut table = Table::new(&[
        ("WORKER", Right),
        ("SENDER ID", Right),
        ("SCHEDULING", Left),
        ("FREE", Right),
        ("FILL", Right),
        ("RECEIVED", Right),
        ("TX", Right),
        ("FRAMES", Right),
        ("LEDGER", Left),
        ("TX KICKS", Right),
        ("FILL KICKS", Right),
        ("POLLS", Right),
        ("RX BATCHES", Right),
        ("TX BATCHES", Right),
        ("RX PACKETS", Right),
        ("TX PACKETS", Right),
    ]);
    for worker in &status.workers {
        let (ledger, io) = (worker.ledger, worker.io);
        let mut row = vec![worker.worker.to_string(), worker.sender_id.to_string(), worker.scheduling.got.clone()];
        row.extend([ledger.free, ledger.fill, ledger.received, ledger.tx, ledger.total].map(thousands));
        row.push(if ledger.holds { "holds" } else { "BROKEN" }.into());
        row.extend(
            [io.tx_kicks, io.fill_kicks, io.polls, io.rx_batches, io.tx_batches, io.rx_packets, io.tx_packets]
                .map(thousands),
        );
        table.add(row);
    }
    table
}

/// A client and its rates per second since the previous status.
struct Row<'a> {
    client: &'a Client,
    rates: Option<Rates>,
}

struct Rates {
    rx_packets: u64,
    rx_bits: u64,
    tx_packets: u64,
    tx_bits: u64,
}

impl Row<'_> {
    /// By what it is ranked among more clients than are shown.
    fn busyness(&self) -> (u64, u64) {
        let rate = self.rates.as_ref().map_or(0, |rates| rates.rx_bits.saturating_add(rates.tx_bits));
        (rate, self.client.rx.bytes.saturating_add(self.client.tx.bytes))
    }
}

fn clients(status: &Status, since: Option<&Since<'_>>) -> String {
    let before: HashMap<_, _> =
        since.into_iter().flat_map(|since| &since.previous.clients).map(|client| (&client.name, client)).collect();
    let mut rows: Vec<_> = status
        .clients
        .iter()
        .map(|client| {
            let rates = since.map(|since| {
                let before = before.get(&client.name).copied().unwrap_or(client);
                Rates {
                    rx_packets: since.rate(client.rx.packets, before.rx.packets),
                    rx_bits: since.rate(client.rx.bytes, before.rx.bytes).saturating_mul(8),
                    tx_packets: since.rate(client.tx.packets, before.tx.packets),
                    tx_bits: since.rate(client.tx.bytes, before.tx.bytes).saturating_mul(8),
                }
            });
            Row { client, rates }
        })
        .collect();
    let mut note = String::new();
    if rows.len() > CLIENTS_SHOWN {
        note = format!("the busiest {CLIENTS_SHOWN} of {} clients\n", thousands(rows.len() as u64));
        rows.sort_by_cached_key(|row| std::cmp::Reverse(row.busyness()));
        rows.truncate(CLIENTS_SHOWN);
    }
    let mut columns = vec![("CLIENT", Left), ("NETWORK", Left), ("ENDPOINT", Left), ("LAST SEEN", Right)];
    columns.extend([("RX PACKETS", Right), ("RX BYTES", Right), ("TX PACKETS", Right), ("TX BYTES", Right)]);
    if since.is_some() {
        columns.extend([("RX/S", Right), ("RX BIT/S", Right), ("TX/S", Right), ("TX BIT/S", Right)]);
    }
    columns.push(("DROPS", Left));
    let mut table = Table::new(&columns);
    for row in rows {
        table.add(client_row(row));
    }
    note + &table.text()
}

fn client_row(Row { client, rates }: Row<'_>) -> Vec<String> {
    let mut row = vec![
        client.name.to_string(),
        client.network.to_string(),
        client.endpoint.map_or("-".into(), |endpoint| endpoint.to_string()),
        client.last_seen_seconds_ago.map_or("never".into(), time),
        thousands(client.rx.packets),
        si(client.rx.bytes, "B"),
        thousands(client.tx.packets),
        si(client.tx.bytes, "B"),
    ];
    if let Some(rates) = rates {
        row.push(thousands(rates.rx_packets));
        row.push(si(rates.rx_bits, "bit/s"));
        row.push(thousands(rates.tx_packets));
        row.push(si(rates.tx_bits, "bit/s"));
    }
    let drops: Vec<_> = client
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {}", thousands(*count)))
        .collect();
    row.push(if drops.is_empty() { "none".into() } else { drops.join(", ") });
    row
}

/// The verdicts that occurred, in the order of a packet's way, those of all workers together.
fn verdicts(status: &Status, since: Option<&Since<'_>>) -> String {
    let before = since.map(|since| (totals(since.previous), since));
    let mut columns = vec![("VERDICT", Left), ("PACKETS", Right)];
    if since.is_some() {
        columns.push(("PER SECOND", Right));
    }
    columns.extend([("BY", Left), ("MEANING", Left)]);
    let mut table = Table::new(&columns);
    let totals = totals(status);
    for verdict in Verdict::ALL {
        let count = totals.get(verdict.name()).copied().unwrap_or(0);
        if count == 0 {
            continue;
        }
        let mut row = vec![verdict.name().to_owned(), thousands(count)];
        if let Some((before, since)) = &before {
            row.push(thousands(since.rate(count, before.get(verdict.name()).copied().unwrap_or(0))));
        }
        let by = match verdict.outcome() {
            Outcome::Steered | Outcome::Shed | Outcome::Passed => "XDP",
            Outcome::Done | Outcome::Dropped => "worker",
        };
        row.extend([by.into(), verdict.help().into()]);
        table.add(row);
    }
    if table.is_empty() { "no packets yet\n".into() } else { table.text() }
}

fn totals(status: &Status) -> BTreeMap<&str, u64> {
    sum(status.workers.iter().map(|worker| &worker.verdicts).chain([&status.program.verdicts]))
}

fn icmp_errors(status: &Status) -> BTreeMap<&str, u64> {
    sum(status.workers.iter().map(|worker| &worker.icmp_errors))
}

fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> BTreeMap<&'a str, u64> {
    let mut totals = BTreeMap::new();
    for (name, count) in counts.flatten() {
        let total: &mut u64 = totals.entry(name.as_ref()).or_default();
        *total = total.saturating_add(*count);
    }
    totals
}

#[cfg(test)]
mod tests;
