//! The lab without a node: what fails here is the fault of the lab or of the host.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use anytun_tests::capture::{Capture, ensure_unique};
use anytun_tests::crypto::{Crypto, combinations};
use anytun_tests::daemon::{Daemon, Kind, Settings};
use anytun_tests::forge::{Forger, IPV4, Outlet, datagram};
use anytun_tests::lab::{Lab, Layout, PORT, Who};
use anytun_tests::traffic::ping;

use crate::{Case, case};

/// Outer addresses of the clients.
const OUTER: [&str; 2] = ["198.51.100.1", "203.0.113.1"];

pub(crate) fn cases() -> Vec<Case> {
    vec![case("lab/daemons-without-a-node", daemons), case("lab/forged-packets-are-authentic", forged)]
}

/// Links, daemons and counting work, and this host carries 5,000 pings a second.
fn daemons() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    let crypto = Crypto::passphrase("nobody in between");
    let _daemons = pair(&lab, [Kind::Anytun, Kind::Uanytun], &crypto)?;
    lab.introduce()?;
    let bob = lab.client(Who::Bob);
    let capture = Capture::start(bob, "eth0", "udp port 4444", lab.directory())?;
    let report = lab.echo(Who::Alice, Who::Bob.inner()[0], 5_000, 10_000)?.finish()?;
    report.ensure_none_lost("10,000 pings with no node")?;
    ensure!(report.duration >= Duration::from_millis(1_990), "10,000 pings at 5,000/s took {:?}", report.duration);
    let frames = capture.stop()?;
    for outer in OUTER {
        let headers = frames.headers_from(outer.parse()?, PORT);
        ensure!(headers.len() >= 10_000, "{} of at least 10,000 packets of {outer} captured", headers.len());
        ensure_unique(&headers)?;
    }
    ping(lab.client(Who::Alice), Who::Bob.inner()[1], 3, 1_200)
}

/// What the forger seals is accepted by the real daemons, with every combination of crypto it can use.
fn forged() -> Result<()> {
    let lab = Lab::new(Layout::default())?;
    for (name, crypto) in combinations("the forger knows it") {
        if name == "aes-256" {
            continue;
        }
        let alice = settings(&lab, Who::Alice, Kind::Uanytun, &crypto)?;
        let _daemon = lab.daemon(Who::Alice, &alice)?;
        let outlet = Outlet::bind(lab.client(Who::Bob), OUTER[1].parse()?, PORT)?;
        let forger = Forger::new(&crypto, alice.mux, (OUTER[0].parse::<IpAddr>()?, PORT).into());
        let (IpAddr::V4(from), IpAddr::V4(to)) = (Who::Bob.inner()[0], Who::Alice.inner()[0]) else {
            unreachable!("the first inner address is an IPv4 one")
        };
        outlet.send(&forger.seal(7, IPV4, &datagram(from, to, 40)), forger.service())?;
        // Nobody listens, so alice's kernel answers with an ICMP error, which her daemon brings here.
        outlet.receive().map_err(|error| error.context(format!("{name}: alice's daemon did not accept the packet")))?;
    }
    Ok(())
}

fn settings(lab: &Lab, who: Who, kind: Kind, crypto: &Crypto) -> Result<Settings> {
    lab.node.set("ipv4/ip_forward", "1")?;
    let remote = (OUTER[who.other() as usize].parse::<IpAddr>()?, PORT).into();
    let role = if who == Who::Alice { "left" } else { "right" };
    Ok(Settings { role, mux: 1, ..lab.settings(who, kind, remote, crypto) })
}

fn pair(lab: &Lab, kinds: [Kind; 2], crypto: &Crypto) -> Result<[Daemon; 2]> {
    let start = |who: Who| lab.daemon(who, &settings(lab, who, kinds[who as usize], crypto)?);
    Ok([start(Who::Alice)?, start(Who::Bob)?])
}
