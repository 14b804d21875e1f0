use super::super::Auth;
use super::*;

const ALL: [AesCtr; 4] = [AesCtr::Null, AesCtr::Aes128, AesCtr::Aes192, AesCtr::Aes256];

/// A generator with a fixed seed (SplitMix64), so that a failure repeats.
pub(in crate::satp) struct Random(pub(in crate::satp) u64);

impl Random {
    pub(in crate::satp) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::satp) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(in crate::satp) fn octets(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    pub(in crate::satp) fn suite(&mut self) -> Suite {
        Suite {
            kd_prf: ALL[self.below(4)],
            cipher: ALL[self.below(4)],
            auth: if self.below(4) == 0 { Auth::Null } else { Auth::Sha1 },
            tag_length: self.below(21) as u8,
        }
    }

    pub(in crate::satp) fn keys(&mut self, suite: &Suite) -> Keys {
        let salt = self.octets(MASTER_SALT).try_into().unwrap();
        Keys::new(&Secret::from_key_and_salt(&self.octets(suite.kd_prf.key_length()), &salt), suite)
    }

    pub(in crate::satp) fn header(&mut self) -> Header {
        Header { sequence: self.next() as u32, sender: self.next() as u16, mux: self.next() as u16 }
    }
}

fn seal(keys: &Keys, header: &Header, plain: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER + plain.len() + keys.tag()];
    packet[HEADER..HEADER + plain.len()].copy_from_slice(plain);
    assert_eq!(keys.seal(Role::Left, header, &mut packet, plain.len()), Some(packet.len()));
    packet
}

/// V1 of protocol.md §3.8, sent by uanytun.
#[test]
fn derives_encrypts_and_authenticates_as_the_daemons_do() {
    let secret = Secret::from_passphrase(b"anytun-xdp interop passphrase one", AesCtr::Aes128);
    let keys = Keys::new(&secret, &Suite::DEFAULT);
    let header = Header { sequence: 0, sender: 11, mux: 7 };
    let session = keys.session(Role::Left, 0, 1..SESSION);
    assert_eq!(hex::encode(session.encryption_key::<Aes128Enc>()), "351ddf7ce96cea396401274064d42364");
    assert_eq!(hex::encode(&session.0[SALT][..MASTER_SALT]), "8201fd08a36d98dc64f020b1b9c5");
    assert_eq!(hex::encode(session.counter_block(&header)), "8201fd08a36a98d764f020b1b9c50000");
    assert_eq!(hex::encode(session.authentication_key()), "8755e6259e52a2281925ff7d597c0ce0be952545");

    let inner = "45000054c19f4000400164f50a0900010a0900020800c0dd371500014187026b0000000091f1020000000000".to_owned()
        + &"deadbeef".repeat(10);
    let plain = hex::decode("0800".to_owned() + &inner).unwrap();
    let expected = hex::decode(concat!(
        "00000000000b000725fda082fc985281f8f8cb4e959d59976e6c45529ad3bd7d6b0a3858bddcdcc4723e587fe2f3aea680d5b24d",
        "30d81cefbf767be5ceef4763f083b7ea6b32b6ff801652b5cac43e5a95c6eae8492d6d3af801fa0a659054a3701b09d6c12277b5",
    ))
    .unwrap();
    let hmac = authenticate(session.authentication_key(), &expected[..expected.len() - 10]);
    assert_eq!(hex::encode(hmac), "6631cf43b3470302874e54a3701b09d6c12277b5");
    assert_eq!(seal(&keys, &header, &plain), expected);

    assert!(keys.verify(Role::Left, &expected));
    assert!(!keys.verify(Role::Right, &expected));
    let mut body = expected[HEADER..expected.len() - 10].to_vec();
    keys.crypt(Role::Left, &header, &mut body);
    assert_eq!(body, plain);
}

