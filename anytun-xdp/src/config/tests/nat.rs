//! Networks whose clients reach the outside behind an address of the node.

use super::super::{Filtering, Nat, Open, PortRange, explain};
use super::{BASE, parsed, refused};

/// The base, whose network is behind a NAT with these keys.
fn behind(nat: &str) -> String {
    BASE.replace("name = \"office\"", &format!("name = \"office\"\nopen = \"nat\"\nnat = {nat}"))
}

fn nat(address: &str, ports: &str) -> Nat {
    Nat::new(address.parse().expect("an address"), PortRange::parse(ports).expect("a range"))
}

#[test]
fn a_network_can_be_behind_an_address_of_each_family() {
    let config = parsed(&behind("{ address = \"192.0.2.53\", ports = \"20000-29999\" }")).expect("a configuration");
    assert_eq!(config.networks[0].open, Open::Nat([Some(nat("192.0.2.53", "20000-29999")), None]));
    let words = explain(&config);
    assert!(words.contains("to what is outside, behind ports 20000-29999 of 192.0.2.53\n"), "{words}");
    let two = "[\n  { address = \"2001:db8::53\", ports = \"3000-3999\", filtering = \"address-dependent\" },\n  { address = \
               \"192.0.2.9\", ports = \"20000-29999\", ports_per_client = 10, sessions_per_client = 20, udp_timeout = 120 },\n]";
    let config = parsed(&behind(two)).expect("a configuration");
    let v4 = Nat { ports_per_client: 10, sessions_per_client: 20, udp_timeout: 120, ..nat("192.0.2.9", "20000-29999") };
    let v6 = Nat { filtering: Filtering::AddressDependent, ..nat("2001:db8::53", "3000-3999") };
    assert_eq!(config.networks[0].open, Open::Nat([Some(v4), Some(v6)]));
}

#[test]
fn what_no_nat_can_be_is_refused_with_its_line() {
    let whole = "address = \"192.0.2.53\", ports = \"20000-29999\"";
    for (nat, message) in [
        ("{ address = \"192.0.2.53\" }", "`nat` lacks the key `ports`"),
        ("{ ports = \"20000-29999\" }", "`nat` lacks the key `address`"),
        ("\"192.0.2.53\"", "`nat` must be a table such as { … }, or a list of those, not a string"),
        ("[1]", "`nat` must be a list of tables, but one of them is an integer"),
        (
            "{ address = \"127.0.0.1\", ports = \"20000-29999\" }",
            "`address` \"127.0.0.1\" is a loopback address; the node is never on loopback",
        ),
        ("{ address = \"vienna\", ports = \"20000-29999\" }", "`address` \"vienna\" is no IPv4 or IPv6 address"),
        (
            "{ address = \"192.0.2.53\", ports = \"20000\" }",
            "`ports` \"20000\" is no range of ports; it must be FIRST-LAST, such as \"20000-29999\"",
        ),
        (
            "{ address = \"192.0.2.53\", ports = \"4000-5000\" }",
            "ports 4000-5000 of 192.0.2.53 have port 4444 in them, which is that of the service \"anycast\"",
        ),
        (&format!("{{ {whole}, udp_timeout = 30 }}"), "`udp_timeout` is 30; it must be 120 to 86400"),
        (&format!("{{ {whole}, port = 1 }}"), "unknown key `port` in `nat`; did you mean `ports`?"),
        (
            &format!("[{{ {whole} }}, {{ {whole} }}]"),
            "a network has one NAT for each family, but 192.0.2.53 and 192.0.2.53 are both here",
        ),
    ] {
        assert_eq!(refused(&behind(nat)), format!("node.toml:16: {message}"), "{nat}");
    }
    assert_eq!(
        refused(&BASE.replace("name = \"office\"", "name = \"office\"\nopen = \"nat\"")),
        "node.toml:15: `open = \"nat\"` needs the key `nat`, such as nat = { address = \"192.0.2.53\", ports = \
         \"20000-29999\" }"
    );
    assert_eq!(
        refused(&BASE.replace(
            "name = \"office\"",
            "name = \"office\"\nnat = { address = \"192.0.2.53\", ports = \"2000-3000\" }"
        )),
        "node.toml:15: `nat` is for a network with `open = \"nat\"`"
    );
    assert_eq!(
        refused(&behind(&format!("{{ {whole} }}")).replace("10.9.0.11/32", "0.0.0.0/0")),
        "node.toml:21: prefix 0.0.0.0/0 of client \"alice\": in the open network \"office\" it would take all that leaves; \
         give the client the prefixes it really has, or the network no `open`"
    );
}

#[test]
fn no_port_and_no_address_has_two_owners() {
    let own = behind("{ address = \"192.0.2.99\", ports = \"20000-29999\" }")
        .replace("mux = 1\n", "network = \"office\"\nmux = 1\n")
        .replace("mux = 2\n", "network = \"office\"\nmux = 2\n");
    let another = |open: &str, prefix: &str| {
        format!(
            "\n[[network]]\nname = \"guests\"\n{open}\n[[client]]\nname = \"carol\"\nnetwork = \"guests\"\nmux = 3\nprefixes = \
             [\"{prefix}\"]\npassphrase = \"horse staple correct\"\n"
        )
    };
    let beside = |ports| format!("open = \"nat\"\nnat = {{ address = \"192.0.2.99\", ports = \"{ports}\" }}");
    assert!(
        parsed(&(own.clone() + &another(&beside("30000-31000"), "10.9.0.11/32"))).is_ok(),
        "prefixes may be the same"
    );
    assert_eq!(
        refused(&(own.clone() + &another(&beside("29999-31000"), "10.9.0.13/32"))),
        "node.toml:35: ports 29999-31000 of 192.0.2.99 are wanted by the network \"guests\", and 20000-29999 in line 16 by \
         \"office\"; from outside nothing tells whose a port is that both have"
    );
    assert_eq!(
        refused(&(own + &another("open = \"routed\"", "192.0.2.96/29"))),
        "node.toml:39: prefix 192.0.2.96/29 of client \"carol\" has the address of the NAT of the network \"office\" in it, \
         192.0.2.99, which is the node's own"
    );
}
