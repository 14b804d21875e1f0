//! The keys of `[[network]]` that connect a network with the node itself.

use std::collections::HashMap;
use std::net::IpAddr;

use super::bridge::device_mac;
use super::document::{At, Table};
use super::error::Report;
use super::node::{INTERFACE_NAME, is_interface_name};
use super::overlap::{Claim, owner};
use super::service::not_of_a_host;
use super::{HostAddress, Interface, Local, Network, Open, Prefix, Service};

/// Names that the kernel gives to directories of settings, or would fill in itself.
const NO_DEVICES: [&str; 4] = [".", "..", "all", "default"];

/// Reads them: `Some(None)` when the network is not connected with the node, `None` when it is by what cannot be used. An
/// Ethernet network needs no address for that, and is told by the name of the node it is on.
pub(super) fn local(
    report: &mut Report,
    table: &Table<'_>,
    network: Option<&str>,
    open: Option<Open>,
    node_of_ethernet: Option<&str>,
) -> Option<Option<Local>> {
    if let Some(node) = node_of_ethernet {
        if !table.has("address") && !table.has("device") {
            return Some(None);
        }
        let addresses = match table.has("address") {
            true => addresses(report, table, Scope::Link),
            false => Some(Vec::new()),
        };
        let (device, addresses) = (device(report, table, network)?, addresses?);
        let mac = device_mac(network?, &addresses, node);
        return Some(Some(Local { device, addresses, kernel_routes: false, mac: Some(mac) }));
    }
    if !table.has("address") {
        let idle = ["device", "kernel_routes"].into_iter().filter(|key| table.has(key));
        let idle: Vec<&str> = idle.collect();
        for key in &idle {
            let line = table.line_of(key);
            report
                .error(line, format!("`{key}` has no effect without `address`, an address of the node in the network"));
        }
        return idle.is_empty().then_some(None);
    }
    let addresses = addresses(report, table, Scope::Routed);
    let device = device(report, table, network);
    let kernel_routes = match table.has("kernel_routes") {
        true => table.boolean(report, "kernel_routes").map(|at| at.value),
        false => Some(false),
    };
    if kernel_routes == Some(true) && open.is_some_and(|open| open != Open::No) {
        report.error(
            table.line_of("kernel_routes"),
            "`kernel_routes` does not go with `open`: both say where packets go that are for no client; leave one of them out",
        );
        return None;
    }
    Some(Some(Local { device: device?, addresses: addresses?, kernel_routes: kernel_routes?, mac: None }))
}

/// How far from the node those are that its address in a network is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Behind it as behind a router.
    Routed,
    /// On one link with it.
    Link,
}

fn addresses(report: &mut Report, table: &Table<'_>, scope: Scope) -> Option<Vec<HostAddress>> {
    let At { line, value: texts } = table.string_or_strings(report, "address")?;
    if texts.is_empty() {
        report.error(line, "`address` is empty; leave it out if the node has none in the network");
    }
    let mut all: Vec<HostAddress> = Vec::with_capacity(texts.len());
    let mut good = !texts.is_empty();
    for At { line, value } in texts {
        let checked =
            value.parse().map_err(|why| format!("{why}; an address and its prefix are meant, as 10.9.0.1/24"));
        let checked = checked.and_then(|own| usable(own, scope).map_err(str::to_owned));
        match checked {
            Ok(own) if all.iter().any(|other| other.address == own.address) => {
                report.error(line, format!("`address` {} is given twice", own.address));
                good = false;
            }
            Ok(own) => all.push(own),
            Err(why) => {
                report.error(line, format!("`address` {value:?} {why}"));
                good = false;
            }
        }
    }
    good.then_some(all)
}

/// The address, unless no host could have it in that prefix.
fn usable(own: HostAddress, scope: Scope) -> Result<HostAddress, &'static str> {
    let HostAddress { address, length } = own;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let last = match (address, own.network().address) {
        (IpAddr::V4(v4), IpAddr::V4(network)) => {
            v4.to_bits() == network.to_bits() | u32::MAX.checked_shr(length.into()).unwrap_or(0)
        }
        _ => false,
    };
    // The last two lengths have hosts only (RFC 3021, RFC 6164).
    let narrow = length + 1 >= own.host().length;
    if let Some(why) = not_of_a_host(address) {
        Err(why)
    } else if link_local && scope == Scope::Routed {
        Err("is link-local, and no router forwards what is")
    } else if length == 0 {
        Err("has length 0, which would lead everything into the network")
    } else if !narrow && address == own.network().address {
        Err(match address {
            IpAddr::V4(_) => "is the address of its whole prefix, not of a host",
            IpAddr::V6(_) => "is the anycast address of its prefix's routers (RFC 4291 section 2.6.1)",
        })
    } else if !narrow && last {
        Err("is the broadcast address of its prefix")
    } else {
        Ok(own)
    }
}

