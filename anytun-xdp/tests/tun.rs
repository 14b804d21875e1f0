//! The devices that connect networks with the kernel, in a namespace: what the kernel does with it, and what is refused.

mod namespace;

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anytun_xdp::config::HostAddress;
use anytun_xdp::kernel::{Addressing, HostError, Layer, Ready, Tun, Waker, Wanted, Watch};
use caps::{CapSet, Capability, CapsHashSet};
use namespace::{Namespace, permitted};

/// Far longer than anything takes that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn wanted(mtu: u32, addresses: &[&str], routes: &[&str]) -> Wanted {
    Wanted {
        mtu,
        mac: None,
        addresses: addresses.iter().map(|own| own.parse().unwrap()).collect(),
        routes: routes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }
}

/// What `ip` prints in the namespace of the calling thread, its words separated by one space.
fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().expect("iproute2 is installed");
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A namespace with IPv6.
fn both_families() -> Namespace {
    let namespace = Namespace::new();
    namespace.enter(|| {
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0").unwrap();
        }
    });
    namespace
}

/// The next packet that the kernel sends to `destination` through the device; others are passed over.
fn packet_to(tun: &Tun, destination: IpAddr) -> Vec<u8> {
    let waker = Waker::new().unwrap();
    let mut watch = Watch::new(&waker, [tun]);
    let mut memory = [0; 2048];
    loop {
        watch.wait(PATIENCE);
        assert_eq!(watch.ready(0), Ready::Packet, "no packet to {destination}");
        let length = tun.receive(&mut memory).unwrap().expect("a packet that was announced");
        let packet = &memory[..length];
        let found = match destination {
            IpAddr::V4(v4) => packet[0] >> 4 == 4 && packet[16..20] == v4.octets(),
            IpAddr::V6(v6) => packet[0] >> 4 == 6 && packet[24..40] == v6.octets(),
        };
        if found {
            return packet.to_vec();
        }
    }
}

#[test]
fn packets_go_both_ways_in_both_families() {
    if !permitted("tun") {
        return;
    }
    both_families().enter(|| {
        let tun = Tun::create("office", Layer::Ip).unwrap();
        let mut addressing = Addressing::new(&tun).unwrap();
        addressing.set(&wanted(1400, &["10.9.0.1/24", "fd00:9::1/64"], &["10.20.0.0/16", "fd01::/64"])).unwrap();
        let shown = ip("-d addr show dev office");
        for part in ["mtu 1400", "inet 10.9.0.1/24 ", "inet6 fd00:9::1/64 ", ",UP,"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("fe80"), "{shown}");
        for (own, client) in [
            ("10.9.0.1", "10.9.0.11"),
            ("10.9.0.1", "10.20.3.4"),
            ("fd00:9::1", "fd00:9::11"),
            ("fd00:9::1", "fd01::7"),
        ] {
            let (own, client): (IpAddr, IpAddr) = (own.parse().unwrap(), client.parse().unwrap());
            let socket = UdpSocket::bind((own, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let port = socket.local_addr().unwrap().port();
            socket.send_to(b"a question", (client, 5353)).unwrap();
            let mut packet = packet_to(&tun, client);
            let udp = packet.len() - 18;
            assert_eq!(&packet[udp + 8..], b"a question");
            assert_eq!(packet[udp..udp + 4], [port.to_be_bytes(), 5353_u16.to_be_bytes()].concat());
            // Turned around it is the answer, with the same checksums.
            let addresses = if own.is_ipv4() { 12..20 } else { 8..40 };
            let half = addresses.len() / 2;
            packet[addresses].rotate_left(half);
            packet[udp..udp + 4].rotate_left(2);
            tun.send(&packet).unwrap();
            let mut answer = [0; 64];
            let (length, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..length], from), (&b"a question"[..], (client, 5353).into()));
        }
        assert_eq!(tun.receive(&mut [0; 2048]).unwrap().map(drop), None, "nothing but what was sent");
    });
}

#[test]
fn addresses_routes_and_mtu_change_while_it_is_up() {
    if !permitted("changes of a tun device") {
        return;
    }
    both_families().enter(|| {
        let tun = Tun::create("office", Layer::Ip).unwrap();
        let mut addressing = Addressing::new(&tun).unwrap();
        let steps = [
            wanted(1400, &["10.9.0.1/24"], &["10.20.0.0/16"]),
            // The same prefix: the kernel would take the second address away together with the first.
            wanted(1400, &["10.9.0.2/24", "10.9.0.3/24"], &["10.20.0.0/16"]),
            wanted(1300, &["10.9.0.3/24"], &["10.20.0.0/16", "10.21.0.0/16"]),
            wanted(1300, &["fd00:9::1/64"], &["fd01::/64"]),
            wanted(1300, &["10.9.0.1/24", "fd00:9::1/64"], &["10.21.0.0/16", "fd01::/64", "fd02::/64"]),
            wanted(1400, &["10.9.0.1/24", "fd00:9::1/64"], &[]),
        ];
        for step in steps {
            addressing.set(&step).unwrap();
            assert_eq!(addressing.is(), &step);
            let shown = ip("addr show dev office");
            assert!(shown.contains(&format!("mtu {} ", step.mtu)), "{shown}");
            assert_eq!(shown.matches(" inet").count(), step.addresses.len(), "{shown}");
            let mut routes: Vec<String> = ip("route show dev office")
                .split(' ')
                .chain(ip("-6 route show dev office").split(' '))
                .map(Into::into)
                .collect();
            routes.retain(|word| word.contains('/'));
            let networks = step.addresses.iter().map(HostAddress::network).map(|prefix| prefix.to_string());
            let mut expected: Vec<String> = step.routes.iter().map(ToString::to_string).chain(networks).collect();
            for list in [&mut routes, &mut expected] {
                list.sort();
                list.dedup();
            }
            assert_eq!(routes, expected);
            for own in &step.addresses {
                assert!(shown.contains(&own.to_string()), "{own} is not in {shown}");
            }
        }
    });
}

