//! Ports that the kernel gives to programs of the host, and those that NATs have of its addresses.

use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::{Finding, setting};
use crate::config::{Config, Nat};

/// Whence the kernel takes the port of a socket that is bound to none, and what it leaves out
/// (Documentation/networking/ip-sysctl.rst); of both families.
const LENT: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// Whether programs of the host may get ports that NATs have at an address of the host.
pub(super) fn nats(config: &Config) -> Vec<Finding> {
    let nats = config.networks.iter().flat_map(|network| network.open.nats().map(|nat| (&*network.name, nat)));
    let own: Vec<_> = nats.filter(|(_, nat)| is_of_host(nat.address)).collect();
    match (own.is_empty(), setting(LENT), setting(RESERVED)) {
        (false, Some(lent), Some(reserved)) => shared(&own, &lent, &reserved),
        _ => Vec::new(),
    }
}

/// Whether programs of the host may use an address: sockets can be bound to no other one, unless the kernel was told to allow
/// it; then what interfaces have is looked at.
fn is_of_host(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    if setting(&format!("net.{family}.ip_nonlocal_bind")).is_none_or(|allowed| allowed.trim() == "0") {
        return UdpSocket::bind((address, 0)).is_ok();
    }
    let mut interfaces = getifaddrs().into_iter().flatten();
    interfaces.any(|interface| interface.address.is_some_and(|has| is(&has, address)))
}

/// Whether a socket address has this IP address.
fn is(has: &SockaddrStorage, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => has.as_sockaddr_in().is_some_and(|has| has.ip() == address),
        IpAddr::V6(address) => has.as_sockaddr_in6().is_some_and(|has| has.ip() == address),
    }
}

/// Those of `nats`, each with the name of its network, that have ports which are `lent` and not `reserved`, as the kernel writes
/// these.
fn shared(nats: &[(&str, Nat)], lent: &str, reserved: &str) -> Vec<Finding> {
    let mut ends = lent.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return Vec::new() };
    let reserved = reserved.trim();
    let left_out: Vec<_> = reserved.split(',').filter_map(ports).collect();
    let is_lent = |port: &u16| !left_out.iter().any(|range| range.contains(port));
    let both = |nat: &Nat| nat.ports.first().max(first)..=nat.ports.last().min(last);
    let hurt: Vec<_> = nats.iter().filter(|(_, nat)| both(nat).any(|port| is_lent(&port))).collect();
    let wanted = Some(reserved.to_owned()).filter(|reserved| !reserved.is_empty()).into_iter();
    // One list for all, as it takes the place of the one before.
    let wanted: Vec<_> = wanted.chain(hurt.iter().map(|(_, nat)| nat.ports.to_string())).collect();
    let mend = format!("`sysctl -w {RESERVED}={}`, or change `ports`", wanted.join(","));
    hurt.iter()
        .map(|(network, nat)| {
            let Nat { address, ports, .. } = nat;
            Finding::hurts(
                format!(
                    "the network {network:?} has ports {ports} of {address}, an address of this host, for its NAT, and \
                     programs of the host are given ports from {first}-{last}: those that get one of both hear no answer"
                ),
                mend.clone(),
            )
        })
        .collect()
}

/// "8080" or "9148-9150".
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortRange;

    fn nat(ports: &str) -> (&'static str, Nat) {
        ("office", Nat::new("192.0.2.53".parse().unwrap(), PortRange::parse(ports).unwrap()))
    }

    #[test]
    fn only_ports_that_both_may_have_are_told_of() {
        let count = |ports, reserved| shared(&[nat(ports)], "32768\t60999\n", reserved).len();
        for ports in ["1024-32767", "61000-65535", "20000-29999"] {
            assert_eq!(count(ports, "\n"), 0, "{ports}");
        }
        for ports in ["1024-32768", "60999-65535", "40000-40000", "1024-65535"] {
            assert_eq!(count(ports, "\n"), 1, "{ports}");
            assert_eq!(count(ports, "1,32768-60999"), 0, "{ports}");
            assert_eq!(count(ports, "32769-39999,40001-60998"), 1, "{ports}");
        }
    }

    #[test]
    fn one_command_mends_all_and_keeps_what_was_reserved() {
        let nats = [nat("30000-34999"), nat("50000-59999"), nat("20000-29999")];
        let found = shared(&nats, "32768\t60999\n", "8080,9148-9150\n");
        assert_eq!(found.len(), 2);
        for finding in found {
            let command = "`sysctl -w net.ipv4.ip_local_reserved_ports=8080,9148-9150,30000-34999,50000-59999`";
            assert!(finding.mend.as_ref().unwrap().contains(command), "{finding}");
        }
    }
}