fn device(report: &mut Report, table: &Table<'_>, network: Option<&str>) -> Option<String> {
    if !table.has("device") {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = network?.chars().map(|c| if fits(c) { c } else { '-' }).take(INTERFACE_NAME);
        return Some(name.collect());
    }
    let At { line, value } = table.string(report, "device")?;
    if value.is_empty() || value.contains('%') || NO_DEVICES.contains(&value) {
        report.error(line, format!("`device` cannot be {value:?}; no interface is named so"));
        return None;
    }
    is_interface_name(report, line, value).then(|| value.to_owned())
}

/// Reports devices that two networks would share, or that have the name of an interface.
pub(super) fn check_devices(
    report: &mut Report,
    networks: &[Option<Network>],
    lines: &[usize],
    interfaces: &[Option<Interface>],
) {
    let mut taken: HashMap<&str, usize> = HashMap::new();
    for (network, &line) in networks.iter().zip(lines) {
        let Some(Network { local: Some(Local { device, .. }), .. }) = network else { continue };
        let way_out = "set `device` to another name, of at most 15 octets";
        if interfaces.iter().flatten().any(|interface| interface.name == *device) {
            report.error(
                line,
                format!("the device of the network would be named as [[interface]] {device:?}; {way_out}"),
            );
        } else if NO_DEVICES.contains(&device.as_str()) {
            report.error(line, format!("no interface can be named {device:?}; {way_out}"));
        } else if let Some(other) = taken.insert(device, line) {
            report.error(line, format!("{device:?} is already the device of the network of line {other}; {way_out}"));
        }
    }
}

/// Reports own addresses that are those of a service, and those whose prefixes the kernel could not tell apart because
/// they are of two networks.
pub(super) fn check_addresses(
    report: &mut Report,
    networks: &[Option<Network>],
    lines: &[usize],
    services: &[Option<Service>],
) {
    let mut before: Vec<(usize, usize, HostAddress)> = Vec::new();
    for (index, (network, &line)) in networks.iter().zip(lines).enumerate() {
        let Some(Network { local: Some(local), .. }) = network else { continue };
        for &own in &local.addresses {
            if let Some(service) = services.iter().flatten().find(|service| service.address == own.address) {
                let (address, name) = (own.address, &service.name);
                report.error(line, format!("`address` {address} is that of the service {name:?}"));
            }
            if matches!(own.address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                // What is on which link, the kernel is always told (RFC 4007 section 6).
                continue;
            }
            let (here, overlaps) =
                (own.network(), |there: Prefix, here: Prefix| there.covers(&here) || here.covers(&there));
            let other = before.iter().find(|(other, _, there)| *other != index && overlaps(there.network(), here));
            if let Some((_, place, there)) = other {
                report.error(line, format!(
                    "`address` {own} and {there} of the network of line {place} have addresses in common, which the kernel \
                     cannot reach in both"
                ));
            }
            before.push((index, line, own));
        }
    }
}

/// Reports own addresses that are a client's: within a prefix of it that is no shorter than their own.
pub(super) fn check_clients(report: &mut Report, local: &Local, line: usize, claims: &[Claim<'_>]) {
    for own in &local.addresses {
        let inside =
            |claim: &&Claim<'_>| claim.prefix.value.length >= own.length && claim.prefix.value.contains(own.address);
        if let Some(claim) = claims.iter().find(inside) {
            let (At { line: place, value: prefix }, owner) = (claim.prefix, owner(claim));
            report.error(line, format!("`address` {} is in {prefix} of {owner} in line {place}", own.address));
        }
    }
}

/// The routes of the kernel into networks, so that no two lead to one prefix.
#[derive(Default)]
pub(super) struct Routes(HashMap<Prefix, usize>);

impl Routes {
    /// Adds those to the clients of a network. Reports prefixes that another network has as well, and default routes,
    /// which the kernel gets none of.
    pub(super) fn claim(&mut self, report: &mut Report, local: &Local, claims: &[Claim<'_>]) {
        let mut own: HashMap<Prefix, usize> = HashMap::new();
        for At { line, value: prefix } in claims.iter().map(|claim| claim.prefix) {
            if prefix.is_default() {
                report.warn(line, format!(
                    "the node itself does not send through {prefix}: it would lead all that the host sends into the network"
                ));
            } else if local.needs_route(&prefix) {
                own.insert(prefix, line);
            }
        }
        for (prefix, line) in own {
            if let Some(other) = self.0.insert(prefix, line) {
                let (first, later) = (other.min(line), other.max(line));
                report.error(later, format!(
                    "prefix {prefix} is that of a client of another network in line {first}, and both networks have an \
                     `address`: the kernel cannot reach it in both"
                ));
            }
        }
    }
}

impl Local {
    /// Whether the kernel reaches a client's prefix only by a route of its own: it lies outside of the addresses' prefixes.
    /// A default route is never one.
    pub fn needs_route(&self, prefix: &Prefix) -> bool {
        !prefix.is_default() && !self.addresses.iter().any(|own| own.network().covers(prefix))
    }
}
