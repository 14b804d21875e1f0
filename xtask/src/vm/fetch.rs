//! QEMU and a kernel: found on the host, kept from an earlier run, or fetched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Skip;
use super::archive::{Mirror, Suites};
use crate::apt;
use crate::toolchain::{is_at_least, program};
use crate::workspace;

/// The emulator's program.
const QEMU: &str = "qemu-system-x86_64";
/// The package of Debian that has it.
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The first QEMU with `igb`.
const QEMU_LEAST: &str = "8.0";
/// The suite of Debian with a kernel whose `virtio_net` and `igb` do zero-copy both ways: from 6.14 on.
const KERNEL_SUITE: &str = "trixie-backports";
/// The package that depends on the latest kernel of a suite.
const KERNEL_PACKAGE: &str = "linux-image-amd64";

/// An emulator.
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where it was unpacked, unless it is the host's own.
    root: Option<PathBuf>,
}

/// A kernel.
pub(crate) struct Kernel {
    /// The image to boot.
    pub(crate) image: PathBuf,
    /// The directory of its modules.
    pub(crate) modules: PathBuf,
    /// Its release, as `uname -r` shows it.
    pub(crate) release: String,
}

impl Qemu {
    /// The host's QEMU, or one of the host's archive.
    ///
    /// # Errors
    /// What keeps it from being had.
    pub(crate) fn find() -> Result<Self, Skip> {
        let host = program(QEMU).map(|program| Self { program, root: None });
        if let Some(host) = host.filter(|host| host.version().is_some_and(|version| is_at_least(&version, QEMU_LEAST)))
        {
            return Ok(host);
        }
        let missing = |error| Skip {
            missing: format!("no {QEMU} of {QEMU_LEAST} or later"),
            error,
            mend: format!(
                "install the package {QEMU_PACKAGE} (on Debian 12 that of bookworm-backports), or run this on a Debian \
                 with network, where it is fetched"
            ),
        };
        Self::fetched().map_err(missing)
    }

    fn fetched() -> Result<Self> {
        let root = workspace::vm_dir()?.join("qemu");
        let qemu = Self { program: root.join("usr/bin").join(QEMU), root: Some(root.clone()) };
        if !qemu.program.is_file() {
            let mirror = mirror()?;
            let backports = format!("{}-backports", mirror.release);
            let suites = Suites::fetch(&mirror, &[&mirror.release, &backports], &apt_dir()?, "qemu")?;
            suites.unpack_with_dependencies(QEMU_PACKAGE, &root)?;
        }
        match qemu.version() {
            Some(version) if is_at_least(&version, QEMU_LEAST) => Ok(qemu),
            Some(version) => bail!("the archive has {version}"),
            None => bail!("the one in {} does not run", root.display()),
        }
    }

    /// Its version; nothing when it does not run.
    pub(crate) fn version(&self) -> Option<String> {
        let output = self.command().arg("--version").output().ok()?;
        // "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.split_once(" version ")?.1.split_whitespace().next()?.to_owned())
    }

    /// The emulator, told where its libraries and its firmware are.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(root) = &self.root {
            let [old, libraries] = ["lib", "usr/lib"].map(|directory| root.join(directory).join("x86_64-linux-gnu"));
            command.env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), old.display()));
            command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
            command.arg("-L").arg(root.join("usr/share/qemu")).arg("-L").arg(root.join("usr/share/seabios"));
        }
        command
    }
}

impl Kernel {
    /// A kernel of the host's archive.
    ///
    /// # Errors
    /// What keeps it from being had.
    pub(crate) fn find() -> Result<Self, Skip> {
        Self::fetched().map_err(|error| Skip {
            missing: format!("no kernel of Debian's {KERNEL_SUITE}"),
            error,
            mend: "run this on a Debian with network, where one is fetched".to_owned(),
        })
    }

    fn fetched() -> Result<Self> {
        let root = workspace::vm_dir()?.join("kernel");
        if let Some(kernel) = Self::unpacked(&root) {
            return Ok(kernel);
        }
        let suites = Suites::fetch(&mirror()?, &[KERNEL_SUITE], &apt_dir()?, "kernel")?;
        let images = suites.dependencies(KERNEL_PACKAGE, "linux-image-")?;
        let image = images.first().with_context(|| format!("the archive has no {KERNEL_PACKAGE}"))?;
        let mut packages = suites.dependencies(image, "linux-binary-")?;
        packages.extend(suites.dependencies(image, "linux-modules-")?);
        suites.unpack(&packages, &root)?;
        Self::unpacked(&root).with_context(|| format!("{} are not put together as expected", packages.join(" and ")))
    }

    fn unpacked(root: &Path) -> Option<Self> {
        let mut entries = fs::read_dir(root.join("usr/lib/modules")).ok()?;
        let modules = entries.next()?.ok()?.path();
        let release = modules.file_name()?.to_str()?.to_owned();
        let image = modules.join("vmlinuz");
        image.is_file().then_some(Self { image, modules, release })
    }
}

fn mirror() -> Result<Mirror> {
    if !apt::is_present() {
        bail!("this host has no apt");
    }
    Mirror::of_host().context("apt has no package lists of a Debian release: `apt-get update` fetches them")
}

fn apt_dir() -> Result<PathBuf> {
    Ok(workspace::vm_dir()?.join("apt"))
}
