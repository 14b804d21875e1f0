//! The keys of Ethernet networks and of their clients.

use anytun_common::wire::ethernet::Mac;
use sha2::{Digest, Sha256};

use super::HostAddress;
use super::document::{At, Table};
use super::error::Report;

/// Frames to everybody that one client may send in a second, when nothing is said.
const FLOODS: u32 = 100;
/// MAC addresses behind one client, likewise.
const MACS: u32 = 64;
/// Seconds after which a silent MAC address is forgotten, likewise: the usual time of bridges (IEEE 802.1D §7.9.2).
const AGE: u32 = 300;

/// Keys that only Ethernet networks have.
const KEYS: [&str; 3] = ["mac_age", "mac_limit", "flood_rate"];
/// Keys that only IP networks have.
const IP_KEYS: [&str; 7] = ["more_specifics", "mss_clamp", "open", "nat", "broadcast", "snooping", "kernel_routes"];

/// How an Ethernet network treats its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridging {
    /// Seconds after which a MAC address is forgotten that sends nothing.
    pub mac_age: u32,
    /// MAC addresses that may be behind one client at once.
    pub mac_limit: u32,
    /// Frames to everybody that one client may send in a second: broadcasts, multicasts, and those for a MAC address that is
    /// not known.
    pub flood_rate: u32,
}

/// Reads the keys of a network; nothing of one whose kind is IP.
pub(super) fn bridging(report: &mut Report, table: &Table<'_>) -> Option<Option<Bridging>> {
    let is_ethernet = match table.has("kind") {
        true => table.choice(report, "kind", &[("ip", false), ("ethernet", true)])?.value,
        false => false,
    };
    let (foreign, kind) = if is_ethernet { (&IP_KEYS[..], "ip") } else { (&KEYS[..], "ethernet") };
    for key in foreign.iter().filter(|key| table.has(key)) {
        report.error(table.line_of(key), format!("`{key}` is for networks of kind {kind:?}"));
    }
    let mut number = |key, most, usual| match table.has(key) {
        true => table.integer::<u32>(report, key, 1..=most).map(|at| at.value),
        false => Some(usual),
    };
    let (age, limit, rate) =
        (number("mac_age", 86_400, AGE), number("mac_limit", 4096, MACS), number("flood_rate", 1_000_000, FLOODS));
    if !is_ethernet {
        return Some(None);
    }
    Some(Some(Bridging { mac_age: age?, mac_limit: limit?, flood_rate: rate? }))
}

/// Reads the MAC addresses of a client, which are all that it may send from. Wrong ones are reported and left out.
pub(super) fn macs(report: &mut Report, table: &Table<'_>) -> Vec<At<Mac>> {
    let Some(At { value: texts, .. }) = table.strings(report, "macs") else { return Vec::new() };
    let mut macs: Vec<At<Mac>> = Vec::with_capacity(texts.len());
    for At { line, value: text } in texts {
        match parse(text) {
            Some(mac) if mac[0] & 1 == 1 || mac == [0; 6] => {
                report.error(line, format!("MAC address {text:?} is not that of one station"));
            }
            Some(mac) => macs.push(At { line, value: mac }),
            None => {
                report.error(line, format!("{text:?} is no MAC address; it must be written as \"02:00:5e:10:00:01\""))
            }
        }
    }
    macs
}

/// The MAC address of a network's TAP device: locally administered (IEEE 802 §8.4), and the same whenever the node starts, so
/// that neighbours need not forget it. Nodes that have the same addresses in a network have the same one there, as a client
/// that comes from one to another keeps what it knows (RFC 9135 §4.1); without an address each node has its own.
pub(super) fn device_mac(network: &str, addresses: &[HostAddress], node: &str) -> Mac {
    let mut hash = Sha256::new_with_prefix(network);
    let mut add = |part: &str| hash.update([&[0][..], part.as_bytes()].concat());
    match addresses {
        [] => add(node),
        some => some.iter().for_each(|own| add(&own.to_string())),
    }
    let [first, second, third, fourth, fifth, sixth, ..] = <[u8; 32]>::from(hash.finalize());
    [first & 0xfc | 0x02, second, third, fourth, fifth, sixth]
}

/// A MAC address as it is written.
pub(super) fn shown(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Reads six octets in hexadecimal with colons between them.
fn parse(text: &str) -> Option<Mac> {
    let mut octets = text.split(':').map(|octet| {
        let digits = octet.len() == 2 && octet.bytes().all(|digit| digit.is_ascii_hexdigit());
        digits.then(|| u8::from_str_radix(octet, 16).ok()).flatten()
    });
    let mut mac = [0; 6];
    for octet in &mut mac {
        *octet = octets.next()??;
    }
    octets.next().is_none().then_some(mac)
}
