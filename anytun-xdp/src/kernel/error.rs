//! What the host cannot do, and the way out.

use std::io;

/// The host cannot do what the configuration asks for. The program exits with code 3.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// An interface is not there.
    #[error("no interface is named {name}; this host has: {existing}")]
    NoSuchInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        existing: String,
    },
    /// The process may not do it.
    #[error("not permitted to {what}: needs {needs}; run as root, or give the service AmbientCapabilities={needs}")]
    NotPermitted {
        /// What was refused.
        what: String,
        /// The capabilities it needs, separated by spaces.
        needs: String,
    },
    /// Another XDP program is attached; it is never replaced.
    #[error(
        "{interface} already runs the XDP program {id} ({name}, {mode}), which is left alone; if it is not needed, stop \
         what owns it. One that `bpftool link list` shows goes with `bpftool link detach id` and the number of its link, \
         any other with `ip link set dev {interface} {flag} off`",
        flag = link_flag(mode)
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The kernel's number of the program, as `bpftool prog` shows it.
        id: u32,
        /// The program's name; `?` when it may not be read.
        name: String,
        /// `native`, `generic` or `offloaded`.
        mode: &'static str,
    },
    /// The interface or the kernel cannot do it.
    #[error("{interface}: {what}; {mend}")]
    Unsupported {
        /// The interface.
        interface: String,
        /// What it cannot do.
        what: String,
        /// The way out.
        mend: String,
    },
    /// A system call failed for a reason that has no better name here.
    #[error("{what}: {source}")]
    Other {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl HostError {
    /// An error of a system call.
    pub(super) fn other(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Other { what: what.into(), source: source.into() }
    }

    /// What the operation `what` needs and the process lacks.
    pub(super) fn not_permitted(what: impl Into<String>, needs: impl Into<String>) -> Self {
        Self::NotPermitted { what: what.into(), needs: needs.into() }
    }
}

/// The keyword of `ip link set` that names an XDP mode.
fn link_flag(mode: &str) -> &'static str {
    match mode {
        "generic" => "xdpgeneric",
        "offloaded" => "xdpoffload",
        _ => "xdpdrv",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_program_is_named_with_the_command_that_removes_it() {
        let error =
            HostError::ForeignProgram { interface: "eth0".into(), id: 42, name: "filter".into(), mode: "generic" };
        let text = error.to_string();
        assert!(text.contains("42") && text.contains("filter"), "{text}");
        assert!(text.contains("`ip link set dev eth0 xdpgeneric off`"), "{text}");
        assert!(text.contains("`bpftool link detach id`"), "ip cannot remove what a link holds: {text}");
    }
}
