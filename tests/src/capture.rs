//! What went over a link: `tcpdump` inside a namespace, and the SATP headers of its file.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use anytun_common::classify::classify;
use anytun_common::wire::satp::Header;
use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::wait::{PATIENCE, until};

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// The frames of a capture.
#[derive(Debug)]
pub struct Frames(Vec<Vec<u8>>);

impl Capture {
    /// Captures what `filter` (pcap-filter(7)) matches on `interface`, and waits until it does.
    pub fn start(namespace: &Namespace, interface: &str, filter: &str, directory: &Path) -> Result<Self> {
        let file = directory.join(format!("{}-{interface}.pcap", namespace.name()));
        let log = directory.join(format!("{}-{interface}.tcpdump.log", namespace.name()));
        let shown = file.to_string_lossy().into_owned();
        let words = ["-i", interface, "-w", &shown, "-n", "-s", "2048", "-B", "65536", "-Z", "root", filter];
        let mut process = Process::start("tcpdump", namespace, Path::new("tcpdump"), words, &log)?;
        until("tcpdump listens", PATIENCE, || {
            ensure!(process.ended()?.is_none(), "tcpdump ended: {}", process.log_tail());
            Ok(process.log().contains("listening on").then_some(()))
        })?;
        Ok(Self { process, file })
    }

    /// Ends the capture when everything that was on the link is in the file. Fails if the kernel had to drop something.
    pub fn stop(mut self) -> Result<Frames> {
        until("tcpdump has read what the kernel captured", PATIENCE, || {
            self.process.signal(Signal::SIGUSR1)?;
            let log = self.process.log();
            let [captured, received] = counts(log.lines().last().unwrap_or_default());
            Ok((captured.is_some() && captured == received).then_some(()))
        })?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(PATIENCE)?;
        let log = self.process.log();
        ensure!(log.contains("\n0 packets dropped by kernel"), "the capture is not whole: {log}");
        Frames::read(&self.file)
    }
}

/// What `tcpdump` says upon SIGUSR1: packets captured, and packets received by the filter.
fn counts(line: &str) -> [Option<u64>; 2] {
    ["packets captured", "packets received by filter"].map(|what| {
        let part = line.rsplit("tcpdump: ").next()?.split(", ").find(|part| part.ends_with(what))?;
        part.split(' ').next()?.parse().ok()
    })
}

impl Frames {
    /// Reads a pcap file (draft-ietf-opsawg-pcap) of Ethernet frames in the byte order of this host.
    pub fn read(file: &Path) -> Result<Self> {
        const MAGIC: u32 = 0xa1b2_c3d4;
        const FILE_HEADER: usize = 24;
        const RECORD_HEADER: usize = 16;
        let octets = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let word = |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?)) };
        ensure!(word(0) == Some(MAGIC), "{} is no pcap file of this host", file.display());
        let mut frames = Vec::new();
        let mut at = FILE_HEADER;
        while let Some(length) = word(at + 8) {
            let start = at + RECORD_HEADER;
            let Some(frame) = octets.get(start..start + length as usize) else {
                bail!("{} is cut off", file.display())
            };
            frames.push(frame.to_vec());
            at = start + length as usize;
        }
        Ok(Self(frames))
    }

    /// The UDP datagrams: source port and payload.
    pub fn datagrams(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.0.iter().filter_map(|frame| {
            let datagram = classify(frame.as_slice()).ok()?;
            Some((datagram.source_port, frame.get(datagram.payload..datagram.payload + datagram.length)?))
        })
    }

    /// The SATP headers of the UDP datagrams from an address and port.
    pub fn headers_from(&self, source: IpAddr, port: u16) -> Vec<Header> {
        let source = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        self.0
            .iter()
            .filter_map(|frame| {
                let datagram = classify(frame.as_slice()).ok()?;
                let ours = datagram.source == source && datagram.source_port == port;
                ours.then(|| Header::read(frame.as_slice(), datagram.payload))?
            })
            .collect()
    }
}

/// Fails if two packets have the same MUX (which stands for the key), sender ID and sequence number.
pub fn ensure_unique<'a>(headers: impl IntoIterator<Item = &'a Header>) -> Result<()> {
    let mut seen: HashMap<(u16, u16, u32), u32> = HashMap::new();
    for header in headers {
        *seen.entry((header.mux, header.sender, header.sequence)).or_default() += 1;
    }
    ensure!(!seen.is_empty(), "the capture has no SATP packet");
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(10).collect();
    ensure!(twice.is_empty(), "used more than once, as (MUX, sender ID, sequence number): {twice:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u32, sender: u16, mux: u16) -> Header {
        Header { sequence, sender, mux }
    }

    #[test]
    fn only_a_whole_triple_counts_as_used_twice() {
        let fine = [header(1, 1, 1), header(2, 1, 1), header(1, 2, 1), header(1, 1, 2)];
        assert!(ensure_unique(&fine).is_ok());
        let twice = ensure_unique(fine.iter().chain(&[header(1, 2, 1)])).map_err(|error| error.to_string());
        assert!(twice.is_err_and(|text| text.contains("(1, 2, 1)")));
        assert!(ensure_unique(&[]).is_err(), "an empty capture shows nothing");
    }

    #[test]
    fn the_counts_are_those_of_the_last_report() {
        let line = "tcpdump: 3 packets captured, 5 packets received by filter, 0 packets dropped by kernel";
        assert_eq!(counts(line), [Some(3), Some(5)]);
        assert_eq!(counts("tcpdump: listening on eth0"), [None, None]);
    }
}