/// The session values given with the vectors were computed by another implementation (protocol.md §3).
#[test]
fn session_values_are_those_of_the_vectors() {
    let mut compared = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")).unwrap() {
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let aes = |name: &str| match file["config"][name].as_str().unwrap() {
            "null" => AesCtr::Null,
            "aes-ctr" => AesCtr::Aes128,
            "aes-ctr-256" => AesCtr::Aes256,
            other => panic!("{other}"),
        };
        let octets = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let suite = Suite { kd_prf: aes("kd_prf"), cipher: aes("cipher"), ..Suite::DEFAULT };
        let salt = octets(&file["master_salt"]).try_into().unwrap();
        let keys = Keys::new(&Secret::from_key_and_salt(&octets(&file["master_key"]), &salt), &suite);
        for vector in file["vectors"].as_array().unwrap() {
            let sender = if vector["sender_role"] == "left" { Role::Left } else { Role::Right };
            let packet = octets(&vector["packet"]);
            let header = Header::read(&packet[..], 0).unwrap();
            let session = keys.session(sender, header.sequence, key_start(suite.cipher.key_length())..SESSION);
            let key = match suite.cipher {
                AesCtr::Aes256 => session.encryption_key::<Aes256Enc>().to_vec(),
                _ => session.encryption_key::<Aes128Enc>().to_vec(),
            };
            for (name, value) in [
                ("session_key", key),
                ("session_salt", session.0[SALT][..MASTER_SALT].to_vec()),
                ("initial_ctr_block", session.counter_block(&header).to_vec()),
                ("session_auth_key", session.authentication_key().to_vec()),
            ] {
                if let Some(expected) = vector["derived"].get(name) {
                    assert_eq!(hex::encode(value), expected.as_str().unwrap(), "{name} of {}", file["name"]);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "only {compared} session values were found");
}

/// An AES-192 kd-prf and cipher stand in no captured packet. Expected values: Python's `cryptography`.
#[test]
fn derives_with_aes_192() {
    let key: Vec<u8> = (0..24).collect();
    let suite = Suite { kd_prf: AesCtr::Aes192, cipher: AesCtr::Aes192, ..Suite::DEFAULT };
    let keys = Keys::new(&Secret::from_key_and_salt(&key, &std::array::from_fn(|i| 0xa0 + i as u8)), &suite);
    let header = Header { sequence: 0x0102_0304, sender: 0x0506, mux: 0x0708 };
    assert_eq!(
        hex::encode(seal(&keys, &header, b"\x08\x00the payload of a packet")),
        "01020304050607082c8d6fcb14bdbadf9057c2ed7031c69ac7bdcc3d37bed1c10cf8860f5372ef5959a335"
    );
}

#[test]
fn opens_what_it_seals() {
    let mut random = Random(1);
    for _ in 0..3000 {
        let suite = random.suite();
        let (keys, header) = (random.keys(&suite), random.header());
        let count = random.below(1601);
        let plain = random.octets(count);
        let packet = seal(&keys, &header, &plain);
        assert_eq!(Header::read(&packet[..], 0), Some(header));
        assert!(keys.verify(Role::Left, &packet), "{suite:?}");
        let mut body = packet[HEADER..packet.len() - keys.tag()].to_vec();
        assert!(suite.cipher == AesCtr::Null || count < 16 || body != plain, "{suite:?} left the payload in clear");
        keys.crypt(Role::Left, &header, &mut body);
        assert_eq!(body, plain, "{suite:?}");
    }
}

#[test]
fn refuses_any_changed_octet_and_any_truncation() {
    let mut random = Random(2);
    for _ in 0..200 {
        let suite = Suite { auth: Auth::Sha1, tag_length: 10 + random.below(11) as u8, ..random.suite() };
        let (keys, header) = (random.keys(&suite), random.header());
        let count = random.below(100);
        let packet = seal(&keys, &header, &random.octets(count));
        for length in 0..packet.len() {
            assert!(!keys.verify(Role::Left, &packet[..length]), "{suite:?} took {length} of {} octets", packet.len());
            let mut changed = packet.clone();
            changed[length] ^= 1 << random.below(8);
            assert!(!keys.verify(Role::Left, &changed), "{suite:?} took a change of octet {length}");
        }
    }
}

#[test]
fn cipher_length_is_independent_of_the_kd_prf() {
    let salt = [9; MASTER_SALT];
    let header = Header { sequence: 5, sender: 6, mux: 7 };
    let mut sealed = std::collections::HashSet::new();
    for kd_prf in ALL {
        let secret = Secret::from_key_and_salt(&vec![3; kd_prf.key_length()], &salt);
        for cipher in ALL {
            let keys = Keys::new(&secret, &Suite { kd_prf, cipher, ..Suite::DEFAULT });
            let packet = seal(&keys, &header, &[0; 64]);
            assert!(keys.verify(Role::Left, &packet));
            assert!(sealed.insert(packet), "{kd_prf:?} and {cipher:?} seal like another suite");
        }
    }
}

#[test]
fn packets_shorter_than_header_and_tag_are_refused() {
    for (auth, tag_length) in [(Auth::Null, 10), (Auth::Sha1, 0), (Auth::Sha1, 20)] {
        let keys = Random(3).keys(&Suite { auth, tag_length, ..Suite::DEFAULT });
        for length in 0..HEADER + keys.tag() {
            assert!(!keys.verify(Role::Left, &vec![0; length]));
        }
        assert_eq!(keys.verify(Role::Left, &vec![0; HEADER + keys.tag()]), keys.tag() == 0);
    }
}

#[test]
fn seal_needs_room_for_the_tag() {
    let keys = Random(4).keys(&Suite::DEFAULT);
    let mut packet = [0x55; HEADER + 30 + 9];
    assert_eq!(keys.seal(Role::Left, &Header::default(), &mut packet, 30), None);
    assert_eq!(packet, [0x55; HEADER + 30 + 9]);
    assert_eq!(keys.seal(Role::Left, &Header::default(), &mut packet, usize::MAX), None);
    assert_eq!(keys.seal(Role::Left, &Header::default(), &mut packet, 29), Some(HEADER + 29 + 10));
    assert_eq!(keys.seal(Role::Left, &Header::default(), &mut packet, 0), Some(HEADER + 10));
}

/// 60,000 clients have to fit, with an expanded key for either path.
#[test]
fn keys_are_compact() {
    assert!(size_of::<Expanded>() <= 640, "{} octets", size_of::<Expanded>());
    assert!(size_of::<Keys>() <= 16, "{} octets", size_of::<Keys>());
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", Random(5).keys(&Suite::DEFAULT)), "Keys");
}
