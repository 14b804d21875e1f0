//! The demonstration is the newcomer's first minute: it must work, say so, and leave nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use anytun_tests::namespace::Namespace;
use anytun_tests::node;
use anytun_tests::process::Process;
use anytun_tests::wait::{PATIENCE, until};
use nix::sys::signal::Signal;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("demo/ends-by-itself", || run(&["--for", "3s"], None)),
        case("demo/ctrl-c-ends-it-clean", || run(&[], Some(Signal::SIGINT))),
        case("demo/sigterm-ends-it-clean", || run(&["--for", "10m"], Some(Signal::SIGTERM))),
        case("demo/broken-node-is-a-failure", broken_node),
    ]
}

/// Runs the demonstration to its end, by itself or by a signal once pings flow.
fn run(words: &[&str], signal: Option<Signal>) -> Result<()> {
    let program = node::program()?;
    let (mut demo, directory, _outside) = start(&program, words)?;
    if let Some(signal) = signal {
        until("pings flow in the demonstration", PATIENCE, || {
            ensure!(demo.ended()?.is_none(), "the demonstration ended:\n{}", demo.log());
            Ok(demo.log().contains("packets in").then_some(()))
        })?;
        demo.signal(signal)?;
    }
    let status = demo.wait(3 * PATIENCE)?;
    let log = demo.log();
    ensure!(status.success(), "exit status {status}:\n{log}");
    let last = log.lines().last().context("it printed nothing")?;
    ensure!(last.starts_with("Carried ") && last.contains("lost 0"), "the closing line is {last:?}:\n{log}");
    for shown in ["[[interface]]", "[[client]]", "alice", "bob", "anytun", "uanytun", "native", "copy"] {
        ensure!(log.contains(shown), "it does not show {shown}:\n{log}");
    }
    drop(directory);
    nothing_left(&demo)
}

/// A node that does not start: a failure that says why.
fn broken_node() -> Result<()> {
    let (mut demo, _directory, _outside) = start(Path::new("/bin/false"), &["--for", "3s"])?;
    let status = demo.wait(3 * PATIENCE)?;
    ensure!(!status.success() && demo.log().contains("the node"), "exit status {status}:\n{}", demo.log());
    nothing_left(&demo)
}

/// The demonstration makes its own namespaces; where it is started from does not matter.
fn start(program: &Path, words: &[&str]) -> Result<(Process, tempfile::TempDir, Namespace)> {
    let outside = Namespace::new("outside")?;
    let directory = tempfile::tempdir()?;
    let program = program.to_string_lossy();
    let line = [&["--node", &program], words].concat();
    let demo = Path::new(env!("CARGO_BIN_EXE_demo"));
    let process = Process::start("the demonstration", &outside, demo, line, &directory.path().join("demo.log"))?;
    Ok((process, directory, outside))
}

fn nothing_left(demo: &Process) -> Result<()> {
    let prefix = format!("axl{}-", demo.pid());
    let names = fs::read_dir("/run/netns")?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
    ensure!(left.is_empty(), "namespaces are left: {left:?}");
    Ok(())
}
