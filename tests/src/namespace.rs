//! Network namespaces that are removed whatever happens.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// What every name begins with; the process ID of the lab follows.
const PREFIX: &str = "axl";
/// Where iproute2 keeps the handles of named namespaces.
const DIRECTORY: &str = "/run/netns";

/// A network namespace of this process. Dropping it removes it and the links inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name ends in `role`, with loopback up and IPv6 addresses usable at once.
    pub fn new(role: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{PREFIX}{}-{}-{role}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        for (setting, value) in [
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/router_solicitations", "0"),
            ("ipv6/conf/default/keep_addr_on_down", "1"),
            ("ipv4/ping_group_range", "0 2147483647"),
        ] {
            namespace.set(setting, value)?;
        }
        Ok(namespace)
    }

    /// The name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip -n NAME` with the words of `arguments` and returns what it printed.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Runs a command line inside and returns what it printed; a failure is an error with its stderr.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        output(self.command(program).args(words))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Sets `/proc/sys/net/SETTING`.
    pub fn set(&self, setting: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(setting);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {} in {}", path.display(), self.name))
    }

    /// Runs `work` on a thread inside. Sockets made there stay inside wherever they are used later. Processes must not
    /// be started there: they end with the thread.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new(DIRECTORY).join(&self.name);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(handle, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name))?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Removes the namespaces of labs whose process is gone without having tidied up.
pub fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            delete(&name);
        }
    }
}

/// Why the lab cannot work on this host, if so.
pub fn obstacle() -> Option<Obstacle> {
    if !nix::unistd::geteuid().is_root() {
        return Some(Obstacle::NotRoot);
    }
    let tools = ["ip", "setpriv", "ethtool", "ping", "tcpdump", "traceroute", "anytun", "uanytun"];
    let missing: Vec<_> = tools.into_iter().filter(|tool| !installed(tool)).collect();
    (!missing.is_empty()).then_some(Obstacle::Missing(missing))
}

/// What keeps a lab from working.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Namespaces, raw sockets and XDP are for root.
    NotRoot,
    /// These programs are not in `PATH`.
    Missing(Vec<&'static str>),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NotRoot => f.write_str("namespaces and XDP need root; run it as root, for instance with sudo"),
            Obstacle::Missing(tools) => {
                write!(f, "not installed: {}; `cargo xtask setup` installs what is missing", tools.join(", "))
            }
        }
    }
}

/// Whether a program is in `PATH`.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a command to its end and returns its stdout; an exit status other than 0 is an error that carries its stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no UTF-8"))
}

fn delete(name: &str) {
    // There is nobody left to tell: the next sweep tries again.
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}
