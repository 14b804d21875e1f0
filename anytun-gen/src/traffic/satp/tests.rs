use std::path::Path;

use anytun_common::classify::classify;
use anytun_common::generate::Rule;
use anytun_common::stamp::{ANSWER, DATA, PROBE};
use anytun_xdp::config;

use super::*;
use crate::traffic::Traffic;

const NULL: &str = "kd_prf = \"null\"\ncipher = \"null\"\nauth = \"null\"\n";
const SOURCES: [&str; 2] = ["198.18.0.1:7000", "198.19.0.1:7100"];

fn config(crypto: &str) -> Config {
    let mut toml = "[node]\nname = \"n\"\nstate_dir = \"/s\"\nsender_ids = \"1-4\"\ncontrol = \"/c\"\n\
                    [[interface]]\nname = \"e0\"\n[[service]]\nname = \"a\"\naddress = \"192.0.2.53\"\nport = 4444\n\
                    [[network]]\nname = \"o\"\nkind = \"ip\"\nopen = \"routed\"\n"
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
    let receivers = Receivers::Clients { hop: [6; 6], source: SOURCES[1].parse().unwrap() };
    placed(&config(crypto), size, clients, receivers)
}

fn placed(config: &Config, size: &str, clients: [usize; 2], receivers: Receivers) -> Result<Satp, Error> {
    let links = [link("gen0", 1500), link("sink0", 1500)];
    let source = SOURCES[0].parse().unwrap();
    let places = Places { links: [&links[0], &links[1]], hop: [4; 6], source, receivers };
    Satp::new(config, clients, &places, 0, size.parse().unwrap())
}

/// What the node makes of a packet: sealed for the other client.
fn relay(satp: &Satp, frame: &mut [u8]) -> Vec<u8> {
    let (flow, plain) = open(satp, frame);
    let to = satp.pairs[flow].client(Side::Sink).unwrap();
    seal(to, &plain)
}

/// What a client gets from the node.
fn seal(to: &Client, plain: &[u8]) -> Vec<u8> {
    let back = to.outer.reversed();
    let mut sealed = vec![0; HEADER];
    sealed.extend_from_slice(plain);
    sealed.resize(HEADER + plain.len() + to.keys.tag(), 0);
    let header = Header { sequence: 7, sender: 1, mux: to.mux };
    to.keys.seal(to.role.opposite(), &header, &mut sealed, plain.len()).unwrap();
    let mut out = ethernet_header([2; 6], [6; 6], true).to_vec();
    out.resize(ethernet::HEADER + back.length(), 0);
    back.write(&mut out[ethernet::HEADER..], sealed.len(), 0);
    out.extend(sealed);
    out
}

