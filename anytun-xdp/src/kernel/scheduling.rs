//! How the kernel schedules the threads that carry packets (sched(7)).
//!
//! On a processor that a worker shares with the kernel's half of receiving, an ordinary worker loses: every packet that
//! arrives may interrupt it, and under overload what receives takes half of the processor to fetch packets that nobody
//! has time for. A worker in real time takes what was fetched first.

use std::io;
use std::marker::PhantomData;

use super::HostError;

/// Of workers: the lowest real-time priority, above everything ordinary, below whatever else the operator runs in real time.
const PRIORITY: libc::c_int = 1;

/// Of what workers cannot go on without, and what therefore must not wait until they rest.
const AHEAD: libc::c_int = 2;

/// While it lives, the calling thread is scheduled in real time (`SCHED_FIFO`), and so is every thread that it starts
/// meanwhile, which stays so.
#[derive(Debug)]
pub struct RealTime {
    /// Ends where it began: the policy belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl RealTime {
    /// Begins it, ahead of the threads that are started after [`give_way`](Self::give_way).
    ///
    /// # Errors
    ///
    /// [`HostError::NotPermitted`] without `CAP_SYS_NICE` or a limit `RLIMIT_RTPRIO` of at least 2, or in a control group
    /// that has no real-time share.
    pub fn begin() -> Result<Self, HostError> {
        match set(libc::SCHED_FIFO, AHEAD) {
            Ok(()) => Ok(Self { _thread: PhantomData }),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Err(HostError::not_permitted("run workers in real time (SCHED_FIFO)", "CAP_SYS_NICE"))
            }
            Err(error) => Err(HostError::other("running workers in real time (SCHED_FIFO)", error)),
        }
    }

    /// Goes on behind the threads that were started up to here.
    ///
    /// # Errors
    ///
    /// [`HostError::Other`] when the kernel refuses; a lower priority needs no privilege.
    pub fn give_way(&self) -> Result<(), HostError> {
        set(libc::SCHED_FIFO, PRIORITY).map_err(|error| HostError::other("lowering the real-time priority", error))
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        // To become ordinary is always permitted.
        let _ = set(libc::SCHED_OTHER, 0);
    }
}

/// Sets policy and priority of the calling thread.
fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live through the call, which only reads them; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The policy of the calling thread by the kernel's own word: the 41st field of its `stat` (proc_pid_stat(5)).
    fn policy() -> libc::c_int {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = text.rsplit_once(") ").unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_started_meanwhile_stay_in_real_time() {
        // A thread of its own, which other tests do not share.
        let (within, before) = thread::spawn(|| {
            let before = policy();
            let Ok(real_time) = RealTime::begin() else { return (None, before) };
            let own = policy();
            let (end, wait) = std::sync::mpsc::channel::<()>();
            let child = thread::spawn(move || {
                let _ended = wait.recv();
                policy()
            });
            drop(real_time);
            let after = policy();
            drop(end);
            (Some([own, child.join().unwrap(), after]), before)
        })
        .join()
        .unwrap();
        assert_eq!(before, libc::SCHED_OTHER);
        let permitted = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_NICE).unwrap();
        assert_eq!(within, permitted.then_some([libc::SCHED_FIFO, libc::SCHED_FIFO, libc::SCHED_OTHER]));
    }
}
