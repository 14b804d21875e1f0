//! What of this host would hurt a node, and the command that mends it. Looks only, changes nothing, and works without
//! privileges as far as the kernel answers.

mod limits;
mod ports;

use std::fmt;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use anytun_common::map::QUEUES_PER_INTERFACE;
use aya::util::KernelVersion;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};

use super::{HostError, Link, RealTime, Xsk, privilege, program, queues, tun, xsk};
use crate::config::{Config, Interface, Open, Queues, Scheduling, XdpMode};

/// XDP programs can be attached by links that go with the process since this kernel.
const OLDEST: KernelVersion = KernelVersion::new(5, 9, 0);
/// Above this MTU the first drivers refuse native XDP (a page less headroom and bookkeeping).
const NATIVE_MTU: u32 = 3498;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// As it should be.
    Good,
    /// A node runs, but slower, or without some packets.
    Hurts,
    /// A node does not start.
    Fatal,
}

/// One thing about the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do about it: a command in backquotes, or a key of the configuration.
    pub mend: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Good => "good ",
            Severity::Hurts => "hurts",
            Severity::Fatal => "FATAL",
        };
        write!(f, "{severity}  {}", self.what)?;
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { severity: Severity::Good, what: what.into(), mend: None }
    }

    fn hurts(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Hurts, what: what.into(), mend: Some(mend.into()) }
    }

    fn fatal(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, what: what.into(), mend: Some(mend.into()) }
    }

    /// An error that names its way out itself.
    fn from_error(error: &HostError) -> Self {
        Self { severity: Severity::Fatal, what: error.to_string(), mend: None }
    }
}

/// Looks at the host for everything a configuration asks of it.
pub fn examine_all(config: &Config) -> Vec<Finding> {
    let (mut findings, workers) = look(&config.interfaces);
    if let Some(Err(error)) = workers.map(|workers| config.sender_ids(workers)) {
        let says = error.problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ");
        findings.push(Finding { severity: Severity::Fatal, what: says, mend: None });
    }
    findings.extend(real_time(config.node.scheduling));
    findings.extend(devices(config));
    if config.networks.iter().any(|network| network.open != Open::No) {
        findings.extend(limits::neighbours());
    }
    findings.extend(ports::nats(config));
    findings.extend(directory("state_dir", &config.node.state_dir));
    findings.extend(config.node.control.parent().and_then(|path| directory("control", path)));
    findings
}

/// Whether the devices can be made by which the kernel takes part in networks.
fn devices(config: &Config) -> Option<Finding> {
    let devices = config.devices();
    let (_, first) = devices.first()?;
    Some(match eaccess(Path::new(tun::CONTROL), AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Finding::good(format!("{}: devices of networks can be made", tun::CONTROL)),
        Err(error) => Finding::from_error(&tun::not_opened(&first.device, error.into())),
    })
}

/// Looks at the host and at the interfaces of a configuration.
pub fn examine(interfaces: &[Interface]) -> Vec<Finding> {
    look(interfaces).0
}

/// A setting of the kernel as sysctl(8) names it; nothing in a namespace that does not have it.
fn setting(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()
}

/// The findings, and how many workers there would be.
fn look(interfaces: &[Interface]) -> (Vec<Finding>, Option<usize>) {
    let mut findings = vec![kernel()];
    findings.extend(limits::fragments());
    findings.extend(af_xdp());
    findings.push(privileges());
    let mut links = Vec::new();
    for interface in interfaces {
        match Link::find(&interface.name) {
            Ok(link) => {
                findings.extend(examine_link(&link, interface));
                links.push((link, interface));
            }
            Err(error) => findings.push(Finding::from_error(&error)),
        }
    }
    let workers = same_queues(&links);
    match &workers {
        Ok(workers) => {
            findings.extend(memory(&links, *workers));
            findings.push(processors(&links, *workers));
        }
        Err(finding) => findings.extend(finding.clone()),
    }
    (findings, workers.ok())
}

