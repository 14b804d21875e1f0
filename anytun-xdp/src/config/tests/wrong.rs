//! Configurations that are refused: the line and what is said.

use std::path::Path;

use super::super::{parse, read};
use super::{BASE, base_with, refused};

/// Replaces one text of the base and expects exactly this to be printed.
fn check(cases: &[(&str, &str, &str)]) {
    for (from, to, message) in cases {
        assert_eq!(refused(&base_with(from, to)), *message, "{from:?} replaced by {to:?}");
    }
}

#[test]
fn words() {
    check(&[
        (
            "mux = 1",
            "mux = 1\npasphrase_file = \"x\"",
            "node.toml:19: unknown key `pasphrase_file` in [[client]]; did you mean `passphrase_file`?",
        ),
        (
            "name = \"office\"",
            "name = \"office\"\ncolour = 1",
            "node.toml:15: unknown key `colour` in [[network]]; known: `name`, `kind`, `more_specifics`, `mss_clamp`, `open`, \
             `nat`, `broadcast`, `copies`, `snooping`, `query_interval`, `groups_per_client`, `groups_per_network`, `address`, \
             `device`, `kernel_routes`, `mac_age`, `mac_limit`, `flood_rate`",
        ),
        ("[[network]]", "[[netwrok]]\n[[network]]", "node.toml:13: unknown table [[netwrok]]; did you mean `network`?"),
        (
            "[[network]]",
            "[log]\n[[network]]",
            "node.toml:13: unknown table [log]; known: `node`, `interface`, `service`, `network`, `group`, `client`",
        ),
        (
            "[node]",
            "verbose = true\n[node]",
            "node.toml:1: unknown key `verbose` outside of every table; known: `node`, `interface`, `service`, `network`, `group`, `client`",
        ),
        (
            "[[network]]",
            "[network]",
            "node.toml:13: `network` must be written as [[network]], not as a table\nnode.toml:16: there is no [[network]] this client could belong to\nnode.toml:22: there is no [[network]] this client could belong to",
        ),
        ("[node]", "[[node]]", "node.toml:1: `node` must be written as [node], not as a list of tables"),
    ]);
}

#[test]
fn syntax() {
    check(&[
        ("port = 4444", "port = = 4444", "node.toml:11: TOML syntax, column 8: extra `=`, expected nothing"),
        ("port = 4444", "port = 4444\nport = 1", "node.toml:12: TOML syntax, column 1: duplicate key"),
        (
            "mux = 1",
            "mux = one",
            "node.toml:18: TOML syntax, column 7: string values must be quoted, expected literal string",
        ),
    ]);
}

#[test]
fn types_and_missing_keys() {
    check(&[
        ("mux = 1", "mux = \"1\"", "node.toml:18: `mux` must be an integer, not a string"),
        ("mux = 1", "", "node.toml:16: [[client]] lacks the key `mux`"),
        ("mux = 1", "mux = 65536", "node.toml:18: `mux` is 65536; it must be 0 to 65535"),
        ("mux = 1", "mux = -1", "node.toml:18: `mux` is -1; it must be 0 to 65535"),
        (
            "[\"10.9.0.11/32\"]",
            "[\"10.9.0.11/32\",\n 5]",
            "node.toml:20: `prefixes` must be a list of strings, but one of them is an integer",
        ),
        ("[\"10.9.0.11/32\"]", "\"10.9.0.11/32\"", "node.toml:19: `prefixes` must be a list of strings, not a string"),
        ("name = \"vie1\"", "", "node.toml:1: [node] lacks the key `name`"),
        ("name = \"vie1\"", "name = \"\"", "node.toml:2: the name of the node is empty"),
        (
            "[node]\nname = \"vie1\"\nsender_ids = \"1-64\"",
            "",
            "node.toml: there is no [node]; it needs at least `name` and `sender_ids`",
        ),
        (
            "[[interface]]\nname = \"eth0\"",
            "",
            "node.toml: there is no [[interface]]; the node needs at least one to take packets from",
        ),
        (
            "name = \"office\"",
            "name = \"office\"\nmore_specifics = 1",
            "node.toml:15: `more_specifics` must be true or false, not an integer",
        ),
    ]);
}

