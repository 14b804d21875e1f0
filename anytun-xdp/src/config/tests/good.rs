//! Configurations that are taken, and what they mean.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::super::*;
use super::{BASE, base_with, parsed};
use crate::satp::{AesCtr, Auth, Role, Suite};

/// The example of the README, with every key there is.
const FULL: &str = r#"
[node]
name = "vie1"                          # unique among the nodes of a service
state_dir = "/var/lib/anytun-xdp"      # sequence leases
sender_ids = "1-64"                    # SATP sender IDs that only this node uses
control = "/run/anytun-xdp/control.sock"
metrics = "127.0.0.1:9464"             # /metrics /healthz /readyz; absent = off
drain_time = 5
idle = "spin"
scheduling = "other"
icmp_rate = 100

[[interface]]
name = "eth0"
xdp = "auto"                           # auto | zerocopy | native | generic
queues = "all"                         # or "0-3"

[[service]]
name = "anycast"
address = "192.0.2.53"                 # IPv4 or IPv6
port = 4444

[[network]]
name = "office"
kind = "ip"                            # ip | ethernet
mss_clamp = true

[[client]]
name = "alice"
network = "office"
service = "anycast"                    # may be left out when there is one
mux = 1
prefixes = ["10.9.0.11/32", "fd00:9::11/128"]
passphrase = "client pass 1"           # or passphrase_file, or key + salt in hex, or key_file
kd_prf = "aes-ctr-128"                 # null | aes-ctr-128 | aes-ctr-192 | aes-ctr-256
cipher = "aes-ctr-128"                 # the same choices
auth = "sha1"                          # null | sha1
tag_length = 10
role = "left"                          # the node's own role; the client has the other one
window = 1024                          # 0 = off
endpoint = "198.51.100.7:4444"         # optional: where to send before the client has spoken
"#;

#[test]
fn the_full_example_is_read() {
    let config = parsed(FULL).unwrap();
    assert_eq!(
        config.node,
        Node {
            name: "vie1".to_owned(),
            state_dir: "/var/lib/anytun-xdp".into(),
            sender_ids: SenderIds { first: 1, last: 64 },
            control: "/run/anytun-xdp/control.sock".into(),
            metrics: Some("127.0.0.1:9464".parse().unwrap()),
            drain_time: Duration::from_secs(5),
            idle: Idle::Spin,
            scheduling: Scheduling::Other,
            icmp_rate: 100,
        }
    );
    assert_eq!(config.interfaces, [Interface { name: "eth0".to_owned(), xdp: XdpMode::Auto, queues: Queues::All }]);
    let [service] = &config.services[..] else { panic!("{:?}", config.services) };
    assert_eq!((service.address.to_string().as_str(), service.port), ("192.0.2.53", 4444));
    assert_eq!(service.udp_checksum, UdpChecksum::Full);
    let [client] = &config.clients[..] else { panic!("{:?}", config.clients) };
    assert_eq!((client.network, client.service, client.mux, client.window), (0, 0, 1, 1024));
    assert_eq!(client.prefixes, ["10.9.0.11/32", "fd00:9::11/128"].map(|prefix| prefix.parse().unwrap()));
    assert_eq!(client.crypto, Suite::DEFAULT);
    assert_eq!(client.role, Role::Left);
    assert_eq!(client.endpoint, Some("198.51.100.7:4444".parse::<SocketAddr>().unwrap()));
    let warnings: Vec<_> = config.warnings.iter().map(|warning| (warning.line, warning.message.as_str())).collect();
    let [(34, short)] = warnings[..] else { panic!("{warnings:?}") };
    assert!(short.starts_with("client \"alice\": `passphrase` has less than 16 characters"), "{short}");
}