fn kernel() -> Finding {
    match KernelVersion::current() {
        Ok(current) if current < OLDEST => Finding::fatal(
            "the kernel is older than Linux 5.9, which brought links of XDP programs",
            "update the kernel",
        ),
        Ok(_) => Finding::good(format!("kernel: Linux {}", release())),
        Err(_) => Finding::hurts("the version of the kernel cannot be read", "mount /proc"),
    }
}

fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether the kernel has AF_XDP and says what its types are.
fn af_xdp() -> Vec<Finding> {
    let mut findings = Vec::new();
    match Xsk::open(&[]) {
        Ok(_) => findings.push(Finding::good("AF_XDP: sockets can be opened")),
        // What may be done is a finding of its own.
        Err(HostError::NotPermitted { .. }) => {}
        Err(error) => findings.push(Finding::from_error(&error)),
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        findings.push(Finding::hurts(
            "the kernel has no BTF (or /sys is not mounted): its messages about a refused program say less",
            "use a kernel with CONFIG_DEBUG_INFO_BTF",
        ));
    }
    findings
}

fn privileges() -> Finding {
    match privilege::missing() {
        Ok(missing) if missing.is_empty() => Finding::good("privileges: all that a start needs"),
        Ok(missing) => {
            let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let names = names.join(" ");
            Finding::hurts(
                format!(
                    "this process lacks {names}; a node that starts like this fails, and some findings may be missing"
                ),
                format!("run as root, or give the service AmbientCapabilities={names}"),
            )
        }
        Err(error) => Finding::from_error(&error),
    }
}

fn examine_link(link: &Link, interface: &Interface) -> Vec<Finding> {
    let mut findings = vec![Finding::good(format!(
        "{}: driver {}, {} receive queue{}, MTU {}",
        link.name,
        if link.driver.is_empty() { "unknown" } else { &link.driver },
        link.queues,
        if link.queues == 1 { "" } else { "s" },
        link.mtu
    ))];
    findings.extend(state(link));
    findings.extend(attached(link));
    findings.extend(unused_queues(link, interface.queues));
    findings.extend(mtu(link, interface.xdp));
    findings.extend(offloads(link));
    if interface.xdp == XdpMode::Generic {
        findings.push(Finding::hurts(
            format!(
                "{}: generic XDP gives every packet to the kernel's stack first, which costs most of the gain",
                link.name
            ),
            "set xdp = \"auto\" if the driver has native XDP",
        ));
    }
    if link.may_hand_over_partial_checksums() {
        findings.push(Finding::good(format!(
            "{}: senders on this machine leave checksums unfinished on {}; tunnels authenticate packets themselves and do \
             not mind, and what an open network takes in is completed",
            link.name, link.driver
        )));
    }
    findings
}

fn state(link: &Link) -> Option<Finding> {
    if !link.up {
        return Some(Finding::hurts(format!("{} is down", link.name), format!("`ip link set dev {} up`", link.name)));
    }
    (!link.carrier)
        .then(|| Finding::hurts(format!("{} has no carrier", link.name), "look at the cable, or at the peer"))
}

fn attached(link: &Link) -> Option<Finding> {
    match link.refuse_foreign_program() {
        Ok(()) => None,
        Err(HostError::ForeignProgram { name, .. }) if name == program::NAME => {
            let what = format!("{}: a node already runs on it", link.name);
            Some(Finding::fatal(what, "stop that node before another is started"))
        }
        Err(error) => Some(Finding::from_error(&error)),
    }
}

