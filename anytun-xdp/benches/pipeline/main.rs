//! The packet path without a kernel: what a packet costs by stage, for few clients and for many, and what two workers carry
//! beside one.
//!
//! `cargo bench -p anytun-xdp --bench pipeline` prints tables, with `-- --json` one JSON array of rows (see [`row::Row`]);
//! `-- --quick` measures fewer sizes in fewer rounds. Every figure is the median of rounds that alternate between all kinds
//! of traffic.
//!
//! A worker runs as in a node, on rings of plain memory. Time is taken around its turns, one batch of 64 packets each:
//! sealing packets and putting them into frames does not count, so frames are as warm as behind a kernel that copies on
//! the same CPU. Every packet is sealed anew with the next sequence number of its client, so replay windows are on, and
//! goes from a client to a client that nothing foresees.

#[path = "../common/mod.rs"]
mod common;
mod cpus;
#[path = "../common/draw.rs"]
mod draw;
mod gauge;
mod lane;
mod pair;
mod row;
mod traffic;
mod world;

use std::time::Duration;

use anytun_xdp::worker::Stage;

use crate::common::{Asked, Spread};
use crate::gauge::Counters;
use crate::lane::Lane;
use crate::row::{Row, Stages, medians};
use crate::traffic::{Share, Traffic};
use crate::world::{Crypto, WORKERS, World};

const CLIENTS: [u16; 3] = [1, 100, 60_000];
/// Octets of the plain Ethernet frame without FCS that the inner packet would make.
const SIZES: [usize; 5] = [64, 256, 512, 1024, 1400];
const QUICK_SIZES: [usize; 2] = [64, 1400];
/// About how long a measurement takes, with the making of packets.
const TIME: Duration = Duration::from_millis(20);
const QUICK_TIME: Duration = Duration::from_millis(12);

fn main() {
    let asked = Asked::new();
    let (sizes, time): (&[usize], _) = if asked.quick { (&QUICK_SIZES, QUICK_TIME) } else { (&SIZES, TIME) };
    let cpus = cpus::available();
    // The first usually has the interrupts.
    cpus::bind(cpus[cpus.len() - 1]);
    let kinds = Crypto::ALL.into_iter().flat_map(|crypto| CLIENTS.map(|clients| (crypto, clients)));
    let worlds: Vec<World> = kinds.map(|(crypto, clients)| World::new(crypto, clients)).collect();
    let mut lanes: Vec<[Lane<'_>; WORKERS as usize]> =
        worlds.iter().map(|world| std::array::from_fn(|index| Lane::new(world, index))).collect();
    lanes.iter_mut().for_each(|[first, ..]| first.introduce_everybody());

    let mut rows = one_worker(&mut lanes, sizes, asked.rounds, time);
    match cpus[..] {
        [first, second, ..] => {
            rows.extend(two_workers(&mut lanes, [first, second], sizes, asked.rounds, time));
        }
        _ => eprintln!("two workers take two CPUs: not measured"),
    }
    if asked.json {
        println!("{}", serde_json::to_string(&rows).expect("rows without anything odd"));
    } else {
        row::print(&rows);
    }
}

/// What the rounds found about one kind of traffic.
#[derive(Default)]
struct Samples {
    whole: Vec<f64>,
    times: Vec<[f64; Stage::COUNT]>,
    cycles: Vec<[f64; Stage::COUNT]>,
    instructions: Vec<[f64; Stage::COUNT]>,
}

fn one_worker(lanes: &mut [[Lane<'_>; 2]], sizes: &[usize], rounds: usize, time: Duration) -> Vec<Row> {
    let mut counters = Counters::new();
    let mut samples: Vec<Samples> = Vec::new();
    samples.resize_with(lanes.len() * sizes.len(), Samples::default);
    for _ in 0..rounds {
        for ((lane, size), samples) in cases(lanes, sizes).zip(&mut samples) {
            let [lane, _] = &mut lanes[lane];
            let mut traffic = Traffic::new(lane.world, size, Share::ALL);
            samples.whole.push(lane.whole(&mut traffic, time));
            samples.times.push(lane.times(&mut traffic, time));
            if let Some(counters) = &mut counters {
                let counts = lane.stages(&mut traffic, time, counters);
                samples.cycles.push(counts.map(|[cycles, _]| cycles));
                samples.instructions.push(counts.map(|[_, instructions]| instructions));
            }
        }
    }
    let row = |((lane, size), samples): ((usize, usize), Samples)| {
        let world = lanes[lane][0].world;
        let counted = |rounds: &[[f64; Stage::COUNT]]| (!rounds.is_empty()).then(|| medians(rounds));
        let (stage_cycles, stage_instructions) = (counted(&samples.cycles), counted(&samples.instructions));
        let sum = |stages: &Option<Stages>| stages.as_ref().map(|stages| stages.values().sum());
        Row {
            crypto: world.crypto.name(),
            size,
            clients: world.clients,
            workers: 1,
            ns: Spread::of(samples.whole),
            times_one: None,
            apart_times_one: None,
            stages: medians(&samples.times),
            cycles: sum(&stage_cycles),
            instructions: sum(&stage_instructions),
            stage_cycles,
            stage_instructions,
        }
    };
    cases(lanes, sizes).zip(samples).map(row).collect()
}

fn two_workers(
    lanes: &mut [[Lane<'_>; 2]],
    cpus: [usize; 2],
    sizes: &[usize],
    rounds: usize,
    time: Duration,
) -> Vec<Row> {
    let several = |&(lane, _): &(usize, usize)| lanes[lane][0].world.clients >= WORKERS;
    let cases: Vec<_> = cases(lanes, sizes).filter(several).collect();
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (&(lane, size), samples) in cases.iter().zip(&mut samples) {
            samples.push(pair::round(&mut lanes[lane], cpus, size, time));
        }
    }
    let row = |((lane, size), samples): ((usize, usize), Vec<pair::Round>)| {
        let world = lanes[lane][0].world;
        let spread = |figure: fn(&pair::Round) -> f64| Spread::of(samples.iter().map(figure).collect());
        Row {
            crypto: world.crypto.name(),
            size,
            clients: world.clients,
            workers: 2,
            ns: spread(|round| round.ns),
            times_one: Some(spread(|round| round.times_one)),
            apart_times_one: Some(spread(|round| round.apart_times_one)),
            stages: Stages::new(),
            cycles: None,
            instructions: None,
            stage_cycles: None,
            stage_instructions: None,
        }
    };
    cases.into_iter().zip(samples).map(row).collect()
}

/// Every kind of traffic: the number of a world, and a size.
fn cases(lanes: &[[Lane<'_>; 2]], sizes: &[usize]) -> impl Iterator<Item = (usize, usize)> + use<> {
    let sizes = sizes.to_vec();
    (0..lanes.len()).flat_map(move |lane| sizes.clone().into_iter().map(move |size| (lane, size)))
}
