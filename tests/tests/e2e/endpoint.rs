//! A client is followed to its new address, by its newest packet only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use anytun_tests::config::Config;
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT, Running, Who, client};
use anytun_tests::node::{self, Node};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("endpoint/new-port-late-packet-new-address", moves),
        case("endpoint/daemon-changes-its-address", daemon_moves),
        case("endpoint/keepalive-is-enough", keepalive),
        case("endpoint/configured-one-counts-until-the-client-speaks", configured),
    ]
}

/// A node whose two clients are forgers: everything that moves was moved by the test.
pub(crate) struct Forged {
    pub(crate) node: Node,
    pub(crate) alice: Forger,
    pub(crate) bob: Forger,
    /// Alice's usual place.
    pub(crate) home: Outlet,
    /// Bob's only place.
    pub(crate) bobs: Outlet,
    pub(crate) lab: Lab,
}

/// Where alice is at first.
const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Where bob is.
const BOBS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Another address of hers.
const AWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

impl Forged {
    /// Starts the node. Nobody has spoken yet.
    pub(crate) fn start() -> Result<Self> {
        Self::expecting(None)
    }

    /// The same, where the configuration may say where bob is.
    fn expecting(bob: Option<SocketAddr>) -> Result<Self> {
        let lab = Lab::new(Layout::default())?;
        // So that nothing is sent but what the test lets through.
        let mut config = Config { icmp_rate: 0, ..lab.config() };
        let forger = |who: Who| Forger::new(&Crypto::passphrase(who.passphrase()), who.mux(), (ANYCAST, PORT).into());
        config.clients = Who::BOTH.map(|who| client(who, "anycast", Crypto::passphrase(who.passphrase()))).into();
        config.clients[1].endpoint = bob;
        let node = Node::start(&node::program()?, &lab.node, lab.directory(), &config)?;
        let home = Outlet::bind(lab.client(Who::Alice), HOME.into(), PORT)?;
        let bobs = Outlet::bind(lab.client(Who::Bob), BOBS.into(), PORT)?;
        Ok(Self { node, alice: forger(Who::Alice), bob: forger(Who::Bob), home, bobs, lab })
    }

    /// Alice sends a packet for bob from `outlet`, and it reaches him.
    pub(crate) fn alice_sends(&self, sequence: u32, outlet: &Outlet) -> Result<()> {
        let packet = self.alice.seal(sequence, IPV4, &datagram(inner(Who::Alice), inner(Who::Bob), 32));
        outlet.send(&packet, self.alice.service())?;
        let got =
            self.bobs.receive().map_err(|error| error.context(format!("alice's packet {sequence} did not arrive")))?;
        ensure!(got[6..8] == Who::Bob.mux().to_be_bytes(), "bob got a packet with another MUX: {:02x?}", &got[..8]);
        Ok(())
    }

    /// Bob sends a packet for alice, and it reaches `outlet`.
    pub(crate) fn bob_sends(&self, sequence: u32, outlet: &Outlet) -> Result<()> {
        let packet = self.bob.seal(sequence, IPV4, &datagram(inner(Who::Bob), inner(Who::Alice), 32));
        self.bobs.send(&packet, self.bob.service())?;
        let place = outlet.endpoint()?;
        outlet.receive().map_err(|error| error.context(format!("bob's packet {sequence} did not reach {place}")))?;
        Ok(())
    }

    /// Both speak once with the sequence number 100, so that the node knows where they are.
    pub(crate) fn introduce(&self) -> Result<()> {
        self.bobs.send(&self.bob.seal(100, IPV4, &[]), self.bob.service())?;
        self.node.await_status("bob's endpoint is known", |status| {
            status.client("bob").is_ok_and(|bob| bob.endpoint.is_some())
        })?;
        self.alice_sends(100, &self.home)
    }

    /// The endpoint that the node shows for alice.
    pub(crate) fn endpoint(&self) -> Result<Option<String>> {
        Ok(self.node.status()?.client("alice")?.endpoint.clone())
    }
}

/// The inner IPv4 address of a client.
pub(crate) fn inner(who: Who) -> Ipv4Addr {
    match who.inner()[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the first inner address is an IPv4 one"),
    }
}

