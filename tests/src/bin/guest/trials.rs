//! What the node must do on interfaces that do zero-copy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use anytun_tests::lab::{Lab, Layout, Who, client};
use anytun_tests::namespace::{Namespace, output};
use anytun_tests::node::{self, Node};
use anytun_tests::status::Status;
use anytun_tests::wait::{PATIENCE, until};
use serde_json::Value;

use crate::kernel::{self, Sockets};
use crate::machine;
use crate::wire::{Clients, crypto};

/// Where the programs are.
const NODE: &str = "/bin/anytun-xdp";
const GENERATOR: &str = "/bin/anytun-gen";
/// Packets each way of the trial that counts: more than any ring holds, so each frame is used again and again.
const MANY: u32 = 8_000;
/// Bursts each way of a flood.
const FLOOD: u32 = 100;
/// Packets of it that the node receives at least: more than without it, and fewer than a ring of the hardware holds.
const LEAST_OF_FLOOD: u64 = 200;
/// Packets each way that show that the node is well.
const SOME: u32 = 300;

/// A trial and its name.
type Named = (&'static str, fn() -> Result<()>);

/// The trials.
pub(crate) fn all() -> [Named; 6] {
    [
        ("native-copies", native),
        ("zero-copy", zero_copy),
        ("zero-copy-overload", overload),
        ("zero-copy-interface-down-and-up", down_and_up),
        ("zero-copy-after-kill", after_kill),
        ("zero-copy-generator", generator),
    ]
}

/// A node at work. In the order in which they have to go.
struct Running {
    node: Node,
    clients: Clients,
    lab: Lab,
}

impl Running {
    /// Starts a node in a mode, and checks that it got it.
    fn start(xdp: &'static str, got: &str) -> Result<Self> {
        machine::name_interfaces()?;
        let lab = Lab::new(Layout { wired: true, ..Layout::default() })?;
        let mut config = lab.config();
        config.xdp = xdp;
        config.clients = Who::BOTH.map(|who| client(who, "anycast", crypto(who))).into();
        let node = Node::launch(Path::new(NODE), &lab.node, lab.directory(), &config.toml(lab.directory()))?;
        let running = Self { node, clients: Clients::new(&lab)?, lab };
        running.await_ready()?;
        running.ensure_mode(xdp, got)?;
        running.clients.introduce(&running.node)?;
        Ok(running)
    }

    /// Waits until the node is ready and both its interfaces have a carrier.
    fn await_ready(&self) -> Result<()> {
        self.node.await_ready(3 * PATIENCE)?;
        until("both interfaces are up", 3 * PATIENCE, || {
            Ok(self.node.status()?.interfaces.iter().all(|interface| interface.up).then_some(()))
        })
    }

    /// Checks that the node says of every queue that it asked for `asked` and got `got`, and that the kernel says the same.
    fn ensure_mode(&self, asked: &str, got: &str) -> Result<()> {
        let status = self.node.status()?;
        ensure!(status.interfaces.len() == 2, "status shows other interfaces: {:?}", status.interfaces);
        let mut told = Sockets::new();
        for interface in &status.interfaces {
            ensure!(interface.xdp.got == "native", "{}: {:?}", interface.name, interface.xdp);
            ensure!(!interface.queues.is_empty(), "{} has no queue", interface.name);
            for queue in &interface.queues {
                let mode = &queue.mode;
                ensure!(mode.asked == asked && mode.got == got, "{} queue {}: {mode:?}", interface.name, queue.queue);
                told.insert((interface.name.clone(), queue.queue), mode.got == "zerocopy");
            }
        }
        let kernel = kernel::sockets(&self.lab.node)?;
        ensure!(told == kernel, "interface, queue, zero-copy: status says {told:?}, the kernel {kernel:?}");
        Ok(())
    }

    /// Waits until no frame is on its way, and checks that none is lost and that the kernel has nothing to complain about.
    fn ensure_settled(&self) -> Result<Status> {
        let status = self.settled()?;
        for queue in status.interfaces.iter().flat_map(|interface| &interface.queues) {
            for trouble in ["rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full"] {
                ensure!(queue.statistics.get(trouble) == Some(&0), "{trouble}: {:?}", queue.statistics);
            }
        }
        Ok(status)
    }

    /// Waits until no frame is on its way, and checks that none is lost.
    fn settled(&self) -> Result<Status> {
        let status = self.node.await_status("no frame is received or in TX", |status| {
            let settled = |worker: &anytun_tests::status::Worker| worker.ledger.received == 0 && worker.ledger.tx == 0;
            status.workers.iter().all(settled)
        })?;
        status.ensure_ledgers_hold()?;
        Ok(status)
    }
}

/// The control: the same interfaces, but asked for copies.
fn native() -> Result<()> {
    let mut running = Running::start("native", "copy")?;
    running.clients.exchange(SOME)?;
    running.ensure_settled()?;
    stop(&mut running)
}

/// Every queue is in zero-copy mode, every packet arrives as it was sent, and every frame is accounted for.
fn zero_copy() -> Result<()> {
    let mut running = Running::start("zerocopy", "zerocopy")?;
    running.clients.exchange(MANY)?;
    let status = running.ensure_settled()?;
    let forwarded = status.verdict("forwarded");
    ensure!(forwarded == u64::from(2 * MANY), "{forwarded} packets forwarded: {:?}", status.workers);
    let (io, steered) = (status.io(), status.program("steered"));
    ensure!(io.rx_packets == steered, "{steered} packets steered, {} received", io.rx_packets);
    for who in Who::BOTH {
        let client = status.client(who.name())?;
        ensure!(client.tx.packets == u64::from(MANY) && client.drops.is_empty(), "{client:?}");
    }
    running.ensure_mode("zerocopy", "zerocopy")?;
    stop(&mut running)
}

/// More comes than can go. What is dropped is dropped before the node takes it or is counted by it, no frame is lost, and
/// all is well afterwards.
fn overload() -> Result<()> {
    let mut running = Running::start("zerocopy", "zerocopy")?;
    for who in Who::BOTH {
        // The igb that QEMU emulates loses what it is to cut up.
        running.lab.client(who).run("ethtool -K eth0 tx-udp-segmentation off")?;
    }
    running.clients.flood(FLOOD)?;
    let status = running.settled()?;
    status.ensure_every_packet_has_a_verdict()?;
    let received = status.io().rx_packets;
    ensure!(received >= LEAST_OF_FLOOD, "{received} packets were no flood");
    running.clients.exchange(SOME)?;
    running.settled()?;
    stop(&mut running)
}

/// An interface goes down under the node and comes back.
fn down_and_up() -> Result<()> {
    let mut running = Running::start("zerocopy", "zerocopy")?;
    running.clients.exchange(SOME)?;
    for _ in 0..2 {
        running.lab.node.ip("link set link1 down")?;
        running.node.await_status("link1 is down", |status| status.interfaces.iter().any(|interface| !interface.up))?;
        running.node.status()?.ensure_ledgers_hold()?;
        running.lab.node.ip("link set link1 up")?;
        running.await_ready()?;
        running.clients.introduce(&running.node)?;
        running.clients.exchange(SOME)?;
    }
    running.ensure_settled()?;
    running.ensure_mode("zerocopy", "zerocopy")?;
    stop(&mut running)
}

/// A node that was killed leaves nothing behind that keeps the next one from zero-copy.
fn after_kill() -> Result<()> {
    let mut running = Running::start("zerocopy", "zerocopy")?;
    running.clients.exchange(SOME)?;
    running.node.kill()?;
    running.node.relaunch(&running.lab.node)?;
    running.await_ready()?;
    running.ensure_mode("zerocopy", "zerocopy")?;
    running.clients.introduce(&running.node)?;
    running.clients.exchange(SOME)?;
    running.ensure_settled()?;
    stop(&mut running)
}

/// The generator sends and receives in zero-copy mode, over a wire with nothing between, and all arrives as it was sent.
fn generator() -> Result<()> {
    machine::name_interfaces()?;
    let (namespace, directory) = (Namespace::new("generator")?, tempfile::tempdir()?);
    let queues = ["far0", "near0"].map(machine::receive_queues).into_iter().collect::<Result<Vec<_>>>()?;
    let queues = queues.into_iter().min().unwrap_or_default() as u32;
    for interface in ["far0", "near0"] {
        output(Command::new("ip").args(["link", "set", interface, "netns", namespace.name()]))?;
        namespace.ip(&format!("link set {interface} up"))?;
    }
    let result = directory.path().join("result.json");
    let line = format!(
        "{GENERATOR} run --interface far0 --sink near0 --gateway-mac {} --source 198.18.0.1:7000 \
         --destination 198.18.0.2:9000 --queues 0-{} --xdp zerocopy --size imix --rate 400 --duration 2s --json {}",
        machine::address("near0")?,
        queues.saturating_sub(1),
        result.display()
    );
    let line: Vec<&str> = line.split_whitespace().collect();
    let places = (0..queues).flat_map(|queue| ["far0", "near0"].map(|interface| (interface.to_owned(), queue)));
    let wanted: Sockets = places.map(|place| (place, true)).collect();
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| node::run_within(6 * PATIENCE, &namespace, directory.path(), &line));
        until("sockets in zero-copy mode at both ends", PATIENCE, || {
            Ok((kernel::sockets(&namespace)? == wanted).then_some(()))
        })?;
        run.join().map_err(|_| anyhow!("the generator's thread panicked"))?
    })?;
    ensure!(outcome.code == Some(0), "{outcome:?}");
    let result: Value = serde_json::from_slice(&fs::read(&result)?).context("the result is no JSON")?;
    let sent = result["sent"].as_u64().with_context(|| format!("nothing is said to be sent: {result}"))?;
    ensure!(sent >= u64::from(SOME) && result["received"] == sent, "{result}");
    for fault in ["lost", "duplicated", "reordered", "corrupt", "foreign"] {
        ensure!(result[fault] == 0, "{fault}: {result}");
    }
    Ok(())
}

/// Stops the node, which must end well.
fn stop(running: &mut Running) -> Result<()> {
    let status = running.node.stop()?;
    ensure!(status.success(), "the node ended with {status}");
    let left = kernel::sockets(&running.lab.node)?;
    ensure!(left.is_empty(), "sockets are left: {left:?}");
    Ok(())
}
