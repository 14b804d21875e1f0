use super::*;

/// A tunnel packet of `total` octets from 192.0.2.53:4444 to 198.51.100.7:40000, cut to `quoted`, in an error that tells
/// `mtu`.
fn v4(mtu: u16, total: u16, quoted: usize) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 60, 17, 0, 0, 192, 0, 2, 53, 198, 51, 100, 7];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let mut message = vec![3, 4, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8];
    message.extend(datagram(ip, total - 20).into_iter().take(quoted));
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The same between 2001:db8::53 and 2001:db8:1::7.
fn v6(mtu: u32, total: u16, quoted: usize) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, 17, 60];
    ip[4..6].copy_from_slice(&(total - 40).to_be_bytes());
    ip.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53]);
    ip.extend_from_slice(&[0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    let mut message = [&[2, 0, 0, 0][..], &mtu.to_be_bytes()].concat();
    message.extend(datagram(ip, total - 40).into_iter().take(quoted));
    message
}

/// Appends a UDP header with `length`, and a SATP header with MUX 7.
fn datagram(mut ip: Vec<u8>, length: u16) -> Vec<u8> {
    ip.extend_from_slice(&[0x11, 0x5c, 0x9c, 0x40, (length >> 8) as u8, length as u8, 0, 0]);
    ip.extend_from_slice(&[0, 0, 1, 2, 0, 3, 0, 7]);
    ip.extend_from_slice(&[0xaa; 40]);
    ip
}

#[test]
fn an_error_says_what_a_router_meant() {
    let header = Some(Header { sequence: 0x102, sender: 3, mux: 7 });
    let service = ServiceKey::new(mapped([192, 0, 2, 53]), 4444);
    let expected = TooBig { mtu: 1400, service, address: mapped([198, 51, 100, 7]), port: 40_000, header };
    assert_eq!(TooBig::of_icmp(&v4(1400, 1500, 76)), Some(expected));
    assert_eq!(TooBig::of_icmp(&v4(1400, 1500, 36)), Some(expected));
    assert_eq!(TooBig::of_icmp(&v4(1400, 1500, 28)), Some(TooBig { header: None, ..expected }), "RFC 792: 64 bits");
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("address").octets();
    let service = ServiceKey::new(address("2001:db8::53"), 4444);
    let expected = TooBig { mtu: 1400, service, address: address("2001:db8:1::7"), port: 40_000, header };
    assert_eq!(TooBig::of_icmpv6(&v6(1400, 1500, 96)), Some(expected));
}

#[test]
fn no_error_makes_packets_smaller_than_every_way_takes() {
    for (told, used) in [(0, 576), (68, 576), (575, 576), (576, 576), (577, 577)] {
        assert_eq!(TooBig::of_icmp(&v4(told, 1500, 76)).map(|error| error.mtu), Some(used), "{told}");
    }
    for (told, used) in [(0, 1280), (1279, 1280), (1281, 1281)] {
        assert_eq!(TooBig::of_icmpv6(&v6(told, 1500, 96)).map(|error| error.mtu), Some(used), "{told}");
    }
}

#[test]
fn an_error_about_a_packet_that_fits_is_made_up() {
    for told in [1400, 1500, 9000] {
        assert_eq!(TooBig::of_icmp(&v4(told, 1400, 76)), None, "{told}");
        assert_eq!(TooBig::of_icmpv6(&v6(u32::from(told), 1400, 96)), None, "{told}");
    }
    assert_eq!(TooBig::of_icmp(&v4(0, 576, 76)), None);
    assert_eq!(TooBig::of_icmpv6(&v6(u32::MAX, 1400, 96)), None);
}

#[test]
fn what_is_no_such_error_is_nothing() {
    for at in 0..28 + 8 {
        let mut message = v4(1400, 1500, 76);
        message[at] ^= 0x10;
        assert_eq!(TooBig::of_icmp(&message), None, "octet {at} damaged");
    }
    let resummed = |at: usize, octet: u8| {
        let mut message = v4(1400, 1500, 76);
        message[at] = octet;
        message[2..4].fill(0);
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    };
    for (at, octet) in [(0, 11), (1, 3), (8, 0x46), (8, 0x65), (15, 1), (17, 6)] {
        assert_eq!(TooBig::of_icmp(&resummed(at, octet)), None, "octet {at} = {octet}");
    }
    for (at, octet) in [(0, 1), (1, 1), (8, 0x45), (14, 58)] {
        let mut message = v6(1400, 1500, 96);
        message[at] = octet;
        assert_eq!(TooBig::of_icmpv6(&message), None, "octet {at} = {octet}");
    }
    for length in 0..36 {
        let mut message = v4(1400, 1500, 76)[..length].to_vec();
        if length >= 4 {
            message[2..4].fill(0);
            let sum = checksum::of(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(TooBig::of_icmp(&message), None, "{length} octets");
    }
    for length in 0..56 {
        assert_eq!(TooBig::of_icmpv6(&v6(1400, 1500, 96)[..length]), None, "{length} octets");
    }
}
