//! What a running node tells about itself.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anytun_common::verdict::{Outcome, Verdict};
use anytun_common::wire::{ethernet::Mac, unmapped};

use super::devices::DeviceView;
use super::groups::Counted;
use super::running::{Running, WorkerView};
use crate::config::XdpMode;
use crate::control::source::{Readiness, Source};
use crate::control::status::{
    Bridge, Client, Counts, Device, Groups, Interface, Io, Ledger, Memory, Mirror, Mode, Nat, NatUsage, Program, Queue,
    Service, State, Status, Traffic, Worker, XskStatistics,
};
use crate::kernel::{Link, LinkState, Mirrored};
use crate::mode::icmp;
use crate::table::membership::Totals;
use crate::table::{self, Behind, ClientTotals, Tables};

impl Source for Running {
    fn status(&self) -> Status {
        let (tables, joined) = self.groups.count(&self.tables);
        let readiness = self.readiness();
        Status {
            node: self.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            state: if self.is_draining() { State::Draining } else { State::Running },
            ready: readiness.ready,
            uptime_seconds: self.start.elapsed().as_secs_f64(),
            config_file: self.file.display().to_string(),
            config_generation: tables.generation,
            last_reload: self.reloads.last(),
            memory: Memory { rss_bytes: resident(), umem_bytes: self.umem_bytes },
            program: self.program_report(),
            interfaces: self.interfaces(),
            workers: self.workers.iter().enumerate().map(|numbered| worker(self, numbered)).collect(),
            services: tables.services.all().iter().map(service).collect(),
            nats: tables.nats.all().iter().map(|behind| nat(&tables, behind)).collect(),
            bridges: bridges(&tables),
            groups: groups(&tables, &joined),
            clients: self.clients(&tables, &joined),
            sequences: self.leases.status(),
            mirror: mirror(&self.mirrored),
            devices: self.devices.iter().map(device).collect(),
            path_errors: self.path_errors.counts(),
            datagrams: self.sockets.counts(),
        }
    }

    fn readiness(&self) -> Readiness {
        if self.is_draining() {
            return Readiness { ready: false, reason: "draining".into() };
        }
        if !self.is_ready() {
            return Readiness { ready: false, reason: "starting".into() };
        }
        if let Err(reason) = self.health() {
            return Readiness { ready: false, reason };
        }
        let states: Vec<_> = self.links.iter().map(|link| (link.name.as_str(), link.state(self.program_id))).collect();
        let with = |wanted: LinkState| {
            let names = states.iter().filter(|(_, state)| *state == wanted).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        let (gone, detached, down) = (with(LinkState::Gone), with(LinkState::Detached), with(LinkState::Down));
        let any_up = states.iter().any(|(_, state)| *state == LinkState::Up);
        let (ready, reason) = match (gone.as_str(), detached.as_str(), down.as_str()) {
            ("", "", "") => (true, "carrying traffic".into()),
            ("", "", down) if any_up => (true, format!("carrying traffic, but down: {down}")),
            ("", "", down) => (false, format!("no interface is up: {down}")),
            ("", detached, _) => (false, format!("the XDP program was taken off: {detached}; restart the node")),
            (gone, _, _) => (false, format!("gone, or made anew: {gone}; restart the node")),
        };
        Readiness { ready, reason }
    }

    fn health(&self) -> Result<(), String> {
        self.check_progress()?;
        self.leases.failure().map_or(Ok(()), Err)
    }

    fn reload(&self) -> Result<String, String> {
        self.reload_now()
    }

    fn forget(&self, client: &str) -> Result<String, String> {
        self.forget_now(client)
    }

    fn drain(&self) {
        self.set_draining();
    }
}

impl Running {
    fn program_report(&self) -> Program {
        let program = self.program();
        let counts = program.verdicts().unwrap_or([0; Verdict::COUNT]);
        let by_program =
            |verdict: &&Verdict| matches!(verdict.outcome(), Outcome::Steered | Outcome::Shed | Outcome::Passed);
        let verdicts = Verdict::ALL.iter().filter(by_program).map(|&v| (v.name().into(), counts[v as usize])).collect();
        Program { id: self.program_id, verdicts }
    }

