//! Tunnel mode in an Ethernet network: frames go where their destination was heard (IEEE 802.1D §7.7).

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::verdict::Verdict;
use anytun_common::wire::ethernet::{self, Mac};
use anytun_common::wire::{Bytes, ipv4, ipv6};

use super::tunnel::Route;
use crate::table::{Allowance, Bridge, KERNEL, Lpm, NOWHERE, Station};

/// Addresses that no bridge forwards (IEEE 802.1D §7.12.6): the last octet is anything below 16.
const RESERVED: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

/// Finds the way of a frame that `client` sent, or the node's kernel: learns where its source is, and looks up its
/// destination. What is for everybody, or for a station nobody has heard of, goes to the number `everybody` and takes from the
/// sender's `floods`. `frame` is what lies behind the payload type, an Ethernet frame without FCS (protocol.md §3); `now` is in
/// milliseconds since the node started.
///
/// # Errors
/// Why it goes nowhere.
#[inline(never)]
pub fn route(
    bridge: &Bridge,
    everybody: u32,
    client: u32,
    floods: &Allowance,
    payload_type: u16,
    frame: &[u8],
    now: u64,
) -> Result<Route, Verdict> {
    if payload_type != ethernet::TRANSPARENT {
        return Err(Verdict::PayloadType);
    }
    let (header, rest) = frame.split_first_chunk::<{ ethernet::HEADER }>().ok_or(Verdict::MalformedInner)?;
    let (destination, source): (Mac, Mac) = match header {
        [a, b, c, d, e, f, g, h, i, j, k, l, ..] => ([*a, *b, *c, *d, *e, *f], [*g, *h, *i, *j, *k, *l]),
    };
    if source[0] & 1 == 1 || source == [0; 6] || destination == [0; 6] {
        return Err(Verdict::MalformedInner);
    }
    if destination.starts_with(&RESERVED) && destination[5] < 16 {
        return Err(Verdict::LinkScope);
    }
    let vlan = match rest.first_chunk() {
        Some(tag) if ethernet::is_tag(u16::from_be_bytes([header[12], header[13]])) => {
            u16::from_be_bytes(*tag) & 0x0fff
        }
        _ => 0,
    };
    let second = u32::try_from(now / 1000).unwrap_or(u32::MAX);
    bridge.learn(Station { vlan, mac: source }, client, second)?;
    let known = (destination[0] & 1 == 0).then(|| bridge.find(Station { vlan, mac: destination })).flatten();
    let to = match known {
        Some(to) if to == client => return Err(Verdict::SameSide),
        Some(to) => to,
        None if floods.take(bridge.floods(), now) => everybody,
        None => return Err(Verdict::StormLimit),
    };
    Ok(Route { to, length: frame.len() as u32, tos: 0, dont_fragment: false })
}

/// Whether a frame that is handed over to the device of the node may be for the node itself, or from and to its link: what its
/// kernel would route to somebody else, or answer to somebody elsewhere, is not, as a network reaches no other by the node. In
/// `network` the node's addresses lead to [`KERNEL`], and the rest of their prefixes to [`NOWHERE`]. What has the tag of a VLAN
/// goes to devices that the operator has made for it; tags without one are none to the kernel.
pub fn is_for_node(bridge: &Bridge, network: &Lpm, frame: &[u8]) -> bool {
    let Some(mac): Option<Mac> = frame.read(0) else { return true };
    let is_group = mac[0] & 1 == 1;
    if !is_group && bridge.given().get(&mac) != Some(&KERNEL) {
        return true;
    }
    let mut at = ethernet::TYPE;
    for _ in 0..=ethernet::MAX_TAGS {
        let packet = at + 2;
        match frame.read(at).map(u16::from_be_bytes) {
            Some(ethernet::IPV4) => {
                let ends = frame.read(packet + ipv4::SOURCE).zip(frame.read(packet + ipv4::DESTINATION));
                return ends.is_none_or(|(from, to)| stays_v4(network, from, to, is_group));
            }
            Some(ethernet::IPV6) => {
                let ends = frame.read(packet + ipv6::SOURCE).zip(frame.read(packet + ipv6::DESTINATION));
                return ends.is_none_or(|(from, to)| stays_v6(network, from, to, is_group));
            }
            Some(tag) if ethernet::is_tag(tag) => {
                let tci: [u8; 2] = frame.read(packet).unwrap_or_default();
                if u16::from_be_bytes(tci) & 0x0fff != 0 {
                    return true;
                }
                at += ethernet::TAG;
            }
            _ => return true,
        }
    }
    false
}

