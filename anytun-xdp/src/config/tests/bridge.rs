//! Ethernet networks and their clients.

use super::super::{Bridging, explain};
use super::{BASE, parsed, refused};

/// The base, whose network is an Ethernet with these keys, and its clients have these keys instead of prefixes.
fn ethernet(keys: &str, alice: &str, bob: &str) -> String {
    BASE.replace("name = \"office\"", &format!("name = \"office\"\nkind = \"ethernet\"\n{keys}"))
        .replace("prefixes = [\"10.9.0.11/32\"]", alice)
        .replace("prefixes = [\"10.9.0.12/32\"]", bob)
}

#[test]
fn clients_of_an_ethernet_have_no_prefixes() {
    let config = parsed(&ethernet("", "", "macs = [\"02:00:5e:10:00:0A\"]")).expect("a configuration");
    assert_eq!(config.networks[0].bridging, Some(Bridging { mac_age: 300, mac_limit: 64, flood_rate: 100 }));
    assert_eq!(config.clients[0].macs, [] as [[u8; 6]; 0]);
    assert_eq!(config.clients[1].macs, [[2, 0, 0x5e, 0x10, 0, 10]]);
    let words = explain(&config);
    let line = "network office: Ethernet, 2 clients, up to 64 MAC addresses behind each, forgotten after 300 s, up to 100 frames \
                to everybody a second from each\n";
    assert!(words.contains(line) && words.contains("  sends from no other than 1 given MAC address\n"), "{words}");
    let keys = "mac_age = 60\nmac_limit = 2\nflood_rate = 5000";
    let config = parsed(&ethernet(keys, "", "")).expect("a configuration");
    assert_eq!(config.networks[0].bridging, Some(Bridging { mac_age: 60, mac_limit: 2, flood_rate: 5000 }));
    assert_eq!(parsed(BASE).expect("a configuration").networks[0].bridging, None);
}

#[test]
fn keys_of_the_other_kind_and_wrong_addresses_are_refused() {
    for (keys, alice, message) in [
        ("open = \"routed\"", "", "16: `open` is for networks of kind \"ip\""),
        ("mss_clamp = false", "", "16: `mss_clamp` is for networks of kind \"ip\""),
        ("mac_age = 0", "", "16: `mac_age` is 0; it must be 1 to 86400"),
        ("", "prefixes = [\"10.9.0.11/32\"]", "21: `prefixes` is for clients of networks of kind \"ip\""),
        (
            "",
            "macs = [\"2:0:0:0:0:1\"]",
            "21: \"2:0:0:0:0:1\" is no MAC address; it must be written as \"02:00:5e:10:00:01\"",
        ),
        (
            "",
            "macs = [\"02:00:00:00:00:01:02\"]",
            "21: \"02:00:00:00:00:01:02\" is no MAC address; it must be written as \"02:00:5e:10:00:01\"",
        ),
        ("", "macs = [\"01:00:5e:00:00:01\"]", "21: MAC address \"01:00:5e:00:00:01\" is not that of one station"),
        (
            "",
            "macs = [\"02:00:00:00:00:01\"]",
            "27: MAC address 02:00:00:00:00:01 is already that of client \"alice\" in line 21",
        ),
    ] {
        let bob = if message.starts_with("27") { alice } else { "" };
        assert_eq!(refused(&ethernet(keys, alice, bob)), format!("node.toml:{message}"), "{keys} {alice}");
    }
    assert_eq!(
        refused(&BASE.replace("name = \"office\"", "name = \"office\"\nmac_limit = 5")),
        "node.toml:15: `mac_limit` is for networks of kind \"ethernet\""
    );
    assert_eq!(
        refused(&BASE.replace("mux = 1", "mux = 1\nmacs = [\"02:00:00:00:00:01\"]")),
        "node.toml:19: `macs` is for clients of networks of kind \"ethernet\""
    );
}