#[test]
fn what_the_kernel_has_already_is_left_alone_and_named() {
    if !permitted("a foreign tun device") {
        return;
    }
    let namespace = both_families();
    namespace.ip(&["link", "add", "dummy", "type", "veth", "peer", "name", "other"]);
    namespace.ip(&["link", "set", "dummy", "up"]);
    namespace.ip(&["route", "add", "10.20.0.0/16", "dev", "dummy"]);
    namespace.enter(|| {
        let error = Tun::create("other", Layer::Ip).unwrap_err();
        assert!(matches!(&error, HostError::Unsupported { interface, .. } if interface == "other"), "{error}");
        assert!(error.to_string().contains("`ip link delete other`"), "{error}");
        assert!(ip("link show dev other").contains("other@dummy"));
        let tun = Tun::create("office", Layer::Ip).unwrap();
        assert!(Tun::create("office", Layer::Ip).is_err());

        let mut addressing = Addressing::new(&tun).unwrap();
        let good = wanted(1400, &["10.9.0.1/24"], &["10.21.0.0/16"]);
        addressing.set(&good).unwrap();
        let before = ip("route show table all");
        let error = addressing.set(&wanted(1400, &["10.9.0.2/24"], &["10.20.0.0/16", "10.21.0.0/16"])).unwrap_err();
        assert!(error.to_string().contains("a route to the client's prefix 10.20.0.0/16 already"), "{error}");
        assert_eq!((addressing.is(), ip("route show table all")), (&good, before), "what was is again");

        let error = addressing.set(&wanted(1200, &["fd00:9::1/64"], &[])).unwrap_err();
        assert!(error.to_string().contains("IPv6 needs 1280"), "{error}");
        std::fs::write("/proc/sys/net/ipv6/conf/office/disable_ipv6", "1").unwrap();
        let error = addressing.set(&wanted(1400, &["fd00:9::1/64"], &[])).unwrap_err();
        assert!(error.to_string().contains("takes no IPv6 address"), "{error}");
        drop(tun);
        assert_eq!(ip("link show dev office"), "", "the device goes with its owner");
        let error = addressing.set(&wanted(1300, &["10.9.0.1/24"], &[])).unwrap_err();
        assert!(error.to_string().contains("the device is gone; restart the node"), "{error}");
    });
}

#[test]
fn a_device_that_was_deleted_is_noticed() {
    if !permitted("a deleted tun device") {
        return;
    }
    let namespace = Namespace::new();
    namespace.enter(|| {
        let (tun, waker) = (Tun::create("office", Layer::Ip).unwrap(), Waker::new().unwrap());
        let mut watch = Watch::new(&waker, [&tun]);
        waker.wake();
        watch.wait(PATIENCE);
        assert_ne!(watch.ready(0), Ready::Gone);
        ip("link delete dev office");
        watch.wait(PATIENCE);
        assert_eq!(watch.ready(0), Ready::Gone);
        assert!(tun.receive(&mut [0; 100]).is_err());
        assert!(tun.send(&[0x45; 20]).is_err());
    });
}

#[test]
fn devices_and_what_they_are_told_need_one_capability() {
    if !permitted("privileges for a tun device") {
        return;
    }
    let keep = |capabilities: &[Capability]| {
        let set: CapsHashSet = capabilities.iter().copied().collect();
        caps::set(None, CapSet::Effective, &set).unwrap();
        caps::set(None, CapSet::Permitted, &set).unwrap();
    };
    Namespace::new().enter(|| {
        keep(&[Capability::CAP_NET_ADMIN]);
        let tun = Tun::create("office", Layer::Ip).unwrap();
        let mut addressing = Addressing::new(&tun).unwrap();
        addressing.set(&wanted(1400, &["10.9.0.1/24"], &[])).unwrap();
        keep(&[]);
        let error = addressing.set(&wanted(1400, &["10.9.0.2/24"], &[])).unwrap_err();
        assert!(matches!(error, HostError::NotPermitted { .. }), "{error}");
        let error = Tun::create("lab", Layer::Ip).unwrap_err();
        assert!(matches!(error, HostError::NotPermitted { .. }), "{error}");
        assert_eq!(tun.receive(&mut [0; 100]).unwrap(), None, "packets go on without");
    });
}

