//! Packets of real daemons through the public face of [`anytun_xdp::satp`]: each one opens to the payload that its
//! daemon was given, and is sealed again to the same octets. What was changed on the way is refused. Each packet alone, and
//! in batches with everything that this CPU has for them.

use anytun_xdp::satp::{
    AesCtr, Auth, Batch, Engine, HEADER, Header, Keys, PAYLOAD_TYPE, Role, Secret, Suite, ToOpen, ToSeal,
};
use serde_json::Value;

/// A packet, what it was made from, and what it was made with.
struct Vector {
    name: String,
    keys: Keys,
    sender: Role,
    header: Header,
    /// Payload type and payload.
    plain: Vec<u8>,
    packet: Vec<u8>,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn aes_ctr(name: &str) -> AesCtr {
    match name {
        "null" => AesCtr::Null,
        "aes-ctr" | "aes-ctr-128" => AesCtr::Aes128,
        "aes-ctr-192" => AesCtr::Aes192,
        "aes-ctr-256" => AesCtr::Aes256,
        _ => panic!("unknown cipher {name}"),
    }
}

/// Secret and suite as the daemons were configured.
fn configured(config: &Value) -> (Secret, Suite) {
    let suite = Suite {
        kd_prf: aes_ctr(text(config, "kd_prf")),
        cipher: aes_ctr(text(config, "cipher")),
        auth: if text(config, "auth") == "sha1" { Auth::Sha1 } else { Auth::Null },
        tag_length: number(config, "tag_len") as u8,
    };
    let secret = match config["key"].as_str() {
        Some(key) => {
            let salt = hex::decode(text(config, "salt")).unwrap().try_into().unwrap();
            Secret::from_key_and_salt(&hex::decode(key).unwrap(), &salt)
        }
        None => Secret::from_passphrase(text(config, "passphrase").as_bytes(), suite.kd_prf),
    };
    (secret, suite)
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")).unwrap() {
        let file: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let (secret, suite) = configured(&file["config"]);
        for vector in file["vectors"].as_array().unwrap() {
            let mut plain = hex::decode(text(vector, "payload_type")).unwrap();
            plain.extend(hex::decode(text(vector, "payload")).unwrap());
            let header = Header {
                sequence: number(vector, "seq") as u32,
                sender: number(vector, "sender_id") as u16,
                mux: number(vector, "mux") as u16,
            };
            vectors.push(Vector {
                name: format!("{} {header:?}", text(&file, "name")),
                keys: Keys::new(&secret, &suite),
                sender: if text(vector, "sender_role") == "left" { Role::Left } else { Role::Right },
                header,
                plain,
                packet: hex::decode(text(vector, "packet")).unwrap(),
            });
        }
    }
    assert!(vectors.len() >= 40, "only {} vectors were found", vectors.len());
    vectors
}

#[test]
fn opens_to_the_payload() {
    for Vector { name, keys, sender, header, plain, packet } in vectors() {
        assert!(keys.verify(sender, &packet), "{name}: refused");
        assert_eq!(Header::read(&packet[..], 0), Some(header), "{name}");
        let mut body = packet[HEADER..packet.len() - keys.tag()].to_vec();
        keys.crypt(sender, &header, &mut body);
        assert_eq!(hex::encode(body), hex::encode(plain), "{name}");
    }
}

#[test]
fn seals_to_the_same_octets() {
    for Vector { name, keys, sender, header, plain, packet } in vectors() {
        assert!(plain.len() >= PAYLOAD_TYPE);
        // More room than needed: what lies behind the packet stays as it was.
        let mut buffer = [0xa5; 2048];
        buffer[HEADER..HEADER + plain.len()].copy_from_slice(&plain);
        let length = keys.seal(sender, &header, &mut buffer, plain.len()).unwrap();
        assert_eq!(hex::encode(&buffer[..length]), hex::encode(&packet), "{name}");
        assert!(buffer[length..].iter().all(|octet| *octet == 0xa5), "{name}: wrote behind the packet");
    }
}

