//! From a file to the typed configuration.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::client::{Clients, Surroundings};
use super::document::{Document, Form, Lines, Schema, Table};
use super::error::{Error, Report};
use super::names::Names;
use super::pieces::{self, Pieces};
use super::{Config, Problem, group, local, nat, node, service};

/// The tables and keys there are, in the order of the README.
static SCHEMAS: [Schema; 6] = [
    Schema {
        name: "node",
        form: Form::Single,
        keys: &[
            "name",
            "state_dir",
            "sender_ids",
            "control",
            "metrics",
            "drain_time",
            "idle",
            "scheduling",
            "icmp_rate",
        ],
    },
    Schema { name: "interface", form: Form::Repeated, keys: &["name", "xdp", "queues"] },
    Schema { name: "service", form: Form::Repeated, keys: &["name", "address", "port", "udp_checksum"] },
    Schema {
        name: "network",
        form: Form::Repeated,
        keys: &[
            "name",
            "kind",
            "more_specifics",
            "mss_clamp",
            "open",
            "nat",
            "broadcast",
            "copies",
            "snooping",
            "query_interval",
            "groups_per_client",
            "groups_per_network",
            "address",
            "device",
            "kernel_routes",
            "mac_age",
            "mac_limit",
            "flood_rate",
        ],
    },
    Schema { name: "group", form: Form::Repeated, keys: &["network", "address", "members"] },
    Schema {
        name: "client",
        form: Form::Repeated,
        keys: &[
            "name",
            "network",
            "service",
            "mux",
            "prefixes",
            "macs",
            "passphrase",
            "passphrase_file",
            "key",
            "salt",
            "key_file",
            "kd_prf",
            "cipher",
            "auth",
            "tag_length",
            "role",
            "window",
            "endpoint",
        ],
    },
];

/// Reads and checks a configuration file and the files with secrets it names.
///
/// # Errors
/// Every problem with its line, in the order of the file; one problem without a line when the file cannot be read.
pub fn read(file: &Path) -> Result<Config, Error> {
    let (octets, mode) = content(file).map_err(|error| Error::whole_file(file, format!("cannot be read: {error}")))?;
    let text = std::str::from_utf8(&octets).map_err(|error| {
        let line = octets[..error.valid_up_to()].iter().filter(|octet| **octet == b'\n').count() + 1;
        Error { file: file.to_owned(), problems: vec![Problem { line, message: "is not UTF-8".to_owned() }] }
    })?;
    let (mut config, inline) = typed(text, file)?;
    if inline && mode & 0o044 != 0 {
        let message = format!(
            "holds secrets and has mode {mode:04o}, so others than its owner can read them; run: chmod 600 {}, or use \
             `passphrase_file` or `key_file`",
            file.display()
        );
        config.warnings.insert(0, Problem { line: 0, message });
    }
    Ok(config)
}

/// What is in a file, and its mode.
fn content(file: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let mut opened = File::open(file)?;
    let metadata = opened.metadata()?;
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).saturating_add(1)));
    opened.read_to_end(&mut octets)?;
    Ok((octets, metadata.mode() & 0o7777))
}

/// The control socket that a configuration names, whatever else is wrong with it: a node may run with an older one.
///
/// # Errors
/// The file cannot be read.
pub fn control_path(file: &Path) -> Result<PathBuf, Error> {
    let (octets, _) = content(file)
        .map_err(|error| Error::whole_file(file, format!("cannot be read: {error}; --control names the socket")))?;
    let directory = file.parent().unwrap_or(Path::new(""));
    let text = std::str::from_utf8(&octets).unwrap_or_else(|error| {
        // The part before the fault, which is valid.
        std::str::from_utf8(&octets[..error.valid_up_to()]).unwrap_or_default()
    });
    let named = pieces::cut(text, &SCHEMAS).mixed.into_iter().find_map(|piece| {
        let (root, _) = DeTable::parse_recoverable(&text[piece]);
        let node = root.get_ref().get("node").map(|node| node.get_ref());
        node.and_then(DeValue::as_table)?.get("control")?.get_ref().as_str().map(|path| directory.join(path))
    });
    Ok(named.unwrap_or_else(|| node::CONTROL.into()))
}

/// Checks the text of a configuration. `file` names it in messages; relative paths in it are relative to the directory
/// of `file`.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, file: &Path) -> Result<Config, Error> {
    typed(text, file).map(|(config, _)| config)
}

