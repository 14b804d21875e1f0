//! Limits of the kernel that can be reached from outside.

use super::{Finding, setting};

/// Limits of the memory in which the kernel puts fragments together, in octets (Documentation/networking/ip-sysctl.rst).
const FRAGMENTS: [&str; 2] = ["net.ipv4.ipfrag_high_thresh", "net.ipv6.ip6frag_high_thresh"];
/// What the kernel gives them by itself.
const FRAGMENT_MEMORY: u64 = 4 << 20;

/// Limits of the neighbours that the kernel knows at once (likewise).
const NEIGHBOURS: [&str; 2] = ["net.ipv4.neigh.default.gc_thresh3", "net.ipv6.neigh.default.gc_thresh3"];
/// What the kernel gives them by itself, and what leaves room for hosts that are not there.
const FEW_NEIGHBOURS: u64 = 1024;
const MANY_NEIGHBOURS: u64 = 16 * FEW_NEIGHBOURS;

/// Whether there is memory for outer fragments.
pub(super) fn fragments() -> impl Iterator<Item = Finding> {
    FRAGMENTS.into_iter().filter_map(|limit| small(limit, number(limit)?))
}

/// Whether there is room for the neighbours of an open network.
pub(super) fn neighbours() -> impl Iterator<Item = Finding> {
    NEIGHBOURS.into_iter().filter_map(|limit| few(limit, number(limit)?))
}

fn number(name: &str) -> Option<u64> {
    setting(name)?.trim().parse().ok()
}

fn small(limit: &str, octets: u64) -> Option<Finding> {
    (octets < FRAGMENT_MEMORY).then(|| {
        Finding::hurts(
            format!(
                "{limit} is {octets}: so few octets of fragments wait for the rest of their packet, whoever sent them; \
                 tunnel packets whose fragments find no room are lost"
            ),
            format!("`sysctl -w {limit}={FRAGMENT_MEMORY}`, or more"),
        )
    })
}

fn few(limit: &str, count: u64) -> Option<Finding> {
    (count <= FEW_NEIGHBOURS).then(|| {
        Finding::hurts(
            format!(
                "{limit} is {count}: so many neighbours the kernel knows at most, and clients of an open network that send \
                 to hosts that are not there fill its table; what is for others is lost as no-neighbour meanwhile"
            ),
            format!("`sysctl -w {limit}={MANY_NEIGHBOURS}`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn limits_of_the_kernel_hurt_when_they_are_low() {
        assert_eq!(small(FRAGMENTS[0], FRAGMENT_MEMORY), None);
        let low = small(FRAGMENTS[1], 262_144).unwrap();
        assert_eq!(low.severity, Severity::Hurts);
        assert!(low.mend.unwrap().contains("`sysctl -w net.ipv6.ip6frag_high_thresh=4194304`"));
        assert_eq!(few(NEIGHBOURS[0], MANY_NEIGHBOURS), None, "its own command mends it");
        let low = few(NEIGHBOURS[0], FEW_NEIGHBOURS).unwrap();
        assert!(low.mend.unwrap().contains("`sysctl -w net.ipv4.neigh.default.gc_thresh3=16384`"));
        assert_eq!(number("net.none"), None);
    }
}