#[test]
fn what_the_readme_shows_is_read_and_shows_the_defaults() {
    let readme = include_str!("../../../../README.md");
    let text = readme.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).unwrap().0;
    // An address of the node is the one thing of a network that has no default.
    let home = "name = \"office\"\naddress = [\"10.9.0.1/24\", \"fd00:9::1/64\"]";
    let (readme, base) = (parsed(text).unwrap(), parsed(&base_with("name = \"office\"", home)).unwrap());
    assert_eq!(readme.warnings, []);
    assert_eq!(readme.node, Node { metrics: readme.node.metrics, ..base.node });
    assert_eq!(
        (&readme.interfaces, &readme.services, &readme.networks),
        (&base.interfaces, &base.services, &base.networks)
    );
    let (client, plain) = (&readme.clients[0], &base.clients[0]);
    assert_eq!((client.crypto, client.role, client.window), (plain.crypto, plain.role, plain.window));
}

#[test]
fn defaults_are_those_of_the_full_example() {
    let config = parsed(BASE).unwrap();
    let full = parsed(FULL).unwrap();
    assert_eq!(
        config.node,
        Node {
            metrics: None,
            drain_time: Duration::ZERO,
            idle: Idle::Sleep,
            scheduling: Scheduling::Fifo,
            ..full.node
        }
    );
    assert_eq!(config.interfaces, full.interfaces);
    assert_eq!(config.services, full.services);
    assert_eq!(config.networks, full.networks);
    let (client, whole) = (&config.clients[0], &full.clients[0]);
    assert_eq!((client.crypto, client.role, client.window), (whole.crypto, whole.role, whole.window));
    assert_eq!(client.endpoint, None);
    assert_eq!(config.warnings, []);
}

#[test]
fn relative_paths_are_those_beside_the_file() {
    let text = base_with("sender_ids", "state_dir = \"leases\"\ncontrol = \"c.sock\"\nsender_ids");
    let config = parse(&text, Path::new("/etc/anytun-xdp/node.toml")).unwrap();
    assert_eq!(config.node.state_dir, Path::new("/etc/anytun-xdp/leases"));
    assert_eq!(config.node.control, Path::new("/etc/anytun-xdp/c.sock"));
}

#[test]
fn every_word_has_its_value() {
    let interface = |line: &str| {
        parsed(&base_with("name = \"eth0\"", &format!("name = \"eth0\"\n{line}"))).unwrap().interfaces[0].clone()
    };
    assert_eq!(interface("xdp = \"zerocopy\"").xdp, XdpMode::Zerocopy);
    assert_eq!(interface("xdp = \"native\"").xdp, XdpMode::Native);
    assert_eq!(interface("xdp = \"generic\"").xdp, XdpMode::Generic);
    assert_eq!(interface("queues = \"0-3\"").queues, Queues::Range(0, 3));
    assert_eq!(interface("queues = \"63\"").queues, Queues::Range(63, 63));

    let suite = |lines: &str| parsed(&base_with("mux = 1", &format!("mux = 1\n{lines}"))).unwrap().clients[0].crypto;
    assert_eq!(suite("kd_prf = \"aes-ctr\"").kd_prf, AesCtr::Aes128);
    assert_eq!(suite("kd_prf = \"aes-ctr-192\"").kd_prf, AesCtr::Aes192);
    assert_eq!(suite("cipher = \"aes-ctr-256\"").cipher, AesCtr::Aes256);
    assert_eq!(suite("cipher = \"null\"").cipher, AesCtr::Null);
    assert_eq!(suite("auth = \"null\"").auth, Auth::Null);
    assert_eq!(suite("tag_length = 20").tag_length, 20);

    let text = base_with("mux = 1", "mux = 65535\nrole = \"right\"\nwindow = 0\nendpoint = \"198.51.100.7:1\"");
    let client = &parsed(&text).unwrap().clients[0];
    assert_eq!((client.mux, client.role, client.window), (65535, Role::Right, 0));
    assert_eq!(client.endpoint, Some("198.51.100.7:1".parse().unwrap()));
    assert_eq!(parsed(&base_with("\"1-64\"", "\"7\"")).unwrap().node.sender_ids, SenderIds { first: 7, last: 7 });
    assert_eq!(parsed(&base_with("\"1-64\"", "\"0-65535\"")).unwrap().node.sender_ids.count(), 65536);
}

