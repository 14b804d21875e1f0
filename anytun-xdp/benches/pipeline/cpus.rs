//! The CPUs that threads are bound to.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The CPUs that this program may use.
pub(crate) fn available() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs of this thread");
    (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect()
}

/// Binds this thread to one of them.
pub(crate) fn bind(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("the number of a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("a CPU that may be used");
}
