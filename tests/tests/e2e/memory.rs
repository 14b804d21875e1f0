//! Where packets lie in memory.

use std::fs::{self, OpenOptions};

use anyhow::{Context, Result, ensure};
use anytun_tests::lab::{Layout, Running};
use anytun_tests::status::Queue;
use anytun_tests::wait::{PATIENCE, until};

use crate::{Case, case};

/// How many huge pages the kernel keeps for programs that ask for them (proc_sys_vm(5)).
const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
/// More than the UMEM of a worker with two interfaces takes, in pages of this size.
const PAGES: u64 = 24;
const PAGE_KB: u64 = 2048;

pub(crate) fn cases() -> Vec<Case> {
    vec![case("memory/a-umem-lies-in-huge-pages-if-enough-are-reserved", huge_pages)]
}

/// Why this host's huge pages are not for a trial, if so: the setting is the whole host's.
pub(crate) fn obstacle() -> Option<String> {
    match (meminfo("Hugepagesize"), meminfo("HugePages_Total")) {
        (Ok(PAGE_KB), Ok(0)) => {
            let error = OpenOptions::new().write(true).open(RESERVED).err()?;
            Some(format!("{RESERVED} cannot be written: {error}"))
        }
        (Ok(PAGE_KB), Ok(_)) => Some("this host has huge pages reserved, perhaps for somebody".to_owned()),
        _ => Some(format!("the kernel has no huge pages of {PAGE_KB} kB")),
    }
}

fn huge_pages() -> Result<()> {
    for (pages, expected) in [(0, false), (1, false), (PAGES, true)] {
        let reserved = Reserved::new(pages)?;
        let running = Running::usual(Layout::default())?;
        let status = running.node.status()?;
        let queues: Vec<&Queue> = status.interfaces.iter().flat_map(|interface| &interface.queues).collect();
        ensure!(queues.len() == 2, "two interfaces with a queue each: {queues:?}");
        ensure!(queues.iter().all(|queue| queue.huge_pages == expected), "with {pages} huge pages: {queues:?}");
        for flow in running.both_ways(1_000, 1_000)? {
            let report = flow.finish()?;
            ensure!(report.received == 1_000, "with {pages} huge pages not all pings were answered: {report:?}");
        }
        let used = pages.saturating_sub(meminfo("HugePages_Free")?);
        ensure!((used > 0) == expected, "the node uses {used} of {pages} huge pages");
        running.node.status()?.ensure_ledgers_hold()?;
        drop(running);
        // The kernel lets go of a UMEM some time after its process.
        until("huge pages of a node that has ended", PATIENCE, || {
            Ok((meminfo("HugePages_Free")? == pages).then_some(()))
        })?;
        drop(reserved);
    }
    Ok(())
}

/// Huge pages that are reserved, where none were; when dropped, none are.
struct Reserved;

impl Reserved {
    fn new(pages: u64) -> Result<Self> {
        fs::write(RESERVED, pages.to_string()).context(RESERVED)?;
        let reserved = Self;
        let got = meminfo("HugePages_Total")?;
        ensure!(got == pages, "the kernel reserved {got} of {pages} huge pages: is memory short?");
        Ok(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Err(error) = fs::write(RESERVED, "0") {
            eprintln!("{RESERVED} is not what it was: {error}");
        }
    }
}

/// A figure of proc_meminfo(5): a count, or kB.
fn meminfo(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} in /proc/meminfo"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
