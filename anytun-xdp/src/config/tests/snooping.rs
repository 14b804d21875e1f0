//! Networks that learn from their clients who is a member of which group.

use super::super::{Snooping, explain};
use super::{BASE, base_with, parsed, refused};

/// The base, whose network has these keys, from line 15 on.
fn with(keys: &str) -> String {
    base_with("name = \"office\"", &format!("name = \"office\"\n{keys}"))
}

#[test]
fn a_network_learns_when_it_is_told_to() {
    for text in [BASE.to_owned(), with("snooping = false")] {
        assert_eq!(parsed(&text).expect("a configuration").networks[0].snooping, None);
    }
    let config = parsed(&with("snooping = true")).expect("a configuration");
    let usual = Snooping { query_interval: 125, groups_per_client: 64, groups_per_network: 1024 };
    assert_eq!(config.networks[0].snooping, Some(usual));
    let words = explain(&config);
    let line = "  clients join groups by IGMP and MLD, up to 64 each and 1024 in all, and are asked every 125 s\n";
    assert!(words.contains(line), "{words}");
    let keys = "snooping = true\nquery_interval = 2\ngroups_per_client = 1\ngroups_per_network = 4096";
    let config = parsed(&with(keys)).expect("a configuration");
    let given = Snooping { query_interval: 2, groups_per_client: 1, groups_per_network: 4096 };
    assert_eq!(config.networks[0].snooping, Some(given));
}

#[test]
fn what_has_no_effect_or_no_meaning_is_refused() {
    for (keys, message) in [
        ("snooping = 1", "15: `snooping` must be true or false, not an integer"),
        ("query_interval = 60", "15: `query_interval` has no effect without `snooping = true`"),
        ("snooping = false\ngroups_per_client = 5", "16: `groups_per_client` has no effect without `snooping = true`"),
        ("snooping = true\nquery_interval = 1", "16: `query_interval` is 1; it must be 2 to 3600"),
        ("snooping = true\ngroups_per_client = 0", "16: `groups_per_client` is 0; it must be 1 to 4096"),
        ("snooping = true\ngroups_per_network = 4097", "16: `groups_per_network` is 4097; it must be 1 to 4096"),
        ("kind = \"ethernet\"\nsnooping = true", "16: `snooping` is for networks of kind \"ip\""),
    ] {
        let text = with(keys);
        let text = match keys.starts_with("kind") {
            true => text.replace("prefixes = [\"10.9.0.11/32\"]", "").replace("prefixes = [\"10.9.0.12/32\"]", ""),
            false => text,
        };
        assert_eq!(refused(&text), format!("node.toml:{message}"), "{keys}");
    }
}