/// The configuration, and whether the text itself holds secrets.
fn typed(text: &str, file: &Path) -> Result<(Config, bool), Error> {
    let mut report = Report::default();
    let built = build(&mut report, text, file);
    let Report { errors: mut problems, mut warnings } = report;
    problems.sort_by_key(|problem| problem.line);
    warnings.sort_by_key(|problem| problem.line);
    match built {
        Some((config, inline)) if problems.is_empty() => Ok((Config { warnings, ..config }, inline)),
        _ => Err(Error { file: file.to_owned(), problems }),
    }
}

/// `None` only when a problem is reported.
fn build(report: &mut Report, text: &str, file: &Path) -> Option<(Config, bool)> {
    let lines = Lines::new(text);
    let Pieces { mixed, clients: pieces } = pieces::cut(text, &SCHEMAS);
    let parsed = mixed.into_iter().map(|piece| Document::parse(text, piece, &lines, report));
    let documents: Vec<Option<Document<'_>>> = parsed.collect();
    let Some(documents) = documents.into_iter().collect::<Option<Vec<_>>>() else {
        // Without these tables more than the syntax of the others would seem wrong.
        for piece in pieces {
            let _ = Document::parse(text, piece, &lines, report);
        }
        return None;
    };
    let further = |report: &mut Report, clients: &mut Clients<'_>| {
        for piece in pieces {
            let Some(document) = Document::parse(text, piece, &lines, report) else { continue };
            let mut found = tables();
            document.tables(report, &SCHEMAS, &mut found);
            found.iter().flatten().for_each(|table| clients.read(report, table));
        }
    };
    assemble(report, file, &documents, further)
}

/// The configuration from the documents with tables of all kinds, and what reads the further clients.
fn assemble(
    report: &mut Report,
    file: &Path,
    documents: &[Document<'_>],
    further: impl FnOnce(&mut Report, &mut Clients<'_>),
) -> Option<(Config, bool)> {
    let mut found = tables();
    documents.iter().for_each(|document| document.tables(report, &SCHEMAS, &mut found));
    let [nodes, interfaces, services, networks, groups, first_clients] = &found;
    let directory = file.parent().unwrap_or(Path::new(""));

    if !documents.iter().any(|document| document.has("node")) {
        report.error(0, "there is no [node]; it needs at least `name` and `sender_ids`");
    }
    let node = nodes.first().and_then(|table| node::node(report, table, directory));
    let interfaces = node::interfaces(report, interfaces);
    if let (Some(table), Some(node)) = (nodes.first(), &node) {
        node::check_sender_ids(report, table.line_of("sender_ids"), node.sender_ids, &interfaces);
    }
    let mut service_names = Names::new("service");
    let services = service::services(report, services, &mut service_names);
    let mut network_names = Names::new("network");
    let network_lines: Vec<usize> = networks.iter().map(|table| table.line).collect();
    let network_tables = networks;
    let line_of = |key| network_tables.iter().map(|table| table.line_of(key)).collect::<Vec<usize>>();
    let node_name = node.as_ref().map_or("", |node| node.name.as_str());
    let networks = service::networks(report, network_tables, &mut network_names, node_name);
    nat::check(report, network_tables, &networks, &services);
    local::check_devices(report, &networks, &line_of("device"), &interfaces);
    let address_lines = line_of("address");
    local::check_addresses(report, &networks, &address_lines, &services);
    let broadcast_lines = line_of("broadcast");
    let groups = group::groups(report, groups, &network_names);

    let mut clients = Clients::new(Surroundings {
        directory,
        network_names: &network_names,
        networks: &networks,
        network_lines: &network_lines,
        address_lines: &address_lines,
        service_names: &service_names,
        services: &services,
    });
    first_clients.iter().for_each(|table| clients.read(report, table));
    further(report, &mut clients);
    let inline = clients.has_inline_secret;
    let (client_names, clients) = clients.finish(report);
    let around = group::Surroundings {
        networks: &networks,
        broadcast_lines: &broadcast_lines,
        client_names: &client_names,
        clients: &clients,
    };
    let groups = group::finish(report, groups, &around);
    let config = Config {
        file: file.to_owned(),
        node: node?,
        interfaces: interfaces.into_iter().collect::<Option<_>>()?,
        services: services.into_iter().collect::<Option<_>>()?,
        networks: networks.into_iter().collect::<Option<_>>()?,
        groups: groups.into_iter().collect::<Option<_>>()?,
        clients: clients.into_iter().collect::<Option<_>>()?,
        warnings: Vec::new(),
    };
    Some((config, inline))
}

/// An empty list of tables for each schema.
fn tables<'a>() -> [Vec<Table<'a>>; SCHEMAS.len()] {
    std::array::from_fn(|_| Vec::new())
}
