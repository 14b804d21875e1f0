//! The daemons in the place of a node: `anytun` and `uanytun` serve two clients and the kernel forwards between them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::daemon::Kind;
use crate::namespace::{Namespace, output};
use crate::process::Process;
use crate::wait::{PATIENCE, until};

/// Where `anytun-controld` serves the connections of `anytun`.
const CONTROL: &str = "127.0.0.1:2323";
/// The address of the tun devices themselves; the clients' addresses are routed into them.
const OWN: &str = "10.9.255";

/// A client that is served, with the daemons' default choices.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where it sends to. `anytun` serves all clients at the first one's.
    pub service: SocketAddr,
    /// Its MUX.
    pub mux: u16,
    /// Its inner address.
    pub inner: IpAddr,
    /// Its passphrase.
    pub passphrase: String,
}

/// Running daemons that have learned about their clients, in the role `left` and without replay windows, as is their
/// default. Where a client is they learn from its packets.
#[derive(Debug)]
pub struct Server {
    processes: Vec<Process>,
}

impl Server {
    /// Starts what it takes in `namespace`: one `anytun`, or a `uanytun` for each client. Logs go to `directory`.
    pub fn start(kind: Kind, namespace: &Namespace, directory: &Path, clients: &[Served]) -> Result<Self> {
        match kind {
            Kind::Anytun => Self::anytun(namespace, directory, clients),
            Kind::Uanytun => Self::uanytun(namespace, directory, clients),
        }
    }

    /// The processes that carry packets.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    fn anytun(namespace: &Namespace, directory: &Path, clients: &[Served]) -> Result<Self> {
        let mut connections = String::new();
        for client in clients {
            let mux = client.mux.to_string();
            let route = route(client.inner);
            let words = ["-m", &mux, "-w", "0", "-E", &client.passphrase, "-e", "left", "-R", &route];
            connections += &output(std::process::Command::new("anytun-config").args(words))?;
        }
        let file = directory.join("connections");
        fs::write(&file, connections).with_context(|| format!("cannot write {}", file.display()))?;
        let words = ["-D", "-f", &file.to_string_lossy(), "-X", CONTROL].map(str::to_owned);
        let program = Path::new("anytun-controld");
        let log = directory.join("controld.log");
        let mut control = Process::start("anytun-controld", namespace, program, words, &log)?;
        until("anytun-controld listens", PATIENCE, || {
            ensure!(control.ended()?.is_none(), "anytun-controld ended:\n{}", control.log_tail());
            Ok(namespace.run("ss -ltn")?.contains(CONTROL).then_some(()))
        })?;
        let service = clients.first().context("a server without clients")?.service;
        let control_words = ["-X", CONTROL].map(str::to_owned).to_vec();
        let daemon = start(Kind::Anytun, namespace, directory, 0, service, control_words)?;
        // The daemon needs it no more once it has the connections, but asks again when it ends.
        let server = Self { processes: vec![daemon, control] };
        for client in clients {
            server.route(namespace, client, 0)?;
        }
        Ok(server)
    }

    fn uanytun(namespace: &Namespace, directory: &Path, clients: &[Served]) -> Result<Self> {
        let mut server = Self { processes: Vec::new() };
        for (index, client) in clients.iter().enumerate() {
            let (mux, passphrase) = (client.mux.to_string(), client.passphrase.clone());
            let words = ["-m".to_owned(), mux, "-w".to_owned(), "0".to_owned(), "-E".to_owned(), passphrase];
            let daemon = start(Kind::Uanytun, namespace, directory, index, client.service, words.to_vec())?;
            server.processes.push(daemon);
            server.route(namespace, client, index)?;
        }
        Ok(server)
    }

    fn route(&self, namespace: &Namespace, client: &Served, device: usize) -> Result<()> {
        namespace.ip(&format!("route replace {} dev tun{device}", route(client.inner)))?;
        Ok(())
    }
}

/// Starts a daemon that listens at `service` with the device `tunINDEX`, and waits until the device is up.
fn start(
    kind: Kind,
    namespace: &Namespace,
    directory: &Path,
    index: usize,
    service: SocketAddr,
    more: Vec<String>,
) -> Result<Process> {
    let (program, device) = (kind.program(), format!("tun{index}"));
    let own = format!("{OWN}.{}", index + 1);
    let (address, port) = (service.ip().to_string(), service.port().to_string());
    let (inner, sender) = (format!("{own}/32"), (index + 1).to_string());
    let words = [
        "-D", "-4", "-i", &address, "-p", &port, "-d", &device, "-t", "tun", "-n", &inner, "-e", "left", "-s", &sender,
        "-L", "stderr:3",
    ];
    let words = words.map(str::to_owned).into_iter().chain(more);
    let log = directory.join(format!("{program}-{index}.log"));
    let mut process = Process::start(program, namespace, Path::new(program), words, &log)?;
    until(&format!("the device {device} of {program} is up"), PATIENCE, || {
        ensure!(process.ended()?.is_none(), "{program} ended:\n{}", process.log_tail());
        let shown = namespace.ip(&format!("-o addr show up dev {device}")).unwrap_or_default();
        Ok(shown.contains(&format!("inet {own}")).then_some(()))
    })?;
    // Queues that hold a burst of the clients.
    namespace.ip(&format!("link set {device} txqueuelen 5000"))?;
    Ok(process)
}

fn route(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
