//! The tables `[[client]]`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use anytun_common::wire::ethernet::Mac;

use super::bridge::{macs, shown};
use super::document::{At, Table};
use super::error::Report;
use super::local;
use super::names::Names;
use super::open::{self, Reachable};
use super::overlap::{self, Claim};
use super::prefix::Prefix;
use super::secret::{is_inline, secret};
use super::service::not_of_a_host;
use super::{Client, Network, Open, Service};
use crate::satp::{AesCtr, Auth, Fingerprint, MAX_TAG, Role, Suite};

/// Sequence numbers of the replay window when nothing is said.
const WINDOW: u32 = 1024;

/// The widest replay window: a bitmap of 8 KiB per client and sender ID.
const WIDEST_WINDOW: i64 = 65536;

/// Octets of a tag below which it is warned about: those of the daemons and of SRTP (RFC 3711 section 5.2).
const USUAL_TAG: u8 = 10;

const AES_CTR: [(&str, AesCtr); 5] = [
    ("null", AesCtr::Null),
    ("aes-ctr-128", AesCtr::Aes128),
    ("aes-ctr-192", AesCtr::Aes192),
    ("aes-ctr-256", AesCtr::Aes256),
    // As the daemons call it.
    ("aes-ctr", AesCtr::Aes128),
];

/// What clients refer to.
pub(super) struct Surroundings<'a> {
    pub(super) directory: &'a Path,
    pub(super) network_names: &'a Names,
    pub(super) networks: &'a [Option<Network>],
    /// Of each network's header.
    pub(super) network_lines: &'a [usize],
    /// Of each network's own addresses.
    pub(super) address_lines: &'a [usize],
    pub(super) service_names: &'a Names,
    pub(super) services: &'a [Option<Service>],
}

/// What one table says, as far as it could be read: clients are held against each other even where they are wrong.
struct Entry {
    name: Option<String>,
    network: Option<usize>,
    service: Option<usize>,
    mux: Option<At<u16>>,
    prefixes: Vec<At<Prefix>>,
    macs: Vec<At<Mac>>,
    client: Option<Client>,
}

/// Reads clients one by one, then checks that they can be together.
pub(super) struct Clients<'a> {
    around: Surroundings<'a>,
    names: Names,
    entries: Vec<Entry>,
    /// Whether the text itself holds a secret.
    pub(super) has_inline_secret: bool,
}

impl<'a> Clients<'a> {
    pub(super) fn new(around: Surroundings<'a>) -> Self {
        Self { around, names: Names::new("client"), entries: Vec::new(), has_inline_secret: false }
    }

    /// Reads one `[[client]]`.
    pub(super) fn read(&mut self, report: &mut Report, table: &Table<'_>) {
        self.has_inline_secret |= is_inline(table);
        let entry = entry(report, table, &self.around, &mut self.names);
        self.entries.push(entry);
    }

    /// The names of all clients, and the clients; `None` stands for one that cannot be used.
    pub(super) fn finish(self, report: &mut Report) -> (Names, Vec<Option<Client>>) {
        let Self { around, names, entries, .. } = self;
        check_mux(report, &entries);
        check_keys(report, &entries);
        let mut routes = local::Routes::default();
        for (index, (network, line)) in around.networks.iter().zip(around.network_lines).enumerate() {
            let Some(network) = network else { continue };
            let members = entries.iter().enumerate().filter(|(_, entry)| entry.network == Some(index));
            let claims = members.flat_map(|(client, entry)| {
                let name = entry.name.as_deref();
                entry.prefixes.iter().map(move |prefix| Claim { prefix: *prefix, client, name })
            });
            let place = At { line: *line, value: network.name.as_str() };
            let claims: Vec<_> = claims.collect();
            if let (Some(local), Some(&line)) = (&network.local, around.address_lines.get(index)) {
                local::check_clients(report, local, line, &claims);
                routes.claim(report, local, &claims);
            }
            overlap::check(report, place, network.more_specifics, claims);
        }
        check_macs(report, &entries);
        open::check(report, reachable(&entries, around.networks), around.services, around.networks);
        (names, entries.into_iter().map(|entry| entry.client).collect())
    }
}

/// The prefixes of open networks.
fn reachable<'a>(entries: &'a [Entry], networks: &'a [Option<Network>]) -> Vec<Reachable<'a>> {
    let of_entry = |(client, entry): (usize, &'a Entry)| {
        let network = entry.network.and_then(|index| networks.get(index)?.as_ref());
        let network = network.filter(|network| network.open != Open::No);
        network.into_iter().flat_map(move |network| {
            let claim = move |prefix: &At<Prefix>| Claim { prefix: *prefix, client, name: entry.name.as_deref() };
            entry.prefixes.iter().map(move |prefix| Reachable { claim: claim(prefix), network })
        })
    };
    entries.iter().enumerate().flat_map(of_entry).collect()
}