    fn interfaces(&self) -> Vec<Interface> {
        let describe = |(slot, link): (usize, &Link)| {
            let asked = self.asked[slot].name();
            let queue = |(index, worker): (usize, &WorkerView)| {
                let port = worker.ports.get(slot)?;
                Some(Queue {
                    queue: port.queue,
                    worker: index as u32,
                    asked: asked.into(),
                    got: if port.zero_copy { "zerocopy" } else { "copy" }.into(),
                    need_wakeup: port.need_wakeup,
                    huge_pages: port.huge_pages,
                    statistics: statistics(worker, slot),
                })
            };
            Interface {
                name: link.name.clone(),
                slot: slot as u32,
                ifindex: link.ifindex,
                mac: mac(link.mac),
                mtu: link.mtu,
                driver: link.driver.clone(),
                up: link.state(self.program_id) == LinkState::Up,
                xdp: Mode { asked: asked.into(), got: attached(self.asked[slot]).into() },
                queues: self.workers.iter().enumerate().filter_map(queue).collect(),
            }
        };
        self.links.iter().enumerate().map(describe).collect()
    }

    fn clients(&self, tables: &Tables, joined: &Counted) -> Vec<Client> {
        let now = self.start.elapsed().as_millis() as u64;
        let client = |(number, client)| Client {
            groups: joined.clients.get(number as usize).copied().flatten().map(u64::from),
            ..self.client(tables, number, client, now)
        };
        (0..).zip(&tables.clients).map(client).collect()
    }

    fn client(&self, tables: &Tables, number: u32, client: &table::Client, now: u64) -> Client {
        let endpoint = client.track.endpoint.load();
        let totals = ClientTotals::sum(&client.counters);
        Client {
            name: client.name.clone(),
            network: network_name(tables, client.network),
            service: tables.services.all().get(client.service as usize).map_or_else(Arc::default, |s| s.name.clone()),
            mux: client.mux,
            endpoint: endpoint.map(|endpoint| SocketAddr::new(address(endpoint.address()), endpoint.port())),
            interface: endpoint
                .and_then(|e| self.links.get(usize::from(e.slot())))
                .map(|link| link.name.as_str().into()),
            path_mtu: endpoint.and_then(|endpoint| client.track.path.get(endpoint.address(), now)),
            vlan: endpoint.map(|endpoint| endpoint.tags().ids().collect()).unwrap_or_default(),
            last_seen_seconds_ago: client.track.last_heard().map(|heard| now.saturating_sub(heard) as f64 / 1000.0),
            rx: Traffic { packets: totals.rx_packets, bytes: totals.rx_octets },
            tx: Traffic { packets: totals.tx_packets, bytes: totals.tx_octets },
            nat: client.members.as_ref().map(|members| {
                let usages = members.all().map(|member| member.nat().usage(member.account()));
                usages.fold(NatUsage::default(), |sum, usage| NatUsage {
                    ports: sum.ports + u64::from(usage.ports),
                    sessions: sum.sessions + u64::from(usage.sessions),
                })
            }),
            stations: tables.bridge(client.network).map(|bridge| bridge.behind(number) as u64),
            groups: None,
            drops: totals.drops().map(|(verdict, count)| (Cow::from(verdict.name()), count)).collect(),
        }
    }
}

fn network_name(tables: &Tables, network: u32) -> Arc<str> {
    tables.network_names.get(network as usize).cloned().unwrap_or_default()
}

fn bridges(tables: &Tables) -> Vec<Bridge> {
    let numbered = (0..).zip(&tables.bridges);
    let ethernets = numbered.filter_map(|(network, bridge)| Some((network, bridge.as_ref()?)));
    let bridge = |(network, bridge): (u32, &Arc<table::Bridge>)| Bridge {
        network: network_name(tables, network),
        stations: bridge.stations() as u64,
    };
    ethernets.map(bridge).collect()
}

fn groups(tables: &Tables, joined: &Counted) -> Vec<Groups> {
    let groups = |&(network, totals): &(u32, Totals)| Groups {
        network: network_name(tables, network),
        groups: totals.groups,
        members: totals.members,
        refused: totals.refused,
    };
    joined.networks.iter().map(groups).collect()
}

fn nat(tables: &Tables, behind: &Behind) -> Nat {
    let (settings, totals) = (behind.nat().settings(), behind.nat().totals());
    Nat {
        network: network_name(tables, behind.network),
        address: settings.address,
        ports: settings.ports.to_string(),
        mappings: totals.mappings as u64,
        resting: totals.resting as u64,
        sessions: totals.sessions as u64,
    }
}

/// How the program is attached when `asked` was granted.
const fn attached(asked: XdpMode) -> &'static str {
    match asked {
        XdpMode::Generic => "generic",
        XdpMode::Auto | XdpMode::Native | XdpMode::Zerocopy => "native",
    }
}

