//! Opening and sealing one packet: in a batch of 64 with everything that this CPU has for it, and packet by packet.
//!
//! `cargo bench -p anytun-xdp --bench crypto` prints nanoseconds a packet for every engine that the CPU has, beside those
//! packet by packet. With `-- --json` it prints those of the fastest engine as one JSON array, `{"what": "seal" | "open",
//! "size": .., "batched_ns": .., "single_ns": ..}`, where the size is that of the inner packet. All are medians of rounds
//! that alternate; `-- --quick` makes fewer.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use anytun_xdp::satp::{Batch, Engine, HEADER, Header, Keys, PAYLOAD_TYPE, Role, Secret, Suite, ToOpen, ToSeal};
use serde_json::json;

use crate::common::{Asked, Spread};

/// Octets of the inner packet.
const SIZES: [usize; 4] = [84, 256, 512, 1400];
/// How long a round takes.
const ROUND: Duration = Duration::from_millis(10);

fn main() {
    let asked = Asked::new();
    if asked.json {
        let rows: Vec<_> = rows(Engine::best(), asked.rounds)
            .map(|Row { what, size, batched, single }| {
                json!({"what": what.name(), "size": size, "batched_ns": batched.median, "single_ns": single.median})
            })
            .collect();
        println!("{}", json!(rows));
        return;
    }
    for engine in Engine::available() {
        println!("{engine}: ns a packet, median [least, most]");
        for Row { what, size, batched, single } in rows(engine, asked.rounds) {
            let times = single.median / batched.median;
            println!("  {} {size:5}  {batched}  single {single}  {times:.2} times", what.name());
        }
    }
}

#[derive(Clone, Copy)]
enum What {
    Seal,
    Open,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            What::Seal => "seal",
            What::Open => "open",
        }
    }
}

/// Nanoseconds a packet.
struct Row {
    what: What,
    size: usize,
    batched: Spread,
    single: Spread,
}

fn rows(engine: Engine, rounds: usize) -> impl Iterator<Item = Row> {
    let what = [What::Seal, What::Open];
    what.into_iter().flat_map(|what| SIZES.map(|size| (what, size))).map(move |(what, size)| {
        let mut batch = Batch::new(engine);
        let mut traffic = Traffic::new(size);
        let (mut batched, mut single) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            batched.push(round(&mut traffic, |traffic| traffic.run(what, Some(&mut batch))));
            single.push(round(&mut traffic, |traffic| traffic.run(what, None)));
        }
        Row { what, size, batched: Spread::of(batched), single: Spread::of(single) }
    })
}

/// Runs batches for a while; nanoseconds a packet.
fn round(traffic: &mut Traffic, mut run: impl FnMut(&mut Traffic)) -> f64 {
    let (mut spent, mut batches) = (Duration::ZERO, 0);
    while spent < ROUND {
        traffic.restore();
        let start = Instant::now();
        run(black_box(traffic));
        spent += start.elapsed();
        batches += 1;
    }
    spent.as_nanos() as f64 / f64::from(batches) / Batch::PACKETS as f64
}

/// A batch of packets, each of another client, with default crypto.
struct Traffic {
    keys: Vec<Keys>,
    sealed: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

impl Traffic {
    fn new(size: usize) -> Self {
        let client = |number: usize| format!("the passphrase of client {number}");
        let keys: Vec<Keys> = (0..Batch::PACKETS)
            .map(|number| {
                let secret = Secret::from_passphrase(client(number).as_bytes(), Suite::DEFAULT.kd_prf);
                Keys::new(&secret, &Suite::DEFAULT)
            })
            .collect();
        let sealed: Vec<Vec<u8>> = keys
            .iter()
            .enumerate()
            .map(|(number, keys)| {
                let mut packet = vec![number as u8; HEADER + PAYLOAD_TYPE + size + keys.tag()];
                keys.seal(Role::Left, &header(number), &mut packet, PAYLOAD_TYPE + size).expect("room");
                packet
            })
            .collect();
        Self { keys, packets: sealed.clone(), sealed }
    }

    /// Makes all packets those that can be opened.
    fn restore(&mut self) {
        for (packet, sealed) in self.packets.iter_mut().zip(&self.sealed) {
            packet.copy_from_slice(sealed);
        }
    }

    fn run(&mut self, what: What, batch: Option<&mut Batch>) {
        match (what, batch) {
            (What::Seal, Some(batch)) => self.seal_batch(batch),
            (What::Seal, None) => self.seal_single(),
            (What::Open, Some(batch)) => self.open_batch(batch),
            (What::Open, None) => self.open_single(),
        }
    }

    fn seal_batch(&mut self, batch: &mut Batch) {
        let packets = self.keys.iter().zip(&mut self.packets).enumerate();
        let passed = batch.seal(packets.map(|(number, (keys, packet))| ToSeal {
            keys,
            sender: Role::Left,
            header: header(number),
            packet,
        }));
        assert_eq!(passed.count() as usize, Batch::PACKETS);
    }

    fn seal_single(&mut self) {
        for (number, (keys, packet)) in self.keys.iter().zip(&mut self.packets).enumerate() {
            let plain = packet.len() - HEADER - keys.tag();
            keys.seal(Role::Left, &header(number), packet, plain).expect("room");
        }
    }

    fn open_batch(&mut self, batch: &mut Batch) {
        let packets = self.keys.iter().zip(&self.packets);
        let passed = batch.verify(packets.map(|(keys, packet)| ToOpen { keys, sender: Role::Left, packet }));
        assert_eq!(passed.count() as usize, Batch::PACKETS);
        batch.decrypt(self.keys.iter().zip(&mut self.packets).map(|(keys, packet)| body(keys, packet)).enumerate());
    }

    fn open_single(&mut self) {
        for (number, (keys, packet)) in self.keys.iter().zip(&mut self.packets).enumerate() {
            assert!(keys.verify(Role::Left, packet));
            keys.crypt(Role::Left, &header(number), body(keys, packet));
        }
    }
}

fn body<'a>(keys: &Keys, packet: &'a mut [u8]) -> &'a mut [u8] {
    let end = packet.len() - keys.tag();
    &mut packet[HEADER..end]
}

fn header(number: usize) -> Header {
    Header { sequence: 1_000_000 + number as u32, sender: 7, mux: number as u16 }
}
