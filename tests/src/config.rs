//! The configuration of a node, written out.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::crypto::Crypto;

/// What a lab wants to say in a configuration file. Paths are added when it is written out.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the node.
    pub name: String,
    /// SATP sender IDs of the node.
    pub sender_ids: String,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What workers do while there are no packets: `sleep` or `spin`.
    pub idle: &'static str,
    /// ICMP errors that a client is sent in a second.
    pub icmp_rate: u32,
    /// Whether TCP is made to announce segments that fit.
    pub mss_clamp: bool,
    /// The interfaces by name.
    pub interfaces: Vec<String>,
    /// XDP mode of every interface.
    pub xdp: &'static str,
    /// The services.
    pub services: Vec<Service>,
    /// The kind of the network `office`.
    pub kind: &'static str,
    /// What the network `office` says besides its name and kind, line by line.
    pub network: String,
    /// The clients; all of them are in the network `office`.
    pub clients: Vec<Client>,
}

/// A `[[service]]`.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// `full` or `zero`.
    pub udp_checksum: &'static str,
}

/// A `[[client]]`.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// The name of its service.
    pub service: String,
    /// Its MUX.
    pub mux: u16,
    /// Its inner addresses, as host prefixes; none in an Ethernet network.
    pub addresses: Vec<IpAddr>,
    /// Where it is sent to before it has spoken.
    pub endpoint: Option<SocketAddr>,
    /// Keys and choices.
    pub crypto: Crypto,
}

impl Service {
    /// A service with the default for UDP checksums.
    pub fn new(name: &str, address: SocketAddr) -> Self {
        Self { name: name.to_owned(), address, udp_checksum: "full" }
    }
}

impl Config {
    /// A node on these interfaces with no service and no client yet.
    pub fn new(interfaces: &[&str]) -> Self {
        Self {
            name: "lab".to_owned(),
            sender_ids: "1-64".to_owned(),
            metrics: Some(([127, 0, 0, 1], 9464).into()),
            idle: "sleep",
            icmp_rate: 100,
            mss_clamp: true,
            interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
            xdp: "native",
            services: Vec::new(),
            kind: "ip",
            network: String::new(),
            clients: Vec::new(),
        }
    }

    /// The text of the file for a node that keeps its state and its control socket in `directory`.
    pub fn toml(&self, directory: &Path) -> String {
        let mut toml = format!(
            "[node]\nname = \"{}\"\nidle = \"{}\"\nstate_dir = \"{}\"\nsender_ids = \"{}\"\ncontrol = \"{}\"\n",
            self.name,
            self.idle,
            directory.join("state").display(),
            self.sender_ids,
            directory.join("control.sock").display()
        );
        if self.icmp_rate != 100 {
            toml += &format!("icmp_rate = {}\n", self.icmp_rate);
        }
        if let Some(metrics) = self.metrics {
            toml += &format!("metrics = \"{metrics}\"\n");
        }
        for name in &self.interfaces {
            toml += &format!("\n[[interface]]\nname = \"{name}\"\nxdp = \"{}\"\n", self.xdp);
        }
        for service in &self.services {
            let (address, port) = (service.address.ip(), service.address.port());
            toml += &format!("\n[[service]]\nname = \"{}\"\naddress = \"{address}\"\nport = {port}\n", service.name);
            if service.udp_checksum != "full" {
                toml += &format!("udp_checksum = \"{}\"\n", service.udp_checksum);
            }
        }
        toml += &format!("\n[[network]]\nname = \"office\"\nkind = \"{}\"\n", self.kind);
        if !self.mss_clamp {
            toml += "mss_clamp = false\n";
        }
        toml += &self.network;
        for client in &self.clients {
            client.write(&mut toml);
        }
        toml
    }
}

impl Client {
    fn write(&self, toml: &mut String) {
        let prefixes: Vec<_> = self
            .addresses
            .iter()
            .map(|address| format!("\"{address}/{}\"", if address.is_ipv4() { 32 } else { 128 }))
            .collect();
        let prefixes = match prefixes.as_slice() {
            [] => String::new(),
            some => format!("prefixes = [{}]\n", some.join(", ")),
        };
        let endpoint = self.endpoint.map_or_else(String::new, |endpoint| format!("endpoint = \"{endpoint}\"\n"));
        // Writing to a string cannot fail.
        let _ = write!(
            toml,
            "\n[[client]]\nname = \"{}\"\nnetwork = \"office\"\nservice = \"{}\"\nmux = {}\n{prefixes}{endpoint}{}",
            self.name,
            self.service,
            self.mux,
            self.crypto.toml()
        );
    }
}
