//! What the process may do: checked before anything is set up, given up when all is set up.

use std::io;

use aya::util::KernelVersion;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use super::HostError;

/// What a start needs: attaching to interfaces; AF_XDP sockets; eBPF programs and maps; and, because the program takes
/// the difference of two packet pointers, the leave to do so.
pub const NEEDED: [Capability; 4] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_BPF, Capability::CAP_PERFMON];

/// Since this kernel maps can be changed by whoever holds their descriptors, whatever `kernel.unprivileged_bpf_disabled`
/// says.
const MAPS_WITHOUT_CAP_BPF: KernelVersion = KernelVersion::new(5, 19, 0);

/// The capabilities of [`NEEDED`] that the calling thread lacks. `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON`.
///
/// # Errors
///
/// [`HostError::Other`] when the kernel does not answer.
pub fn missing() -> Result<Vec<Capability>, HostError> {
    let held = caps::read(None, CapSet::Effective).map_err(caps_error)?;
    let stands_in = |needed: &Capability| {
        matches!(needed, Capability::CAP_BPF | Capability::CAP_PERFMON) && held.contains(&Capability::CAP_SYS_ADMIN)
    };
    Ok(NEEDED.into_iter().filter(|needed| !held.contains(needed) && !stands_in(needed)).collect())
}

/// Refuses to go on without the capabilities a start needs.
///
/// # Errors
///
/// [`HostError::NotPermitted`] with all that is missing.
pub fn check() -> Result<(), HostError> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(Capability::to_string).collect();
    Err(HostError::not_permitted("load an XDP program and open AF_XDP sockets", names.join(" ")))
}

/// Lifts the limit of locked memory, which the UMEM counts against unless the process has `CAP_IPC_LOCK`. Where that is
/// not permitted the limit stays, and opening the sockets says whether it was enough.
pub fn raise_locked_memory() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// Lets the process have as many open files as it may: each service has a socket, and programs start with a limit that is
/// made for `select`. Where that is not permitted the limit stays, and whoever opens too many is told.
pub fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Octets of memory the process may lock; nothing when there is no limit.
///
/// # Errors
///
/// [`HostError::Other`] when the kernel does not answer.
pub fn locked_memory() -> Result<Option<u64>, HostError> {
    let unlimited = caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).map_err(caps_error)?;
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK)
        .map_err(|error| HostError::other("reading the limit of locked memory", error))?;
    Ok((!unlimited && limit != RLIM_INFINITY).then_some(limit))
}

/// Gives up every capability of the calling thread that a running node does not need, for good, also for programs it
/// would run. To be called when all is set up, before threads are started that are to have none: they inherit it.
///
/// Sockets, links, maps and TUN devices that are open work on. From Linux 5.19 nothing is kept; before, `CAP_BPF`, without
/// which the services could not be changed while the node runs.
///
/// # Errors
///
/// [`HostError::Other`] when the kernel refuses.
pub fn drop_capabilities() -> Result<(), HostError> {
    let old = KernelVersion::current().is_ok_and(|kernel| kernel < MAPS_WITHOUT_CAP_BPF);
    keep_only(if old { &[Capability::CAP_BPF] } else { &[] })
}

/// Gives up every capability of the calling thread but `CAP_NET_ADMIN`, for good: without that the kernel looks for no
/// neighbour that it is asked for.
///
/// # Errors
///
/// [`HostError::Other`] when the kernel refuses.
pub fn keep_network_administration() -> Result<(), HostError> {
    keep_only(&[Capability::CAP_NET_ADMIN])
}

fn keep_only(kept: &[Capability]) -> Result<(), HostError> {
    prctl::set_no_new_privs().map_err(|error| HostError::other("setting PR_SET_NO_NEW_PRIVS", error))?;
    let kept = CapsHashSet::from_iter(kept.iter().copied());
    let held = caps::read(None, CapSet::Permitted).map_err(caps_error)?;
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(caps_error)?;
    // Only a process with CAP_SETPCAP may; without it the bounding set means nothing after PR_SET_NO_NEW_PRIVS.
    let _ = caps::clear(None, CapSet::Bounding);
    caps::set(None, CapSet::Effective, &kept).map_err(caps_error)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(caps_error)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(caps_error)
}

/// Keeps the memory of the process, which holds keys, out of core files and from other processes of the user.
///
/// # Errors
///
/// [`HostError::Other`] when the kernel refuses.
pub fn forbid_core_dumps() -> Result<(), HostError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| HostError::other("setting RLIMIT_CORE", error))?;
    prctl::set_dumpable(false).map_err(|error| HostError::other("setting PR_SET_DUMPABLE", error))
}

fn caps_error(error: caps::errors::CapsError) -> HostError {
    HostError::other("the capabilities of the process", io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Capabilities belong to threads, so a test changes those of its own.
    fn in_a_thread(work: impl FnOnce() + Send + 'static) {
        thread::spawn(work).join().unwrap();
    }

    #[test]
    fn without_capabilities_the_missing_ones_are_named() {
        in_a_thread(|| {
            caps::clear(None, CapSet::Effective).unwrap();
            assert_eq!(missing().unwrap(), NEEDED);
            let text = check().unwrap_err().to_string();
            assert!(text.contains("CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON"), "{text}");
        });
    }

    #[test]
    fn a_thread_can_keep_the_administration_of_networks_alone() {
        in_a_thread(|| {
            let held = caps::read(None, CapSet::Permitted).unwrap();
            keep_network_administration().unwrap();
            let kept = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
            assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), kept.intersection(&held).copied().collect());
        });
    }

    #[test]
    fn nothing_is_left_after_dropping() {
        in_a_thread(|| {
            drop_capabilities().unwrap();
            let held = caps::read(None, CapSet::Permitted).unwrap();
            assert!(held.is_subset(&CapsHashSet::from([Capability::CAP_BPF])), "{held:?}");
            assert!(prctl::get_no_new_privs().unwrap());
            drop_capabilities().unwrap();
        });
    }
}
