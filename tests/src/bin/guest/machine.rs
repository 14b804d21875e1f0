//! What an operating system does before programs run: file systems, drivers, names of interfaces. And the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use anytun_tests::wait::until;
use nix::kmod::init_module;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// The names that [`Layout::wired`](anytun_tests::lab::Layout::wired) wants, by the last digit of the address that the
/// machine gives its interfaces.
const NAMES: [&str; 4] = ["far0", "near0", "near1", "far1"];
/// What the other digits are.
const ADDRESS: &str = "52:54:00:00:00:0";
/// Where the modules are.
const MODULES: &str = "/modules";
const INTERFACES: &str = "/sys/class/net";
/// How long the drivers may take, also to give up what a removed namespace had.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mounts what the kernel provides and loads the drivers, in the order of their names.
pub(crate) fn set_up() -> Result<()> {
    for (kind, at) in
        [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/run")]
    {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    let modules = fs::read_dir(MODULES).context(MODULES)?.map(|entry| Ok(entry?.path()));
    let mut modules = modules.collect::<Result<Vec<PathBuf>>>()?;
    modules.sort_unstable();
    for module in modules {
        let octets = fs::read(&module).with_context(|| module.display().to_string())?;
        init_module(&octets, c"").with_context(|| format!("cannot load {}", module.display()))?;
    }
    Ok(())
}

/// Gives the interfaces their names, once all are there: also those that a removed namespace had come back.
pub(crate) fn name_interfaces() -> Result<()> {
    for (digit, name) in NAMES.into_iter().enumerate() {
        let address = format!("{ADDRESS}{digit}");
        let current = until(&format!("the interface {address} is there"), PATIENCE, || find(&address))?;
        if current != name {
            let words = ["link", "set", &current, "down", "name", name];
            let status = Command::new("ip").args(words).status().context("cannot run ip")?;
            ensure!(status.success(), "ip {}: {status}", words.join(" "));
        }
    }
    Ok(())
}

/// The Ethernet address of an interface that [has its name](name_interfaces).
pub(crate) fn address(name: &str) -> Result<String> {
    let digit = NAMES.iter().position(|known| *known == name).context("an interface that no machine has")?;
    Ok(format!("{ADDRESS}{digit}"))
}

/// How many receive queues an interface has.
pub(crate) fn receive_queues(name: &str) -> Result<usize> {
    let queues = fs::read_dir(Path::new(INTERFACES).join(name).join("queues"))?;
    let names = queues.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    Ok(names.iter().filter(|name| name.to_string_lossy().starts_with("rx-")).count())
}

/// The driver of the interfaces: that of the first one, as its link in /sys shows it.
pub(crate) fn driver() -> Result<String> {
    name_interfaces()?;
    let link = Path::new(INTERFACES).join(NAMES[0]).join("device/driver");
    let path = fs::read_link(&link).with_context(|| link.display().to_string())?;
    Ok(path.file_name().context("a driver without a name")?.to_string_lossy().into_owned())
}

fn find(address: &str) -> Result<Option<String>> {
    for entry in fs::read_dir(INTERFACES).context(INTERFACES)? {
        let entry = entry?;
        // It may be on its way out of here.
        let found = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if found.trim() == address {
            return Ok(entry.file_name().into_string().ok());
        }
    }
    Ok(None)
}

/// Ends the machine.
pub(crate) fn power_off() -> ExitCode {
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        // The kernel panics when its first process ends, which ends the machine as well.
        Err(error) => {
            eprintln!("cannot power off: {error}");
            ExitCode::FAILURE
        }
    }
}
