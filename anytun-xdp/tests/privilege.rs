//! A start needs the capabilities it names and no more; a running node needs none.

mod namespace;

use std::time::Duration;

use anytun_common::map::ServiceKey;
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::privilege::{NEEDED, check, drop_capabilities};
use anytun_xdp::kernel::{HostError, Link, PortSpec, Program, Steered, Xsk};
use anytun_xdp::worker::io::PacketIo;
use caps::{CapSet, Capability, CapsHashSet};
use namespace::{Namespace, permitted, veth};

fn keep(capabilities: &[Capability]) {
    let set: CapsHashSet = capabilities.iter().copied().collect();
    caps::set(None, CapSet::Effective, &set).unwrap();
    caps::set(None, CapSet::Permitted, &set).unwrap();
}

fn start() -> Result<(Program, Xsk), HostError> {
    let link = Link::find("p0")?;
    let mut program = Program::load()?;
    let mut xsk = Xsk::open(&[Some(PortSpec { link: link.clone(), queue: 0, mode: XdpMode::Native })])?;
    program.set_slot(link.ifindex, 0)?;
    program.set_sockets(&mut xsk)?;
    program.attach(&link, XdpMode::Native)?;
    Ok((program, xsk))
}

#[test]
fn the_named_capabilities_suffice_for_a_start_and_none_is_needed_after_it() {
    if !permitted("privilege") {
        return;
    }
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    node.enter(|| {
        keep(&[&NEEDED[..], &[Capability::CAP_IPC_LOCK]].concat());
        check().unwrap();
        let (mut program, mut xsk) = start().unwrap();
        drop_capabilities().unwrap();
        program.steer(&Steered::services([ServiceKey::new([1; 16], 1), ServiceKey::new([2; 16], 2)])).unwrap();
        program.steer(&Steered::services([ServiceKey::new([2; 16], 2)])).unwrap();
        program.verdicts().unwrap();
        program.id().unwrap();
        xsk.reclaim();
        xsk.kick();
        xsk.wait(Duration::ZERO);
        xsk.statistics(0).unwrap().unwrap();
        program.detach_all();
        assert_eq!(Link::find("p0").unwrap().attached().unwrap(), None);
    });
}

#[test]
fn each_missing_capability_is_named_by_what_fails_for_it() {
    if !permitted("missing privilege") {
        return;
    }
    let (node, world) = (Namespace::new(), Namespace::new());
    veth(&node, "p0", &world, "q0");
    for missing in NEEDED {
        node.enter(|| {
            let rest: Vec<_> = NEEDED.into_iter().filter(|capability| *capability != missing).collect();
            keep(&[&rest[..], &[Capability::CAP_IPC_LOCK]].concat());
            let text = check().unwrap_err().to_string();
            assert!(text.contains(&missing.to_string()), "{text}");
            let error = start().err().unwrap_or_else(|| panic!("{missing} is not needed"));
            assert!(matches!(error, HostError::NotPermitted { .. }), "{missing}: {error}");
        });
    }
}
