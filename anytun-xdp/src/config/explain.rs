//! What a configuration means, in words: the output of `check`.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::bridge::shown;
use super::error::SHOWN;
use super::{
    Bridging, Client, Config, Group, Idle, Interface, Network, Open, Queues, Scheduling, Snooping, UdpChecksum, XdpMode,
};
use crate::satp::{AesCtr, Auth, Role, Suite};

/// A few lines that say what the node will do. Holds no secret.
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(config, &mut text);
    text
}

fn write(config: &Config, out: &mut String) -> fmt::Result {
    let node = &config.node;
    let ids = node.sender_ids;
    writeln!(out, "node {}: sender IDs {} to {} ({})", node.name, ids.first, ids.last, ids.count())?;
    writeln!(out, "  sequence leases in {}", node.state_dir.display())?;
    writeln!(out, "  control socket {}", node.control.display())?;
    match node.metrics {
        Some(address) => writeln!(out, "  metrics and health on http://{address}/metrics, /healthz, /readyz")?,
        None => writeln!(out, "  no metrics")?,
    }
    if !node.drain_time.is_zero() {
        writeln!(out, "  carries traffic for {} s after it was told to stop", node.drain_time.as_secs())?;
    }
    if node.idle == Idle::Spin {
        writeln!(out, "  workers never sleep: each takes a whole processor")?;
    }
    if (node.scheduling, node.idle) == (Scheduling::Other, Idle::Sleep) {
        writeln!(out, "  workers are scheduled as any other thread")?;
    }
    match node.icmp_rate {
        0 => writeln!(out, "  senders are not told of what is dropped: no ICMP errors")?,
        rate => writeln!(out, "  ICMP errors: up to {rate} a second for each client")?,
    }
    for interface in &config.interfaces {
        let Interface { name, xdp, queues } = interface;
        writeln!(out, "interface {name}: {}, {}", mode(*xdp), queue_words(*queues))?;
    }
    for (index, service) in config.services.iter().enumerate() {
        let clients = config.clients.iter().filter(|client| client.service == index).count();
        let endpoint = std::net::SocketAddr::new(service.address, service.port);
        let checksum = match service.udp_checksum {
            UdpChecksum::Zero if service.address.is_ipv4() => ", UDP checksum left out",
            _ => "",
        };
        writeln!(out, "service {}: {endpoint}, {}{checksum}", service.name, counted(clients, "client"))?;
    }
    for (index, network) in config.networks.iter().enumerate() {
        let members = || config.clients.iter().filter(|client| client.network == index);
        let prefixes = members().map(|client| client.prefixes.len()).sum();
        let (clients, prefixes) = (counted(members().count(), "client"), counted(prefixes, "prefix"));
        let nested = if network.more_specifics { ", may lie in each other: the longest wins" } else { "" };
        let open = open(network.open);
        let clamp = if network.mss_clamp { "" } else { ", TCP segment sizes are left alone" };
        match network.bridging {
            Some(Bridging { mac_age, mac_limit, flood_rate }) => writeln!(
                out,
                "network {}: Ethernet, {clients}, up to {mac_limit} MAC addresses behind each, forgotten after {mac_age} s, up to \
                 {flood_rate} frames to everybody a second from each",
                network.name
            )?,
            None => writeln!(out, "network {}: IP, {clients}, {prefixes}{nested}{clamp}{open}", network.name)?,
        }
        if let Some(local) = &network.local {
            let addresses: Vec<String> = local.addresses.iter().map(ToString::to_string).collect();
            if addresses.is_empty() {
                write!(out, "  the device {} is a port of it, and the node has no address there", local.device)?;
            } else {
                write!(out, "  the node is {} there, through the device {}", addresses.join(", "), local.device)?;
            }
            match local.mac {
                Some(mac) => writeln!(out, ", MAC address {}", shown(mac))?,
                None => writeln!(out)?,
            }
            let routes =
                members().flat_map(|client| &client.prefixes).filter(|prefix| local.needs_route(prefix)).count();
            if routes > 0 {
                writeln!(
                    out,
                    "  {} of clients outside of that, with a route of the kernel each",
                    counted(routes, "prefix")
                )?;
            }
            if local.kernel_routes {
                writeln!(out, "  what no client has goes to the kernel, which may route it")?;
            }
        }
        write_groups(config, index, network, out)?;
    }
    write_clients(config, out)?;
    write_warnings(config, out)
}

/// What clients reach outside of their network, and how.
fn open(open: Open) -> String {
    match open {
        Open::No => String::new(),
        Open::Routed => ", open: by the routes of this host to what is outside, and from there".to_owned(),
        Open::Nat(_) => {
            let behind: Vec<String> =
                open.nats().map(|nat| format!("ports {} of {}", nat.ports, nat.address)).collect();
            format!(", open: by the routes of this host to what is outside, behind {}", behind.join(" and "))
        }
    }
}

