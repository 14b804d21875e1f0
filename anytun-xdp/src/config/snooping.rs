//! The keys of IP networks that learn from their clients who is a member of which group.

use super::document::Table;
use super::error::Report;

/// Seconds between two general queries, when nothing is said (RFC 3376 §8.2, RFC 3810 §9.2).
const INTERVAL: u32 = 125;
/// Groups that one client can join, likewise.
const OF_CLIENT: u32 = 64;
/// Groups of a network that are joined, likewise.
const OF_NETWORK: u32 = 1024;

/// Keys without effect in a network that does not learn.
const KEYS: [&str; 3] = ["query_interval", "groups_per_client", "groups_per_network"];

/// How a network learns who is a member of which group, by IGMP and MLD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snooping {
    /// Seconds between two general queries.
    pub query_interval: u32,
    /// Groups that one client can join.
    pub groups_per_client: u32,
    /// Groups of the network that clients can join.
    pub groups_per_network: u32,
}

/// Reads them: `Some(None)` when the network does not learn, `None` when a key cannot be used.
pub(super) fn snooping(report: &mut Report, table: &Table<'_>) -> Option<Option<Snooping>> {
    let learns = match table.has("snooping") {
        true => table.boolean(report, "snooping")?.value,
        false => false,
    };
    if !learns {
        let idle: Vec<&str> = KEYS.into_iter().filter(|key| table.has(key)).collect();
        for key in &idle {
            report.error(table.line_of(key), format!("`{key}` has no effect without `snooping = true`"));
        }
        return idle.is_empty().then_some(None);
    }
    let mut number = |key, least: i64, most, usual| match table.has(key) {
        true => table.integer::<u32>(report, key, least..=most).map(|at| at.value),
        false => Some(usual),
    };
    let query_interval = number("query_interval", 2, 3600, INTERVAL);
    let groups_per_client = number("groups_per_client", 1, 4096, OF_CLIENT);
    let groups_per_network = number("groups_per_network", 1, 4096, OF_NETWORK);
    Some(Some(Snooping {
        query_interval: query_interval?,
        groups_per_client: groups_per_client?,
        groups_per_network: groups_per_network?,
    }))
}