fn mirror(mirrored: &Mirrored) -> Mirror {
    let ways = mirrored.ways.load();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Mirror {
        rules: ways.routes.rules() as u64,
        routes: ways.routes.len() as u64,
        neighbours: ways.neighbours.len() as u64,
        listings: count(&mirrored.counters.listings),
        resynchronisations: count(&mirrored.counters.resynchronisations),
        neighbours_asked: count(&mirrored.counters.asked),
    }
}

fn device(view: &DeviceView) -> Device {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Device {
        name: view.name.clone(),
        network: view.network.clone(),
        mac: view.mac.map(mac),
        addresses: view.addresses.iter().map(ToString::to_string).collect(),
        delivered: count(&view.counters.delivered),
        refused: count(&view.counters.refused),
        injected: count(&view.counters.injected),
        overrun: count(&view.counters.overrun),
    }
}

fn worker(node: &Running, (index, view): (usize, &WorkerView)) -> Worker {
    let ledger = view.counters.ledger();
    let io = view.counters.io();
    let count = |verdict: Verdict| (Cow::from(verdict.name()), view.counters.verdict(verdict));
    let by_worker = |verdict: &Verdict| matches!(verdict.outcome(), Outcome::Done | Outcome::Dropped);
    let verdicts: Counts = Verdict::ALL.iter().copied().filter(by_worker).map(count).collect();
    let icmp_errors =
        icmp::Kind::ALL.iter().map(|&kind| (Cow::from(kind.name()), view.counters.icmp_errors(kind))).collect();
    Worker {
        worker: index as u32,
        sender_id: view.sender_id,
        scheduling: Mode { asked: node.fixed.node.scheduling.name().into(), got: node.scheduling.name().into() },
        idle: node.fixed.node.idle.name().into(),
        ledger: Ledger {
            free: ledger.free,
            fill: ledger.fill,
            received: ledger.received,
            tx: ledger.tx,
            total: ledger.total,
            holds: ledger.holds(),
        },
        io: Io {
            tx_kicks: io.tx_kicks,
            fill_kicks: io.fill_kicks,
            polls: io.polls,
            rx_batches: io.rx_batches,
            tx_batches: io.tx_batches,
            rx_packets: view.counters.rx_packets(),
            tx_packets: view.counters.tx_packets(),
        },
        verdicts,
        copies: view.counters.copies(),
        icmp_errors,
        injected: view.counters.injected(),
    }
}

fn service(service: &table::Service) -> Service {
    Service {
        name: service.name.to_string(),
        address: address(service.address),
        port: service.port,
        clients: service.len() as u64,
    }
}

fn statistics(worker: &WorkerView, slot: usize) -> XskStatistics {
    match worker.stats.statistics(slot) {
        Some(Ok(s)) => XskStatistics {
            rx_dropped: s.rx_dropped,
            rx_invalid_descs: s.rx_invalid_descs,
            tx_invalid_descs: s.tx_invalid_descs,
            rx_ring_full: s.rx_ring_full,
            rx_fill_ring_empty_descs: s.rx_fill_ring_empty,
            tx_ring_empty_descs: s.tx_ring_empty,
        },
        _ => XskStatistics::default(),
    }
}

/// An address of tables and packets, as people write it.
fn address(octets: [u8; 16]) -> IpAddr {
    match unmapped(octets) {
        Some(v4) => Ipv4Addr::from(v4).into(),
        None => Ipv6Addr::from(octets).into(),
    }
}

fn mac(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Octets of the process in memory, by /proc/self/statm (proc(5)); 0 where that cannot be read.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    pages * page.unsigned_abs()
}

/// Seconds since 1970-01-01 UTC.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One line: what was asked for and what the kernel gave, for every interface.
pub(super) fn summary(node: &Running) -> String {
    let interface = |i: &Interface| {
        let got: Vec<String> = i.queues.iter().map(|q| format!("{}:{}", q.queue, q.got)).collect();
        format!("{} asked {} got {} XDP, queues {}", i.name, i.xdp.asked, i.xdp.got, got.join(" "))
    };
    let interfaces: Vec<String> = node.interfaces().iter().map(interface).collect();
    let clients = node.tables.load().clients.len();
    format!("{clients} clients, {} workers; {}", node.workers.len(), interfaces.join("; "))
}
