//! Where the time of the relay's processor goes while the node carries its peak, by `perf`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use anytun_tests::namespace::{installed, output};
use anytun_tests::process::Process;
use anytun_tests::wait::PATIENCE;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::contestant::Contestant;
use crate::measure::{Bench, Samples, name};
use crate::topology::RELAY_CPU;
use crate::traffic::Size;

/// The program, and how many samples a second it takes: no divisor of what else happens periodically.
pub(crate) const PERF: &str = "perf";
const FREQUENCY: &str = "1999";
/// How many symbols are shown.
const TOP: usize = 16;

/// A profile of one subject at its peak.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Profile {
    /// Samples in the relay's threads: those of the process, and those that receive for its interfaces.
    pub(crate) samples: u64,
    /// The shares of the parts of the work.
    pub(crate) parts: BTreeMap<Part, f64>,
    /// The functions with the greatest shares.
    pub(crate) symbols: Vec<Symbol>,
}

/// A function and its share of the samples.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Symbol {
    pub(crate) share: f64,
    /// Whether in a thread that receives for an interface; else in the process.
    pub(crate) receiving: bool,
    pub(crate) part: Part,
    pub(crate) name: String,
}

/// A part of the work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// The kernel's half of receiving, without the two below.
    KernelReceive,
    /// The XDP program and the look-ups that it asks for.
    XdpProgram,
    /// Packets copied by the kernel, either way.
    Copy,
    /// AF_XDP's rings and frames, the process's side.
    Rings,
    /// What the process does to a packet besides.
    Pipeline,
    /// Opening and sealing.
    Cryptography,
    /// The kernel's half of sending, and system calls.
    KernelTransmit,
}

impl Part {
    /// All of them, as a packet meets them.
    pub(crate) const ALL: [Self; 7] = [
        Self::KernelReceive,
        Self::XdpProgram,
        Self::Copy,
        Self::Rings,
        Self::Pipeline,
        Self::Cryptography,
        Self::KernelTransmit,
    ];

    /// What a table calls it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::KernelReceive => "kernel, receiving",
            Self::XdpProgram => "XDP program",
            Self::Copy => "kernel, copying packets",
            Self::KernelTransmit => "kernel, sending",
            Self::Cryptography => "cryptography",
            Self::Rings => "rings",
            Self::Pipeline => "pipeline",
        }
    }

    /// Whether the kernel does it.
    pub(crate) const fn is_of_kernel(self) -> bool {
        !matches!(self, Self::Cryptography | Self::Rings | Self::Pipeline)
    }

    /// To which part a function belongs.
    fn of(sample: &Sample<'_>) -> Self {
        let name = sample.symbol;
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let contains = |words: &[&str]| words.iter().any(|word| name.contains(word));
        // The vDSO is the process's, whoever made it.
        let in_kernel = sample.receiving || sample.object.starts_with("[kernel") || sample.object.ends_with(".ko");
        match (in_kernel, sample.receiving) {
            (true, _) if contains(&["memcpy", "memmove", "skb_store_bits"]) => Self::Copy,
            (true, true) if begins(&["bpf_", "htab_", "lookup_", "array_map", "memcmp"]) => Self::XdpProgram,
            (true, true) => Self::KernelReceive,
            (true, false) => Self::KernelTransmit,
            (false, _) if contains(&["satp::window"]) => Self::Pipeline,
            (false, _) if contains(&["::satp::", "sha1", "aes::", "hmac"]) => Self::Cryptography,
            (false, _) if contains(&["kernel::xsk", "xsk_", "kernel::backlog", "worker::io"]) => Self::Rings,
            _ => Self::Pipeline,
        }
    }
}

/// One line of `perf script`.
struct Sample<'a> {
    receiving: bool,
    symbol: &'a str,
    object: &'a str,
}

impl<'a> Sample<'a> {
    /// Reads `worker-0  ffffffff8112 __alloc_skb ([kernel.kallsyms])`; nothing for threads that are none of the relay's.
    fn read(line: &'a str) -> Option<Self> {
        let (thread, rest) = line.trim().split_once(' ')?;
        let receiving = thread.starts_with("napi/") || thread.starts_with("ksoftirqd");
        if !receiving && !thread.starts_with("worker-") {
            return None;
        }
        let (_, rest) = rest.trim_start().split_once(' ')?;
        let (symbol, object) = rest.trim().rsplit_once(" (")?;
        Some(Self { receiving, symbol, object: object.trim_end_matches(')') })
    }
}

