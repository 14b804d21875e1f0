//! Root, and sudo as the way to it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use crate::toolchain::program;

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // A process owns its directory in /proc.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether commands can be run as root without asking anybody.
pub(crate) fn is_granted() -> bool {
    is_root() || sudo_without_password()
}

fn sudo_without_password() -> bool {
    let Some(sudo) = program("sudo") else {
        return false;
    };
    let mut sudo = Command::new(sudo);
    sudo.args(["--non-interactive", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}

/// A command that runs a program as root, with this process's environment. Without root and without sudo the program
/// runs as it is, and says itself what it lacks.
pub(crate) fn as_root(program_path: impl AsRef<OsStr>) -> Command {
    match program("sudo") {
        Some(sudo) if !is_root() => {
            let mut command = Command::new(sudo);
            command.args(["--preserve-env", "--"]).arg(program_path);
            command
        }
        _ => Command::new(program_path),
    }
}
