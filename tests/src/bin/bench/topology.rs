//! The ground of one contestant: two namespaces, two links, and the threads that receive.
//!
//! ```text
//! [generator] gen0 198.18.0.1 ---- 198.18.0.2 link0 [relay: 192.0.2.53] link1 198.19.0.2 ---- 198.19.0.1 sink0 [generator]
//! ```
//! Processor 0 has the generator, the sink and the threads that receive for gen0 and sink0, in real time, so that a slow
//! sink is not taken for a slow relay. Processor 1 has the relay and the threads that receive for link0 and link1, at
//! ordinary priority: what the kernel does for a relay is billed to it. Only where a relay is to have its processor to
//! itself do those threads run beside the generator's, as they do.

use std::collections::HashSet;
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use anytun_tests::namespace::{Namespace, output};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Deserialize;

/// The processor of generator and sink.
pub(crate) const GENERATOR_CPU: usize = 0;
/// The processor of the relay.
pub(crate) const RELAY_CPU: usize = 1;
/// The address behind which packets are generated.
pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The relay's address on that side.
pub(crate) const RELAY_IN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// The address of the sink.
pub(crate) const SINK: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The relay's address on that side.
pub(crate) const RELAY_OUT: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
/// The address of the service, on the relay's loopback.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The interfaces of the generator, each with the one of the relay at its other end.
const LINKS: [[&str; 2]; 2] = [["gen0", "link0"], ["sink0", "link1"]];

/// Namespaces, links and receiving threads.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Where the generator runs.
    pub(crate) generator: Namespace,
    /// Where the relay runs.
    pub(crate) relay: Namespace,
    /// Threads that receive for gen0 and sink0.
    pub(crate) generator_threads: Vec<u32>,
    /// Threads that receive for link0 and link1.
    pub(crate) relay_threads: Vec<u32>,
    /// The Ethernet addresses of gen0, link0, sink0 and link1.
    pub(crate) macs: Macs,
}

/// Ethernet addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Macs {
    pub(crate) gen0: String,
    pub(crate) link0: String,
    pub(crate) sink0: String,
    pub(crate) link1: String,
}

impl Topology {
    /// Makes it, with this many queues on every interface; all threads that receive are on the generator's processor if the
    /// relay is to have its own `alone`.
    pub(crate) fn new(queues: usize, alone: bool) -> Result<Self> {
        let before: HashSet<u32> = receiving_threads("").into_iter().collect();
        let (generator, relay) = (Namespace::new("gen")?, Namespace::new("relay")?);
        for (setting, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            // Nothing but the traffic that is measured.
            ("ipv6/conf/all/disable_ipv6", "1"),
        ] {
            relay.set(setting, value)?;
        }
        generator.set("ipv6/conf/all/disable_ipv6", "1")?;
        relay.ip(&format!("addr add {SERVICE}/32 dev lo"))?;
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        let peer = generator.name();
        for ([outside, inside], [theirs, ours]) in LINKS.into_iter().zip([[SOURCE, RELAY_IN], [SINK, RELAY_OUT]]) {
            relay
                .ip(&format!("link add name {inside} {queues} type veth peer name {outside} {queues} netns {peer}"))?;
            let ends = [(&generator, outside, theirs), (&relay, inside, ours)];
            for (namespace, name, address) in ends {
                // Valid checksums; and with GRO on, an interface receives in a thread of its own with and without XDP.
                output(namespace.command("ethtool").args(["-K", name, "tx", "off", "gro", "on"]))?;
                namespace.ip(&format!("addr add {address}/24 dev {name}"))?;
            }
            // Not before: an interface that comes up looks whether the other end can take XDP frames.
            for (namespace, name, _) in ends {
                namespace.ip(&format!("link set {name} up"))?;
                let threaded = format!("echo 1 > /sys/class/net/{name}/threaded");
                output(namespace.command("sh").args(["-c", &threaded]))?;
            }
        }
        let mut topology =
            Self { generator, relay, generator_threads: Vec::new(), relay_threads: Vec::new(), macs: Macs::default() };
        topology.macs = topology.addresses()?;
        topology.neighbours()?;
        let own = |name: &str| receiving_threads(name).into_iter().filter(|thread| !before.contains(thread));
        topology.generator_threads = own("gen0").chain(own("sink0")).collect();
        topology.relay_threads = own("link0").chain(own("link1")).collect();
        let Self { generator_threads, relay_threads, .. } = &topology;
        ensure!(
            !generator_threads.is_empty() && !relay_threads.is_empty(),
            "this kernel has no threads that receive for an interface (threaded NAPI, Linux 5.12)"
        );
        let beside: &[u32] = if alone { relay_threads } else { &[] };
        for &thread in generator_threads.iter().chain(beside) {
            pin(thread, &[GENERATOR_CPU])?;
            output(Command::new("chrt").args(["--fifo", "--pid", "50", &thread.to_string()]))?;
        }
        for &thread in relay_threads.iter().filter(|_| !alone) {
            pin(thread, &[RELAY_CPU])?;
        }
        Ok(topology)
    }

    fn addresses(&self) -> Result<Macs> {
        let mac = |namespace: &Namespace, name: &str| -> Result<String> {
            let text = namespace.ip(&format!("-j link show dev {name}"))?;
            let links: Vec<Link> = serde_json::from_str(&text).with_context(|| format!("ip printed {text}"))?;
            Ok(links.into_iter().next().context("ip shows no link")?.address)
        };
        Ok(Macs {
            gen0: mac(&self.generator, "gen0")?,
            link0: mac(&self.relay, "link0")?,
            sink0: mac(&self.generator, "sink0")?,
            link1: mac(&self.relay, "link1")?,
        })
    }

    /// The generator answers no ARP while it sends, so both sides know each other.
    fn neighbours(&self) -> Result<()> {
        let Macs { gen0, link0, sink0, link1 } = &self.macs;
        for (namespace, name, address, mac) in [
            (&self.relay, "link0", SOURCE, gen0),
            (&self.relay, "link1", SINK, sink0),
            (&self.generator, "gen0", RELAY_IN, link0),
            (&self.generator, "sink0", RELAY_OUT, link1),
        ] {
            namespace.ip(&format!("neigh replace {address} lladdr {mac} dev {name} nud permanent"))?;
        }
        Ok(())
    }
}

/// What `ip -j link` prints.
#[derive(Deserialize)]
struct Link {
    address: String,
}

/// While it lives, processes that this thread starts run on these processors only, and all that descends from them.
pub(crate) struct Confined(CpuSet);

impl Confined {
    /// Confines this thread, too.
    pub(crate) fn to(cpus: &[usize]) -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        pin(0, cpus)?;
        Ok(Self(before))
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // What was allowed before is allowed again; if not, measuring from fewer processors is as good.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// Confines a thread to processors; 0 is this one.
fn pin(thread: u32, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(thread.cast_signed()), &set).with_context(|| format!("cannot pin thread {thread}"))
}

/// The kernel's threads that receive for interfaces whose names begin like this (`napi/NAME-ID`).
fn receiving_threads(name: &str) -> Vec<u32> {
    let prefix = format!("napi/{name}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(&prefix)))
        .collect()
}
