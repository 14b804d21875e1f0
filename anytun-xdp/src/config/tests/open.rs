//! What open networks ask of their clients.

use super::super::{Open, explain};
use super::{BASE, parsed, refused};

/// The base, whose network is open, with these prefixes of alice and of bob.
fn open(alice: &str, bob: &str) -> String {
    BASE.replace("name = \"office\"", "name = \"office\"\nopen = \"routed\"")
        .replace("10.9.0.11/32", alice)
        .replace("10.9.0.12/32", bob)
}

/// Another network that is open or not, with a client that has `prefix`.
fn another(open: &str, prefix: &str) -> String {
    format!(
        "\n[[network]]\nname = \"guests\"\nopen = \"{open}\"\n[[client]]\nname = \"carol\"\nnetwork = \"guests\"\nmux = 3\n\
         prefixes = [\"{prefix}\"]\npassphrase = \"horse staple correct\"\n"
    )
}

#[test]
fn a_network_is_open_when_it_says_so() {
    assert_eq!(parsed(BASE).expect("a configuration").networks[0].open, Open::No);
    let config = parsed(&open("10.9.0.11/32", "10.9.0.12/32")).expect("a configuration");
    assert_eq!(config.networks[0].open, Open::Routed);
    let words = explain(&config);
    assert!(words.contains("network office: IP, 2 clients, 2 prefixes, open: by the routes of this host"), "{words}");
    assert_eq!(
        refused(&BASE.replace("name = \"office\"", "name = \"office\"\nopen = \"yes\"")),
        "node.toml:15: `open` cannot be \"yes\"; it must be one of \"no\", \"routed\", \"nat\""
    );
}

#[test]
fn no_client_of_an_open_network_takes_what_is_the_host_s() {
    assert_eq!(
        refused(&open("0.0.0.0/0", "10.9.0.12/32")),
        "node.toml:20: prefix 0.0.0.0/0 of client \"alice\": in the open network \"office\" it would take all that this host \
         receives; give the client the prefixes it really has, or the network no `open`"
    );
    assert_eq!(
        refused(&open("192.0.2.0/24", "10.9.0.12/32")),
        "node.toml:20: prefix 192.0.2.0/24 of client \"alice\" has the address of the service \"anycast\" in it, 192.0.2.53, \
         which is the node's own"
    );
}

#[test]
fn open_networks_share_no_address_and_closed_ones_may() {
    let own = BASE
        .replace("mux = 1\n", "network = \"office\"\nmux = 1\n")
        .replace("mux = 2\n", "network = \"office\"\nmux = 2\n");
    let own = own.replace("name = \"office\"", "name = \"office\"\nopen = \"routed\"");
    assert!(parsed(&(own.clone() + &another("no", "10.9.0.11/32"))).is_ok());
    assert!(parsed(&(own.clone() + &another("routed", "10.9.0.13/32"))).is_ok());
    assert_eq!(
        refused(&(own + &another("routed", "10.9.0.0/24"))),
        "node.toml:38: prefix 10.9.0.0/24 of client \"carol\" and 10.9.0.11/32 of client \"alice\" in line 21 overlap, and \
         their networks \"guests\" and \"office\" are both open: from outside nothing tells which is meant\n\
         node.toml:38: prefix 10.9.0.0/24 of client \"carol\" and 10.9.0.12/32 of client \"bob\" in line 28 overlap, and their \
         networks \"guests\" and \"office\" are both open: from outside nothing tells which is meant"
    );
}
