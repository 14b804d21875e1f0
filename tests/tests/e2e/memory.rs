//! Where packets lie in memory.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::lab::{Layout, Running};
use anytun_tests::status::Queue;

use crate::{Case, case};

/// How many huge pages the kernel keeps for programs that ask for them, and whether it could (proc_sys_vm(5)).
const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
/// More than the UMEM of a worker with two interfaces takes, in pages of 2 MiB.
const PAGES: u64 = 24;

pub(crate) fn cases() -> Vec<Case> {
    vec![case("memory/a-umem-lies-in-huge-pages-if-enough-are-reserved", huge_pages)]
}

fn huge_pages() -> Result<()> {
    // Too few for a UMEM count as none, so that a node starts without an operator who reserves any.
    for (pages, expected) in [(0, false), (1, false), (PAGES, true)] {
        let reserved = Reserved::new(pages)?;
        let free = meminfo("HugePages_Free")?;
        let running = Running::usual(Layout::default())?;
        let status = running.node.status()?;
        let queues: Vec<&Queue> = status.interfaces.iter().flat_map(|interface| &interface.queues).collect();
        ensure!(queues.len() == 2, "two interfaces with a queue each: {queues:?}");
        ensure!(queues.iter().all(|queue| queue.huge_pages == expected), "with {pages} huge pages: {queues:?}");
        for flow in running.both_ways(1_000, 1_000)? {
            let report = flow.finish()?;
            ensure!(report.received == 1_000, "with {pages} huge pages not all pings were answered: {report:?}");
        }
        let used = free.saturating_sub(meminfo("HugePages_Free")?);
        ensure!((used > 0) == expected, "the node uses {used} of {pages} huge pages");
        running.node.status()?.ensure_ledgers_hold()?;
        drop(running);
        ensure!(meminfo("HugePages_Free")? == free, "a node that has ended keeps huge pages");
        drop(reserved);
    }
    Ok(())
}

/// Huge pages that are reserved; when dropped, as many as before are.
struct Reserved {
    before: String,
}

impl Reserved {
    /// Reserves `pages` in all.
    fn new(pages: u64) -> Result<Self> {
        let before = fs::read_to_string(RESERVED).context(RESERVED)?;
        let reserved = Self { before };
        fs::write(RESERVED, pages.to_string()).context(RESERVED)?;
        let got: u64 = fs::read_to_string(RESERVED)?.trim().parse()?;
        if got != pages {
            bail!("the kernel reserved {got} huge pages where {pages} were asked for: is memory short?");
        }
        Ok(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Err(error) = fs::write(RESERVED, &self.before) {
            eprintln!("{RESERVED} is not what it was: {error}");
        }
    }
}

/// A count of proc_meminfo(5).
fn meminfo(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("no {name} in /proc/meminfo"))?.trim().parse()?)
}
