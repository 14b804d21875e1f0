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

#[test]
fn the_node_is_a_port_with_an_address_or_without() {
    let local = |keys: &str| parsed(&ethernet(keys, "", "")).expect("a configuration").networks.remove(0).local;
    assert_eq!(local(""), None);
    let both = local("address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]").expect("a port");
    assert_eq!(both.addresses, ["10.9.0.1/24", "fd00:9::1/64"].map(|own| own.parse().expect("an address")));
    assert_eq!((both.device.as_str(), both.kernel_routes), ("office", false));
    let bare = local("device = \"lan7\"").expect("a port");
    assert_eq!((bare.device.as_str(), bare.addresses.len()), ("lan7", 0));
    // On a link this is an address as any other.
    assert!(local("address = \"fe80::1/64\"").is_some());
    let config = parsed(&ethernet("address = \"10.9.0.1/24\"\ndevice = \"lan7\"", "", "")).expect("a configuration");
    let words = explain(&config);
    let line = "  the node is 10.9.0.1/24 there, through the device lan7, MAC address 5e:a5:17:60:70:1d\n";
    assert!(words.contains(line), "{words}");
    let words = explain(&parsed(&ethernet("device = \"lan7\"", "", "")).expect("a configuration"));
    let line = "  the device lan7 is a port of it, and the node has no address there, MAC address a6:3c:08:6b:42:6c\n";
    assert!(words.contains(line), "{words}");
}

/// Expected are the first octets of SHA-256 with the bits of IEEE 802 section 8.4, computed elsewhere.
#[test]
fn the_mac_address_of_the_node_stays_and_differs_where_it_must() {
    let mac = |node: &str, network: &str, keys: &str| {
        let text = ethernet(keys, "", "").replace("vie1", node).replace("name = \"office\"", network);
        parsed(&text).expect("a configuration").networks[0].local.as_ref().and_then(|local| local.mac)
    };
    let (office, lab) = ("name = \"office\"", "name = \"lab\"");
    let (device, address) = ("device = \"lan7\"", "device = \"lan7\"\naddress = \"10.9.0.1/24\"");
    assert_eq!(mac("vie1", office, device), Some([0xa6, 0x3c, 0x08, 0x6b, 0x42, 0x6c]));
    assert_eq!(mac("ham1", office, device), Some([0x5a, 0x6d, 0x0c, 0x9e, 0x6d, 0xca]));
    assert_eq!(mac("vie1", office, address), Some([0x5e, 0xa5, 0x17, 0x60, 0x70, 0x1d]));
    assert_eq!(
        mac("ham1", office, address),
        Some([0x5e, 0xa5, 0x17, 0x60, 0x70, 0x1d]),
        "who comes from one to the other keeps its neighbours"
    );
    assert_eq!(mac("vie1", lab, address), Some([0x16, 0x5c, 0x80, 0x4b, 0x80, 0x01]));
    let both = "address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]";
    assert_eq!(mac("vie1", office, both), Some([0xc6, 0x8b, 0x29, 0xa4, 0xaf, 0x93]));
}

#[test]
fn ports_of_the_node_that_cannot_be() {
    for (keys, message) in [
        ("kernel_routes = true", "16: `kernel_routes` is for networks of kind \"ip\""),
        ("address = \"10.9.0.1/24\"\nkernel_routes = false", "17: `kernel_routes` is for networks of kind \"ip\""),
        ("address = []", "16: `address` is empty; leave it out if the node has none in the network"),
        (
            "address = \"10.9.0.0/24\"",
            "16: `address` \"10.9.0.0/24\" is the address of its whole prefix, not of a host",
        ),
        ("address = \"192.0.2.53/24\"", "16: `address` 192.0.2.53 is that of the service \"anycast\""),
        (
            "device = \"eth0\"",
            "16: the device of the network would be named as [[interface]] \"eth0\"; set `device` to another name, of at most 15 \
             octets",
        ),
        ("device = \"tap%d\"", "16: `device` cannot be \"tap%d\"; no interface is named so"),
    ] {
        assert_eq!(refused(&ethernet(keys, "", "")), format!("node.toml:{message}"), "{keys}");
    }
    let text = ethernet("device = \"lan7\"", "macs = [\"a6:3c:08:6b:42:6c\"]", "");
    assert_eq!(refused(&text), "node.toml:21: MAC address a6:3c:08:6b:42:6c is that of the node's own device \"lan7\"");
    let lab =
        "\n[[network]]\nname = \"lab\"\nkind = \"ethernet\"\naddress = \"10.9.0.2/24\"\n[[client]]\nname = \"alice\"";
    let text = ethernet("address = \"10.9.0.1/24\"", "", "").replacen("\n[[client]]\nname = \"alice\"", lab, 1);
    let says = "node.toml:21: `address` 10.9.0.2/24 and 10.9.0.1/24 of the network of line 16 have addresses in common, which the \
                kernel cannot reach in both";
    assert!(refused(&text).contains(says), "{}", refused(&text));
}
