//! The tables `[[group]]`, and what `broadcast` and `copies` of a `[[network]]` ask of its clients.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::document::{At, Table};
use super::error::Report;
use super::names::Names;
use super::{Client, Group, Network};

/// Groups and addresses of broadcasts that a node can have.
const MOST: usize = 4096;

/// Copies of one packet when nothing is said, and at most.
const COPIES: u32 = 64;
const MOST_COPIES: u32 = 1024;

/// Reads how often one packet is copied at most; `None` when it cannot be used.
pub(super) fn copies(report: &mut Report, table: &Table<'_>) -> Option<u32> {
    match table.has("copies") {
        true => table.integer(report, "copies", 1..=MOST_COPIES.into()).map(|at| at.value),
        false => Some(COPIES),
    }
}

/// Reads the addresses that reach every client of a network; `None` when one cannot be used.
pub(super) fn broadcast(report: &mut Report, table: &Table<'_>) -> Option<Vec<Ipv4Addr>> {
    if !table.has("broadcast") {
        return Some(Vec::new());
    }
    let texts = table.strings(report, "broadcast")?.value;
    let mut addresses = Vec::with_capacity(texts.len());
    for At { line, value } in &texts {
        let usable = |address: &Ipv4Addr| {
            !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !address.is_link_local()
        };
        let Some(address) = value.parse().ok().filter(usable) else {
            report.error(
                *line,
                format!(
                    "`broadcast` {value:?} is no address of broadcasts: write 255.255.255.255, the last address of a \
                     subnet such as \"10.9.0.255\", or for multicast a [[group]]"
                ),
            );
            continue;
        };
        match addresses.contains(&address) {
            true => report.error(*line, format!("`broadcast` {address} is given twice")),
            false => addresses.push(address),
        }
    }
    (addresses.len() == texts.len()).then_some(addresses)
}

/// A `[[group]]`, as far as it could be read before there were clients.
pub(super) struct Entry<'a> {
    network: Option<usize>,
    address: Option<At<IpAddr>>,
    members: Option<At<Vec<At<&'a str>>>>,
}

/// Reads every `[[group]]`.
pub(super) fn groups<'a>(report: &mut Report, tables: &[Table<'a>], networks: &Names) -> Vec<Entry<'a>> {
    if let Some(table) = tables.get(MOST) {
        report.error(table.line, format!("there are {} groups; a node can have {MOST}", tables.len()));
    }
    let entries: Vec<Entry<'a>> = tables.iter().map(|table| entry(report, table, networks)).collect();
    let mut taken = HashMap::new();
    for Entry { network, address, .. } in &entries {
        let (Some(network), Some(At { line, value: address })) = (network, address) else { continue };
        if let Some(other) = taken.insert((network, address), line) {
            report.error(
                *line,
                format!("`address` {address} is that of the group in line {other}; name all its members there"),
            );
        }
    }
    entries
}

fn entry<'a>(report: &mut Report, table: &Table<'a>, networks: &Names) -> Entry<'a> {
    let network = networks.refer(report, table);
    table.require(report, "address");
    let address = table.string(report, "address").and_then(|At { line, value }| {
        match value.parse().map_err(|_| no_group(value)).and_then(|address| check_address(address).map(|()| address)) {
            Ok(value) => Some(At { line, value }),
            Err(wrong) => {
                report.error(line, wrong);
                None
            }
        }
    });
    table.require(report, "members");
    let members = table.strings(report, "members");
    if let Some(At { line, .. }) = members.as_ref().filter(|members| members.value.is_empty()) {
        report.error(*line, "`members` is empty; a group needs at least one client to copy packets to");
    }
    Entry { network, address, members }
}

fn no_group(text: &str) -> String {
    format!("`address` {text:?} is no multicast address, such as \"239.1.2.3\" or \"ff05::1:3\"")
}

/// Whether routers forward packets to a group (RFC 5771 §4, RFC 4291 §2.7).
fn check_address(address: IpAddr) -> Result<(), String> {
    let of_link = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.octets()[1] & 0x0f <= 2,
    };
    match address.is_multicast() {
        false => Err(no_group(&address.to_string())),
        true if of_link => Err(format!(
            "`address` {address} has the scope of a link or less, which no router forwards; use one outside of 224.0.0.0/24 \
             and of ff00::/16, ff01::/16 and ff02::/16"
        )),
        true => Ok(()),
    }
}

