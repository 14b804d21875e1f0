//! A node's tables with many clients, and the clients' own side of them.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anytun_xdp::config;
use anytun_xdp::satp::lease::Keeper;
use anytun_xdp::satp::{AesCtr, Auth, Keys, Secret, Suite};
use anytun_xdp::table::ways::Asks;
use anytun_xdp::table::{Host, Tables};
use anytun_xdp::worker::Snapshots;
use anytun_xdp::worker::slow::Bell;
use anytun_xdp::worker::snoop::Snoop;
use arc_swap::ArcSwap;
use tempfile::TempDir;

use crate::draw::mixed;

/// The most workers of a world.
pub(crate) const WORKERS: u16 = 2;

/// The cryptography of all clients of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crypto {
    Null,
    Default,
}

impl Crypto {
    pub(crate) const ALL: [Self; 2] = [Self::Null, Self::Default];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Crypto::Null => "null",
            Crypto::Default => "default",
        }
    }

    pub(crate) const fn suite(self) -> Suite {
        match self {
            Crypto::Null => Suite { kd_prf: AesCtr::Null, cipher: AesCtr::Null, auth: Auth::Null, tag_length: 10 },
            Crypto::Default => Suite::DEFAULT,
        }
    }

    /// The lines of a client's configuration that say so.
    const fn lines(self) -> &'static str {
        match self {
            Crypto::Null => "kd_prf = \"null\"\ncipher = \"null\"\nauth = \"null\"\n",
            Crypto::Default => "",
        }
    }
}

/// Clients of one network, whose numbers are their MUXes, and the node that they use.
pub(crate) struct World {
    pub(crate) crypto: Crypto,
    pub(crate) clients: u16,
    pub(crate) tables: Arc<ArcSwap<Tables>>,
    /// The clients' own keys.
    pub(crate) keys: Vec<Keys>,
    /// The number of the next packet of each client.
    numbers: Vec<AtomicU32>,
    /// The next place in the order of packets.
    turn: AtomicU64,
    keeper: Mutex<Keeper>,
    _state: TempDir,
}

impl World {
    /// Builds the tables from a configuration, as the node does.
    pub(crate) fn new(crypto: Crypto, clients: u16) -> Self {
        let config = config::parse(&configuration(crypto, clients), Path::new("bench.toml")).expect("a configuration");
        let state = tempfile::tempdir().expect("a directory");
        let mut keeper = Keeper::open(state.path(), 1, WORKERS, WORKERS.into()).expect("a store");
        let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
        let sequences = keeper.sequences(&fingerprints).expect("leases");
        let host = Host { workers: WORKERS.into(), mtus: vec![1500], partial: vec![false] };
        let keys = (0..clients).map(|number| {
            let secret = Secret::from_passphrase(passphrase(number).as_bytes(), crypto.suite().kd_prf);
            Keys::new(&secret, &crypto.suite())
        });
        Self {
            crypto,
            clients,
            tables: Arc::new(ArcSwap::from_pointee(Tables::build(&config, &host, sequences, None))),
            keys: keys.collect(),
            numbers: (0..clients).map(|_| AtomicU32::new(0)).collect(),
            turn: AtomicU64::new(0),
            keeper: Mutex::new(keeper),
            _state: state,
        }
    }

    /// What a worker looks up. Nothing leaves the tunnel, so there are no ways out.
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots {
            tables: self.tables.clone(),
            ways: Arc::default(),
            asks: Arc::new(Asks::new(|| ())),
            snoop: Arc::new(Snoop::new(Bell::new(|| ()))),
        }
    }

    /// The sequence number of the next packet from a client: each is used once, as replay windows are on.
    pub(crate) fn number(&self, client: u16) -> u32 {
        self.numbers[usize::from(client)].fetch_add(1, Ordering::Relaxed)
    }

    /// Two numbers that tell who sends the next packet, and to whom. Nothing foresees them.
    pub(crate) fn draw(&self) -> (u32, u32) {
        let drawn = mixed(self.turn.fetch_add(1, Ordering::Relaxed));
        (drawn as u32, (drawn >> 32) as u32)
    }

    /// Does what the node's lease thread does.
    pub(crate) fn extend_leases(&self) {
        let mut keeper = self.keeper.lock().expect("nobody panicked");
        keeper.extend().expect("leases");
    }
}

/// The inner address of a client.
pub(crate) const fn address(client: u16) -> [u8; 4] {
    let [high, low] = client.to_be_bytes();
    [10, 20, high, low]
}

fn passphrase(client: u16) -> String {
    format!("the passphrase of client {client}")
}

fn configuration(crypto: Crypto, clients: u16) -> String {
    let mut text = format!(
        "[node]\nname = \"bench\"\nsender_ids = \"1-{WORKERS}\"\n[[interface]]\nname = \"eth0\"\n[[service]]\n\
         name = \"s\"\naddress = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"n\"\n"
    );
    for client in 0..clients {
        let [a, b, c, d] = address(client);
        text += &format!(
            "[[client]]\nname = \"c{client}\"\nmux = {client}\nprefixes = [\"{a}.{b}.{c}.{d}/32\"]\n\
             passphrase = \"{}\"\n{}",
            passphrase(client),
            crypto.lines()
        );
    }
    text
}