/// The kd-prf is forced to null where there is nothing to derive keys for (protocol.md §3.1).
#[test]
fn null_crypto_is_taken_and_warned_about() {
    let warnings = |lines: &str| {
        let config = parsed(&base_with("passphrase = \"correct horse battery\"", lines)).unwrap();
        let warnings: Vec<String> =
            config.warnings.iter().map(|warning| format!("{}: {}", warning.line, warning.message)).collect();
        (config.clients[0].crypto.kd_prf, warnings)
    };
    let (kd_prf, found) = warnings("cipher = \"null\"\nauth = \"null\"");
    assert_eq!(kd_prf, AesCtr::Null);
    assert_eq!(
        found,
        [
            "20: client \"alice\": `cipher` null: everyone on the path can read its packets",
            "21: client \"alice\": `auth` null: anyone can forge and change its packets and take over its endpoint",
        ]
    );
    let (kd_prf, found) = warnings("cipher = \"null\"\nauth = \"null\"\nkd_prf = \"aes-ctr-256\"");
    assert_eq!(kd_prf, AesCtr::Null);
    assert_eq!(
        found[2],
        "22: client \"alice\": `kd_prf` aes-ctr-256 has no effect: without cipher and auth it is null, as in anytun"
    );
    let (kd_prf, found) = warnings("kd_prf = \"null\"");
    assert_eq!(kd_prf, AesCtr::Null);
    assert_eq!(
        found,
        ["20: client \"alice\": `kd_prf` null: all keys are zero, so anyone can read, forge and replay its packets"]
    );
    let (_, found) = warnings("kd_prf = \"null\"\npassphrase = \"correct horse battery\"");
    assert_eq!(found[1], "21: client \"alice\": `passphrase` is not used: without a kd-prf all keys are zero");
    let rest = "passphrase = \"correct horse battery\"\nwindow = 0\ntag_length";
    let (_, found) = warnings(&format!("{rest} = 4"));
    assert_eq!(
        found,
        [
            "21: client \"alice\": `window` 0: captured packets can be replayed",
            "22: client \"alice\": `tag_length` 4: one forged packet in 2^32 is accepted; 10 octets are usual",
        ]
    );
    let (_, found) = warnings(&format!("{rest} = 0"));
    assert_eq!(
        found[1],
        "22: client \"alice\": `tag_length` 0: anyone can forge and change its packets and take over its endpoint"
    );
}

#[test]
fn prefixes_may_nest_where_the_network_says_so() {
    let text = BASE
        .replace("name = \"office\"", "name = \"office\"\nmore_specifics = true")
        .replace("10.9.0.12/32", "10.9.0.0/24");
    assert!(parsed(&text).unwrap().networks[0].more_specifics);
}

#[test]
fn errors_and_segment_sizes_can_be_turned_off() {
    let config = parsed(&base_with("sender_ids", "icmp_rate = 0\nsender_ids")).unwrap();
    assert_eq!(config.node.icmp_rate, 0);
    assert!(explain(&config).contains("\n  senders are not told of what is dropped: no ICMP errors\n"));
    let config = parsed(&base_with("name = \"office\"", "name = \"office\"\nmss_clamp = false")).unwrap();
    assert!(!config.networks[0].mss_clamp);
    assert!(explain(&config).contains("2 prefixes, TCP segment sizes are left alone\n"));
}

#[test]
fn default_routes_cover_nobody() {
    let text = BASE.replace("\"10.9.0.12/32\"", "\"0.0.0.0/0\", \"::/0\"").replace("\"10.9.0.11/32\"", "\"fd00::/8\"");
    assert_eq!(parsed(&text).unwrap().clients[1].prefixes.len(), 2);
}

