use super::super::keys::tests::Random;
use super::super::{Auth, Secret, Suite};
use super::*;

const LENGTHS: usize = 9001;

/// A sealed packet, by the path that works packet by packet, and what it was made from.
struct Sample {
    keys: Keys,
    suite: Suite,
    sender: Role,
    header: Header,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Sample {
    fn new(random: &mut Random, suite: Suite, length: usize) -> Self {
        let (keys, header) = (random.keys(&suite), random.header());
        let sender = if random.below(2) == 0 { Role::Left } else { Role::Right };
        let plain = random.octets(length);
        let mut sealed = vec![0; HEADER + plain.len() + keys.tag()];
        sealed[HEADER..HEADER + plain.len()].copy_from_slice(&plain);
        assert_eq!(keys.seal(sender, &header, &mut sealed, plain.len()), Some(sealed.len()));
        Self { keys, suite, sender, header, plain, sealed }
    }

    fn any(random: &mut Random) -> Self {
        let suite = random.suite();
        // Short ones, with all lengths around the ends of blocks, are the more common.
        let length = if random.below(4) == 0 { random.below(LENGTHS) } else { random.below(200) };
        Self::new(random, suite, length)
    }

    fn to_open<'a>(&'a self, packet: &'a [u8]) -> ToOpen<'a> {
        ToOpen { keys: &self.keys, sender: self.sender, packet }
    }

    /// What [`Batch::seal`] is given, with room for the tag and one octet behind the packet.
    fn unsealed(&self) -> Vec<u8> {
        let mut packet = vec![0xa5; self.sealed.len() + 1];
        packet[HEADER..HEADER + self.plain.len()].copy_from_slice(&self.plain);
        packet
    }
}

/// Everything this CPU has. SHA-1 and AES know nothing of each other, so each is tried beside the best of the other only.
fn engines() -> Vec<Batch> {
    let (best, portable) = (Engine::best(), Engine { sha1: Sha1::Portable, aes: Aes::Portable });
    let engines: Vec<Batch> = Engine::available()
        .filter(|engine| engine.sha1 == best.sha1 || engine.aes == best.aes || *engine == portable)
        .map(Batch::new)
        .collect();
    assert_eq!(engines.last().map(|batch| batch.engine), Some(portable));
    engines
}

/// Opens and seals the samples and compares with the path that works packet by packet.
fn check(batch: &mut Batch, samples: &[Sample]) {
    let mut packets: Vec<Vec<u8>> = samples.iter().map(|sample| sample.sealed.clone()).collect();
    let passed = batch.verify(samples.iter().zip(&packets).map(|(sample, packet)| sample.to_open(packet)));
    assert_eq!(passed.count() as usize, samples.len(), "{batch:?} refused one of {} packets", samples.len());
    let bodies = samples.iter().zip(&mut packets).enumerate().map(|(place, (sample, packet))| {
        let end = packet.len() - sample.keys.tag();
        (place, &mut packet[HEADER..end])
    });
    batch.decrypt(bodies);
    for (sample, packet) in samples.iter().zip(&packets) {
        let end = HEADER + sample.plain.len();
        assert_eq!(packet[..HEADER], sample.sealed[..HEADER]);
        assert!(packet[HEADER..end] == sample.plain, "{batch:?} {:?} {}", sample.suite, sample.plain.len());
        assert_eq!(packet[end..], sample.sealed[end..]);
    }
    let mut packets: Vec<Vec<u8>> = samples.iter().map(Sample::unsealed).collect();
    let passed = batch.seal(samples.iter().zip(&mut packets).map(|(sample, packet)| {
        let length = sample.sealed.len();
        ToSeal { keys: &sample.keys, sender: sample.sender, header: sample.header, packet: &mut packet[..length] }
    }));
    assert_eq!(passed.count() as usize, samples.len());
    for (sample, packet) in samples.iter().zip(&packets) {
        let (packet, behind) = packet.split_at(sample.sealed.len());
        assert!(packet == sample.sealed, "{batch:?} {:?} {}", sample.suite, sample.plain.len());
        assert_eq!(behind, [0xa5], "{batch:?} wrote behind the packet");
    }
}

#[test]
fn batches_of_anything_are_what_single_packets_are() {
    let mut random = Random(11);
    let mut engines = engines();
    for round in 0..20 {
        let count = if round % 4 == 0 { PACKETS } else { 1 + random.below(PACKETS) };
        let samples: Vec<Sample> = (0..count).map(|_| Sample::any(&mut random)).collect();
        for batch in &mut engines {
            check(batch, &samples);
        }
    }
}

#[test]
fn every_size_of_batch() {
    let mut random = Random(12);
    let samples: Vec<Sample> = (0..PACKETS).map(|_| Sample::new(&mut random, Suite::DEFAULT, 86)).collect();
    for batch in &mut engines() {
        assert_eq!(batch.verify([]), Passed(0));
        for count in 1..=PACKETS {
            check(batch, &samples[PACKETS - count..]);
        }
    }
}

#[test]
fn every_length_of_payload_and_key() {
    let mut random = Random(13);
    let mut engines = engines();
    for first in [0, 64, 250] {
        for kd_prf in [AesCtr::Null, AesCtr::Aes128, AesCtr::Aes192, AesCtr::Aes256] {
            for cipher in CIPHERS {
                let suite = Suite { kd_prf, cipher, ..Suite::DEFAULT };
                let samples: Vec<Sample> =
                    (first..first + PACKETS).map(|length| Sample::new(&mut random, suite, length)).collect();
                engines.iter_mut().for_each(|batch| check(batch, &samples));
            }
        }
    }
}

#[test]
fn the_longest_packet_passes_and_a_longer_one_fails() {
    let mut random = Random(14);
    let longest = LONGEST - HEADER - 10;
    let samples = [Sample::new(&mut random, Suite::DEFAULT, longest), Sample::new(&mut random, Suite::DEFAULT, 40)];
    let longer = Sample::new(&mut random, Suite::DEFAULT, longest + 1);
    for batch in &mut engines() {
        check(batch, &samples);
        let packets = [longer.to_open(&longer.sealed), samples[1].to_open(&samples[1].sealed)];
        assert_eq!(batch.verify(packets), Passed(0b10));
        let mut packet = longer.unsealed();
        let (keys, header) = (&longer.keys, longer.header);
        packet.truncate(longer.sealed.len());
        assert_eq!(batch.seal([ToSeal { keys, sender: Role::Left, header, packet: &mut packet }]), Passed(0));
        assert_eq!(packet[HEADER..][..longer.plain.len()], longer.plain);
    }
}

#[test]
fn any_flipped_bit_fails_alone() {
    let mut random = Random(15);
    for batch in &mut engines() {
        for _ in 0..4 {
            let tag_length = 8 + random.below(13) as u8;
            let samples: Vec<Sample> = (0..PACKETS)
                .map(|_| {
                    let length = random.below(100);
                    let suite = Suite { auth: Auth::Sha1, tag_length, ..random.suite() };
                    Sample::new(&mut random, suite, length)
                })
                .collect();
            for _ in 0..20 {
                let mut packets: Vec<Vec<u8>> = samples.iter().map(|sample| sample.sealed.clone()).collect();
                let flipped = random.next();
                for (place, packet) in packets.iter_mut().enumerate() {
                    if flipped >> place & 1 == 1 {
                        let bit = random.below(packet.len() * 8);
                        packet[bit / 8] ^= 1 << (bit % 8);
                    }
                }
                let passed = batch.verify(samples.iter().zip(&packets).map(|(sample, packet)| sample.to_open(packet)));
                assert_eq!(passed, Passed(!flipped), "{batch:?}");
            }
        }
    }
}

#[test]
fn every_bit_of_a_tag_counts() {
    let mut random = Random(16);
    for batch in &mut engines() {
        for tag_length in 1..=20 {
            let sample = Sample::new(&mut random, Suite { tag_length, ..Suite::DEFAULT }, 30);
            let bits = usize::from(tag_length) * 8;
            let packets: Vec<Vec<u8>> = (0..bits)
                .map(|bit| {
                    let mut packet = sample.sealed.clone();
                    let at = packet.len() - 1 - bit / 8;
                    packet[at] ^= 1 << (bit % 8);
                    packet
                })
                .collect();
            for packets in packets.chunks(PACKETS) {
                assert_eq!(
                    batch.verify(packets.iter().map(|packet| sample.to_open(packet))),
                    Passed(0),
                    "{tag_length}"
                );
            }
        }
    }
}

#[test]
fn any_truncation_fails_as_for_single_packets() {
    let mut random = Random(17);
    for batch in &mut engines() {
        for _ in 0..20 {
            let sample = Sample::any(&mut random);
            let lengths: Vec<usize> = (0..=sample.sealed.len().min(300)).collect();
            for lengths in lengths.chunks(PACKETS) {
                let passed = batch.verify(lengths.iter().map(|length| sample.to_open(&sample.sealed[..*length])));
                for (place, length) in lengths.iter().enumerate() {
                    let alone = sample.keys.verify(sample.sender, &sample.sealed[..*length]);
                    assert_eq!(passed.contains(place), alone, "{batch:?} {:?} {length} octets", sample.suite);
                }
            }
        }
    }
}

#[test]
fn only_what_is_asked_for_is_decrypted_and_once() {
    let mut random = Random(18);
    let samples: Vec<Sample> = (0..PACKETS).map(|_| Sample::new(&mut random, Suite::DEFAULT, 60)).collect();
    let end = HEADER + 60;
    for batch in &mut engines() {
        batch.verify(samples.iter().map(|sample| sample.to_open(&sample.sealed)));
        let mut packets: Vec<Vec<u8>> = samples.iter().map(|sample| sample.sealed.clone()).collect();
        // From the last to the first, and each a second time.
        let odd = |packets: &mut [Vec<u8>], batch: &mut Batch| {
            let bodies = packets.iter_mut().enumerate().filter(|(place, _)| place % 2 == 1);
            batch.decrypt(bodies.rev().map(|(place, packet)| (place, &mut packet[HEADER..end])));
        };
        odd(&mut packets, batch);
        odd(&mut packets, batch);
        for (place, (sample, packet)) in samples.iter().zip(&packets).enumerate() {
            let expected = if place % 2 == 1 { &sample.plain[..] } else { &sample.sealed[HEADER..end] };
            assert_eq!(&packet[HEADER..end], expected, "{batch:?} {place}");
        }
        let mut stray = [7; 20];
        batch.decrypt([(PACKETS, &mut stray[..])]);
        assert_eq!(stray, [7; 20]);
    }
}

#[test]
fn packets_behind_a_whole_batch_fail() {
    let mut random = Random(19);
    let samples: Vec<Sample> = (0..PACKETS + 2).map(|_| Sample::new(&mut random, Suite::DEFAULT, 60)).collect();
    for batch in &mut engines() {
        let passed = batch.verify(samples.iter().map(|sample| sample.to_open(&sample.sealed)));
        assert_eq!(passed, Passed(u64::MAX));
        assert!(!passed.contains(PACKETS));
        let mut packets: Vec<Vec<u8>> = samples.iter().map(Sample::unsealed).collect();
        let passed = batch.seal(samples.iter().zip(&mut packets).map(|(sample, packet)| ToSeal {
            keys: &sample.keys,
            sender: sample.sender,
            header: sample.header,
            packet,
        }));
        assert_eq!(passed, Passed(u64::MAX));
        assert_eq!(packets[PACKETS], samples[PACKETS].unsealed());
    }
}

#[test]
fn packets_without_room_are_not_sealed() {
    let mut random = Random(20);
    let suite = Suite { tag_length: 20, ..Suite::DEFAULT };
    let keys = random.keys(&suite);
    for batch in &mut engines() {
        for length in 0..HEADER + 20 {
            let mut packet = vec![0x55; length];
            let header = random.header();
            assert_eq!(
                batch.seal([ToSeal { keys: &keys, sender: Role::Left, header, packet: &mut packet }]),
                Passed(0)
            );
            assert_eq!(packet, vec![0x55; length]);
        }
    }
}

#[test]
fn debug_shows_no_session_values() {
    let secret = Secret::from_key_and_salt(&[1; 16], &[2; 14]);
    let keys = Keys::new(&secret, &Suite::DEFAULT);
    let mut batch = Batch::default();
    batch.verify([ToOpen { keys: &keys, sender: Role::Left, packet: &[0; 40] }]);
    assert_eq!(format!("{batch:?}"), format!("Batch({})", Engine::best()));
}