fn entry(report: &mut Report, table: &Table<'_>, around: &Surroundings<'_>, names: &mut Names) -> Entry {
    let warned = report.warnings.len();
    let name = names.take(report, table);
    let network = around.network_names.refer(report, table);
    let service = around.service_names.refer(report, table);
    table.require(report, "mux");
    let mux = table.integer(report, "mux", 0..=65535);
    let (prefixes, macs) = addresses(report, table, network.map(|index| around.networks[index].as_ref()));
    let crypto = suite(report, table);
    let secret = crypto.and_then(|crypto| secret(report, table, crypto.kd_prf, around.directory));
    let role = match table.has("role") {
        true => table.choice(report, "role", &[("left", Role::Left), ("right", Role::Right)]).map(|at| at.value),
        false => Some(Role::Left),
    };
    let window = window(report, table);
    let endpoint = match table.has("endpoint") {
        true => endpoint(report, table, service.and_then(|index| around.services[index].as_ref())).map(Some),
        false => Some(None),
    };
    let build = || {
        Some(Client {
            name: name.clone()?,
            network: network?,
            service: service?,
            mux: mux?.value,
            prefixes: prefixes.iter().map(|prefix| prefix.value).collect(),
            macs: macs.iter().map(|mac| mac.value).collect(),
            secret: secret?,
            crypto: crypto?,
            role: role?,
            window: window?,
            endpoint: endpoint?,
        })
    };
    let client = build();
    for warning in &mut report.warnings[warned..] {
        warning.message.insert_str(0, &format!("client {:?}: ", name.as_deref().unwrap_or_default()));
    }
    Entry { name, network, service, mux, prefixes, macs, client }
}

/// The inner addresses of a client: prefixes in an IP network, MAC addresses in an Ethernet network. Of one that could not be
/// read it is not known which they must be.
fn addresses(
    report: &mut Report,
    table: &Table<'_>,
    network: Option<Option<&Network>>,
) -> (Vec<At<Prefix>>, Vec<At<Mac>>) {
    let is_bridged = network.map(|network| network.map(|network| network.bridging.is_some()));
    let foreign = match is_bridged {
        Some(Some(true)) => Some(("prefixes", "ip")),
        Some(Some(false)) => Some(("macs", "ethernet")),
        _ => None,
    };
    if let Some((key, kind)) = foreign.filter(|(key, _)| table.has(key)) {
        report.error(table.line_of(key), format!("`{key}` is for clients of networks of kind {kind:?}"));
    }
    if matches!(is_bridged, None | Some(Some(false))) {
        table.require(report, "prefixes");
    }
    match is_bridged {
        Some(Some(true)) => (Vec::new(), macs(report, table)),
        _ => (prefixes(report, table), Vec::new()),
    }
}

fn prefixes(report: &mut Report, table: &Table<'_>) -> Vec<At<Prefix>> {
    let Some(At { line, value: texts }) = table.strings(report, "prefixes") else { return Vec::new() };
    if texts.is_empty() {
        report.error(line, "`prefixes` is empty; a client needs at least one inner address");
    }
    let mut prefixes = Vec::with_capacity(texts.len());
    for At { line, value } in texts {
        match value.parse() {
            Ok(value) => prefixes.push(At { line, value }),
            Err(why) => report.error(line, format!("prefix {value:?} {why}")),
        }
    }
    prefixes
}

/// The cryptographic choices; those that protect less than the defaults are warned about.
fn suite(report: &mut Report, table: &Table<'_>) -> Option<Suite> {
    let default = Suite::DEFAULT;
    let kd_prf = table.choice(report, "kd_prf", &AES_CTR);
    let cipher = table.choice(report, "cipher", &AES_CTR);
    let auth = table.choice(report, "auth", &[("null", Auth::Null), ("sha1", Auth::Sha1)]);
    let tag_length = table.integer::<u8>(report, "tag_length", 0..=MAX_TAG as i64);
    let wrong = [
        (kd_prf.is_none(), "kd_prf"),
        (cipher.is_none(), "cipher"),
        (auth.is_none(), "auth"),
        (tag_length.is_none(), "tag_length"),
    ];
    if wrong.iter().any(|(unread, key)| *unread && table.has(key)) {
        return None;
    }
    let mut suite = Suite {
        kd_prf: kd_prf.map_or(default.kd_prf, |at| at.value),
        cipher: cipher.map_or(default.cipher, |at| at.value),
        auth: auth.map_or(default.auth, |at| at.value),
        tag_length: tag_length.map_or(default.tag_length, |at| at.value),
    };
    if suite.cipher == AesCtr::Null && suite.auth == Auth::Null {
        if let Some(At { line, value }) = kd_prf.filter(|at| at.value != AesCtr::Null) {
            let was = value.name();
            report
                .warn(line, format!("`kd_prf` {was} has no effect: without cipher and auth it is null, as in anytun"));
        }
        suite.kd_prf = AesCtr::Null;
    }
    warn_of_weakness(report, table, &suite);
    Some(suite)
}

