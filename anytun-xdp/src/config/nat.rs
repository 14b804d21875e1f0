//! The key `nat` of a `[[network]]`: the address and ports behind which its clients reach the outside.

use std::net::IpAddr;

use anytun_common::map::MAX_INSIDE;

use super::document::{Form, Schema, Table};
use super::error::Report;
use super::service::not_of_a_host;
use super::{Network, Open, PortRange, Service};

/// NATs of all networks together.
const MOST: usize = 64;
// An aligned block of ports is one entry of the map, and a range has 30 at most.
const _: () = assert!(MOST * 30 < MAX_INSIDE as usize / 2);

static SCHEMA: Schema = Schema {
    name: "nat",
    form: Form::Inline,
    keys: &["address", "ports", "filtering", "ports_per_client", "sessions_per_client", "udp_timeout"],
};

/// Behind which address and ports clients reach the outside, in one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nat {
    /// The address that packets leave with.
    pub address: IpAddr,
    /// The ports of this node at that address.
    pub ports: PortRange,
    /// Who outside may answer.
    pub filtering: Filtering,
    /// Ports that one client may have, of all protocols.
    pub ports_per_client: u32,
    /// Sessions that one client may have: pairs of a port and somebody outside.
    pub sessions_per_client: u32,
    /// Seconds after which a silent UDP session ends.
    pub udp_timeout: u32,
}

impl Nat {
    /// The defaults for an address and its ports.
    pub const fn new(address: IpAddr, ports: PortRange) -> Self {
        Self {
            address,
            ports,
            filtering: Filtering::AddressAndPortDependent,
            ports_per_client: 1024,
            sessions_per_client: 4096,
            udp_timeout: 300,
        }
    }
}

/// From whom outside packets reach a port (RFC 4787 §5). Of TCP always as the strictest, since connections are followed one
/// by one (RFC 5382 REQ-3 leaves it open).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// From anybody.
    EndpointIndependent,
    /// From addresses that the client has sent to from that port.
    AddressDependent,
    /// From addresses and ports that the client has sent to from that port.
    #[default]
    AddressAndPortDependent,
}

/// Reads the key; `None` when it cannot be used.
pub(super) fn nat(report: &mut Report, network: &Table<'_>) -> Option<Open> {
    if !network.has("nat") {
        report.error(
            network.line_of("open"),
            "`open = \"nat\"` needs the key `nat`, such as nat = { address = \"192.0.2.53\", ports = \"20000-29999\" }",
        );
        return None;
    }
    let tables = network.inline(report, "nat", &SCHEMA)?;
    let (mut nats, mut whole) = ([None; 2], true);
    for table in &tables {
        let Some(nat) = one(report, table) else {
            whole = false;
            continue;
        };
        let family = &mut nats[usize::from(nat.address.is_ipv6())];
        if let Some(Nat { address, .. }) = family.replace(nat) {
            let message =
                format!("a network has one NAT for each family, but {address} and {} are both here", nat.address);
            report.error(table.line, message);
            whole = false;
        }
    }
    (whole && !tables.is_empty()).then_some(Open::Nat(nats))
}

fn one(report: &mut Report, table: &Table<'_>) -> Option<Nat> {
    for key in ["address", "ports"] {
        table.require(report, key);
    }
    let address = table.string(report, "address").and_then(|at| {
        let address: Option<IpAddr> = at.value.parse().ok();
        let why = address.map_or(Some("is no IPv4 or IPv6 address"), not_of_a_host);
        if let Some(why) = why {
            report.error(at.line, format!("`address` {:?} {why}", at.value));
        }
        address.filter(|_| why.is_none())
    });
    let ports = table.string(report, "ports").and_then(|at| {
        let range = PortRange::parse(at.value);
        range.map_err(|message| report.error(at.line, format!("`ports` {message}"))).ok()
    });
    let filters = [
        ("endpoint-independent", Filtering::EndpointIndependent),
        ("address-dependent", Filtering::AddressDependent),
        ("address-and-port-dependent", Filtering::AddressAndPortDependent),
    ];
    let filtering = table.has("filtering").then(|| table.choice(report, "filtering", &filters));
    let mut number = |key, least, most| table.has(key).then(|| table.integer::<u32>(report, key, least..=most));
    // RFC 4787 REQ-5: not less than two minutes.
    let (ports_per_client, sessions_per_client, udp_timeout) = (
        number("ports_per_client", 1, 65_535),
        number("sessions_per_client", 1, 1_000_000),
        number("udp_timeout", 120, 86_400),
    );
    let defaults = Nat::new(address?, ports?);
    let or = |read: Option<Option<super::document::At<u32>>>, default| match read {
        None => Some(default),
        Some(read) => read.map(|at| at.value),
    };
    Some(Nat {
        filtering: match filtering {
            None => defaults.filtering,
            Some(read) => read?.value,
        },
        ports_per_client: or(ports_per_client, defaults.ports_per_client)?,
        sessions_per_client: or(sessions_per_client, defaults.sessions_per_client)?,
        udp_timeout: or(udp_timeout, defaults.udp_timeout)?,
        ..defaults
    })
}

/// Reports ports of one address that two NATs want, or a NAT and a service.
pub(super) fn check(
    report: &mut Report,
    tables: &[Table<'_>],
    networks: &[Option<Network>],
    services: &[Option<Service>],
) {
    let mut known: Vec<(&Network, usize, Nat)> = Vec::new();
    for (table, network) in tables.iter().zip(networks) {
        let Some(network) = network else { continue };
        for nat in network.open.nats() {
            let line = table.line_of("nat");
            let Nat { address, ports, .. } = nat;
            let taken = |other: &&(&Network, usize, Nat)| other.2.address == address && other.2.ports.overlaps(ports);
            if let Some((other, place, Nat { ports: theirs, .. })) = known.iter().find(taken) {
                let message = format!(
                    "ports {ports} of {address} are wanted by the network {:?}, and {theirs} in line {place} by {:?}; from \
                     outside nothing tells whose a port is that both have",
                    network.name, other.name
                );
                report.error(line, message);
            }
            let is_among = |service: &&Service| service.address == address && ports.contains(service.port);
            if let Some(service) = services.iter().flatten().find(is_among) {
                let message = format!(
                    "ports {ports} of {address} have port {} in them, which is that of the service {:?}",
                    service.port, service.name
                );
                report.error(line, message);
            }
            known.push((network, line, nat));
        }
    }
    if let Some((_, line, _)) = known.get(MOST) {
        report.error(*line, format!("the networks have {} NATs; {MOST} is the limit", known.len()));
    }
}
