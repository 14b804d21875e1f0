//! What a relay costs: run time of its threads and of those that receive for its interfaces, from the scheduler.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::topology::RELAY_CPU;

/// Nanoseconds of a tick of `/proc/stat` and `/proc/PID/stat` (`USER_HZ`, 100 on every architecture that has XDP).
const TICK: f64 = 1e7;

/// Processor time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Of processes, outside the kernel.
    pub(crate) user: f64,
    /// Of processes, in the kernel.
    pub(crate) system: f64,
    /// Of the threads that receive for the relay's interfaces, and of the processor's thread for soft interrupts.
    pub(crate) softirq: f64,
}

impl Cost {
    /// All parts together.
    pub(crate) fn total(&self) -> f64 {
        self.user + self.system + self.softirq
    }

    /// The cost of one of so many packets.
    pub(crate) fn per(&self, packets: f64) -> Self {
        Self { user: self.user / packets, system: self.system / packets, softirq: self.softirq / packets }
    }
}

/// The clocks of a relay at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    at: Instant,
    /// Run time of the processes, and how it divides into user and system ticks.
    processes: f64,
    user: f64,
    system: f64,
    softirq: f64,
    /// Run time of everything that belongs to the measurement but the generator, which is a child and has ended.
    known: f64,
    children: f64,
    /// Time that all processors were not idle.
    busy: f64,
}

impl Clocks {
    /// Reads them: of the processes and all that descends from them, of threads that receive for the relay, and for the
    /// generator.
    pub(crate) fn read(processes: &[u32], relay_threads: &[u32], generator_threads: &[u32]) -> Result<Self> {
        let (mut run, mut user, mut system) = (0.0, 0.0, 0.0);
        for pid in family(processes) {
            // A process that has just ended has nothing to add.
            let Ok(ticks) = ticks(pid) else { continue };
            run += run_time_of_process(pid);
            user += ticks[0];
            system += ticks[1];
        }
        let threads = |threads: &[u32]| threads.iter().map(|&thread| run_time(&format!("/proc/{thread}"))).sum::<f64>();
        let softirq = threads(relay_threads) + soft_interrupts();
        let own = run_time_of_process(std::process::id());
        Ok(Self {
            at: Instant::now(),
            processes: run,
            user,
            system,
            softirq,
            known: run + softirq + threads(generator_threads) + own,
            children: children()?,
            busy: busy()?,
        })
    }

    /// What the relay used since `before`. The parts of processes are those that the ticks tell, of the run time that the
    /// scheduler tells, which is exact.
    pub(crate) fn since(&self, before: &Self) -> Cost {
        let run = (self.processes - before.processes).max(0.0);
        let (user, system) = (self.user - before.user, self.system - before.system);
        let share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        Cost { user: run * share, system: run * (1.0 - share), softirq: (self.softirq - before.softirq).max(0.0) }
    }

    /// The time since `before` in seconds.
    pub(crate) fn seconds_since(&self, before: &Self) -> f64 {
        self.at.duration_since(before.at).as_secs_f64()
    }

    /// The share of one processor that something else used since `before`.
    pub(crate) fn foreign_since(&self, before: &Self) -> f64 {
        let elapsed = self.at.duration_since(before.at).as_nanos() as f64;
        let ours = (self.known - before.known) + (self.children - before.children);
        ((self.busy - before.busy - ours) / elapsed).max(0.0)
    }
}

/// Processes and their descendants, each once.
pub(crate) fn family(processes: &[u32]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, *fields(pid).ok()?.get(1)? as u32))).collect();
    let mut all = processes.to_vec();
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        next += 1;
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child);
        let children: Vec<u32> = children.filter(|child| !all.contains(child)).collect();
        all.extend(children);
    }
    all
}

fn run_time_of_process(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| run_time(&task.path().to_string_lossy())).sum()
}

/// Run time of a thread in nanoseconds, the first number of its `schedstat` (sched-stats.rst of the kernel).
fn run_time(directory: &str) -> f64 {
    let text = fs::read_to_string(format!("{directory}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// User and system ticks of a process.
fn ticks(pid: u32) -> Result<[f64; 2]> {
    let fields = fields(pid)?;
    // utime and stime are the 14th and the 15th field.
    <[f64; 2]>::try_from(&fields[11..13]).with_context(|| format!("/proc/{pid}/stat is short"))
}

/// The fields of a process's `stat` (proc_pid_stat(5)) from the third on, which is a letter and reads as zero.
fn fields(pid: u32) -> Result<Vec<f64>> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name, in brackets, may have blanks and brackets in it.
    let (_, rest) = text.rsplit_once(") ").with_context(|| format!("{path} reads {text}"))?;
    let fields: Vec<f64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect();
    anyhow::ensure!(fields.len() > 13, "{path} reads {text}");
    Ok(fields)
}

/// Run time of the relay's processor's thread for soft interrupts.
fn soft_interrupts() -> f64 {
    let name = format!("ksoftirqd/{RELAY_CPU}\n");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    // Kernel threads of a processor are made at boot and have low numbers.
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid < 1000);
    let mut pids = pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == name));
    pids.next().map_or(0.0, |pid| run_time(&format!("/proc/{pid}")))
}

/// Processor time of children that have ended and were waited for, in nanoseconds.
fn children() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let nanoseconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e9 + time.tv_usec() as f64 * 1e3;
    Ok(nanoseconds(usage.user_time()) + nanoseconds(usage.system_time()))
}

/// Time that all processors together were not idle: work of anybody, and what the host took away (steal).
fn busy() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    // cpu user nice system idle iowait irq softirq steal; guest time is in user time already.
    let fields: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    Ok((fields.iter().sum::<f64>() - idle) * TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(processes: f64, user: f64, system: f64, busy: f64) -> Clocks {
        Clocks { at: Instant::now(), processes, user, system, softirq: 0.0, known: processes, children: 0.0, busy }
    }

    #[test]
    fn ticks_divide_the_run_time() {
        let before = clocks(1e9, 10.0, 10.0, 0.0);
        let cost = clocks(3e9, 60.0, 160.0, 0.0).since(&before);
        assert_eq!(cost, Cost { user: 0.5e9, system: 1.5e9, softirq: 0.0 });
        assert_eq!(cost.per(1e6).total(), 2000.0);
    }

    #[test]
    fn what_nobody_of_ours_used_is_foreign() {
        let before = clocks(0.0, 0.0, 0.0, 0.0);
        let after = Clocks { at: before.at + std::time::Duration::from_secs(1), ..clocks(0.5e9, 0.0, 0.0, 0.8e9) };
        assert!((after.foreign_since(&before) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn own_clock_runs() {
        let own = std::process::id();
        let before = run_time_of_process(own);
        while run_time_of_process(own) == before {
            std::hint::spin_loop();
        }
        let parent = std::os::unix::process::parent_id();
        let family = family(&[parent, own]);
        assert!(ticks(own).is_ok() && family.iter().filter(|pid| **pid == own).count() == 1);
    }
}