/// Queues without a socket: packets that arrive on one go to the kernel.
fn unused_queues(link: &Link, queues: Queues) -> Option<Finding> {
    let name = &link.name;
    let (first, last) = match queues {
        Queues::All => (0, link.queues.min(QUEUES_PER_INTERFACE) - 1),
        Queues::Range(first, last) => (first, last),
    };
    if last >= link.queues {
        return Some(Finding::fatal(
            format!("{name} has {} receive queues, and `queues` names queue {last}", link.queues),
            format!("correct `queues`, or `ethtool -L {name} combined {}`", last + 1),
        ));
    }
    (first > 0 || last + 1 < link.queues).then(|| {
        Finding::hurts(
            format!(
                "{name}: only queues {first} to {last} of {} have a socket; the others go to the kernel",
                link.queues
            ),
            format!(
                "set queues = \"all\", or `ethtool -L {name} combined {}`",
                (last + 1 - first).min(QUEUES_PER_INTERFACE)
            ),
        )
    })
}

fn mtu(link: &Link, mode: XdpMode) -> Option<Finding> {
    let name = &link.name;
    let largest = xsk::largest_mtu(mode == XdpMode::Zerocopy);
    if link.mtu > largest {
        return Some(Finding::fatal(
            format!("{name}: a frame holds packets of an MTU up to {largest}, not {}", link.mtu),
            format!("`ip link set dev {name} mtu 1500`"),
        ));
    }
    (link.mtu > NATIVE_MTU && mode != XdpMode::Generic).then(|| {
        Finding::hurts(
            format!("{name}: many drivers refuse native XDP at an MTU of {}", link.mtu),
            format!("`ip link set dev {name} mtu {NATIVE_MTU}` or less"),
        )
    })
}

/// Offloads that hide something from XDP, or merge packets before it.
fn offloads(link: &Link) -> Vec<Finding> {
    const HARMFUL: [(&str, &str, &str); 5] = [
        ("rx-lro", "lro", "merges packets before XDP sees them, and most drivers refuse native XDP with it"),
        ("rx-gro-hw", "rx-gro-hw", "merges packets before XDP sees them, and some drivers refuse native XDP with it"),
        ("rx-gro-list", "rx-gro-list", "chains UDP packets, which generic XDP sees as one"),
        ("rx-udp-gro-forwarding", "rx-udp-gro-forwarding", "merges UDP packets, which generic XDP sees as one"),
        ("rx-vlan-hw-parse", "rxvlan", "takes VLAN tags off before XDP sees them; matters only where there are tags"),
    ];
    let active = link.offloads();
    let harmful = HARMFUL.iter().filter(|(feature, ..)| active.iter().any(|name| name == feature));
    harmful
        .map(|(feature, switch, why)| {
            Finding::hurts(
                format!("{}: {feature} {why}", link.name),
                format!("`ethtool -K {} {switch} off`", link.name),
            )
        })
        .collect()
}

/// The queues that get a worker, the same on every interface. An interface that lacks one has been told of already.
fn same_queues(links: &[(Link, &Interface)]) -> Result<usize, Option<Finding>> {
    if links.is_empty() || links.iter().any(|(link, interface)| queues::resolve(interface, link).is_err()) {
        return Err(None);
    }
    let pairs: Vec<_> = links.iter().map(|(link, interface)| (*interface, link)).collect();
    queues::common(&pairs).map(|queues| queues.len()).map_err(|error| Some(Finding::from_error(&error)))
}

/// Whether the memory that the workers lock is allowed.
fn memory(links: &[(Link, &Interface)], workers: usize) -> Option<Finding> {
    let largest = links.iter().map(|(link, _)| link.mtu).max()?;
    let zero_copy = links.iter().any(|(_, interface)| interface.xdp == XdpMode::Zerocopy);
    let needed = workers as u64 * xsk::umem_octets(links.len() as u32, largest, zero_copy)?;
    let mebibytes = |octets: u64| octets.div_ceil(1 << 20);
    match privilege::locked_memory() {
        Ok(Some(limit)) if limit < needed => Some(Finding::hurts(
            format!("{} MiB of memory will be locked, and {} MiB are allowed", mebibytes(needed), mebibytes(limit)),
            "`ulimit -l unlimited`, or LimitMEMLOCK=infinity or AmbientCapabilities=CAP_IPC_LOCK for the service",
        )),
        Ok(_) => Some(Finding::good(format!("memory: {} MiB will be locked", mebibytes(needed)))),
        Err(error) => Some(Finding::from_error(&error)),
    }
}

