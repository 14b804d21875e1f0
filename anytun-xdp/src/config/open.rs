//! What `open` of a `[[network]]` asks of its clients and of the other networks.

use super::document::{At, Table};
use super::error::Report;
use super::nat::nat;
use super::overlap::{Claim, owner};
use super::prefix::Prefix;
use super::{Network, Open, Service};

/// Prefixes that all routed networks together may have: half of what the map of the XDP program takes, where ports of NATs are too.
const MOST: usize = anytun_common::map::MAX_INSIDE as usize / 2;

/// Reads the key; `None` when it cannot be used.
pub(super) fn open(report: &mut Report, table: &Table<'_>) -> Option<Open> {
    // What the last one means, another key says.
    let choices = [("no", Some(Open::No)), ("routed", Some(Open::Routed)), ("nat", None)];
    let open = match table.has("open") {
        true => table.choice(report, "open", &choices)?.value,
        false => Some(Open::No),
    };
    if open.is_some() && table.has("nat") {
        report.error(table.line_of("nat"), "`nat` is for a network with `open = \"nat\"`");
    }
    open.or_else(|| nat(report, table))
}

/// A prefix of a routed network, and its owner.
#[derive(Clone, Copy)]
pub(super) struct Reachable<'a> {
    pub(super) claim: Claim<'a>,
    pub(super) network: &'a Network,
}

/// Reports prefixes of open networks that would take everything, and those of routed ones that the outside cannot be told to
/// send here: those that it could mean another network
/// by, and those that have the node itself in them.
pub(super) fn check(
    report: &mut Report,
    mut reachable: Vec<Reachable<'_>>,
    services: &[Option<Service>],
    networks: &[Option<Network>],
) {
    let nats: Vec<_> =
        networks.iter().flatten().flat_map(|network| network.open.nats().map(move |nat| (network, nat))).collect();
    reachable.retain(|Reachable { claim, network }| {
        let At { line, value: prefix } = claim.prefix;
        let taken = if network.open == Open::Routed { "all that this host receives" } else { "all that leaves" };
        if prefix.is_default() {
            let way_out = "give the client the prefixes it really has, or the network no `open`";
            let name = &network.name;
            let message = format!(
                "prefix {prefix} of {}: in the open network {name:?} it would take {taken}; {way_out}",
                owner(claim)
            );
            report.error(line, message);
        }
        network.open == Open::Routed && !prefix.is_default()
    });
    if reachable.len() > MOST {
        let line = reachable[MOST].claim.prefix.line;
        report.error(line, format!("routed networks have {} prefixes; {MOST} is the limit", reachable.len()));
    }
    for Reachable { claim, .. } in &reachable {
        let At { line, value: prefix } = claim.prefix;
        let inside = services.iter().flatten().find(|service| prefix.contains(service.address));
        if let Some(service) = inside {
            report.error(
                line,
                format!(
                    "prefix {prefix} of {} has the address of the service {:?} in it, {}, which is the node's own",
                    owner(claim),
                    service.name,
                    service.address
                ),
            );
        } else if let Some((behind, nat)) = nats.iter().find(|(_, nat)| prefix.contains(nat.address)) {
            report.error(
                line,
                format!(
                    "prefix {prefix} of {} has the address of the NAT of the network {:?} in it, {}, which is the node's own",
                    owner(claim),
                    behind.name,
                    nat.address
                ),
            );
        }
    }
    // An enclosing prefix sorts before those that it covers.
    reachable.sort_by_key(|reachable| (reachable.claim.prefix.value, reachable.claim.prefix.line));
    let mut enclosing: Vec<Reachable<'_>> = Vec::new();
    for inner in reachable {
        let covers = |outer: &Prefix| outer.covers(&inner.claim.prefix.value);
        while enclosing.pop_if(|outer| !covers(&outer.claim.prefix.value)).is_some() {}
        if let Some(outer) = enclosing.iter().rev().find(|outer| outer.network.name != inner.network.name) {
            report_overlap(report, outer, &inner);
        }
        enclosing.push(inner);
    }
}

fn report_overlap(report: &mut Report, outer: &Reachable<'_>, inner: &Reachable<'_>) {
    let lines = (outer.claim.prefix.line, inner.claim.prefix.line);
    let (first, later) = if lines.0 <= lines.1 { (outer, inner) } else { (inner, outer) };
    report.error(
        later.claim.prefix.line,
        format!(
            "prefix {} of {} and {} of {} in line {} overlap, and their networks {:?} and {:?} are both open: from outside \
             nothing tells which is meant",
            later.claim.prefix.value,
            owner(&later.claim),
            first.claim.prefix.value,
            owner(&first.claim),
            first.claim.prefix.line,
            later.network.name,
            first.network.name
        ),
    );
}
