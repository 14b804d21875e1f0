//! Prefixes of one network that get in each other's way.

use super::document::At;
use super::error::Report;
use super::prefix::Prefix;

/// A prefix of a network, with its owner.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) prefix: At<Prefix>,
    /// Index of the client among the tables.
    pub(super) client: usize,
    /// The client's name, if it has one.
    pub(super) name: Option<&'a str>,
}

/// Reports prefixes that belong to two clients, and those that lie in another client's unless the network allows it.
/// Default routes are outside of everything.
///
/// Takes the time of sorting: an enclosing prefix sorts before those it covers, so that one pass with the chain of
/// enclosing prefixes (at most one per length) finds every overlap.
pub(super) fn check(report: &mut Report, network: At<&str>, more_specifics: bool, mut claims: Vec<Claim<'_>>) {
    claims.sort_by_key(|claim| (claim.prefix.value, claim.prefix.line));
    let mut enclosing: Vec<Claim<'_>> = Vec::new();
    for claim in claims {
        while enclosing.pop_if(|outer| !outer.prefix.value.covers(&claim.prefix.value)).is_some() {}
        if let Some(same) = enclosing.last().filter(|outer| outer.prefix.value == claim.prefix.value) {
            report_same(report, same, &claim);
            continue;
        }
        let outer =
            enclosing.iter().rev().find(|outer| outer.client != claim.client && !outer.prefix.value.is_default());
        if let Some(outer) = outer.filter(|_| !more_specifics) {
            report_overlap(report, network, outer, &claim);
        }
        enclosing.push(claim);
    }
}

/// `later` is the one further down in the file: claims of one prefix are sorted by line.
fn report_same(report: &mut Report, first: &Claim<'_>, later: &Claim<'_>) {
    let At { line, value: prefix } = later.prefix;
    let other = first.prefix.line;
    let message = if first.client == later.client {
        format!("prefix {prefix} is given twice, first in line {other}")
    } else {
        format!("prefix {prefix} of {} is already that of {} in line {other}", owner(later), owner(first))
    };
    report.error(line, message);
}

fn report_overlap(report: &mut Report, network: At<&str>, outer: &Claim<'_>, inner: &Claim<'_>) {
    let (first, later) = if outer.prefix.line <= inner.prefix.line { (outer, inner) } else { (inner, outer) };
    let relation = if later.prefix.value.length > first.prefix.value.length { "lies in" } else { "covers" };
    report.error(
        later.prefix.line,
        format!(
            "prefix {} of {} {relation} {} of {} in line {}; if the longest prefix shall win, set \
             `more_specifics = true` in the network {:?} (line {})",
            later.prefix.value,
            owner(later),
            first.prefix.value,
            owner(first),
            first.prefix.line,
            network.value,
            network.line
        ),
    );
}

/// Whose it is, for a message.
pub(super) fn owner(claim: &Claim<'_>) -> String {
    claim.name.map_or_else(|| "a client without a name".to_owned(), |name| format!("client {name:?}"))
}
