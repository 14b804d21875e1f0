//! The virtual machine: four network interfaces, wired in pairs, and a console that the guest writes its verdict to.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fetch::{Kernel, Qemu};
use crate::workspace;

/// How long a machine may run. One takes a minute and a half at most where it has its processors to itself.
const LIMIT: Duration = Duration::from_secs(300);
/// How many of the last lines of the console a failure shows.
const TAIL: usize = 80;
/// What the guest prints when every trial has passed; the first process of anything else never does.
const PASSED: &str = "guest: every trial passed";

/// A kind of network interface.
pub(crate) struct Nics {
    /// The driver of the guest's kernel.
    pub(crate) driver: &'static str,
    /// QEMU's device, and what makes its driver do zero-copy.
    device: &'static str,
}

/// The kinds whose drivers do zero-copy on what QEMU emulates.
pub(crate) const NICS: [Nics; 2] = [
    Nics {
        driver: "virtio_net",
        // The driver maps the UMEM through the DMA API, which takes a device behind an IOMMU and of version 1; and it
        // takes no XDP program beside receive offloads.
        device: "virtio-net-pci,disable-legacy=on,iommu_platform=on,guest_tso4=off,guest_tso6=off,guest_ecn=off,\
                 guest_ufo=off,mq=off",
    },
    Nics { driver: "igb", device: "igb" },
];

/// Boots the kernel with `initramfs` and interfaces of one kind, shows what the guest tells, and waits for its verdict.
///
/// # Errors
/// When the guest fails, panics or takes too long, with the end of its console.
pub(crate) fn run(qemu: &Qemu, kernel: &Kernel, initramfs: &Path, nics: &Nics) -> Result<()> {
    let log = workspace::log_dir()?.join(format!("vm-{}.log", nics.driver));
    println!("vm: four {} interfaces (usually 30 to 90 s; console: {})", nics.driver, log.display());
    let begin = Instant::now();
    fs::create_dir_all(workspace::log_dir()?).context("the directory for logs")?;
    let complaints = log.with_extension("qemu.log");
    let mut machine = Machine::start(qemu, kernel, initramfs, nics, &complaints)?;
    let lines = machine.watch(&log)?;
    if lines.iter().any(|line| line == PASSED) {
        println!("vm: {} passed in {:.0} s", nics.driver, begin.elapsed().as_secs_f64());
        return Ok(());
    }
    let why = if begin.elapsed() > LIMIT { "took too long" } else { "failed" };
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    let complaints = fs::read_to_string(&complaints).unwrap_or_default();
    bail!(
        "the virtual machine with {} {why}. {complaints}The end of {}:\n{}",
        nics.driver,
        log.display(),
        tail.join("\n")
    )
}

/// A running machine. It ends with this value.
struct Machine {
    process: Child,
    console: Receiver<String>,
}

impl Machine {
    /// Starts the machine, with what QEMU itself has to say in the file `complaints`.
    fn start(qemu: &Qemu, kernel: &Kernel, initramfs: &Path, nics: &Nics, complaints: &Path) -> Result<Self> {
        let complaints = File::create(complaints).with_context(|| complaints.display().to_string())?;
        let mut command = qemu.command();
        // Emulated processors: whether a machine has others to lend shows only in use.
        command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
        // A panic ends the machine at once.
        command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0"]);
        for number in 0..4 {
            // Interfaces 0 and 1 are wired to each other, and so are 2 and 3. No network of the host is involved.
            command.args(["-netdev", &format!("hubport,id=net{number},hubid={}", number / 2)]);
            // A port for each, because the virtual functions of an igb take the places beside it.
            command.args(["-device", &format!("pcie-root-port,id=port{number},chassis={number},slot={number}")]);
            let place = format!("romfile=,netdev=net{number},bus=port{number},mac=52:54:00:00:00:0{number}");
            command.args(["-device", &format!("{},{place}", nics.device)]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let output = process.stdout.take().context("the console was not piped")?;
        Ok(Self { process, console: read_lines(output) })
    }

    /// Shows the trials as they end, keeps the whole console in `log`, and returns its lines when the machine has ended
    /// or its time is up.
    fn watch(&mut self, log: &Path) -> Result<Vec<String>> {
        let mut file = File::create(log).with_context(|| log.display().to_string())?;
        let end = Instant::now() + LIMIT;
        let mut lines = Vec::new();
        loop {
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(file, "{line}").with_context(|| log.display().to_string())?;
                    if line.starts_with("test ") || line.starts_with("guest: ") {
                        println!("    {line}");
                    }
                    lines.push(line);
                }
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return Ok(lines),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended by itself is past killing, and its status tells nothing that the console does not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines of the console as they come, without what terminals understand. It ends with the machine.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(plain(&line)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A line without escape sequences (ECMA-48: ESC, `[`, up to a letter) and other control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else if !character.is_control() {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn firmware_and_terminals_leave_no_trace_in_a_line() {
        assert_eq!(plain(b"\x1b[?7l\x1b[2Jtest igb/zero-copy ... ok\r"), "test igb/zero-copy ... ok");
    }
}