#[test]
fn batches_open_to_the_payload() {
    let vectors = vectors();
    for engine in Engine::available() {
        let mut batch = Batch::new(engine);
        for vectors in vectors.chunks(Batch::PACKETS) {
            let passed = batch.verify(vectors.iter().map(|vector| ToOpen {
                keys: &vector.keys,
                sender: vector.sender,
                packet: &vector.packet,
            }));
            assert_eq!(passed.count() as usize, vectors.len(), "{engine}");
            let mut bodies: Vec<Vec<u8>> = vectors
                .iter()
                .map(|vector| vector.packet[HEADER..vector.packet.len() - vector.keys.tag()].to_vec())
                .collect();
            batch.decrypt(bodies.iter_mut().map(Vec::as_mut_slice).enumerate());
            for (Vector { name, plain, .. }, body) in vectors.iter().zip(&bodies) {
                assert_eq!(hex::encode(body), hex::encode(plain), "{name}, {engine}");
            }
        }
    }
}

#[test]
fn batches_seal_to_the_same_octets() {
    let vectors = vectors();
    for engine in Engine::available() {
        let mut batch = Batch::new(engine);
        for vectors in vectors.chunks(Batch::PACKETS) {
            let mut packets: Vec<Vec<u8>> = vectors
                .iter()
                .map(|vector| {
                    let mut packet = vec![0xa5; vector.packet.len()];
                    packet[HEADER..HEADER + vector.plain.len()].copy_from_slice(&vector.plain);
                    packet
                })
                .collect();
            let passed = batch.seal(vectors.iter().zip(&mut packets).map(|(vector, packet)| ToSeal {
                keys: &vector.keys,
                sender: vector.sender,
                header: vector.header,
                packet,
            }));
            assert_eq!(passed.count() as usize, vectors.len(), "{engine}");
            for (Vector { name, packet, .. }, sealed) in vectors.iter().zip(&packets) {
                assert_eq!(hex::encode(sealed), hex::encode(packet), "{name}, {engine}");
            }
        }
    }
}

#[test]
fn batches_refuse_any_flipped_bit() {
    let vectors: Vec<Vector> = vectors().into_iter().filter(|vector| vector.keys.tag() > 0).collect();
    let mut batch = Batch::default();
    let mut flipped = 0;
    for Vector { name, keys, sender, packet, .. } in &vectors {
        let packets: Vec<Vec<u8>> = (0..packet.len() * 8)
            .map(|bit| {
                let mut packet = packet.clone();
                packet[bit / 8] ^= 1 << (bit % 8);
                packet
            })
            .collect();
        for packets in packets.chunks(Batch::PACKETS) {
            let passed = batch.verify(packets.iter().map(|packet| ToOpen { keys, sender: *sender, packet }));
            assert_eq!(passed.count(), 0, "{name}: a bit flipped and taken");
            flipped += packets.len();
        }
    }
    assert!(flipped > 10_000, "only {flipped} bits were flipped");
}

#[test]
fn refuses_any_flipped_bit() {
    let mut flipped = 0;
    for Vector { name, keys, sender, mut packet, .. } in vectors().into_iter().filter(|vector| vector.keys.tag() > 0) {
        for bit in 0..packet.len() * 8 {
            packet[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys.verify(sender, &packet), "{name}: bit {bit} flipped and taken");
            packet[bit / 8] ^= 1 << (bit % 8);
            flipped += 1;
        }
    }
    assert!(flipped > 10_000, "only {flipped} bits were flipped");
}

#[test]
fn refuses_any_truncation() {
    for Vector { name, keys, sender, packet, .. } in vectors() {
        for length in 0..packet.len() {
            let taken = keys.verify(sender, &packet[..length]);
            // Without a tag only a packet without a whole header can be told.
            assert_eq!(taken, keys.tag() == 0 && length >= HEADER, "{name}: {length} octets");
        }
    }
}