fn warn_of_weakness(report: &mut Report, table: &Table<'_>, suite: &Suite) {
    let mut warn = |key: &str, what: &str| {
        report.warn(table.line_of(key), format!("`{key}` {what}"));
    };
    let keys_matter = suite.cipher != AesCtr::Null || suite.auth != Auth::Null;
    if suite.kd_prf == AesCtr::Null && keys_matter {
        warn("kd_prf", "null: all keys are zero, so anyone can read, forge and replay its packets");
    }
    if suite.cipher == AesCtr::Null {
        warn("cipher", "null: everyone on the path can read its packets");
    }
    match suite.auth {
        Auth::Null => warn("auth", "null: anyone can forge and change its packets and take over its endpoint"),
        Auth::Sha1 if suite.tag_length == 0 => {
            warn("tag_length", "0: anyone can forge and change its packets and take over its endpoint");
        }
        Auth::Sha1 if suite.tag_length < USUAL_TAG => {
            let bits = 8 * u32::from(suite.tag_length);
            warn(
                "tag_length",
                &format!(
                    "{}: one forged packet in 2^{bits} is accepted; {USUAL_TAG} octets are usual",
                    suite.tag_length
                ),
            );
        }
        Auth::Sha1 => {}
    }
}

fn window(report: &mut Report, table: &Table<'_>) -> Option<u32> {
    if !table.has("window") {
        return Some(WINDOW);
    }
    let At { line, value: window } = table.integer(report, "window", 0..=WIDEST_WINDOW)?;
    if window == 0 {
        report.warn(line, "`window` 0: captured packets can be replayed");
    }
    Some(window)
}

fn endpoint(report: &mut Report, table: &Table<'_>, service: Option<&Service>) -> Option<SocketAddr> {
    let At { line, value } = table.string(report, "endpoint")?;
    let Ok(endpoint) = value.parse::<SocketAddr>() else {
        let form = "such as \"198.51.100.7:4444\" or \"[2001:db8::7]:4444\"";
        report.error(line, format!("`endpoint` {value:?} is no address and port, {form}"));
        return None;
    };
    let family = |ipv6| if ipv6 { "IPv6" } else { "IPv4" };
    let wrong = match (not_of_a_host(endpoint.ip()), service) {
        (Some(why), _) => Some(why.to_owned()),
        _ if endpoint.port() == 0 => Some("has port 0; it must be 1 to 65535".to_owned()),
        (None, Some(service)) if service.address.is_ipv6() != endpoint.is_ipv6() => {
            let (from, to) = (family(service.address.is_ipv6()), family(endpoint.is_ipv6()));
            Some(format!("is {to}, but the service {:?} sends from an {from} address", service.name))
        }
        _ => None,
    };
    if let Some(wrong) = &wrong {
        report.error(line, format!("`endpoint` {endpoint} {wrong}"));
    }
    wrong.is_none().then_some(endpoint)
}

/// Reports a MUX that two clients of one service have.
fn check_mux(report: &mut Report, entries: &[Entry]) {
    let mut taken: HashMap<(usize, u16), (Option<&str>, usize)> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let (Some(service), Some(At { line, value: mux })) = (entry.service, entry.mux) else { continue };
        let (name, other) = *taken.entry((service, mux)).or_insert((entry.name.as_deref(), line));
        if other != line {
            let name = named(name);
            report
                .error(line, format!("`mux` {mux} is already that of {name} in line {other}, under the same service"));
        }
    }
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(|| "a client without a name".to_owned(), |name| format!("client {name:?}"))
}

/// Reports MAC addresses of a network that are given twice.
fn check_macs(report: &mut Report, entries: &[Entry]) {
    let mut taken = HashMap::new();
    for entry in entries {
        for At { line, value: mac } in &entry.macs {
            let first: Option<(Option<&str>, usize)> =
                taken.insert((entry.network, *mac), (entry.name.as_deref(), *line));
            if let Some((name, other)) = first {
                report.error(
                    *line,
                    format!("MAC address {} is already that of {} in line {other}", shown(*mac), named(name)),
                );
            }
        }
    }
}

/// Warns of clients under different services that nothing but the service tells apart: no packet names its service in
/// what the tag protects.
fn check_keys(report: &mut Report, entries: &[Entry]) {
    let usable = || entries.iter().filter_map(|entry| Some((entry.client.as_ref()?, entry.mux?.line)));
    if usable().all(|(client, _)| client.service == 0) {
        return;
    }
    let mut seen: HashMap<(Fingerprint, u16, bool), (&Client, usize)> = HashMap::new();
    for (client, line) in usable() {
        let key = (client.secret.fingerprint(), client.mux, client.role == Role::Left);
        let (first, other) = *seen.entry(key).or_insert((client, line));
        if first.service != client.service {
            report.warn(
                line,
                format!(
                    "client {:?}: key, `mux` and `role` are those of client {:?} in line {other}, under another service: \
                     captured packets of one pass for the other's; give them different keys",
                    client.name, first.name
                ),
            );
        }
    }
}