#[test]
fn networks_are_apart() {
    let text = BASE
        .replace("[[network]]", "[[network]]\nname = \"lab\"\n[[network]]")
        .replace("mux = 1", "mux = 1\nnetwork = \"lab\"")
        .replace("mux = 2", "mux = 2\nnetwork = \"office\"")
        .replace("10.9.0.12/32", "10.9.0.11/32");
    let config = parsed(&text).unwrap();
    assert_eq!(config.clients.iter().map(|client| client.network).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn check_prints_what_it_means() {
    let text = FULL.replace("role = \"left\"", "auth = \"null\"\nrole = \"left\"").replacen("auth = \"sha1\"", "", 1);
    let expected = r#"node vie1: sender IDs 1 to 64 (64)
  sequence leases in /var/lib/anytun-xdp
  control socket /run/anytun-xdp/control.sock
  metrics and health on http://127.0.0.1:9464/metrics, /healthz, /readyz
  carries traffic for 5 s after it was told to stop
  workers never sleep: each takes a whole processor
  ICMP errors: up to 100 a second for each client
interface eth0: native XDP, zero-copy where the driver is known to be good at it, else copy, all queues
service anycast: 192.0.2.53:4444, 1 client
network office: IP, 1 client, 2 prefixes
client alice: MUX 1 of service anycast, network office
  10.9.0.11/32, fd00:9::11/128
  encrypted with AES-128 in counter mode, not authenticated, keys derived with AES-128 in counter mode; replay window of 1024; the node is left
  sent to 198.51.100.7:4444, and to where it is once it has spoken
"#;
    let explained = explain(&parsed(&text).unwrap());
    let (start, warnings) = explained.split_at(expected.len().min(explained.len()));
    assert_eq!(start, expected);
    let warnings: Vec<&str> = warnings.lines().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("node.toml:34: warning: client \"alice\": `passphrase` has less than 16"));
    assert!(warnings[1].starts_with("node.toml:39: warning: client \"alice\": `auth` null: anyone can forge"));
}

#[test]
fn clients_that_only_their_service_tells_apart_are_warned_about() {
    let second = "[[service]]\nname = \"second\"\naddress = \"192.0.2.54\"\nport = 4444\n\n[[network]]";
    let text = BASE
        .replace("[[network]]", second)
        .replace("mux = 1", "mux = 1\nservice = \"anycast\"")
        .replace("mux = 2", "mux = 1\nservice = \"second\"");
    assert_eq!(parsed(&text).unwrap().warnings, []);
    let text = text.replace("staple correct horse", "correct horse battery");
    let [warning] = &parsed(&text).unwrap().warnings[..] else { panic!("no warning") };
    let expected =
        "client \"bob\": key, `mux` and `role` are those of client \"alice\" in line 23, under another service:";
    assert_eq!(warning.line, 30);
    assert!(warning.message.starts_with(expected), "{}", warning.message);
    assert_eq!(parsed(&text.replacen("mux = 1\n", "mux = 1\nrole = \"right\"\n", 1)).unwrap().warnings, []);
}

/// A node may run with an older configuration than the one that is being edited.
#[test]
fn the_control_socket_is_found_in_a_broken_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    let path = |text: &str| {
        std::fs::write(&file, text).unwrap();
        control_path(&file).unwrap()
    };
    let broken = "mux = = 1\n[[client]]\nwrong = \"x\"";
    assert_eq!(path(&base_with("mux = 1", broken)), Path::new("/run/anytun-xdp/control.sock"));
    let named = BASE.replace("[node]", "[node]\ncontrol = \"c.sock\"");
    assert_eq!(path(&named.replace("mux = 1", broken)), directory.path().join("c.sock"));
    assert_eq!(path(&named.replace("sender_ids", "sender ids")), directory.path().join("c.sock"));
    std::fs::remove_file(&file).unwrap();
    let error = control_path(&file).unwrap_err().to_string();
    assert!(error.contains("node.toml: cannot be read") && error.contains("--control"), "{error}");
}
