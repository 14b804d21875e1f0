//! Finds what builds the XDP program: a Rust toolchain that has the source of `core`, and `bpf-linker`.
//!
//! No toolchain ships `core` for `bpfel-unknown-none`, so it is built from source. `anytun-xdp/build.rs` includes this
//! file too, so it depends on nothing but the standard library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What builds the XDP program.
pub(crate) struct KernelToolchain {
    /// The `cargo` of the toolchain: `-Z build-std` needs the one that belongs to `rustc`.
    pub(crate) cargo: PathBuf,
    /// The `rustc` of the toolchain.
    pub(crate) rustc: PathBuf,
    /// The linker that the target `bpfel-unknown-none` asks for.
    pub(crate) bpf_linker: PathBuf,
}

impl KernelToolchain {
    /// Finds the toolchain and the linker.
    ///
    /// # Errors
    /// Names what is missing.
    pub(crate) fn find() -> Result<Self, String> {
        let (cargo, rustc) = rust_with_source().ok_or_else(|| {
            format!(
                "no Rust toolchain of version {} or later has the component rust-src (the source of core)",
                env!("CARGO_PKG_RUST_VERSION")
            )
        })?;
        let bpf_linker = program("bpf-linker").ok_or("bpf-linker is not in PATH")?;
        Ok(Self { cargo, rustc, bpf_linker })
    }
}

/// The `cargo` and `rustc` of a toolchain that has the source of its library. The toolchain of the distribution comes
/// first: its version moves least.
pub(crate) fn rust_with_source() -> Option<(PathBuf, PathBuf)> {
    let mut toolchains = rustup_toolchains();
    toolchains.insert(0, PathBuf::from("/usr"));
    toolchains.into_iter().find_map(|root| {
        let (cargo, rustc) = (root.join("bin/cargo"), root.join("bin/rustc"));
        let source = root.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        (source.is_file() && cargo.is_file() && new_enough(&rustc)).then_some((cargo, rustc))
    })
}

/// The toolchains of rustup, `stable` before `nightly` before numbered ones.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".rustup")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut toolchains: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    toolchains.sort_unstable_by(|a, b| b.cmp(a));
    toolchains
}

/// Whether a `rustc` runs and is of the version that the workspace asks for, or later.
fn new_enough(rustc: &Path) -> bool {
    let Ok(output) = Command::new(rustc).arg("--version").output() else {
        return false;
    };
    // "rustc 1.96.0 (ac68faa20 2026-05-25)"
    let line = String::from_utf8_lossy(&output.stdout);
    let found = line.split_whitespace().nth(1).and_then(minor);
    found.is_some() && found >= minor(env!("CARGO_PKG_RUST_VERSION"))
}

/// The second number of a version of Rust, whose first is always 1.
fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}

/// The path of a program: in `PATH`, where `cargo install` puts programs, or among the administrator's, which the
/// `PATH` of an ordinary user lacks on Debian.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
