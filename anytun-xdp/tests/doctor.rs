//! The doctor names what hurts, and its commands mend it.

mod namespace;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anytun_xdp::config::{Interface, Queues, XdpMode, parse};
use anytun_xdp::kernel::doctor::{Finding, Severity, examine, examine_all};
use anytun_xdp::kernel::{Link, Program};
use namespace::{Namespace, permitted, veth};

fn interface(xdp: XdpMode) -> Interface {
    Interface { name: "p0".into(), xdp, queues: Queues::All }
}

/// The finding with `part` in it.
fn find<'a>(findings: &'a [Finding], part: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.what.contains(part))
}

/// Runs the command that mends the finding with `part` in it.
fn mend(findings: &[Finding], part: &str) {
    let finding = find(findings, part).unwrap_or_else(|| panic!("{part}: {findings:?}"));
    assert_eq!(finding.severity, Severity::Hurts);
    let command = finding.mend.as_ref().unwrap().split('`').nth(1).unwrap();
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

#[test]
fn a_finding_is_gone_after_its_command_was_run() {
    if !permitted("doctor") {
        return;
    }
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    node.ip(&["link", "set", "p0", "down"]);
    node.enter(|| {
        // Less than the kernel gives by itself, and not less than ipfrag_low_thresh.
        std::fs::write("/proc/sys/net/ipv4/ipfrag_high_thresh", "3500000").unwrap();
        for part in ["is down", "rx-vlan-hw-parse", "ipfrag_high_thresh is 3500000"] {
            let findings = examine(&[interface(XdpMode::Auto)]);
            mend(&findings, part);
            let findings = examine(&[interface(XdpMode::Auto)]);
            assert_eq!(find(&findings, part), None, "its command did not mend it");
        }
        // The kernel notes a carrier a little after the interface came up.
        let patience = Instant::now() + Duration::from_secs(10);
        while !Link::find("p0").unwrap().carrier {
            assert!(Instant::now() < patience, "p0 gets no carrier");
            thread::yield_now();
        }
        let findings = examine(&[interface(XdpMode::Auto)]);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Good), "{findings:?}");
        assert!(find(&findings, "driver veth").is_some(), "{findings:?}");
    });
}

#[test]
fn ports_of_a_nat_that_programs_may_get_are_a_finding_only_at_an_address_of_the_host() {
    const PART: &str = "has ports 40000-49999 of 192.0.2.53";
    if !permitted("doctor, ports") {
        return;
    }
    let config = r#"
        node = { name = "lab", sender_ids = "1-64" }
        interface = [{ name = "p0" }]
        service = [{ name = "anycast", address = "192.0.2.53", port = 4444 }]
        network = [{ name = "office", open = "nat", nat = { address = "192.0.2.53", ports = "40000-49999" } }]
    "#;
    let config = parse(config, Path::new("node.toml")).unwrap();
    let node = Namespace::new();
    let allowed = "/proc/sys/net/ipv4/ip_nonlocal_bind";
    node.enter(|| {
        assert_eq!(find(&examine_all(&config), PART), None);
        std::fs::write(allowed, "1").unwrap();
        assert_eq!(find(&examine_all(&config), PART), None, "sockets may be bound to addresses of others");
    });
    node.ip(&["addr", "add", "192.0.2.53/32", "dev", "lo"]);
    node.enter(|| {
        assert!(find(&examine_all(&config), PART).is_some());
        std::fs::write(allowed, "0").unwrap();
        mend(&examine_all(&config), PART);
        assert_eq!(find(&examine_all(&config), PART), None, "its command did not mend it");
    });
}

#[test]
fn what_keeps_a_node_from_starting_is_fatal() {
    if !permitted("doctor, fatal") {
        return;
    }
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    node.enter(|| {
        let mut program = Program::load().unwrap();
        program.attach(&Link::find("p0").unwrap(), XdpMode::Generic).unwrap();
        let findings = examine(&[interface(XdpMode::Generic)]);
        assert_eq!(find(&findings, "already runs").unwrap().severity, Severity::Fatal, "{findings:?}");
        assert_eq!(find(&findings, "generic XDP gives").unwrap().severity, Severity::Hurts);
        drop(program);
        let range = Interface { queues: Queues::Range(0, 5), ..interface(XdpMode::Auto) };
        let findings = examine(&[range]);
        assert_eq!(find(&findings, "names queue 5").unwrap().severity, Severity::Fatal, "{findings:?}");
    });
}

#[test]
fn without_privileges_it_still_looks() {
    if !permitted("doctor, unprivileged") {
        return;
    }
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    node.enter(|| {
        caps::clear(None, caps::CapSet::Effective).unwrap();
        let findings = examine(&[interface(XdpMode::Auto)]);
        assert!(find(&findings, "lacks CAP_NET_ADMIN").is_some(), "{findings:?}");
        assert!(find(&findings, "driver veth").is_some(), "{findings:?}");
        assert!(findings.iter().all(|finding| finding.severity < Severity::Fatal), "{findings:?}");
    });
}
