//! The node's own address in a network.

use super::super::*;
use super::{BASE, base_with, parsed, refused};

/// [`BASE`] with more keys in its network.
fn network(keys: &str) -> String {
    base_with("name = \"office\"", &format!("name = \"office\"\n{keys}"))
}

fn local(keys: &str) -> Local {
    parsed(&network(keys)).unwrap().networks.remove(0).local.unwrap()
}

#[test]
fn one_address_or_a_list() {
    let one = local("address = \"10.9.0.1/24\"");
    assert_eq!(one.addresses, ["10.9.0.1/24".parse().unwrap()]);
    assert_eq!((one.device.as_str(), one.kernel_routes), ("office", false));
    let both = local("address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]\ndevice = \"tun7\"\nkernel_routes = true");
    assert_eq!(both.addresses, ["10.9.0.1/24", "fd00:9::1/64"].map(|own| own.parse().unwrap()));
    assert_eq!((both.device.as_str(), both.kernel_routes), ("tun7", true));
    assert_eq!(parsed(BASE).unwrap().networks[0].local, None);
    for narrow in ["10.9.0.0/31", "10.9.0.1/32", "fd00:9::/127", "fd00:9::1/128", "10.9.0.254/24", "10.8.255.255/8"] {
        assert_eq!(local(&format!("address = \"{narrow}\"")).addresses, [narrow.parse().unwrap()], "{narrow}");
    }
}

#[test]
fn the_device_is_named_as_the_network_as_far_as_the_kernel_can() {
    for (name, device) in
        [("back office 2", "back-office-2"), ("a network with a name", "a-network-with-"), ("büro", "b-ro")]
    {
        let text = base_with("name = \"office\"", &format!("name = \"{name}\"\naddress = \"10.9.0.1/24\""));
        assert_eq!(parsed(&text).unwrap().networks[0].local.as_ref().unwrap().device, device);
    }
}

#[test]
fn a_prefix_of_a_client_may_be_shorter_than_that_of_the_address() {
    let text = network("address = \"10.9.0.1/24\"")
        .replace("10.9.0.12/32", "10.8.0.0/15")
        .replace("10.9.0.11/32", "10.7.0.7/32");
    assert!(parsed(&text).unwrap().warnings.is_empty());
    let text = network("address = \"10.9.0.1/24\"").replace("10.9.0.12/32", "0.0.0.0/0");
    let [warning] = &parsed(&text).unwrap().warnings[..] else { panic!("no warning") };
    assert_eq!(warning.line, 26);
    assert!(warning.message.starts_with("the node itself does not send through 0.0.0.0/0:"), "{}", warning.message);
}

#[test]
fn wrong_addresses() {
    for (address, says) in [
        (
            "\"10.9.0.1\"",
            "`address` \"10.9.0.1\" has no length; write 10.9.0.1/32 if the one address is meant; an address and its prefix are meant, as 10.9.0.1/24",
        ),
        (
            "\"10.9.0/24\"",
            "`address` \"10.9.0/24\" does not begin with an IPv4 or IPv6 address; an address and its prefix are meant, as 10.9.0.1/24",
        ),
        (
            "\"10.9.0.1/33\"",
            "`address` \"10.9.0.1/33\" has a length that is no number from 0 to 32; an address and its prefix are meant, as 10.9.0.1/24",
        ),
        ("\"10.9.0.1/0\"", "`address` \"10.9.0.1/0\" has length 0, which would lead everything into the network"),
        ("\"10.9.0.0/24\"", "`address` \"10.9.0.0/24\" is the address of its whole prefix, not of a host"),
        ("\"10.9.0.255/24\"", "`address` \"10.9.0.255/24\" is the broadcast address of its prefix"),
        (
            "\"fd00:9::/64\"",
            "`address` \"fd00:9::/64\" is the anycast address of its prefix's routers (RFC 4291 section 2.6.1)",
        ),
        ("\"127.0.0.1/8\"", "`address` \"127.0.0.1/8\" is a loopback address; the node is never on loopback"),
        ("\"239.1.1.1/8\"", "`address` \"239.1.1.1/8\" is that of a group, not of a host"),
        ("\"169.254.1.1/16\"", "`address` \"169.254.1.1/16\" is link-local, and no router forwards what is"),
        ("\"fe80::1/64\"", "`address` \"fe80::1/64\" is link-local, and no router forwards what is"),
        ("[]", "`address` is empty; leave it out if the node has none in the network"),
        ("7", "`address` must be a string or a list of strings, not an integer"),
        ("[\"10.9.0.1/24\", \"10.9.0.1/25\"]", "`address` 10.9.0.1 is given twice"),
        ("\"10.9.0.11/24\"", "`address` 10.9.0.11 is in 10.9.0.11/32 of client \"alice\" in line 20"),
        ("\"192.0.2.53/24\"", "`address` 192.0.2.53 is that of the service \"anycast\""),
    ] {
        assert_eq!(refused(&network(&format!("address = {address}"))), format!("node.toml:15: {says}"));
    }
    let text = network("address = \"10.9.0.1/24\"").replace("10.9.0.12/32", "10.9.0.0/29");
    assert_eq!(refused(&text), "node.toml:15: `address` 10.9.0.1 is in 10.9.0.0/29 of client \"bob\" in line 26");
    let text = network("address = [\n\"10.9.0.1/24\",\n\"10.9.0.300/24\"]");
    assert!(
        refused(&text).starts_with("node.toml:17: `address` \"10.9.0.300/24\" does not begin"),
        "{}",
        refused(&text)
    );
}

