//! The packet path without a kernel: what a look-up and a whole packet cost, for few clients and for many.
//!
//! `cargo bench -p anytun-xdp --bench pipeline`

use std::path::Path;
use std::sync::Arc;

use anytun_common::wire::{checksum, satp::HEADER};
use anytun_xdp::config;
use anytun_xdp::mode::tunnel;
use anytun_xdp::satp::lease::Keeper;
use anytun_xdp::satp::{AesCtr, Auth, Header, Keys, Role, Secret, Suite};
use anytun_xdp::table::{Host, Tables};
use anytun_xdp::worker::memory::{Kernel, Memory};
use anytun_xdp::worker::{BATCH, Worker};
use arc_swap::ArcSwap;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const CLIENTS: [u16; 3] = [2, 100, 60_000];
/// Packets of a run, each between two other clients.
const PACKETS: usize = 4096;

fn main() {
    divan::main();
}

/// Client `number` of a network, from 0.
fn inner(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [10, 20, high, low]
}

/// Numbers of clients in an order that caches cannot foresee (a Weyl sequence).
fn scattered(clients: u16) -> impl Iterator<Item = (u16, u16)> {
    let at = move |turn: u32| ((turn.wrapping_mul(2_654_435_769) >> 8) % u32::from(clients)) as u16;
    (0..PACKETS as u32).map(move |turn| (at(2 * turn), at(2 * turn + 1)))
}

fn tables(clients: u16, crypto: &str) -> (Tables, tempfile::TempDir) {
    let mut text =
        "[node]\nname = \"bench\"\nsender_ids = \"1\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
                    address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"n\"\n"
            .to_owned();
    for number in 0..clients {
        let [_, _, high, low] = inner(number);
        text += &format!(
            "[[client]]\nname = \"c{number}\"\nmux = {number}\nprefixes = [\"10.20.{high}.{low}/32\"]\n\
             passphrase = \"the passphrase of client {number}\"\nwindow = 0\n{crypto}"
        );
    }
    let config = config::parse(&text, Path::new("bench.toml")).expect("a configuration");
    let state = tempfile::tempdir().expect("a directory");
    let mut keeper = Keeper::open(state.path(), 1, 1, 1).expect("a store");
    let fingerprints: Vec<_> = config.clients.iter().map(|client| client.secret.fingerprint()).collect();
    let sequences = keeper.sequences(&fingerprints).expect("leases");
    (Tables::build(&config, &Host { workers: 1, mtus: vec![1500] }, sequences, None), state)
}

/// An inner packet of 46 octets, which makes a frame of 98 octets with null crypto and 108 with the default.
fn packet(from: u16, to: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&inner(from));
    packet.extend_from_slice(&inner(to));
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.resize(46, 0);
    packet
}

fn frame(from: u16, to: u16, sequence: u32, suite: &Suite) -> Vec<u8> {
    let secret = Secret::from_passphrase(format!("the passphrase of client {from}").as_bytes(), suite.kd_prf);
    let keys = Keys::new(&secret, suite);
    let mut satp = vec![0; HEADER];
    satp.extend_from_slice(&[0x08, 0]);
    satp.extend_from_slice(&packet(from, to));
    let plain = satp.len() - HEADER;
    satp.resize(satp.len() + keys.tag(), 0);
    let header = Header { sequence, sender: 0, mux: from };
    let length = keys.seal(Role::Right, &header, &mut satp, plain).expect("room");
    let total = (28 + length) as u16;
    let [high, low] = from.to_be_bytes();
    let mut ip = vec![0x45, 0];
    ip.extend_from_slice(&total.to_be_bytes());
    ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, high, low, 192, 0, 2, 53]);
    let sum = checksum::of(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, high, low, 8, 0];
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&[0x11, 0x5c, 0x11, 0x5c]);
    frame.extend_from_slice(&((8 + length) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&satp[..length]);
    frame
}

/// Service, MUX, source and destination of one packet: everything that is looked up.
#[divan::bench(args = CLIENTS)]
fn look_up(bencher: Bencher<'_, '_>, clients: u16) {
    let (tables, _state) = tables(clients, NULL);
    let key = tables.services.all()[0].key();
    let mut packets: Vec<(u16, Vec<u8>)> = scattered(clients).map(|(from, to)| (from, packet(from, to))).collect();
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(move || {
        for (mux, payload) in &mut packets {
            // The hop counts down, so it is set back.
            payload[8] = 64;
            let client = tables.services.find(&key).and_then(|service| service.client(*mux)).expect("a client");
            let route = tunnel::route(&tables, client, 0x0800, payload, 0).expect("a route");
            black_box(&tables.clients[route.to as usize].track);
        }
    });
}

const NULL: &str = "kd_prf = \"null\"\ncipher = \"null\"\nauth = \"null\"\n";

/// A whole packet with null crypto, in batches of 64.
#[divan::bench(args = CLIENTS)]
fn packet_null(bencher: Bencher<'_, '_>, clients: u16) {
    let suite = Suite { kd_prf: AesCtr::Null, cipher: AesCtr::Null, auth: Auth::Null, tag_length: 10 };
    whole(bencher, clients, NULL, &suite);
}

/// A whole packet with default crypto, in batches of 64.
#[divan::bench(args = CLIENTS)]
fn packet_default(bencher: Bencher<'_, '_>, clients: u16) {
    whole(bencher, clients, "", &Suite::DEFAULT);
}

fn whole(bencher: Bencher<'_, '_>, clients: u16, crypto: &str, suite: &Suite) {
    let (tables, _state) = tables(clients, crypto);
    let tables = Arc::new(ArcSwap::from_pointee(tables));
    let kernel = Kernel { tx_ring: 1024, fill_ring: 1024, keep: false, ..Kernel::default() };
    let mut worker = Worker::new(0, Memory::new(1, 4096, 2048, kernel), tables, Arc::default());
    let frames: Vec<Vec<u8>> =
        scattered(clients).enumerate().map(|(turn, (from, to))| frame(from, to, turn as u32, suite)).collect();
    // Introduces everybody who is sent to.
    for client in 0..clients {
        worker.turn(0);
        worker.io_mut().arrive(0, &frame(client, client, 0, suite));
    }
    worker.turn(0);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(move || {
        for batch in frames.chunks(BATCH) {
            for frame in batch {
                worker.io_mut().arrive(0, frame);
            }
            worker.turn(0);
        }
    });
}