#[test]
fn node() {
    let long = format!("{}.sock", "c".repeat(120));
    let control = format!("sender_ids = \"1-64\"\ncontrol = \"/{long}\"");
    check(&[
        (
            "\"1-64\"",
            "\"64-1\"",
            "node.toml:3: `sender_ids` cannot be \"64-1\"; it must be one number or FIRST-LAST, from 0 to 65535, such as \"1-64\"",
        ),
        (
            "\"1-64\"",
            "\"1-65536\"",
            "node.toml:3: `sender_ids` cannot be \"1-65536\"; it must be one number or FIRST-LAST, from 0 to 65535, such as \"1-64\"",
        ),
        ("sender_ids = \"1-64\"", "", "node.toml:1: [node] lacks the key `sender_ids`"),
        (
            "sender_ids = \"1-64\"",
            "sender_ids = \"1-64\"\nmetrics = \"localhost\"",
            "node.toml:4: `metrics` \"localhost\" is no address and port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"",
        ),
        (
            "sender_ids = \"1-64\"",
            &control,
            "node.toml:4: `control` is a path of 126 octets; a unix socket can have 107",
        ),
        (
            "sender_ids = \"1-64\"",
            "sender_ids = \"1-64\"\nstate_dir = \"\"",
            "node.toml:4: `state_dir` is empty; leave it out for /var/lib/anytun-xdp",
        ),
    ]);
}

#[test]
fn interfaces() {
    check(&[
        (
            "name = \"eth0\"",
            "name = \"eth0\"\nxdp = \"offload\"",
            "node.toml:7: `xdp` cannot be \"offload\"; it must be one of \"auto\", \"zerocopy\", \"native\", \"generic\"",
        ),
        (
            "name = \"eth0\"",
            "name = \"eth0\"\nqueues = \"0-64\"",
            "node.toml:7: `queues` is \"0-64\"; queues 0 to 63 can be used",
        ),
        (
            "name = \"eth0\"",
            "name = \"eth0\"\nqueues = \"some\"",
            "node.toml:7: `queues` cannot be \"some\"; it must be \"all\", one queue or \"0-3\"",
        ),
        (
            "name = \"eth0\"",
            "name = \"eth0\"\n[[interface]]\nname = \"eth0\"",
            "node.toml:8: the name \"eth0\" is already that of the interface of line 5",
        ),
        (
            "name = \"eth0\"",
            "name = \"abcdefghijklmnop\"",
            "node.toml:6: no interface can be named \"abcdefghijklmnop\"; names have at most 15 octets without white space, `/` and `:`",
        ),
    ]);
    let text = BASE.replace("1-64", "1-3").replace("\"eth0\"", "\"eth0\"\nqueues = \"0-3\"");
    assert_eq!(
        refused(&text),
        "node.toml:3: `sender_ids` has 3, but there are 4 queues and each worker needs one of its own"
    );
    let many: String = (1..17).map(|index| format!("[[interface]]\nname = \"eth{index}\"\n")).collect();
    assert_eq!(refused(&format!("{BASE}{many}")), "node.toml:57: there are 17 interfaces; a node can have 16");
}

#[test]
fn services_and_networks() {
    check(&[
        ("port = 4444", "port = 0", "node.toml:11: `port` is 0; it must be 1 to 65535"),
        ("port = 4444", "port = 70000", "node.toml:11: `port` is 70000; it must be 1 to 65535"),
        ("192.0.2.53", "192.0.2.530", "node.toml:10: `address` \"192.0.2.530\" is no IPv4 or IPv6 address"),
        ("192.0.2.53", "::", "node.toml:10: `address` :: is the unspecified address"),
        ("192.0.2.53", "239.1.1.1", "node.toml:10: `address` 239.1.1.1 is that of a group, not of a host"),
        (
            "192.0.2.53",
            "127.0.0.1",
            "node.toml:10: `address` 127.0.0.1 is a loopback address; the node is never on loopback",
        ),
        (
            "192.0.2.53",
            "::ffff:192.0.2.53",
            "node.toml:10: `address` ::ffff:192.0.2.53 is an IPv4 address written as IPv6; write it as IPv4",
        ),
        (
            "name = \"office\"",
            "name = \"office\"\nkind = \"token-ring\"",
            "node.toml:15: `kind` cannot be \"token-ring\"; it must be one of \"ip\", \"ethernet\"",
        ),
        (
            "name = \"office\"",
            "name = \"office\"\n[[network]]\nname = \"office\"",
            "node.toml:16: the name \"office\" is already that of the network of line 13\nnode.toml:18: [[client]] lacks the key `network`, which may be left out only when there is one network: there are 2\nnode.toml:24: [[client]] lacks the key `network`, which may be left out only when there is one network: there are 2",
        ),
    ]);
    let text = base_with("mux = 2", "mux = 2\nservice = \"second\"")
        .replace("mux = 1", "mux = 1\nservice = \"anycast\"")
        .replace("[[network]]", "[[service]]\nname = \"second\"\naddress = \"192.0.2.53\"\nport = 4444\n[[network]]");
    assert_eq!(refused(&text), "node.toml:13: address 192.0.2.53 and port 4444 are those of the service of line 8");
}

