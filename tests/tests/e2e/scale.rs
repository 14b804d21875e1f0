//! As many clients as a service can have.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use anytun_tests::config::{Client, Config};
use anytun_tests::crypto::Crypto;
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::http;
use anytun_tests::lab::{ANYCAST, Lab, Layout, PORT};
use anytun_tests::node::{self, Node};
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

/// How many.
const CLIENTS: u16 = 60_000;
/// Octets of memory besides the UMEM.
const MEMORY: u64 = 200_000_000;

pub(crate) fn cases() -> Vec<Case> {
    vec![case("scale/60000-clients", many_clients)]
}

fn many_clients() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let config = Config { clients: (1..=CLIENTS).map(client).collect(), ..lab.config() };
    let metrics = config.metrics.context("the lab's configuration has metrics")?;
    let toml = config.toml(lab.directory());
    let start = Instant::now();
    let node = Node::launch(&node::program()?, &lab.node, lab.directory(), &toml)?;
    until("the node is ready with 60,000 clients", PATIENCE, || {
        Ok(matches!(http::get(&lab.node, metrics, "/readyz"), Ok((200, _))).then_some(()))
    })?;
    eprintln!("60,000 clients: ready after {} ms", start.elapsed().as_millis());
    let status = node.status()?;
    ensure!(status.clients.len() == usize::from(CLIENTS), "status shows {} clients", status.clients.len());
    let memory = status.memory.rss_bytes.saturating_sub(status.memory.umem_bytes);
    eprintln!("60,000 clients: {} MB besides the UMEM", memory / 1_000_000);
    ensure!(memory < MEMORY, "{:?}: {memory} octets besides the UMEM", status.memory);
    first_to_last(&lab)?;
    node.status()?.ensure_ledgers_hold()
}

/// The first client and the last reach each other.
fn first_to_last(lab: &Lab) -> Result<()> {
    let outlet = |who: usize, address: [u8; 4]| {
        let namespace = lab.client(anytun_tests::lab::Who::BOTH[who]);
        Outlet::bind(namespace, IpAddr::from(address), PORT)
    };
    let (here, there) = (outlet(0, [198, 51, 100, 1])?, outlet(1, [203, 0, 113, 1])?);
    let forger = |number: u16| Forger::new(&client(number).crypto, number, (ANYCAST, PORT).into());
    let (first, last) = (forger(1), forger(CLIENTS));
    let inside = |from, to| datagram(inner(from), inner(to), 32);
    let mut sequence = 0;
    // The first packet may find the other client's endpoint unknown.
    until("the first client and the last reach each other", PATIENCE, || {
        sequence += 1;
        here.send(&first.seal(sequence, IPV4, &inside(1, CLIENTS)), first.service())?;
        there.send(&last.seal(sequence, IPV4, &inside(CLIENTS, 1)), last.service())?;
        Ok((!here.is_silent()? && !there.is_silent()?).then_some(()))
    })
}

fn inner(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 20, high, low)
}

fn client(number: u16) -> Client {
    Client {
        endpoint: None,
        name: format!("client{number}"),
        service: "anycast".to_owned(),
        mux: number,
        addresses: vec![inner(number).into()],
        crypto: Crypto::passphrase(&format!("passphrase of client {number}")),
    }
}