/// Whether workers may run in real time, if they are to.
fn real_time(asked: Scheduling) -> Option<Finding> {
    match asked {
        Scheduling::Other => None,
        Scheduling::Fifo => Some(match RealTime::begin() {
            Ok(_) => Finding::good("workers will run in real time"),
            Err(refused) => Finding::hurts(
                format!("{refused}; workers would run as any other thread, and carry less under overload"),
                "CAP_SYS_NICE for the service (in its CapabilityBoundingSet, and no RestrictRealtime), or \
                 scheduling = \"other\"",
            ),
        }),
    }
}

/// Whether there is a processor for each worker.
fn processors(links: &[(Link, &Interface)], workers: usize) -> Finding {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    if workers > processors {
        let commands: Vec<_> =
            links.iter().map(|(link, _)| format!("`ethtool -L {} combined {processors}`", link.name)).collect();
        Finding::hurts(
            format!("{workers} queues make {workers} workers, and there are {processors} processors"),
            commands.join(", "),
        )
    } else {
        Finding::good(format!("workers: {workers}, on {processors} processors"))
    }
}

/// Whether a file can be made in a directory, or the directory in the nearest one that is there.
fn directory(key: &str, path: &Path) -> Option<Finding> {
    let there = path.ancestors().find(|part| !part.as_os_str().is_empty() && part.exists())?;
    let refused = match there.is_dir() {
        true => eaccess(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?,
        false => Errno::ENOTDIR,
    };
    let place = if there == path { String::new() } else { format!(" would be made in {}, which", there.display()) };
    Some(Finding::fatal(
        format!("{}{place} cannot be written to by this user: {}", path.display(), refused.desc()),
        format!("make it writable, or set node.{key}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link::example()
    }

    #[test]
    fn queues_without_a_socket_are_named_and_missing_ones_are_fatal() {
        assert_eq!(unused_queues(&link(), Queues::All), None);
        assert_eq!(unused_queues(&link(), Queues::Range(0, 7)), None);
        let some = unused_queues(&link(), Queues::Range(0, 3)).unwrap();
        assert_eq!(some.severity, Severity::Hurts);
        assert!(some.mend.unwrap().contains("`ethtool -L eth0 combined 4`"));
        assert_eq!(unused_queues(&link(), Queues::Range(0, 8)).unwrap().severity, Severity::Fatal);
        let many = Link { queues: 100, ..link() };
        assert!(unused_queues(&many, Queues::All).unwrap().mend.unwrap().contains("combined 64"));
    }

    #[test]
    fn the_mtu_must_fit_a_frame() {
        assert_eq!(mtu(&link(), XdpMode::Auto), None);
        let jumbo = Link { mtu: 3600, ..link() };
        assert_eq!(mtu(&jumbo, XdpMode::Native).unwrap().severity, Severity::Hurts);
        assert_eq!(mtu(&jumbo, XdpMode::Generic), None);
        let jumbo = Link { mtu: 9000, ..link() };
        assert_eq!(mtu(&jumbo, XdpMode::Generic).unwrap().severity, Severity::Fatal);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_fatal() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(directory("state_dir", &home.path().join("a/b")), None);
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = directory("state_dir", &file.join("state")).unwrap();
        assert_eq!(refused.severity, Severity::Fatal);
        assert!(refused.what.contains("/file, which cannot be written to by this user: Not a directory"), "{refused}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_fatal() {
        let missing = Interface { name: "axk-none".into(), xdp: XdpMode::Auto, queues: Queues::All };
        let findings = examine(&[missing]);
        assert!(
            findings.iter().any(|finding| finding.severity == Severity::Fatal && finding.what.contains("axk-none"))
        );
    }
}