#[test]
fn clients() {
    check(&[
        (
            "mux = 1",
            "mux = 1\nnetwork = \"offic\"",
            "node.toml:19: there is no network \"offic\"; did you mean \"office\"?",
        ),
        ("mux = 1", "mux = 1\nservice = \"relay\"", "node.toml:19: there is no service \"relay\"; known: \"anycast\""),
        (
            "name = \"bob\"",
            "name = \"alice\"",
            "node.toml:23: the name \"alice\" is already that of the client of line 16",
        ),
        (
            "mux = 2",
            "mux = 1",
            "node.toml:24: `mux` 1 is already that of client \"alice\" in line 18, under the same service",
        ),
        (
            "mux = 1",
            "mux = 1\ncipher = \"aes-ctr-512\"",
            "node.toml:19: `cipher` cannot be \"aes-ctr-512\"; it must be one of \"null\", \"aes-ctr-128\", \"aes-ctr-192\", \"aes-ctr-256\", \"aes-ctr\"",
        ),
        (
            "mux = 1",
            "mux = 1\nauth = \"md5\"",
            "node.toml:19: `auth` cannot be \"md5\"; it must be one of \"null\", \"sha1\"",
        ),
        (
            "mux = 1",
            "mux = 1\nrole = \"server\"",
            "node.toml:19: `role` cannot be \"server\"; it must be one of \"left\", \"right\"",
        ),
        ("mux = 1", "mux = 1\ntag_length = 21", "node.toml:19: `tag_length` is 21; it must be 0 to 20"),
        ("mux = 1", "mux = 1\nwindow = 65537", "node.toml:19: `window` is 65537; it must be 0 to 65536"),
        (
            "mux = 1",
            "mux = 1\nendpoint = \"198.51.100.7\"",
            "node.toml:19: `endpoint` \"198.51.100.7\" is no address and port, such as \"198.51.100.7:4444\" or \"[2001:db8::7]:4444\"",
        ),
        (
            "mux = 1",
            "mux = 1\nendpoint = \"198.51.100.7:0\"",
            "node.toml:19: `endpoint` 198.51.100.7:0 has port 0; it must be 1 to 65535",
        ),
        (
            "mux = 1",
            "mux = 1\nendpoint = \"[2001:db8::7]:4444\"",
            "node.toml:19: `endpoint` [2001:db8::7]:4444 is IPv6, but the service \"anycast\" sends from an IPv4 address",
        ),
    ]);
}