fn stays_v4(network: &Lpm, from: [u8; 4], to: [u8; 4], is_group: bool) -> bool {
    let (source, destination) = (Ipv4Addr::from(from), Ipv4Addr::from(to));
    let is_of_link = source.is_unspecified() || source.is_link_local() || network.find_v4(from) == Some(NOWHERE);
    is_of_link
        && match network.find_v4(to) {
            Some(KERNEL) => true,
            // A directed broadcast, or for another station.
            Some(_) => is_group,
            None => is_group && (destination.is_multicast() || destination.is_broadcast()),
        }
}

fn stays_v6(network: &Lpm, from: [u8; 16], to: [u8; 16], is_group: bool) -> bool {
    let (source, destination) = (Ipv6Addr::from(from), Ipv6Addr::from(to));
    let is_of_link =
        source.is_unspecified() || source.is_unicast_link_local() || network.find_v6(from) == Some(NOWHERE);
    let is_own = destination.is_unicast_link_local() || network.find_v6(to) == Some(KERNEL);
    is_of_link && (is_own || is_group && destination.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bridging;

    const EVERYBODY: u32 = 77;
    const BROADCAST: Mac = [0xff; 6];
    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];
    /// That of the node's own device.
    const HOME: Mac = [2, 0, 0, 0, 0, 1];

    struct Net {
        bridge: Bridge,
        floods: [Allowance; 2],
    }

    impl Net {
        fn new() -> Self {
            let bridging = Bridging { mac_age: 300, mac_limit: 4, flood_rate: 100 };
            Self { bridge: Bridge::new(bridging, [0, 1, KERNEL], [(HOME, KERNEL)].into()), floods: Default::default() }
        }

        fn send(&self, client: u32, to: Mac, from: Mac, rest: &[u8]) -> Result<u32, Verdict> {
            let frame = [&to[..], &from, rest].concat();
            let floods = self.floods.get(client as usize).unwrap_or(self.bridge.kernel_floods());
            let route = route(&self.bridge, EVERYBODY, client, floods, 0x6558, &frame, 1000)?;
            assert_eq!((route.length as usize, route.tos, route.dont_fragment), (frame.len(), 0, false));
            Ok(route.to)
        }
    }

    #[test]
    fn a_frame_goes_to_everybody_until_its_station_was_heard() {
        let net = Net::new();
        assert_eq!(net.send(0, B, A, &[8, 0, 1]), Ok(EVERYBODY));
        assert_eq!(net.send(1, A, B, &[8, 0, 1]), Ok(0));
        assert_eq!(net.send(0, B, A, &[8, 0, 1]), Ok(1));
        assert_eq!(net.send(0, BROADCAST, A, &[8, 6]), Ok(EVERYBODY));
        assert_eq!(net.send(0, [0x33, 0x33, 0, 0, 0, 1], A, &[0x86, 0xdd]), Ok(EVERYBODY));
        assert_eq!(net.send(0, A, [2, 0, 0, 0, 0, 0xc], &[8, 0]), Err(Verdict::SameSide), "both are behind one client");
    }

    #[test]
    fn the_kernel_is_a_port_as_any_other_and_nobody_takes_its_address() {
        let net = Net::new();
        assert_eq!(net.send(0, HOME, A, &[8, 0]), Ok(KERNEL), "before it has sent anything");
        assert_eq!(net.send(KERNEL, A, HOME, &[8, 0]), Ok(0));
        assert_eq!(net.send(KERNEL, BROADCAST, HOME, &[8, 6]), Ok(EVERYBODY));
        assert_eq!(net.send(KERNEL, BROADCAST, B, &[8, 6]), Ok(EVERYBODY), "a station of a bridge of the host");
        assert_eq!(net.send(0, B, A, &[8, 0]), Ok(KERNEL));
        assert_eq!(net.send(KERNEL, B, HOME, &[8, 0]), Err(Verdict::SameSide), "nothing goes back");
        assert_eq!(net.send(KERNEL, HOME, B, &[8, 0]), Err(Verdict::SameSide));
        assert_eq!(net.send(1, BROADCAST, HOME, &[8, 6]), Err(Verdict::ForeignSource));
        assert_eq!(net.send(0, HOME, A, &[8, 0]), Ok(KERNEL));
        let storm = (0..100).filter(|_| net.send(KERNEL, BROADCAST, HOME, &[8, 6]).is_ok()).count();
        assert_eq!(storm, 8, "with the two above a tenth of a second's worth");
    }

    #[test]
    fn vlans_are_apart() {
        let net = Net::new();
        let tag = |vlan: u8| [0x81, 0, 0xe0, vlan, 8, 0];
        assert_eq!(net.send(1, BROADCAST, B, &tag(7)), Ok(EVERYBODY));
        assert_eq!(net.send(0, B, A, &tag(7)), Ok(1));
        assert_eq!(net.send(0, B, A, &tag(8)), Ok(EVERYBODY));
        assert_eq!(net.send(0, B, A, &[8, 0]), Ok(EVERYBODY));
        assert_eq!(net.send(0, B, A, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 0]), Ok(1), "the outer tag counts");
    }

    #[test]
    fn what_no_bridge_forwards_ends() {
        let net = Net::new();
        for (to, from, rest, verdict) in [
            (B, BROADCAST, &[8u8, 0][..], Verdict::MalformedInner),
            (B, [0; 6], &[8, 0], Verdict::MalformedInner),
            ([0; 6], A, &[8, 0], Verdict::MalformedInner),
            (B, A, &[8], Verdict::MalformedInner),
            ([1, 0x80, 0xc2, 0, 0, 0], A, &[0, 38], Verdict::LinkScope),
            ([1, 0x80, 0xc2, 0, 0, 0x0e], A, &[0x88, 0xcc], Verdict::LinkScope),
        ] {
            assert_eq!(net.send(0, to, from, rest), Err(verdict), "{to:02x?} {from:02x?}");
        }
        assert_eq!(net.bridge.stations(), 1, "the node's own");
        assert_eq!(net.send(0, [1, 0x80, 0xc2, 0, 0, 0x10], A, &[8, 0]), Ok(EVERYBODY));
        let ip = route(&net.bridge, EVERYBODY, 0, &net.floods[0], 0x0800, &[0x45; 20], 0);
        assert_eq!(ip, Err(Verdict::PayloadType));
    }

    #[test]
    fn a_storm_ends_at_its_limit_and_what_is_known_goes_on() {
        let net = Net::new();
        assert_eq!(net.send(1, BROADCAST, B, &[8, 6]), Ok(EVERYBODY));
        let storm: Vec<_> = (0..1000).map(|_| net.send(0, BROADCAST, A, &[8, 6])).collect();
        assert_eq!(storm.iter().filter(|sent| sent.is_ok()).count(), 10, "a tenth of a second's worth");
        assert!(storm[10..].iter().all(|sent| *sent == Err(Verdict::StormLimit)));
        assert_eq!(net.send(0, B, A, &[8, 0]), Ok(1));
        assert_eq!(net.send(1, BROADCAST, B, &[8, 6]), Ok(EVERYBODY), "each client has a limit of its own");
    }
}
