//! End-to-end tests: a node between the real daemons, in namespaces. One trial after the other, because they measure and
//! share the machine. Without root every trial is skipped, which the first line says.

use std::process::ExitCode;

use anyhow::Result;
use anytun_tests::evidence;
use anytun_tests::namespace::{Obstacle, obstacle};
use libtest_mimic::{Arguments, Failed, Trial};

mod beyond;
mod crash;
mod demo;
mod direct;
mod drops;
mod endpoint;
mod ethernet;
mod examples;
mod fragments;
mod generator;
mod groups;
mod home;
mod idle;
mod ledger;
mod matrix;
mod memory;
mod nat;
mod nat_fragments;
mod open;
mod outside;
mod overload;
mod passing;
mod refusal;
mod reload;
mod routed;
mod scale;
mod secrets;
mod sizes;
mod soak;
mod sweep;

/// A test: its name and what it does.
type Case = (String, Box<dyn Fn() -> Result<()> + Send>);

/// A test with a fixed name.
fn case(name: &str, work: fn() -> Result<()>) -> Case {
    (name.to_owned(), Box::new(work))
}

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let cases = [
        direct::cases(),
        matrix::cases(),
        endpoint::cases(),
        drops::cases(),
        passing::cases(),
        crash::cases(),
        refusal::cases(),
        ledger::cases(),
        idle::cases(),
        scale::cases(),
        reload::cases(),
        secrets::cases(),
        demo::cases(),
        generator::cases(),
        outside::cases(),
        home::cases(),
        overload::cases(),
        open::cases(),
        groups::cases(),
        nat::cases(),
        beyond::cases(),
        nat_fragments::cases(),
        ethernet::cases(),
        sizes::cases(),
        sweep::cases(),
        fragments::cases(),
        examples::cases(),
        routed::cases(),
    ];
    let mut trials: Vec<Trial> = cases.into_iter().flatten().map(trial).collect();
    let unprivileged = obstacle() == Some(Obstacle::NotRoot);
    if unprivileged {
        skip(&mut trials, Obstacle::NotRoot);
    }
    let mut memory: Vec<Trial> = memory::cases().into_iter().map(trial).collect();
    if unprivileged {
        skip(&mut memory, Obstacle::NotRoot);
    } else if let Some(why) = memory::obstacle() {
        skip(&mut memory, why);
    }
    trials.append(&mut memory);
    let mut soak: Vec<Trial> = soak::cases().into_iter().map(trial).collect();
    if unprivileged || std::env::var_os("ANYTUN_SOAK").is_none() {
        skip(&mut soak, "it takes minutes; `cargo xtask test --soak` sets ANYTUN_SOAK=1");
    }
    trials.append(&mut soak);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Marks trials as ignored and says why, unless the output is meant for a program.
fn skip(trials: &mut Vec<Trial>, why: impl std::fmt::Display) {
    let names: Vec<_> = trials.iter().map(Trial::name).collect();
    eprintln!("skipped ({why}): {}", names.join(", "));
    *trials = trials.drain(..).map(|trial| trial.with_ignored_flag(true)).collect();
}

fn trial((name, work): Case) -> Trial {
    Trial::test(name, move || run(&*work))
}

/// Runs a test; a failure carries the logs and the last status of everything that ran.
fn run(work: &dyn Fn() -> Result<()>) -> Result<(), Failed> {
    match obstacle() {
        Some(obstacle) => Err(obstacle.to_string().into()),
        None => evidence::gather(work).map_err(Failed::from),
    }
}
