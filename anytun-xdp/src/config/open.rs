//! What `open` of a `[[network]]` asks of its clients and of the other networks.

use super::document::{At, Table};
use super::error::Report;
use super::overlap::{Claim, owner};
use super::prefix::Prefix;
use super::{Network, Open, Service};

/// Prefixes that all open networks together may have: what the map of the XDP program takes.
const MOST: usize = anytun_common::map::MAX_INSIDE as usize;

/// Reads the key; `None` when it cannot be used.
pub(super) fn open(report: &mut Report, table: &Table<'_>) -> Option<Open> {
    match table.has("open") {
        true => table.choice(report, "open", &[("no", Open::No), ("routed", Open::Routed)]).map(|at| at.value),
        false => Some(Open::No),
    }
}

/// A prefix of an open network, and its owner.
#[derive(Clone, Copy)]
pub(super) struct Reachable<'a> {
    pub(super) claim: Claim<'a>,
    pub(super) network: &'a Network,
}

/// Reports prefixes of open networks that the outside cannot be told to send here: those that it could mean another network
/// by, and those that have the node itself in them.
pub(super) fn check(report: &mut Report, mut reachable: Vec<Reachable<'_>>, services: &[Option<Service>]) {
    if reachable.len() > MOST {
        let line = reachable[MOST].claim.prefix.line;
        report.error(line, format!("open networks have {} prefixes; {MOST} is the limit", reachable.len()));
    }
    for Reachable { claim, network } in &reachable {
        let At { line, value: prefix } = claim.prefix;
        let inside = services.iter().flatten().find(|service| prefix.contains(service.address));
        if prefix.is_default() {
            let way_out = "give the client the prefixes it really has, or the network no `open`";
            report.error(
                line,
                format!(
                    "prefix {prefix} of {}: in the open network {:?} it would take all that this host receives; {way_out}",
                    owner(claim),
                    network.name
                ),
            );
        } else if let Some(service) = inside {
            report.error(
                line,
                format!(
                    "prefix {prefix} of {} has the address of the service {:?} in it, {}, which is the node's own",
                    owner(claim),
                    service.name,
                    service.address
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
