//! Builds the XDP programs, each a file of its own in `$OUT_DIR`, which the crate embeds.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use toolchain::{program, rust_with_source};

const PACKAGE: &str = "anytun-xdp-ebpf";
/// The node's program, the generator's, and the yardstick of the benchmark.
const PROGRAMS: [&str; 3] = ["steer", "generate", "forward"];
const TARGET: &str = "bpfel-unknown-none";

/// What the programs are built from, seen from the workspace.
const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "anytun-common/Cargo.toml",
    "anytun-common/src",
    "anytun-xdp-ebpf/Cargo.toml",
    "anytun-xdp-ebpf/src",
];

fn main() -> ExitCode {
    let crate_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    let workspace = crate_dir.parent().expect("the crate lies in the workspace");
    match build(workspace, &out_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("cargo::error=cannot build the XDP programs: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn build(workspace: &Path, out_dir: &Path) -> Result<(), String> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let tools = Tools::find().map_err(|missing| format!("{missing}; `cargo xtask setup` installs it, or says how"))?;
    for tool in [&tools.rustc, &tools.bpf_linker] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }

    let target_dir = target_dir(out_dir);
    let status = cargo_build(workspace, &target_dir, &tools)
        .status()
        .map_err(|error| format!("{}: {error}", tools.cargo.display()))?;
    if !status.success() {
        let (rustc, linker) = (tools.rustc.display(), tools.bpf_linker.display());
        return Err(format!("{status}, with {rustc} and {linker}; the compiler's words are below"));
    }
    for program in PROGRAMS {
        let built = target_dir.join(TARGET).join("release").join(program);
        fs::copy(&built, out_dir.join(program)).map_err(|error| format!("{}: {error}", built.display()))?;
    }
    Ok(())
}

/// What builds the programs.
struct Tools {
    /// The `cargo` that belongs to `rustc`: `-Z build-std` needs that one.
    cargo: PathBuf,
    rustc: PathBuf,
    bpf_linker: PathBuf,
}

impl Tools {
    /// Finds them, or names what is missing.
    fn find() -> Result<Self, String> {
        let (cargo, rustc) = rust_with_source().ok_or_else(|| {
            let least = env!("CARGO_PKG_RUST_VERSION");
            format!("no Rust toolchain of version {least} or later has the component rust-src")
        })?;
        let bpf_linker = program("bpf-linker").ok_or("no bpf-linker in PATH")?;
        Ok(Self { cargo, rustc, bpf_linker })
    }
}

/// Where the programs are built: one directory for all profiles of the user half, whose `OUT_DIR`s differ, so that `core`
/// is built once. Cargo marks the top of its target directory with a `CACHEDIR.TAG`.
fn target_dir(out_dir: &Path) -> PathBuf {
    let top = out_dir.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    top.unwrap_or(out_dir).join("ebpf")
}

fn cargo_build(workspace: &Path, target_dir: &Path, tools: &Tools) -> Command {
    let mut cargo = Command::new(&tools.cargo);
    cargo.current_dir(workspace).args(["build", "--release", "--locked", "--package", PACKAGE, "--bins"]);
    cargo.args(["--target", TARGET, "-Z", "build-std=core"]).arg("--target-dir").arg(target_dir);
    // BTF is made from full debug information. bpf-linker sees the whole program, so LTO before it is lost time.
    for setting in ["debug=2", "lto=\"off\"", "codegen-units=1"] {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_user_half) {
            cargo.env_remove(name);
        }
    }
    cargo.env("RUSTC", &tools.rustc).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &tools.bpf_linker);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Clink-arg=--btf");
    cargo
}

/// Whether an environment variable says how the user half is built (its flags, compiler, wrappers, profiles). Where
/// cargo keeps its files, how it reaches the registry and what it may use of the machine holds for both halves.
fn is_of_user_half(name: &str) -> bool {
    const SHARED: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
    ];
    (name.starts_with("CARGO") || name.starts_with("RUST")) && !SHARED.iter().any(|shared| name.starts_with(shared))
}