#[test]
fn prefixes() {
    check(&[
        ("[\"10.9.0.11/32\"]", "[]", "node.toml:19: `prefixes` is empty; a client needs at least one inner address"),
        (
            "10.9.0.11/32",
            "10.9.0.11/24",
            "node.toml:19: prefix \"10.9.0.11/24\" has bits set behind its length; probably 10.9.0.0/24 is meant",
        ),
        (
            "10.9.0.11/32",
            "10.9.0.11",
            "node.toml:19: prefix \"10.9.0.11\" has no length; write 10.9.0.11/32 if the one address is meant",
        ),
        (
            "[\"10.9.0.11/32\"]",
            "[\"10.9.0.11/32\",\n\"10.9.0.11/32\"]",
            "node.toml:20: prefix 10.9.0.11/32 is given twice, first in line 19",
        ),
        (
            "10.9.0.12/32",
            "10.9.0.11/32",
            "node.toml:25: prefix 10.9.0.11/32 of client \"bob\" is already that of client \"alice\" in line 19",
        ),
        (
            "10.9.0.12/32",
            "10.9.0.0/24",
            "node.toml:25: prefix 10.9.0.0/24 of client \"bob\" covers 10.9.0.11/32 of client \"alice\" in line 19; if the longest prefix shall win, set `more_specifics = true` in the network \"office\" (line 13)",
        ),
        (
            "10.9.0.11/32",
            "10.9.0.0/16",
            "node.toml:25: prefix 10.9.0.12/32 of client \"bob\" lies in 10.9.0.0/16 of client \"alice\" in line 19; if the longest prefix shall win, set `more_specifics = true` in the network \"office\" (line 13)",
        ),
    ]);
    // A prefix of the client's own between the two does not hide the overlap.
    let text =
        BASE.replace("\"10.9.0.12/32\"", "\"10.9.0.0/28\", \"10.9.0.0/30\"").replace("10.9.0.11/32", "10.9.0.0/24");
    assert_eq!(refused(&text).lines().count(), 2, "{}", refused(&text));
    let same = BASE.replace("10.9.0.12/32", "10.9.0.11/32").replace("\"office\"", "\"office\"\nmore_specifics = true");
    assert!(refused(&same).contains("is already that of client \"alice\" in line 20"), "{}", refused(&same));
    let defaults = BASE.replace("10.9.0.11/32", "0.0.0.0/0").replace("10.9.0.12/32", "0.0.0.0/0");
    assert!(refused(&defaults).contains("is already that of client \"alice\" in line 19"), "{}", refused(&defaults));
}

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    let text = BASE
        .replace("port = 4444", "port = 0")
        .replace("mux = 2", "mux = 1")
        .replace("10.9.0.11/32", "10.9.0.11/8")
        .replace("sender_ids", "sender_id");
    let lines: Vec<usize> =
        parse(&text, Path::new("x")).unwrap_err().problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 3, 11, 19, 24]);
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    let expected = format!("{}: cannot be read: No such file or directory (os error 2)", missing.display());
    assert_eq!(read(&missing).unwrap_err().to_string(), expected);
    let expected = format!("{}: cannot be read: Is a directory (os error 21)", directory.path().display());
    assert_eq!(read(directory.path()).unwrap_err().to_string(), expected);
    let binary = directory.path().join("binary.toml");
    std::fs::write(&binary, b"[node]\nname = \"\xff\"\n").unwrap();
    assert_eq!(read(&binary).unwrap_err().to_string(), format!("{}:2: is not UTF-8", binary.display()));
}

#[test]
fn loopback_and_endless_draining() {
    check(&[
        (
            "\"eth0\"",
            "\"lo\"",
            "node.toml:6: `lo` never carries packets of clients; name the interface that they arrive on",
        ),
        ("sender_ids", "icmp_rate = 100001\nsender_ids", "node.toml:3: `icmp_rate` is 100001; it must be 0 to 100000"),
        (
            "name = \"office\"",
            "name = \"office\"\nmss_clamp = \"no\"",
            "node.toml:15: `mss_clamp` must be true or false, not a string",
        ),
        ("sender_ids", "drain_time = 601\nsender_ids", "node.toml:3: `drain_time` is 601; it must be 0 to 600"),
        (
            "sender_ids",
            "idle = \"never\"\nsender_ids",
            "node.toml:3: `idle` cannot be \"never\"; it must be one of \"sleep\", \"spin\"",
        ),
        (
            "sender_ids",
            "idle = \"spin\"\nscheduling = \"fifo\"\nsender_ids",
            "node.toml:4: `scheduling` is \"fifo\", but `idle` is \"spin\": workers that never sleep would leave their \
             processors to nobody; leave one of the two out",
        ),
    ]);
}

#[test]
fn of_many_problems_the_first_are_shown() {
    let found = refused(&format!("{BASE}{}", "[[client]]\n".repeat(30)));
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 21, "{found}");
    assert!(lines[19].starts_with("node.toml:") && lines[20].ends_with(" more"), "{found}");
}
