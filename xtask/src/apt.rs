//! What the package manager of Debian and its derivatives offers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::toolchain::program;

/// Package lists older than this name versions that the archive may no longer have.
const LISTS_KEEP: Duration = Duration::from_secs(24 * 3600);

/// Whether the machine has apt.
pub(crate) fn is_present() -> bool {
    program("apt-get").is_some() && program("apt-cache").is_some()
}

/// Whether the package lists are old, absent, or lack one of these packages.
pub(crate) fn is_stale(packages: &[&str]) -> bool {
    let lists = Path::new("/var/lib/apt/lists");
    let written = fs::metadata(lists).and_then(|metadata| metadata.modified());
    let fresh = written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LISTS_KEEP));
    let mut entries = fs::read_dir(lists).into_iter().flatten().flatten();
    let present = entries.any(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
    !fresh || !present || !offers(packages)
}

/// Whether apt could install all of these packages.
pub(crate) fn offers(packages: &[&str]) -> bool {
    packages.iter().all(|package| candidate(package).is_some())
}

/// The version of a package that apt would install.
pub(crate) fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]).output().ok()?;
    let policy = String::from_utf8_lossy(&output.stdout);
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}
