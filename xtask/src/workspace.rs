//! Builds and runs the programs of the workspace.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};

use crate::{privilege, setup};

/// The environment variable in which the end-to-end tests find the node.
const NODE: &str = "ANYTUN_XDP";

/// The environment variable in which the end-to-end tests find the generator.
const GENERATOR: &str = "ANYTUN_GEN";

/// The package of the generator.
const GENERATOR_PACKAGE: &str = "anytun-gen";

/// The environment variable that makes the end-to-end tests run the soak test and no other.
const SOAK: &str = "ANYTUN_SOAK";

/// The package of the end-to-end tests, of the demonstration and of the benchmark.
const END_TO_END: &str = "anytun-tests";

/// How a user who is not root runs the tests.
const AS_ROOT: &str = "`sudo -E env PATH=\"$PATH\" cargo xtask test`";

/// Builds the node, and returns its path.
pub(crate) fn build_node(release: bool) -> Result<PathBuf> {
    build("anytun-xdp", release)
}

/// Builds the generator, and returns its path.
pub(crate) fn build_generator(release: bool) -> Result<PathBuf> {
    build(GENERATOR_PACKAGE, release)
}

/// Builds the program of a package that has the same name, and returns its path.
fn build(package: &str, release: bool) -> Result<PathBuf> {
    let mut cargo = cargo("build");
    cargo.args(["--package", package, "--bin", package]);
    cargo.args(release.then_some("--release"));
    succeed(&mut cargo)?;
    Ok(profile_dir(if release { "release" } else { "debug" })?.join(package))
}

/// Builds what runs in the virtual machine, and returns its path.
pub(crate) fn build_guest() -> Result<PathBuf> {
    succeed(cargo("build").args(["--release", "--package", END_TO_END, "--bin", "guest"]))?;
    Ok(profile_dir("release")?.join("guest"))
}

/// Runs the demonstration in place of this process.
pub(crate) fn demonstrate(duration: Option<&str>) -> Result<()> {
    let node = build_node(true)?;
    succeed(cargo("build").args(["--release", "--package", END_TO_END, "--bin", "demo"]))?;
    let mut demo = privilege::as_root(profile_dir("release")?.join("demo"));
    demo.arg("--node").arg(node);
    if let Some(duration) = duration {
        demo.args(["--for", duration]);
    }
    become_program(&mut demo)
}

/// Runs the benchmark in place of this process.
pub(crate) fn bench(arguments: &[OsString]) -> Result<()> {
    succeed(cargo("build").args(["--release", "--package", END_TO_END, "--bin", "bench", "--bin", "reflector"]))?;
    let program = profile_dir("release")?.join("bench");
    let is_question = |argument: &OsString| ["-h", "--help", "--dry-run"].iter().any(|one| argument == one);
    if arguments.iter().any(is_question) {
        return become_program(Command::new(program).args(arguments));
    }
    // Wrong options are not to be found after minutes of other work.
    succeed(Command::new(&program).args(arguments).arg("--dry-run").stdout(Stdio::null()))?;
    setup::setup_benchmark();
    let (node, generator) = (build_node(true)?, build_generator(true)?);
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (crypto, pipeline) = (measure("crypto", quick)?, measure("pipeline", quick)?);
    let mut bench = privilege::as_root(program);
    bench
        .arg("--node")
        .arg(node)
        .arg("--generator")
        .arg(generator)
        .arg("--crypto")
        .arg(crypto)
        .arg("--pipeline")
        .arg(pipeline);
    become_program(bench.args(arguments))
}

/// Runs a benchmark of a part of the node without a kernel; returns the file with what it printed.
fn measure(name: &str, quick: bool) -> Result<PathBuf> {
    let directory = log_dir()?;
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let path = directory.join(name).with_extension("json");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let mut bench = cargo("bench");
    bench.args(["--package", "anytun-xdp", "--bench", name, "--", "--json"]).args(quick.then_some("--quick"));
    succeed(bench.stdout(file))?;
    Ok(path)
}

/// Runs the node in place of this process.
pub(crate) fn run_node(arguments: &[OsString]) -> Result<()> {
    become_program(privilege::as_root(build_node(true)?).args(arguments))
}

/// Runs the tests of the crates, then the end-to-end tests in place of this process. The node that these start is the
/// optimised one: they send at rates that the other does not carry.
pub(crate) fn test(filters: &[OsString]) -> Result<()> {
    if !privilege::is_root() {
        println!("xtask: not root, so what needs it is skipped and named; {AS_ROOT} runs it");
    }
    let (node, generator) = (build_node(true)?, build_generator(true)?);
    succeed(cargo("test").args(["--workspace", "--exclude", END_TO_END, "--"]).args(filters))?;
    become_program(end_to_end(node).env(GENERATOR, generator).arg("--").args(filters))
}

/// Runs the soak test in place of this process.
pub(crate) fn soak() -> Result<()> {
    if !privilege::is_root() {
        bail!("the soak test needs root; {AS_ROOT} gives it, with --soak");
    }
    let node = build_node(true)?;
    become_program(end_to_end(node).env(SOAK, "1").args(["--test", "e2e", "--", "soak"]))
}

/// The end-to-end tests, against the node at a path.
fn end_to_end(node: PathBuf) -> Command {
    let mut cargo = cargo("test");
    cargo.args(["--package", END_TO_END]).env(NODE, node);
    cargo
}

/// The cargo that started this program.
fn cargo(task: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(task);
    cargo
}

/// The directory of a profile's programs. This program is in the one of `debug`, wherever cargo was told to build.
fn profile_dir(profile: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of xtask")?;
    let target = own.ancestors().nth(2).context("xtask runs through `cargo xtask`")?;
    Ok(target.join(profile))
}

/// The directory for the logs of long work.
pub(crate) fn log_dir() -> Result<PathBuf> {
    profile_dir("xtask-logs")
}

/// The directory for what the virtual machine is made of. It is kept, because fetching takes a while.
pub(crate) fn vm_dir() -> Result<PathBuf> {
    profile_dir("vm")
}

fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let name = Path::new(&program).file_name().unwrap_or(&program);
        bail!("{} {}: {status}", name.display(), arguments.join(" "));
    }
    Ok(())
}

/// Makes this process run another program, which so gets the signals of the terminal and sets the exit status.
fn become_program(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(Error::new(error).context(format!("cannot start {}", command.get_program().display())))
}