/// What the node finds in a packet: payload type and inner packet, a hop counted.
fn open(satp: &Satp, frame: &mut [u8]) -> (usize, Vec<u8>) {
    let datagram = classify(frame).unwrap();
    assert_eq!((datagram.destination_port, datagram.source), (4444, anytun_common::wire::mapped([198, 18, 0, 1])));
    let flow = usize::from(datagram.source_port - 7000);
    let from = satp.pairs[flow].sender();
    let packet = &mut frame[datagram.payload..];
    assert!(from.keys.verify(from.role, packet), "the node must open it");
    let header = Header::read(packet, 0).unwrap();
    let end = packet.len() - from.keys.tag();
    from.keys.crypt(from.role, &header, &mut packet[HEADER..end]);
    let inner = &mut packet[HEADER + PAYLOAD_TYPE..end];
    if satp.pairs[flow].inner.is_v4() {
        inner[ipv4::TTL] -= 1;
        inner[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].fill(0);
        let sum = checksum::of(&inner[..ipv4::HEADER]);
        inner[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    } else {
        inner[ipv6::HOP_LIMIT] -= 1;
    }
    (flow, packet[HEADER..end].to_vec())
}

/// What comes out of an open network: the packet as it was inside, or from another source.
fn release(plain: &[u8], source: Option<SocketAddr>) -> Vec<u8> {
    let (kind, packet) = plain.split_at(PAYLOAD_TYPE);
    let mut out = vec![6, 6, 6, 6, 6, 6, 2, 2, 2, 2, 2, 2];
    out.extend_from_slice(kind);
    out.extend_from_slice(packet);
    if let Some(source) = source {
        let seen = classify(&out[..]).unwrap();
        let address = if seen.v4 {
            IpAddr::from(<[u8; 4]>::try_from(&seen.destination[12..]).unwrap())
        } else {
            IpAddr::from(seen.destination)
        };
        let ends = Ends { source, destination: SocketAddr::new(address, seen.destination_port) };
        let data = out.split_off(seen.payload);
        let check = udp_checksum(ends.sum(data.len()) + checksum::add(0, &data));
        ends.write(&mut out[ethernet::HEADER..], data.len(), check);
        out.extend(data);
    }
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
    let client = satp.pairs[1].client(Side::Sink).unwrap();
    assert!(client.keys.verify(client.role, &frame[datagram.payload..length]));
}

#[test]
fn what_leaves_an_open_network_is_known_again_whoever_its_source_is() {
    for (outside, source) in
        [("203.0.113.9:9000", "192.0.2.53:20001"), ("[2001:db8:2::9]:9000", "[2001:db8::53]:20001")]
    {
        for crypto in ["", NULL] {
            let receivers = Receivers::Outside(outside.parse().unwrap());
            let satp = placed(&config(crypto), "86,1400", [0, 4], receivers).unwrap();
            assert_eq!((satp.flows(), satp.receivers()), (5, 0), "each client sends");
            assert_eq!((satp.ports(Side::Interface), satp.ports(Side::Sink)), ([7000, 7004], [9000, 9000]));
            for (flow, sequence, source) in [(0, 0, None), (4, 1, None), (3, 1, Some(source.parse().unwrap()))] {
                let stamp = Stamp { magic: [PROBE, 1], flow, sequence, timestamp: 99 };
                let mut frame = [0; 2048];
                let length = satp.write(Side::Interface, &mut frame, &stamp, 500);
                let (_, plain) = open(&satp, &mut frame[..length]);
                let mut out = release(&plain, source);
                assert_eq!(out.len(), [86, 1400][sequence as usize]);
                let datagram = classify(&out[..]).unwrap();
                assert_eq!(satp.read(Side::Sink, &mut out, &datagram), Ok(Arrival { stamp, outer: None }));
                for at in [datagram.payload - 1, datagram.payload + 5, out.len() - 1] {
                    let mut changed = out.clone();
                    changed[at] ^= 1;
                    assert_eq!(satp.read(Side::Sink, &mut changed, &datagram), Err(Bad::Corrupt), "octet {at}");
                }
                let cut = Datagram { length: datagram.length - 1, ..datagram };
                assert_eq!(satp.read(Side::Sink, &mut out.clone(), &cut), Err(Bad::Corrupt));
                let elsewhere = Datagram { destination: [9; 16], ..datagram };
                assert_eq!(satp.read(Side::Sink, &mut out.clone(), &elsewhere), Err(Bad::Foreign));
            }
        }
    }
}

#[test]
fn an_answer_from_outside_reaches_the_client_through_the_node() {
    let receivers = Receivers::Outside("203.0.113.9:9000".parse().unwrap());
    let traffic = Traffic::Satp(placed(&config(""), "64", [0, 4], receivers).unwrap());
    let satp = traffic.satp().unwrap();
    let stamp = Stamp { magic: [PROBE, 1], flow: 2, sequence: 5, timestamp: 99 };
    let mut frame = [0; 2048];
    let length = traffic.write(&mut frame, &stamp, 500);
    let (flow, plain) = open(satp, &mut frame[..length]);
    let mut out = release(&plain, None);
    let datagram = classify(&out[..]).unwrap();
    let answer = Stamp { magic: [ANSWER, 1], ..stamp };
    assert_eq!(traffic.answer(&mut out, &datagram, &answer, 0), out.len());
    let back = classify(&out[..]).unwrap();
    assert_eq!((back.source, back.destination), (datagram.destination, datagram.source));
    assert!(has_right_checksums(&out, &back));
    let plain = [&ethernet::IPV4.to_be_bytes()[..], &out[ethernet::HEADER..]].concat();
    let mut sealed = seal(satp.pairs[flow].sender(), &plain);
    let datagram = classify(&sealed[..]).unwrap();
    assert_eq!(traffic.read(Some(Side::Interface), &mut sealed, &datagram).unwrap().stamp, answer);
}

#[test]
fn a_sink_that_counts_knows_plain_packets_by_their_stamp() {
    let open = Receivers::Outside("203.0.113.9:9000".parse().unwrap());
    let rule = Traffic::Satp(placed(&config(""), "64", [0, 4], open).unwrap()).rule(Side::Sink);
    assert_eq!((rule.low, rule.high, rule.source, rule.stamp_at), (9000, 9000, 0, 0));
    let sealed = Traffic::Satp(satp("", "64", [0, 3]).unwrap()).rule(Side::Sink);
    assert_eq!((sealed.low, sealed.high, sealed.source, sealed.stamp_at), (7100, 7101, 4444, Rule::SEALED));
}

#[test]
fn only_an_open_network_has_an_outside() {
    let receivers = Receivers::Outside("203.0.113.9:9000".parse().unwrap());
    let mut closed = config("");
    closed.networks[0].open = config::Open::No;
    let refused = placed(&closed, "64", [0, 4], receivers).err().unwrap().to_string();
    assert!(refused.contains("\"c0\"") && refused.contains("open = \"routed\""), "{refused}");
    assert_eq!(placed(&config(""), "64", [1, 1], receivers).unwrap().flows(), 1, "one client is enough");
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