/// The next frame of the kernel with this EtherType; others are passed over.
fn frame_of(tap: &Tun, ethertype: u16) -> Vec<u8> {
    let waker = Waker::new().unwrap();
    let mut watch = Watch::new(&waker, [tap]);
    let mut memory = [0; 2048];
    loop {
        watch.wait(PATIENCE);
        assert_eq!(watch.ready(0), Ready::Packet, "no frame of type {ethertype:#x}");
        let length = tap.receive(&mut memory).unwrap().expect("a frame that was announced");
        if memory[12..14] == ethertype.to_be_bytes() {
            return memory[..length].to_vec();
        }
    }
}

#[test]
fn a_tap_device_has_its_mac_address_and_carries_frames() {
    const MAC: [u8; 6] = [2, 0x11, 0x22, 0x33, 0x44, 0x55];
    const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
    if !permitted("tap") {
        return;
    }
    both_families().enter(|| {
        let tap = Tun::create("yard", Layer::Ethernet).unwrap();
        assert_eq!(tap.layer(), Layer::Ethernet);
        let mut addressing = Addressing::new(&tap).unwrap();
        let tapped = |addresses: &[&str]| Wanted { mac: Some(MAC), ..wanted(1434, addresses, &[]) };
        addressing.set(&tapped(&["10.9.0.1/24", "fd00:9::1/64"])).unwrap();
        let shown = ip("-d addr show dev yard");
        for part in ["mtu 1434", "link/ether 02:11:22:33:44:55 ", "inet 10.9.0.1/24 ", "inet6 fd00:9::1/64 ", ",UP,"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        // RFC 4291 appendix A: the second lowest bit of the first octet is inverted, ff:fe goes into the middle.
        assert!(shown.contains("inet6 fe80::11:22ff:fe33:4455/64"), "{shown}");
        let setting = std::fs::read_to_string("/proc/sys/net/ipv6/conf/yard/accept_ra").unwrap();
        assert_eq!(setting.trim(), "0", "no client becomes a router of the host");

        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"a question", "10.9.0.11:5353").unwrap();
        let mut arp = frame_of(&tap, 0x0806);
        assert_eq!((&arp[..6], &arp[6..12]), (&[0xff; 6][..], &MAC[..]));
        assert_eq!(&arp[38..42], [10, 9, 0, 11]);
        // The answer (RFC 826): sender and target change places.
        arp[..6].copy_from_slice(&MAC);
        arp[6..12].copy_from_slice(&CLIENT);
        arp[21] = 2;
        arp[22..42].rotate_left(10);
        arp[22..28].copy_from_slice(&CLIENT);
        tap.send(&arp).unwrap();
        let question = frame_of(&tap, 0x0800);
        assert_eq!((&question[..6], &question[6..12]), (&CLIENT[..], &MAC[..]));
        assert!(question.ends_with(b"a question"));
        assert!(tap.send(&question[..13]).is_err(), "less than a header");
    });
}

#[test]
fn a_tap_device_without_address_has_none_at_all() {
    if !permitted("a tap device without address") {
        return;
    }
    both_families().enter(|| {
        let tap = Tun::create("yard", Layer::Ethernet).unwrap();
        let mut addressing = Addressing::new(&tap).unwrap();
        addressing.set(&Wanted { mac: Some([2, 0, 0, 0, 0, 9]), ..wanted(1434, &[], &[]) }).unwrap();
        let shown = ip("addr show dev yard");
        assert!(shown.contains("link/ether 02:00:00:00:00:09 ") && shown.contains(",UP,"), "{shown}");
        assert!(!shown.contains("inet"), "{shown}");
    });
}

/// A node gives its devices an MTU that leaves room for one tag in tunnels: here is why.
#[test]
fn the_kernel_passes_tagged_frames_that_are_4_octets_longer_than_the_mtu_allows_others() {
    const MTU: usize = 1434;
    if !permitted("tagged frames of tap devices") {
        return;
    }
    Namespace::new().enter(|| {
        let taps = ["yard", "lan"].map(|name| Tun::create(name, Layer::Ethernet).unwrap());
        ip("link add br0 type bridge");
        for (tap, last) in taps.iter().zip(1..) {
            let mut addressing = Addressing::new(tap).unwrap();
            addressing.set(&Wanted { mac: Some([2, 0, 0, 0, 1, last]), ..wanted(MTU as u32, &[], &[]) }).unwrap();
            ip(&format!("link set {} master br0", tap.name()));
        }
        ip("link set br0 up");
        for tag in [&[][..], &[0x81, 0, 0, 7]] {
            let (to, from) = ([2, 0, 0, 0, 0, 0xb], [2, 0, 0, 0, 0, 0xa]);
            let mut frame = [&to[..], &from, tag, &[0x88, 0xb5]].concat();
            let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
            frame.extend((0..MTU).map(|place| place as u8));
            taps[0].send(&frame).unwrap();
            assert_eq!(frame_of(&taps[1], ethertype), frame);
        }
    });
}
