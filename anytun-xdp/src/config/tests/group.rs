//! Groups and broadcasts, and what they ask of clients.

use std::net::Ipv4Addr;

use super::super::{Group, explain};
use super::{BASE, base_with, parsed, refused};

/// The base with a group in front of its clients. The group begins in line 17.
fn grouped(keys: &str) -> String {
    base_with("\n[[client]]", &format!("\n\n[[group]]\n{keys}\n\n[[client]]"))
}

#[test]
fn a_group_has_members_by_name() {
    for (address, name) in [("239.1.2.3", "239.1.2.3"), ("ff05::1:3", "ff05::1:3"), ("232.1.1.1", "232.1.1.1")] {
        let config = parsed(&grouped(&format!("address = \"{address}\"\nmembers = [\"bob\", \"alice\"]")))
            .expect("a configuration");
        assert_eq!(config.groups, [Group { network: 0, address: address.parse().unwrap(), members: vec![1, 0] }]);
        let words = explain(&config);
        assert!(
            words.contains(&format!("  group {name}: a copy to each of 2 clients, but to the sender\n")),
            "{words}"
        );
    }
    let base = parsed(BASE).expect("a configuration");
    assert_eq!((base.groups.len(), base.networks[0].copies), (0, 64));
    let behind = format!("{BASE}\n[[group]]\nnetwork = \"office\"\naddress = \"239.1.2.3\"\nmembers = [\"bob\"]\n");
    assert_eq!(parsed(&behind).expect("groups may stand behind clients").groups[0].members, [1]);
}

#[test]
fn what_is_no_group_is_refused() {
    for (address, problem) in [
        ("10.9.0.1", "\"10.9.0.1\" is no multicast address, such as \"239.1.2.3\" or \"ff05::1:3\""),
        ("all", "\"all\" is no multicast address, such as \"239.1.2.3\" or \"ff05::1:3\""),
        (
            "224.0.0.251",
            "224.0.0.251 has the scope of a link or less, which no router forwards; use one outside of 224.0.0.0/24 and of \
             ff00::/16, ff01::/16 and ff02::/16",
        ),
        (
            "ff12::1",
            "ff12::1 has the scope of a link or less, which no router forwards; use one outside of 224.0.0.0/24 and of \
             ff00::/16, ff01::/16 and ff02::/16",
        ),
    ] {
        let text = grouped(&format!("address = \"{address}\"\nmembers = [\"bob\"]"));
        assert_eq!(refused(&text), format!("node.toml:18: `address` {problem}"));
    }
    assert_eq!(
        refused(&grouped("members = []")),
        "node.toml:17: [[group]] lacks the key `address`\nnode.toml:18: `members` is empty; a group needs at least one client \
         to copy packets to"
    );
    assert_eq!(
        refused(&grouped("address = \"239.1.2.3\"\nmembers = [\"bobb\", \"alice\", \"alice\"]")),
        "node.toml:19: there is no client \"bobb\"; did you mean \"bob\"?\nnode.toml:19: client \"alice\" is named twice in \
         `members`"
    );
    assert_eq!(
        refused(&grouped(
            "address = \"239.1.2.3\"\nmembers = [\"bob\"]\n[[group]]\naddress = \"239.1.2.3\"\nmembers = [\"alice\"]"
        )),
        "node.toml:21: `address` 239.1.2.3 is that of the group in line 18; name all its members there"
    );
}

#[test]
fn members_are_clients_of_the_group_s_network() {
    let text = grouped("network = \"office\"\naddress = \"239.1.2.3\"\nmembers = [\"bob\"]")
        .replace("[[group]]", "[[network]]\nname = \"guests\"\n[[group]]")
        .replace("mux = 1\n", "mux = 1\nnetwork = \"office\"\n")
        .replace("mux = 2\n", "mux = 2\nnetwork = \"guests\"\n");
    assert_eq!(
        refused(&text),
        "node.toml:22: client \"bob\" is in the network \"guests\", and the group in \"office\": no packet goes from one to the \
         other"
    );
    assert!(refused(&text.replace("[[group]]\nnetwork = \"office\"", "[[group]]")).contains(
        "node.toml:19: [[group]] lacks the key `network`, which may be left out only when there is one network: there are 2"
    ));
}

#[test]
fn copies_of_a_packet_are_limited() {
    let few = |text: String| text.replace("name = \"office\"", "name = \"office\"\ncopies = 1");
    assert_eq!(
        refused(&few(grouped("address = \"239.1.2.3\"\nmembers = [\"bob\", \"alice\"]"))),
        "node.toml:20: `members` has 2, but a packet in the network \"office\" is copied 1 times at most; raise its `copies`, up \
         to 1024, or name fewer"
    );
    assert_eq!(
        refused(&base_with("name = \"office\"", "name = \"office\"\ncopies = 1025")),
        "node.toml:15: `copies` is 1025; it must be 1 to 1024"
    );
}

/// The base whose network says this of broadcasts, in line 15.
fn broadcast(addresses: &str) -> String {
    base_with("name = \"office\"", &format!("name = \"office\"\nbroadcast = {addresses}"))
}

#[test]
fn broadcasts_are_those_that_are_named() {
    let config = parsed(&broadcast("[\"255.255.255.255\", \"10.9.0.255\"]")).expect("a configuration");
    assert_eq!(config.networks[0].broadcast, [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 9, 0, 255)]);
    let words = explain(&config);
    assert!(
        words.contains("  broadcast to 255.255.255.255, 10.9.0.255: a copy to every client but the sender\n"),
        "{words}"
    );
    for wrong in ["239.1.2.3", "0.0.0.0", "127.255.255.255", "ff02::1", "all"] {
        assert_eq!(
            refused(&broadcast(&format!("[\"{wrong}\"]"))),
            format!(
                "node.toml:15: `broadcast` \"{wrong}\" is no address of broadcasts: write 255.255.255.255, the last address of a \
                 subnet such as \"10.9.0.255\", or for multicast a [[group]]"
            )
        );
    }
    assert_eq!(
        refused(&broadcast("[\"10.9.0.255\", \"10.9.0.255\"]")),
        "node.toml:15: `broadcast` 10.9.0.255 is given twice"
    );
    assert_eq!(
        refused(&broadcast("[\"10.9.0.12\"]")),
        "node.toml:15: `broadcast` 10.9.0.12 is the address of client \"bob\""
    );
    let third = "[[client]]\nname = \"carol\"\nmux = 3\nprefixes = [\"10.9.0.13/32\"]\npassphrase = \"horse staple\"\n";
    assert_eq!(
        refused(&(broadcast("[\"10.9.0.255\"]\ncopies = 1") + third)),
        "node.toml:15: `broadcast` would copy a packet to 2 clients, but a packet in the network \"office\" is copied 1 times at \
         most; raise its `copies`, up to 1024, or leave `broadcast` out"
    );
}
