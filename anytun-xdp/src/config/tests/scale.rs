//! As many clients as a service can have.

use std::fmt::Write;
use std::path::Path;

use super::super::{explain, parse};
use super::{BASE, refused};

/// The base with `count` clients, each with an IPv4 and an IPv6 address.
fn with_clients(count: u32) -> String {
    let start = BASE.find("[[client]]").unwrap();
    let mut text = BASE[..start].to_owned();
    for mux in 0..count {
        let (high, low) = (mux >> 8, mux & 255);
        let _ = write!(
            text,
            "[[client]]\nname = \"client {mux}\"\nmux = {mux}\nprefixes = [\"10.9.{high}.{low}/32\", \
             \"fd00:9::{mux:x}/128\"]\npassphrase = \"passphrase of client {mux}\"\n"
        );
    }
    text
}

#[test]
fn every_mux_can_be_used() {
    let config = parse(&with_clients(65536), Path::new("node.toml")).unwrap();
    assert_eq!(config.clients.len(), 65536);
    assert_eq!(config.clients[65535].mux, 65535);
    let explained = explain(&config);
    assert!(explained.contains("65536 clients:\n  65536 with encrypted"), "{explained}");
    assert!(explained.lines().count() < 100, "{explained}");
}

#[test]
fn one_wrong_client_among_many_is_found() {
    let text = with_clients(4096);
    let text = text.replace("\"10.9.15.255/32\"", "\"10.9.0.0/30\"");
    let found = refused(&text);
    // One line for each of the four addresses that the prefix covers.
    assert_eq!(found.lines().count(), 4, "{found}");
    assert!(found.contains("of client \"client 4095\" covers 10.9.0.3/32 of client \"client 3\""), "{found}");
}