/// Where packets of a network are copied, if anywhere.
fn write_groups(config: &Config, index: usize, network: &Network, out: &mut String) -> fmt::Result {
    let groups = || config.groups.iter().filter(|group| group.network == index);
    for Group { address, members, .. } in groups().take(SHOWN) {
        writeln!(out, "  group {address}: a copy to each of {}, but to the sender", counted(members.len(), "client"))?;
    }
    let more = groups().count().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(out, "  and {}", counted(more, "more group"))?;
    }
    if !network.broadcast.is_empty() {
        let addresses: Vec<String> = network.broadcast.iter().map(ToString::to_string).collect();
        writeln!(out, "  broadcast to {}: a copy to every client but the sender", addresses.join(", "))?;
    }
    if let Some(Snooping { query_interval, groups_per_client, groups_per_network }) = network.snooping {
        writeln!(
            out,
            "  clients join groups by IGMP and MLD, up to {groups_per_client} each and {groups_per_network} in all, and are asked \
             every {query_interval} s"
        )?;
    }
    Ok(())
}

fn write_clients(config: &Config, out: &mut String) -> fmt::Result {
    if config.clients.len() > SHOWN {
        writeln!(out, "{} clients:", config.clients.len())?;
        let mut alike: BTreeMap<String, usize> = BTreeMap::new();
        for client in &config.clients {
            *alike.entry(protection(client)).or_default() += 1;
        }
        for (protection, count) in alike {
            writeln!(out, "  {count} with {protection}")?;
        }
        writeln!(out, "the first {SHOWN} of them:")?;
    }
    for client in config.clients.iter().take(SHOWN) {
        let (service, network) = (&config.services[client.service].name, &config.networks[client.network].name);
        let prefixes: Vec<String> = client.prefixes.iter().map(ToString::to_string).collect();
        let endpoint = match client.endpoint {
            Some(endpoint) => format!("sent to {endpoint}, and to where it is once it has spoken"),
            None => "sent to once it has spoken".to_owned(),
        };
        writeln!(out, "client {}: MUX {} of service {service}, network {network}", client.name, client.mux)?;
        if !prefixes.is_empty() {
            writeln!(out, "  {}", prefixes.join(", "))?;
        }
        if !client.macs.is_empty() {
            writeln!(out, "  sends from no other than {}", counted(client.macs.len(), "given MAC address"))?;
        }
        writeln!(out, "  {}", protection(client))?;
        writeln!(out, "  {endpoint}")?;
    }
    Ok(())
}

fn write_warnings(config: &Config, out: &mut String) -> fmt::Result {
    for warning in config.warnings.iter().take(SHOWN) {
        writeln!(out, "{}: warning: {}", warning.place(&config.file), warning.message)?;
    }
    match config.warnings.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "{} in all, {more} not shown", counted(config.warnings.len(), "warning")),
    }
}

fn mode(xdp: XdpMode) -> &'static str {
    match xdp {
        XdpMode::Auto => "native XDP, zero-copy where the driver is known to be good at it, else copy",
        XdpMode::Zerocopy => "native XDP with zero-copy",
        XdpMode::Native => "native XDP with copy",
        XdpMode::Generic => "generic XDP",
    }
}

fn queue_words(queues: Queues) -> String {
    match queues {
        Queues::All => "all queues".to_owned(),
        Queues::Range(first, last) if first == last => format!("queue {first}"),
        Queues::Range(first, last) => format!("queues {first} to {last}"),
    }
}

/// How a client's packets are protected, and by whom in which role.
fn protection(client: &Client) -> String {
    let role = match client.role {
        Role::Left => "left",
        Role::Right => "right",
    };
    let window = match client.window {
        0 => "no replay protection".to_owned(),
        window => format!("replay window of {window}"),
    };
    format!("{}; {window}; the node is {role}", suite(&client.crypto))
}

fn suite(suite: &Suite) -> String {
    let cipher = match suite.cipher {
        AesCtr::Null => "not encrypted".to_owned(),
        cipher => format!("encrypted with {}", aes(cipher)),
    };
    let auth = match (suite.auth, suite.tag()) {
        (Auth::Null, _) | (Auth::Sha1, 0) => "not authenticated".to_owned(),
        (Auth::Sha1, tag) => format!("authenticated with HMAC-SHA1 ({})", counted(tag, "octet")),
    };
    let keys = match suite.kd_prf {
        AesCtr::Null => "all keys zero".to_owned(),
        kd_prf => format!("keys derived with {}", aes(kd_prf)),
    };
    format!("{cipher}, {auth}, {keys}")
}

fn aes(cipher: AesCtr) -> String {
    format!("AES-{} in counter mode", 8 * cipher.key_length())
}

fn counted(count: usize, word: &str) -> String {
    let ending = match (count, word.ends_with(['s', 'x'])) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {word}{ending}")
}