#[test]
fn wrong_devices() {
    for (device, says) in [
        (
            "a-name-of-16-oct",
            "no interface can be named \"a-name-of-16-oct\"; names have at most 15 octets without white space, `/` and `:`",
        ),
        ("tun%d", "`device` cannot be \"tun%d\"; no interface is named so"),
        ("all", "`device` cannot be \"all\"; no interface is named so"),
        ("", "`device` cannot be \"\"; no interface is named so"),
        (
            "eth0",
            "the device of the network would be named as [[interface]] \"eth0\"; set `device` to another name, of at most 15 octets",
        ),
    ] {
        let text = network(&format!("address = \"10.9.0.1/24\"\ndevice = \"{device}\""));
        assert_eq!(refused(&text), format!("node.toml:16: {says}"));
    }
    for key in ["device = \"tun7\"", "kernel_routes = true"] {
        let name = key.split_once(' ').unwrap().0;
        let says =
            format!("node.toml:15: `{name}` has no effect without `address`, an address of the node in the network");
        assert_eq!(refused(&network(key)), says);
    }
}

#[test]
fn what_no_client_has_goes_one_way() {
    let text = network("address = \"10.9.0.1/24\"\nopen = \"routed\"\nkernel_routes = true");
    assert_eq!(
        refused(&text),
        "node.toml:17: `kernel_routes` does not go with `open`: both say where packets go that are for no client; leave one of \
         them out"
    );
    let text = network("address = \"10.9.0.1/24\"\nopen = \"routed\"\nkernel_routes = false");
    let networks = parsed(&text).unwrap().networks;
    assert!(networks[0].open == Open::Routed && networks[0].local.is_some());
}

/// [`BASE`] with a second network, `lab`, that bob is in.
fn two(office: &str, lab: &str) -> String {
    let text = format!("name = \"office\"\n{office}\n[[network]]\nname = \"lab\"\n{lab}");
    base_with("name = \"office\"", &text)
        .replace("mux = 1", "mux = 1\nnetwork = \"office\"")
        .replace("mux = 2", "mux = 2\nnetwork = \"lab\"")
}

#[test]
fn networks_that_the_kernel_could_not_tell_apart() {
    let apart = parsed(&two("address = \"10.9.0.1/24\"", "address = \"10.9.1.1/24\"")).unwrap();
    assert_eq!(apart.networks[1].local.as_ref().unwrap().device, "lab");
    assert_eq!(
        refused(&two("address = \"10.9.0.1/24\"", "address = \"10.9.0.1/24\"")),
        "node.toml:18: `address` 10.9.0.1/24 and 10.9.0.1/24 of the network of line 15 have addresses in common, which the \
         kernel cannot reach in both"
    );
    assert_eq!(
        refused(&two("address = \"10.9.0.1/24\"\ndevice = \"x\"", "address = \"10.9.1.1/24\"\ndevice = \"x\"")),
        "node.toml:20: \"x\" is already the device of the network of line 16; set `device` to another name, of at most 15 \
         octets"
    );
    let text = two("address = \"10.8.0.1/24\"", "address = \"10.7.0.1/24\"").replace("10.9.0.12/32", "10.9.0.11/32");
    assert_eq!(
        refused(&text),
        "node.toml:31: prefix 10.9.0.11/32 is that of a client of another network in line 24, and both networks have an \
         `address`: the kernel cannot reach it in both"
    );
    let text = two("address = \"10.8.0.1/24\"", "").replace("10.9.0.12/32", "10.9.0.11/32");
    assert!(parsed(&text).is_ok(), "only one of them is known to the kernel");
}

#[test]
fn check_says_what_it_means() {
    let text = network("address = [\"10.9.0.1/24\", \"fd00:9::1/64\"]\nkernel_routes = true")
        .replace("\"10.9.0.12/32\"", "\"10.9.0.12/32\", \"10.20.0.0/16\", \"fd00:9::12/128\", \"fd01::/64\"");
    let expected = "network office: IP, 2 clients, 5 prefixes
  the node is 10.9.0.1/24, fd00:9::1/64 there, through the device office
  2 prefixes of clients outside of that, with a route of the kernel each
  what no client has goes to the kernel, which may route it
";
    let explained = explain(&parsed(&text).unwrap());
    assert!(explained.contains(expected), "{explained}");
}
