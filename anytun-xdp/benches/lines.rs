//! What it costs to reach what is known of clients: cache lines of clients that nothing foresees, and nothing else.
//!
//! A packet reads and writes lines that belong to the client it came from and to the one it goes to. With many clients these
//! are in no cache near the processor, and no code makes them cheaper than the machine does. `cargo bench -p anytun-xdp
//! --bench lines` prints nanoseconds a packet for as many lines as the packet path takes, fetched ahead a batch at a time as
//! it does, median of rounds [least, most]; `-- --json` the same as a JSON array, `-- --quick` makes fewer.

mod common;
#[path = "common/draw.rs"]
mod draw;

use std::hint::black_box;
use std::time::{Duration, Instant};

use anytun_xdp::satp::Pages;
use anytun_xdp::worker::BATCH;
use serde_json::json;

use crate::common::{Asked, Spread};
use crate::draw::mixed;

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(20);
/// Numbers of clients.
const CLIENTS: [usize; 2] = [100, 60_000];
/// Octets and words of a cache line.
const LINE: usize = 64;
const WORDS: usize = LINE / size_of::<u64>();

/// The lines of one client that packets touch: from the first one on by packets from it, up to the last one by packets to it.
#[derive(Clone, Copy)]
struct Lines {
    name: &'static str,
    all: usize,
    from: usize,
    to: usize,
}

/// As worker and tables have it. From a client: entry of its MUX, two lines of its record, two of its replay window, its
/// endpoint, its counters. To a client: entry of its prefix, a line of its record, its sequence number, endpoint, counters.
/// With the default cryptography the expanded key besides, 11 blocks of AES.
const PATHS: [Lines; 2] =
    [Lines { name: "null", all: 9, from: 7, to: 5 }, Lines { name: "default", all: 12, from: 10, to: 8 }];

fn main() {
    let asked = Asked::new();
    let mut rows = Vec::new();
    for lines in PATHS {
        let [few, many] = CLIENTS.map(|clients| {
            let mut memory = Memory::new(lines, clients);
            Spread::of((0..asked.rounds).map(|_| memory.round()).collect())
        });
        let each = (many.median - few.median) / (lines.from + lines.to) as f64;
        if !asked.json {
            let [a, b] = CLIENTS;
            println!("{}, {} lines a packet: ns a packet, median [least, most]", lines.name, lines.from + lines.to);
            println!("  {a:5} clients {few}\n  {b:5} clients {many}, {each:.1} ns more a line");
        }
        rows.push(json!({"crypto": lines.name, "lines": lines.from + lines.to, "few": few, "many": many}));
    }
    if asked.json {
        println!("{}", json!(rows));
    }
}

/// The lines of all clients.
struct Memory {
    lines: Lines,
    clients: usize,
    words: Pages<u64>,
    /// Of the next packet.
    turn: u64,
}

impl Memory {
    fn new(lines: Lines, clients: usize) -> Self {
        let words = vec![1; clients * lines.all * WORDS].into();
        Self { lines, clients, words, turn: 0 }
    }

    /// Nanoseconds a packet.
    fn round(&mut self) -> f64 {
        let start = Instant::now();
        let mut packets = 0;
        let mut taken = Duration::ZERO;
        while start.elapsed() < ROUND {
            let batch = std::array::from_fn(|packet| {
                let drawn = mixed(self.turn + packet as u64);
                [drawn as u32, (drawn >> 32) as u32].map(|drawn| drawn as usize % self.clients)
            });
            self.turn += BATCH as u64;
            let begin = Instant::now();
            self.touch(&batch);
            taken += begin.elapsed();
            packets += BATCH;
        }
        taken.as_nanos() as f64 / packets as f64
    }

    /// Fetches all lines of a batch, none of which depends on another, and then changes a word of each.
    fn touch(&mut self, batch: &[[usize; 2]; BATCH]) {
        let Lines { all, from, to, .. } = self.lines;
        let first = |client: usize| client * all * WORDS;
        let places = |[source, destination]: [usize; 2]| {
            let came = (0..from).map(move |line| first(source) + line * WORDS);
            came.chain((all - to..all).map(move |line| first(destination) + line * WORDS))
        };
        let sum: u64 = batch.iter().flat_map(|packet| places(*packet)).map(|at| self.words[at]).sum();
        black_box(sum);
        for at in batch.iter().flat_map(|packet| places(*packet)) {
            self.words[at] += 1;
        }
    }
}