impl Profile {
    /// Of what `perf script` printed; nothing without a sample of the relay.
    fn of(text: &str) -> Option<Self> {
        let mut counts: HashMap<(bool, Part, &str), u64> = HashMap::new();
        for sample in text.lines().filter_map(Sample::read) {
            *counts.entry((sample.receiving, Part::of(&sample), sample.symbol)).or_default() += 1;
        }
        let samples: u64 = counts.values().sum();
        let share = |count: u64| count as f64 / samples as f64;
        let of = |part: Part| counts.iter().filter(|((_, of, _), _)| *of == part).map(|(_, count)| count).sum();
        let parts = Part::ALL.map(|part| (part, share(of(part)))).into();
        let mut order: Vec<_> = counts.iter().collect();
        order.sort_unstable_by_key(|&(&(receiving, _, name), &count)| (std::cmp::Reverse(count), name, receiving));
        let symbol = |(&(receiving, part, name), &count): (&(bool, Part, &str), &u64)| Symbol {
            share: share(count),
            receiving,
            part,
            name: name.to_owned(),
        };
        let symbols = order.into_iter().take(TOP).map(symbol).collect();
        (samples > 0).then_some(Self { samples, parts, symbols })
    }
}

impl Bench<'_> {
    /// Samples what the relay's processor does at the peak. What keeps it from that is a note, not a failure.
    pub(crate) fn profile(&mut self, contestant: &Contestant, size: Size, samples: &mut Samples) -> Result<()> {
        match self.sampled(contestant, size, samples) {
            Ok(profile) => {
                let line = format!("{size:>4}  {:<28} profile  {} samples", name(contestant), profile.samples);
                samples.profile = Some(profile);
                self.progress.done(self.plan.profile_time(contestant.subject), &line);
            }
            Err(error) if self.generator.stop.requested(std::time::Duration::ZERO) => return Err(error),
            Err(error) => self.progress.say(&format!("no profile of {}: {error:#}", contestant.subject)),
        }
        Ok(())
    }

    fn sampled(&self, contestant: &Contestant, size: Size, samples: &mut Samples) -> Result<Profile> {
        let directory = &self.generator.directory;
        let (data, log) = (directory.join("perf.data"), directory.join("perf.log"));
        // Of the subject before, if there was one.
        let _ = fs::remove_file(&data);
        let mut record = Command::new(PERF);
        // This machine may have no counters of its own, so the clock it is.
        record.args(["record", "--quiet", "--no-buildid", "--no-buildid-cache", "--event", "cpu-clock"]);
        record.args(["--freq", FREQUENCY, "--cpu", &RELAY_CPU.to_string(), "--output"]).arg(&data);
        let mut recording = Process::spawn("perf record", record, &log)?;
        self.observe(contestant, size, &self.plan.run(Some(samples.best_rate)), samples)?;
        recording.signal(Signal::SIGINT)?;
        recording.wait(PATIENCE)?;
        let text = script(&data).with_context(|| recording.log_tail())?;
        Profile::of(&text).context("perf saw nothing of the relay")
    }
}

/// The samples as text.
fn script(data: &Path) -> Result<String> {
    output(Command::new(PERF).args(["script", "--fields", "comm,ip,sym,dso", "--input"]).arg(data))
}

/// Why there can be no profile, if so.
pub(crate) fn obstacle() -> Option<String> {
    (!installed(PERF)).then(|| format!("the profile: {PERF} is not installed; `cargo xtask bench` asks for it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
      worker-0  ffffffff81d __alloc_skb ([kernel.kallsyms])
      worker-0  55d anytun_xdp::satp::batch::Batch::seal (/x y/anytun-xdp)
      worker-0  55d <alloc::vec::ExtractIf<T,F,A> as core::iter::Iterator>::next (/x/anytun-xdp)
      worker-0  55d xsk_ring_cons__peek (/x/anytun-xdp)
 napi/link0-33  ffffffff81d __pi_memcpy ([kernel.kallsyms])
 napi/link0-33  ffffffffc00 bpf_prog_e3f3_anytun_xdp (bpf_prog_e3f3_anytun_xdp)
 napi/link0-33  ffffffffc00 xp_alloc ([kernel.kallsyms])
 napi/link0-33  ffffffffc00 xp_alloc ([kernel.kallsyms])
       swapper  ffffffff81d default_idle ([kernel.kallsyms])
";

    #[test]
    fn samples_are_shared_out_among_the_parts() {
        let profile = Profile::of(TEXT).unwrap();
        assert_eq!(profile.samples, 8);
        let share = |part: Part| profile.parts[&part] * 8.0;
        assert_eq!(Part::ALL.map(share), [2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let first = &profile.symbols[0];
        assert_eq!((first.name.as_str(), first.receiving, first.share), ("xp_alloc", true, 0.25));
        assert_eq!(Profile::of("swapper 0 idle ([kernel])\n"), None);
    }
}
