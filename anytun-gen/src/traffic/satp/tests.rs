use std::path::Path;

use anytun_common::classify::classify;
use anytun_common::stamp::DATA;

use super::*;

const NULL: &str = "kd_prf = \"null\"\ncipher = \"null\"\nauth = \"null\"\n";
const SOURCES: [&str; 2] = ["198.18.0.1:7000", "198.19.0.1:7100"];

fn config(crypto: &str) -> Config {
    let mut toml = "[node]\nname = \"n\"\nstate_dir = \"/s\"\nsender_ids = \"1-4\"\ncontrol = \"/c\"\n\
                    [[interface]]\nname = \"e0\"\n[[service]]\nname = \"a\"\naddress = \"192.0.2.53\"\nport = 4444\n\
                    [[network]]\nname = \"o\"\nkind = \"ip\"\n"
        .to_owned();
    for number in 0..5 {
        toml += &format!(
            "[[client]]\nname = \"c{number}\"\nmux = {number}\nprefixes = [\"10.9.{number}.0/24\", \"fd00::{number}/128\"]\n\
             passphrase = \"of client {number}\"\n{crypto}"
        );
    }
    config::parse(&toml, Path::new("node.toml")).unwrap()
}

fn link(name: &str, mtu: u32) -> Link {
    Link { name: name.into(), ifindex: 1, mac: [2; 6], mtu, driver: String::new(), queues: 1, up: true, carrier: true }
}

fn satp(crypto: &str, size: &str, clients: [usize; 2]) -> Result<Satp, Error> {
    let links = [link("gen0", 1500), link("sink0", 1500)];
    let sources = SOURCES.map(|source| source.parse().unwrap());
    let places = Places { links: [&links[0], &links[1]], hops: [[4; 6], [6; 6]], sources };
    Satp::new(&config(crypto), clients, &places, 0, size.parse().unwrap())
}

/// What the node makes of a packet: sealed for the other client.
fn relay(satp: &Satp, frame: &mut [u8]) -> Vec<u8> {
    let datagram = classify(frame).unwrap();
    assert_eq!((datagram.destination_port, datagram.source), (4444, anytun_common::wire::mapped([198, 18, 0, 1])));
    let pair = &satp.pairs[usize::from(datagram.source_port - 7000)];
    let [from, to] = &pair.clients;
    let packet = &mut frame[datagram.payload..];
    assert!(from.keys.verify(from.role, packet), "the node must open it");
    let header = Header::read(packet, 0).unwrap();
    let end = packet.len() - from.keys.tag();
    from.keys.crypt(from.role, &header, &mut packet[HEADER..end]);
    let inner = &mut packet[HEADER + PAYLOAD_TYPE..end];
    inner[ipv4::TTL] -= 1;
    inner[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].fill(0);
    let sum = checksum::of(&inner[..ipv4::HEADER]);
    inner[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    let back = to.outer.reversed();
    let mut sealed = vec![0; HEADER];
    sealed.extend_from_slice(&packet[HEADER..end]);
    sealed.resize(end + to.keys.tag(), 0);
    let header = Header { sequence: 7, sender: 1, mux: to.mux };
    to.keys.seal(to.role.opposite(), &header, &mut sealed, end - HEADER).unwrap();
    let mut out = ethernet_header([2; 6], [6; 6], true).to_vec();
    out.resize(ethernet::HEADER + back.length(), 0);
    back.write(&mut out[ethernet::HEADER..], sealed.len(), 0);
    out.extend(sealed);
    out
}

#[test]
fn a_node_opens_what_is_sealed_and_the_sink_knows_it_again() {
    for crypto in ["", NULL, "cipher = \"aes-ctr-256\"\ntag_length = 20\n"] {
        let satp = satp(crypto, "64,1400", [0, 3]).unwrap();
        assert_eq!((satp.flows(), satp.is_sealed()), (2, crypto != NULL));
        for (flow, sequence) in [(0, 0), (1, 0), (1, 1)] {
            let stamp = Stamp { magic: [DATA, 1], flow, sequence, timestamp: 99 };
            let mut frame = [0; 2048];
            let length = satp.write(Side::Interface, &mut frame, &stamp, 500 + sequence);
            assert!(length <= satp.largest());
            let mut out = relay(&satp, &mut frame[..length]);
            let datagram = classify(&out[..]).unwrap();
            let mut tampered = out.clone();
            let arrival = satp.read(Side::Sink, &mut out, &datagram).unwrap();
            assert_eq!(arrival.stamp, stamp);
            assert_eq!(arrival.outer.map(|header| (header.sequence, header.sender)), Some((7, 1)));
            *tampered.last_mut().unwrap() ^= 1;
            assert_eq!(satp.read(Side::Sink, &mut tampered, &datagram), Err(Bad::Corrupt));
        }
    }
}

#[test]
fn a_prepared_packet_is_the_packet() {
    let stamp = Stamp { magic: [DATA, 1], flow: 1, sequence: 3, timestamp: 1 << 40 };
    let mut whole = [0; 2048];
    let sealed = satp("", "64", [0, 3]).unwrap();
    let length = sealed.write(Side::Interface, &mut whole, &stamp, 77);
    assert_eq!(sealed.prepare(&stamp, 77).frame, whole[..length]);

    // In clear, the sender completes it, as the XDP program does.
    let clear = satp(NULL, "64", [0, 3]).unwrap();
    let length = clear.write(Side::Interface, &mut whole, &stamp, 77);
    let Prepared { slot, mut frame } = clear.prepare(&stamp, 0);
    let octets = stamp.to_bytes();
    let mut put =
        |at: u16, octets: &[u8]| frame[usize::from(at)..usize::from(at) + octets.len()].copy_from_slice(octets);
    let check = udp_checksum(checksum::add(u64::from(slot.sum), &octets)).to_be_bytes();
    let outer = checksum::add(checksum::add(u64::from(slot.outer_sum), &octets), &check);
    let outer = udp_checksum(checksum::add(outer, &77u32.to_be_bytes()));
    put(slot.stamp_at, &octets);
    put(slot.check_at, &check);
    put(slot.satp_at, &77u32.to_be_bytes());
    put(slot.outer_at, &outer.to_be_bytes());
    assert_eq!(frame, whole[..length]);
}

#[test]
fn a_keepalive_is_authentic_and_empty() {
    let satp = satp("", "64", [0, 3]).unwrap();
    let mut frame = [0; 2048];
    let length = satp.keepalive(Side::Sink, &mut frame, 1, 5);
    let datagram = classify(&frame[..length]).unwrap();
    assert_eq!((datagram.source_port, datagram.length), (7101, HEADER + PAYLOAD_TYPE + 10));
    let client = &satp.pairs[1].clients[1];
    assert!(client.keys.verify(client.role, &frame[datagram.payload..length]));
}

#[test]
fn what_does_not_fit_is_refused_with_the_limit() {
    let refused = |size: &str, clients| satp("", size, clients).err().unwrap().to_string();
    assert!(refused("64", [0, 5]).contains("0-4"));
    assert!(refused("64", [2, 2]).contains("two"));
    assert!(refused("1467", [0, 1]).contains("1466"));
    assert!(refused("61", [0, 1]).contains("62"));
    assert_eq!(satp("", "imix", [0, 1]).unwrap().sizes().largest(), 1400);
}