/// What groups and broadcasts refer to.
pub(super) struct Surroundings<'a> {
    pub(super) networks: &'a [Option<Network>],
    /// Of the key `broadcast` of each network.
    pub(super) broadcast_lines: &'a [usize],
    pub(super) client_names: &'a Names,
    pub(super) clients: &'a [Option<Client>],
}

/// The groups, when clients and networks are known; `None` stands for one that cannot be used.
pub(super) fn finish(report: &mut Report, entries: Vec<Entry<'_>>, around: &Surroundings<'_>) -> Vec<Option<Group>> {
    check_broadcasts(report, entries.len(), around);
    entries.into_iter().map(|entry| group(report, entry, around)).collect()
}

fn group(report: &mut Report, entry: Entry<'_>, around: &Surroundings<'_>) -> Option<Group> {
    let Entry { network: number, address, members } = entry;
    let network = around.networks.get(number?)?.as_ref()?;
    let At { line, value: names } = members?;
    if network.bridging.is_some() {
        let message = format!(
            "the network {:?} is an Ethernet network, where everybody gets what is sent to a group",
            network.name
        );
        report.error(line, message);
        return None;
    }
    let mut seen = HashSet::new();
    let mut members = Vec::with_capacity(names.len());
    for name in &names {
        let Some(member) = around.client_names.find(report, *name) else { continue };
        let client = around.clients.get(member).and_then(Option::as_ref);
        if !seen.insert(member) {
            report.error(name.line, format!("client {:?} is named twice in `members`", name.value));
        } else if let Some(client) = client.filter(|client| Some(client.network) != number) {
            let other =
                around.networks.get(client.network).and_then(Option::as_ref).map_or("", |network| &network.name);
            report.error(
                name.line,
                format!(
                    "client {:?} is in the network {other:?}, and the group in {:?}: no packet goes from one to the other",
                    client.name, network.name
                ),
            );
        } else {
            members.push(member);
        }
    }
    if names.len() > network.copies as usize {
        report.error(
            line,
            format!(
                "`members` has {}, but a packet in the network {:?} is copied {} times at most; raise its `copies`, up to \
                 {MOST_COPIES}, or name fewer",
                names.len(),
                network.name,
                network.copies
            ),
        );
    }
    (members.len() == names.len()).then_some(Group { network: number?, address: address?.value, members })
}

/// Reports networks with more clients than a broadcast can be copied to, and broadcasts to what is a client's address.
fn check_broadcasts(report: &mut Report, groups: usize, around: &Surroundings<'_>) {
    let broadcasts: usize = around.networks.iter().flatten().map(|network| network.broadcast.len()).sum();
    if broadcasts > 0 && groups.saturating_add(broadcasts) > MOST {
        report.error(
            0,
            format!("there are {groups} groups and {broadcasts} addresses in `broadcast`; {MOST} is the limit of both"),
        );
    }
    for (index, (network, line)) in around.networks.iter().zip(around.broadcast_lines).enumerate() {
        let Some(network) = network else { continue };
        let (what, way_out) = match network.bridging {
            Some(_) => ("an Ethernet network", "or take another network for some of them"),
            None if network.broadcast.is_empty() => continue,
            None => ("`broadcast`", "or leave `broadcast` out"),
        };
        let clients = || around.clients.iter().flatten().filter(|client| client.network == index);
        // The sender gets no copy.
        let others = clients().count().saturating_sub(1);
        if others > network.copies as usize {
            report.error(
                *line,
                format!(
                    "{what} would copy a packet to {others} clients, but a packet in the network {:?} is copied {} times at \
                     most; raise its `copies`, up to {MOST_COPIES}, {way_out}",
                    network.name, network.copies
                ),
            );
        }
        for client in clients() {
            for prefix in client.prefixes.iter().filter(|prefix| prefix.length == 32) {
                if network.broadcast.iter().any(|address| prefix.contains((*address).into())) {
                    let address = prefix.address;
                    report.error(*line, format!("`broadcast` {address} is the address of client {:?}", client.name));
                }
            }
        }
    }
}
