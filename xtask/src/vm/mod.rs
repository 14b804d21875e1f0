//! `cargo xtask test --vm`: zero-copy shown, not assumed. A virtual machine has network interfaces whose drivers do
//! zero-copy; the guest (`tests/src/bin/guest`) runs the node between two of them and looks at what it does.

mod archive;
mod cpio;
mod fetch;
mod machine;
mod payload;

use std::env::consts::ARCH;
use std::fs;

use anyhow::{Context, Error, Result};

use self::fetch::{Kernel, Qemu};
use crate::workspace;

/// What keeps the test from being run on a host.
struct Skip {
    missing: String,
    error: Error,
    mend: String,
}

/// Runs the test, or says in one line why not.
///
/// # Errors
/// When it fails.
pub(crate) fn test() -> Result<()> {
    let (qemu, kernel) = match find() {
        Ok(found) => found,
        Err(Skip { missing, error, mend }) => {
            eprintln!("xtask: {error:#}");
            println!("vm: skipped: {missing}; {mend}");
            return Ok(());
        }
    };
    println!("vm: QEMU {}, Linux {}", qemu.version().unwrap_or_default(), kernel.release);
    let (node, generator) = (workspace::build_node(true)?, workspace::build_generator(true)?);
    let guest = workspace::build_guest()?;
    let directory = workspace::vm_dir()?;
    let initramfs = directory.join("initramfs");
    let octets = payload::pack(
        &[("/init", &guest), ("/bin/anytun-xdp", &node), ("/bin/anytun-gen", &generator)],
        &kernel,
        &directory,
    )?;
    fs::write(&initramfs, octets).with_context(|| initramfs.display().to_string())?;
    machine::NICS.iter().try_for_each(|nics| machine::run(&qemu, &kernel, &initramfs, nics))
}

fn find() -> Result<(Qemu, Kernel), Skip> {
    if ARCH != "x86_64" {
        return Err(Skip {
            missing: format!("this host is {ARCH}, and the virtual machine runs x86_64 programs"),
            error: Error::msg("the node is built for the host"),
            mend: "run this on an x86_64 host".to_owned(),
        });
    }
    Ok((Qemu::find()?, Kernel::find()?))
}