fn moves() -> Result<()> {
    let forged = Forged::start()?;
    forged.introduce()?;
    forged.bob_sends(101, &forged.home)?;

    let port = Outlet::bind(forged.lab.client(Who::Alice), HOME.into(), 5555)?;
    forged.alice_sends(110, &port)?;
    forged.bob_sends(102, &port)?;
    ensure!(
        forged.endpoint()? == Some(port.endpoint()?),
        "status shows {:?} instead of the new port",
        forged.endpoint()?
    );

    // Authentic, never seen, inside the window, but overtaken by the packet from the new port.
    forged.alice_sends(105, &forged.home)?;
    ensure!(forged.endpoint()? == Some(port.endpoint()?), "a late packet moved alice back to {:?}", forged.endpoint()?);
    forged.bob_sends(103, &port)?;

    forged.lab.client(Who::Alice).ip(&format!("addr add {AWAY}/24 dev eth0"))?;
    let away = Outlet::bind(forged.lab.client(Who::Alice), AWAY.into(), PORT)?;
    forged.alice_sends(111, &away)?;
    forged.bob_sends(104, &away)?;
    ensure!(forged.home.is_silent()? && port.is_silent()?, "a place that alice has left still gets her packets");
    forged.node.status()?.ensure_ledgers_hold()
}

/// The real daemon keeps running while its host's address changes: no ping in either direction is lost but for those on
/// their way.
fn daemon_moves() -> Result<()> {
    let running = Running::usual(Layout::default())?;
    let alice = running.lab.client(Who::Alice);
    let flow = running.lab.echo(Who::Alice, Who::Bob.inner()[0], 200, 0)?;
    alice.ip(&format!("addr add {AWAY}/24 dev eth0"))?;
    alice.ip(&format!("route replace default via 198.51.100.254 src {AWAY}"))?;
    let sent = flow.numbered();
    let moved = format!("{AWAY}:{PORT}");
    running.node.await_status("alice is followed to her new address", |status| {
        status.client("alice").is_ok_and(|alice| alice.endpoint.as_ref() == Some(&moved))
    })?;
    anytun_tests::wait::until("pings come back to the new address", anytun_tests::wait::PATIENCE, || {
        Ok((flow.latest() > sent + 20).then_some(()))
    })?;
    flow.stop()?.ensure_none_lost("alice to bob, while alice moved")
}

/// A packet with nothing in it, as small as the format allows, tells the node where a client is.
fn keepalive() -> Result<()> {
    let forged = Forged::start()?;
    forged.introduce()?;
    let port = Outlet::bind(forged.lab.client(Who::Alice), HOME.into(), 5556)?;
    port.send(&forged.alice.seal(200, 0, &[]), forged.alice.service())?;
    let place = port.endpoint()?;
    forged.node.await_status("the keep-alive has moved alice", |status| {
        status.client("alice").is_ok_and(|alice| alice.endpoint.as_ref() == Some(&place))
    })?;
    forged.bob_sends(101, &port)?;
    ensure!(forged.bobs.is_silent()?, "a keep-alive was sent on to bob");
    let status = forged.node.status()?;
    ensure!(status.verdict("keepalive") == 2, "two keep-alives were counted as {}", status.verdict("keepalive"));
    Ok(())
}

/// Bob has never spoken: the configuration says where he is, and the kernel is asked for the way there.
fn configured() -> Result<()> {
    let expected = SocketAddr::from((BOBS, PORT));
    let mut forged = Forged::expecting(Some(expected))?;
    forged.node.await_status("there is a way to bob", |status| {
        status.client("bob").is_ok_and(|bob| bob.endpoint == Some(expected.to_string()))
    })?;
    forged.alice_sends(100, &forged.home)?;

    let port = Outlet::bind(forged.lab.client(Who::Bob), BOBS.into(), 5555)?;
    port.send(&forged.bob.seal(100, IPV4, &[]), forged.bob.service())?;
    let place = port.endpoint()?;
    forged.node.await_status("bob is where he spoke from", |status| {
        status.client("bob").is_ok_and(|bob| bob.endpoint.as_ref() == Some(&place))
    })?;
    let old = std::mem::replace(&mut forged.bobs, port);
    forged.alice_sends(101, &forged.home)?;
    ensure!(old.is_silent()?, "bob is still sent to where he was only expected");
    forged.node.status()?.ensure_ledgers_hold()
}
