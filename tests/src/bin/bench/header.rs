//! Where and how it was measured: what a figure is worth depends on it.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anytun_tests::namespace::output;
use serde::Serialize;

use crate::plan::Plan;
use crate::subject::Subject;
use crate::topology::{GENERATOR_CPU, RELAY_CPU};

/// The header of the results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Header {
    /// When it was started, UTC.
    pub(crate) date: String,
    /// The command that makes it again.
    pub(crate) command: String,
    /// The commit of this workspace.
    pub(crate) commit: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    /// Processors.
    pub(crate) cores: usize,
    /// Whether the processors are a virtual machine's.
    pub(crate) virtual_machine: bool,
    pub(crate) links: String,
    pub(crate) xdp: String,
    pub(crate) generator: String,
    pub(crate) placement: String,
    pub(crate) method: String,
    /// Runs that were thrown away and repeated because something else used more than a tenth of a processor.
    pub(crate) repeated: u32,
    /// Runs that had to be taken although something else did.
    pub(crate) disturbed: u32,
    /// Whether it was ended before all of it was measured.
    pub(crate) interrupted: bool,
    /// Programs compared with, and their versions.
    pub(crate) versions: Vec<String>,
    /// Who is not in the table, and why.
    pub(crate) left_out: Vec<String>,
}

impl Header {
    /// Of this machine and this plan.
    pub(crate) fn new(plan: &Plan, command: String) -> Self {
        let engine = plan.engine.name();
        Self {
            date: text(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"])),
            command,
            commit: text(Command::new("git").args(["describe", "--always", "--dirty"])),
            kernel: text(Command::new("uname").arg("-r")),
            cpu: cpu("model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: available_parallelism().map_or(0, usize::from),
            virtual_machine: cpu("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            links: "veth between network namespaces, MTU 1500, checksum offload off, receive ring of 256".to_owned(),
            xdp: "native, AF_XDP in copy mode (veth has no zero-copy)".to_owned(),
            generator: format!(
                "anytun-gen, engine {engine} for packet rates, xsk for round trips and 2 queues; 16 flows, coturn and socat 1, \
                 tunnels and open networks 1 for each queue"
            ),
            placement: format!(
                "CPU {GENERATOR_CPU}: generator, sink, NAPI threads of their interfaces (SCHED_FIFO); CPU {RELAY_CPU}: \
                 the relay, NAPI threads of its interfaces (SCHED_OTHER); with 2 queues the relay on both"
            ),
            method: format!(
                "{} rounds, one subject after the other in each; figures are medians, with least and greatest",
                plan.rounds
            ),
            repeated: 0,
            disturbed: 0,
            interrupted: false,
            versions: versions(&plan.subjects),
            left_out: Vec::new(),
        }
    }

    /// Its lines: what, and the words.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let machine = if self.virtual_machine { ", a virtual machine's" } else { "" };
        let mut lines = vec![
            ("date", format!("{} UTC, commit {}", self.date, self.commit)),
            ("machine", format!("{}, {} processors{machine}, Linux {}", self.cpu, self.cores, self.kernel)),
            ("links", self.links.clone()),
            ("XDP", self.xdp.clone()),
            ("generator", self.generator.clone()),
            ("placement", self.placement.clone()),
            ("method", self.method.clone()),
            ("disturbed", format!("{} runs repeated because of other load, {} kept", self.repeated, self.disturbed)),
            ("versions", self.versions.join("; ")),
        ];
        if self.interrupted {
            lines.push(("incomplete", "interrupted; what follows was measured until then".to_owned()));
        }
        lines.extend(self.left_out.iter().map(|line| ("left out", line.clone())));
        lines
    }
}

/// A value of the first processor in `/proc/cpuinfo`.
fn cpu(key: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// What programs say of themselves.
fn versions(subjects: &[Subject]) -> Vec<String> {
    let ask = |subject: &Subject| {
        let program = *subject.needs().first()?;
        let flag = match program {
            "nginx" => "-v",
            "socat" => "-V",
            _ => "--version",
        };
        // Some print it to stderr, and exit with whatever.
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let version = text.split_whitespace().find_map(version)?;
        Some(format!("{program} {version}"))
    };
    subjects.iter().filter_map(ask).collect()
}

/// The version in a word such as `nginx/1.22.1` or `v1.0.6`.
fn version(word: &str) -> Option<String> {
    let word = word.rsplit('/').next()?.trim_start_matches('v').trim_end_matches(',').trim_matches('\'');
    let is_version = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    is_version.then(|| word.to_owned())
}

/// The first line a command prints; nothing that depends on it is worth failing for.
fn text(command: &mut Command) -> String {
    output(command).ok().and_then(|text| Some(text.lines().next()?.to_owned())).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let found = |text: &str| text.split_whitespace().find_map(version);
        assert_eq!(found("nginx version: nginx/1.22.1").as_deref(), Some("1.22.1"));
        assert_eq!(found("nftables v1.0.6 (Lester Gooch #5)").as_deref(), Some("1.0.6"));
        assert_eq!(found("socat version 1.7.4.4 on 06 Nov 2022 08:15:51").as_deref(), Some("1.7.4.4"));
        assert_eq!(found("no version"), None);
    }
}
