//! Finds programs, and a Rust toolchain that can build the XDP program.
//!
//! No toolchain ships `core` for the eBPF targets, so it is built from source, and the toolchain must have that.
//! `anytun-xdp/build.rs` includes this file too, so it depends on nothing but the standard library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `cargo` and `rustc` of a toolchain that has the source of its library. The toolchain of the distribution comes
/// first: its version moves least.
pub(crate) fn rust_with_source() -> Option<(PathBuf, PathBuf)> {
    let mut toolchains = rustup_toolchains();
    toolchains.insert(0, PathBuf::from("/usr"));
    toolchains.into_iter().find_map(|root| {
        let (cargo, rustc) = (root.join("bin/cargo"), root.join("bin/rustc"));
        let source = root.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        (source.is_file() && cargo.is_file() && is_new_enough(&rustc, env!("CARGO_PKG_RUST_VERSION")))
            .then_some((cargo, rustc))
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

/// Whether a program runs and tells a version that is at least this one: `rustc 1.96.0 (ac68faa20 2026-05-25)`.
pub(crate) fn is_new_enough(program: &Path, least: &str) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else {
        return false;
    };
    let line = String::from_utf8_lossy(&output.stdout);
    line.split_whitespace().nth(1).is_some_and(|version| is_at_least(version, least))
}

/// Whether a version is at least another, by their first two numbers.
pub(crate) fn is_at_least(version: &str, least: &str) -> bool {
    let numbers = |version: &str| {
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    numbers(version).is_some_and(|found| Some(found) >= numbers(least))
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

#[cfg(test)]
mod tests {
    use super::is_at_least;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("1.96.0+dfsg1-1~deb12u2", "1.95"));
        assert!(is_at_least("1.97.0-nightly", "1.95"));
        assert!(is_at_least("1.100.0", "1.95"));
        assert!(is_at_least("0.13.0", "0.13.0"));
        assert!(is_at_least("2.0.0", "1.95"));
        assert!(!is_at_least("1.85.0+dfsg3-1~deb12u3", "1.95"));
        assert!(!is_at_least("0.9.14", "0.13.0"));
        assert!(!is_at_least("unknown", "1.95"));
    }
}
