//! The tables `[[service]]` and `[[network]]`.

use std::collections::HashMap;
use std::net::IpAddr;

use anytun_common::map::MAX_SERVICES;

use super::bridge::bridging;
use super::document::{At, Table};
use super::error::Report;
use super::local::local;
use super::names::Names;
use super::open::open;
use super::snooping::snooping;
use super::{Network, Service, UdpChecksum, group};

/// Reads every `[[service]]`; `None` stands for one that cannot be used.
pub(super) fn services(report: &mut Report, tables: &[Table<'_>], names: &mut Names) -> Vec<Option<Service>> {
    if tables.is_empty() {
        report.error(0, "there is no [[service]]; the node needs at least one address and port to answer on");
    }
    let limit = MAX_SERVICES as usize;
    if let Some(table) = tables.get(limit) {
        report.error(table.line, format!("there are {} services; a node can have {limit}", tables.len()));
    }
    let services: Vec<Option<Service>> = tables.iter().map(|table| service(report, table, names)).collect();
    let mut taken = HashMap::new();
    for (table, service) in tables.iter().zip(&services) {
        let Some(service) = service else { continue };
        if let Some(other) = taken.insert((service.address, service.port), table.line) {
            let (address, port) = (service.address, service.port);
            report.error(
                table.line,
                format!("address {address} and port {port} are those of the service of line {other}"),
            );
        }
    }
    services
}

fn service(report: &mut Report, table: &Table<'_>, names: &mut Names) -> Option<Service> {
    let name = names.take(report, table);
    table.require(report, "address");
    let address = table.string(report, "address").and_then(|at| address(report, at));
    table.require(report, "port");
    let port = table.integer::<u16>(report, "port", 1..=65535);
    let checksums = [("full", UdpChecksum::Full), ("zero", UdpChecksum::Zero)];
    let udp_checksum = match table.has("udp_checksum") {
        true => table.choice(report, "udp_checksum", &checksums).map(|at| at.value),
        false => Some(UdpChecksum::Full),
    };
    let (address, udp_checksum) = (address?, udp_checksum?);
    if address.is_ipv6() && udp_checksum == UdpChecksum::Zero {
        report.warn(
            table.line_of("udp_checksum"),
            "`udp_checksum` = \"zero\" has no effect: UDP over IPv6 always carries a checksum (RFC 8200 section 8.1)",
        );
    }
    Some(Service { name: name?, address, port: port?.value, udp_checksum })
}

fn address(report: &mut Report, At { line, value }: At<&str>) -> Option<IpAddr> {
    let Ok(address) = value.parse() else {
        report.error(line, format!("`address` {value:?} is no IPv4 or IPv6 address"));
        return None;
    };
    if let Some(why) = not_of_a_host(address) {
        report.error(line, format!("`address` {address} {why}"));
        return None;
    }
    Some(address)
}

/// Why packets of other hosts cannot be addressed to an address.
pub(super) fn not_of_a_host(address: IpAddr) -> Option<&'static str> {
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_multicast() || broadcast {
        Some("is that of a group, not of a host")
    } else if address.is_loopback() {
        Some("is a loopback address; the node is never on loopback")
    } else if mapped {
        Some("is an IPv4 address written as IPv6; write it as IPv4")
    } else {
        None
    }
}

/// Reads every `[[network]]` of the node with this name; `None` stands for one that cannot be used.
pub(super) fn networks(
    report: &mut Report,
    tables: &[Table<'_>],
    names: &mut Names,
    node: &str,
) -> Vec<Option<Network>> {
    tables.iter().map(|table| network(report, table, names, node)).collect()
}

fn network(report: &mut Report, table: &Table<'_>, names: &mut Names, node: &str) -> Option<Network> {
    let name = names.take(report, table);
    let bridging = bridging(report, table);
    let more_specifics = match table.has("more_specifics") {
        true => table.boolean(report, "more_specifics").map(|at| at.value),
        false => Some(false),
    };
    let open = open(report, table);
    let mss_clamp = match table.has("mss_clamp") {
        true => table.boolean(report, "mss_clamp").map(|at| at.value),
        false => Some(true),
    };
    // One of which that is wrong counts as Ethernet, of which less is asked.
    let node_of_ethernet = (bridging != Some(None)).then_some(node);
    let local = local(report, table, name.as_deref(), open, node_of_ethernet);
    let broadcast = group::broadcast(report, table);
    let copies = group::copies(report, table);
    let snooping = snooping(report, table);
    Some(Network {
        name: name?,
        more_specifics: more_specifics?,
        mss_clamp: mss_clamp?,
        open: open?,
        bridging: bridging?,
        local: local?,
        broadcast: broadcast?,
        copies: copies?,
        snooping: snooping?,
    })
}
