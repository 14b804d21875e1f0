//! Opening and sealing many packets at once, of different clients, suites and lengths.
//!
//! Each packet has session keys of its own, so a packet alone is a chain of steps that wait for each other. Here each step
//! is done for all packets of a batch before the next, with what [`simd`](super::simd) has for the CPU. The results are
//! those of [`Keys::verify`], [`Keys::crypt`] and [`Keys::seal`].

use std::array::from_fn;
use std::fmt;

use subtle::ConstantTimeEq;

use super::keys::{self, Keys};
use super::simd::PACKETS;
use super::simd::aes::{Aes, Blocks, Origin, Schedules, Sessions};
use super::simd::sha1::{DIGEST, Hmac, Sha1};
use super::{AesCtr, HEADER, Header, MAX_TAG, Role};

/// Octets of the longest packet: none that UDP carries is longer.
const LONGEST: usize = 65_535;

/// A packet to be opened.
#[derive(Debug)]
pub struct ToOpen<'a> {
    /// Those of its client.
    pub keys: &'a Keys,
    /// Whose keys it was sealed with.
    pub sender: Role,
    /// The packet, header to tag.
    pub packet: &'a [u8],
}

/// A packet to be sealed.
#[derive(Debug)]
pub struct ToSeal<'a> {
    /// Those of its client.
    pub keys: &'a Keys,
    /// Whose keys it is sealed with.
    pub sender: Role,
    /// What is written at its start.
    pub header: Header,
    /// Room for the header, payload type and payload, room for the tag.
    pub packet: &'a mut [u8],
}

/// Which packets of a batch passed, by their place in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed(u64);

impl Passed {
    /// Whether the packet at this place passed; none does behind the end of the batch.
    #[inline]
    pub const fn contains(self, place: usize) -> bool {
        place < PACKETS && self.0 >> place & 1 == 1
    }

    /// How many passed.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    #[inline]
    fn note(&mut self, place: usize, passed: bool) {
        self.0 |= u64::from(passed) << place;
    }
}

/// What computes SHA-1 and AES for a batch. They are chosen apart: CPUs have one without the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Engine {
    sha1: Sha1,
    aes: Aes,
}

impl Engine {
    /// The fastest that this CPU has.
    pub fn best() -> Self {
        let sha1 = Sha1::available().next().unwrap_or(Sha1::Portable);
        let aes = Aes::available().next().unwrap_or(Aes::Portable);
        Self { sha1, aes }
    }

    /// All that this CPU has, in every combination, the fastest first and the portable last.
    pub fn available() -> impl Iterator<Item = Self> {
        Sha1::available().flat_map(|sha1| Aes::available().map(move |aes| Self { sha1, aes }))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha1 {}, aes {}", self.sha1.name(), self.aes.name())
    }
}

/// Opens and seals batches of up to 64 packets, one after the other, without allocating.
///
/// The session values of a batch stay in its memory until the next one, as the master keys of which they tell less stay in
/// that of the [`Keys`]; both are wiped when dropped.
pub struct Batch {
    engine: Engine,
    sessions: Box<Sessions>,
    schedules: Box<Schedules>,
    hmac: Box<Hmac>,
    /// What each packet's payload is encrypted with.
    ciphers: [AesCtr; PACKETS],
    /// Whether any payload of the batch is.
    encrypted: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new(Engine::best())
    }
}

impl Batch {
    /// The most packets of a batch.
    pub const PACKETS: usize = PACKETS;

    /// A batch that works with `engine`.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            sessions: Box::default(),
            schedules: Box::default(),
            hmac: Box::default(),
            ciphers: [AesCtr::Null; PACKETS],
            encrypted: false,
        }
    }

    /// Starts a batch: says which packets were sealed with these keys, as [`Keys::verify`] does. Packets behind the first
    /// [`PACKETS`](Self::PACKETS), and any longer than 65,535 octets, fail.
    pub fn verify<'a>(&mut self, packets: impl IntoIterator<Item = ToOpen<'a>>) -> Passed {
        self.encrypted = false;
        let mut passed = Passed::default();
        let mut signed: [(usize, &[u8], usize); PACKETS] = [(0, &[], 0); PACKETS];
        let mut count = 0;
        for (place, ToOpen { keys, sender, packet }) in packets.into_iter().take(PACKETS).enumerate() {
            self.ciphers[place] = AesCtr::Null;
            let tag = keys.tag();
            if packet.len() < HEADER + tag || packet.len() > LONGEST {
                continue;
            }
            passed.note(place, tag == 0);
            if !keys.is_sealing() {
                continue;
            }
            let Some(header) = Header::read(packet, 0) else { continue };
            self.derive(place, keys, sender, &header);
            if tag > 0 {
                self.set_authentication_key(count, place);
                signed[count] = (place, packet, tag);
                count += 1;
            }
        }
        if count > 0 {
            let messages: [&[u8]; PACKETS] = from_fn(|index| {
                let (_, packet, tag) = signed[index];
                &packet[..packet.len() - tag]
            });
            self.hmac.compute(self.engine.sha1, &messages[..count]);
            for (index, (place, packet, tag)) in signed[..count].iter().enumerate() {
                passed.note(*place, ends_with(packet, *tag, &self.hmac.result(index)));
            }
        }
        passed
    }

    /// Decrypts packets of the batch that was verified, in place. Each is given by its place in it and its body: payload
    /// type and payload, without the tag. One that is given twice, or was not in the batch, is left as it is.
    pub fn decrypt<'a>(&mut self, bodies: impl IntoIterator<Item = (usize, &'a mut [u8])>) {
        if !self.encrypted {
            return;
        }
        let mut encrypted = Encrypted::default();
        let mut of_all: [&mut [u8]; PACKETS] = from_fn(|_| Default::default());
        for (place, body) in bodies {
            let cipher =
                self.ciphers.get_mut(place).map_or(AesCtr::Null, |cipher| std::mem::replace(cipher, AesCtr::Null));
            if cipher != AesCtr::Null && body.len() <= LONGEST {
                encrypted.add(cipher, place);
                of_all[place] = body;
            }
        }
        self.crypt(&encrypted, &mut of_all);
    }

    /// Seals a batch in place, as [`Keys::seal`] does. Says which packets were sealed: all but those without room for
    /// header and tag, those longer than 65,535 octets, and those behind the first [`PACKETS`](Self::PACKETS).
    pub fn seal<'a>(&mut self, packets: impl IntoIterator<Item = ToSeal<'a>>) -> Passed {
        let mut passed = Passed::default();
        let mut encrypted = Encrypted::default();
        let mut of_all: [&mut [u8]; PACKETS] = from_fn(|_| Default::default());
        let mut ends = [0; PACKETS];
        let mut signed = [0; PACKETS];
        let mut count = 0;
        for (place, ToSeal { keys, sender, header, packet }) in packets.into_iter().take(PACKETS).enumerate() {
            let (tag, cipher) = (keys.tag(), keys.cipher());
            if packet.len() < HEADER + tag || packet.len() > LONGEST {
                continue;
            }
            packet[..HEADER].copy_from_slice(&header.to_bytes());
            passed.note(place, true);
            if !keys.is_sealing() {
                continue;
            }
            self.derive(place, keys, sender, &header);
            if cipher != AesCtr::Null {
                encrypted.add(cipher, place);
            }
            if tag > 0 {
                self.set_authentication_key(count, place);
                signed[count] = place;
                count += 1;
            }
            ends[place] = packet.len() - tag;
            of_all[place] = packet;
        }
        if !encrypted.is_empty() {
            let mut place = 0;
            let mut bodies = of_all.each_mut().map(|packet| {
                let end = ends[place];
                place += 1;
                packet.get_mut(HEADER..end).unwrap_or_default()
            });
            self.crypt(&encrypted, &mut bodies);
        }
        if count > 0 {
            let messages: [&[u8]; PACKETS] = from_fn(|index| &of_all[signed[index]][..ends[signed[index]]]);
            self.hmac.compute(self.engine.sha1, &messages[..count]);
            for (index, &place) in signed[..count].iter().enumerate() {
                end_with(&mut of_all[place][ends[place]..], &self.hmac.result(index));
            }
        }
        passed
    }

    /// Derives the session values of the packet at `place`.
    #[inline]
    fn derive(&mut self, place: usize, keys: &Keys, sender: Role, header: &Header) {
        let cipher = keys.cipher();
        self.ciphers[place] = cipher;
        self.encrypted |= cipher != AesCtr::Null;
        let longer = matches!(cipher, AesCtr::Aes192 | AesCtr::Aes256);
        let origin = Origin { master: keys.master(), kd_prf: keys.kd_prf(), sender, header, longer };
        match self.engine.aes {
            Aes::Portable => {
                let (blocks, longer) = (&mut self.sessions.blocks[place], &mut self.sessions.longer[place]);
                keys.portable_session(sender, header, blocks, longer);
            }
            #[cfg(target_arch = "x86_64")]
            Aes::AesNi(aes) => aes.derive(&origin, &mut self.sessions, place),
            #[cfg(target_arch = "x86_64")]
            Aes::Vaes(aes) => aes.derive(&origin, &mut self.sessions, place),
        }
    }

    /// Makes the authentication key of the packet at `place` that of message `index`.
    #[inline]
    fn set_authentication_key(&mut self, index: usize, place: usize) {
        if let Some(key) = self.sessions.blocks[place][AUTHENTICATION..].first_chunk() {
            self.hmac.set_key(index, key);
        }
    }

    /// Encrypts or decrypts bodies, given by place.
    fn crypt(&mut self, encrypted: &Encrypted, bodies: &mut [&mut [u8]; PACKETS]) {
        for (cipher, places) in encrypted.lists() {
            match self.engine.aes {
                Aes::Portable => {
                    for place in places.iter().map(|place| usize::from(*place)) {
                        let (blocks, longer) = (&self.sessions.blocks[place], &self.sessions.longer[place]);
                        keys::portable_crypt(cipher, blocks, longer, bodies[place]);
                    }
                }
                #[cfg(target_arch = "x86_64")]
                Aes::AesNi(aes) => aes.crypt(cipher, places, &self.sessions, &mut self.schedules, bodies),
                #[cfg(target_arch = "x86_64")]
                Aes::Vaes(aes) => aes.crypt(cipher, places, &self.sessions, &mut self.schedules, bodies),
            }
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({})", self.engine)
    }
}

/// Where the authentication key stands in the session values.
const AUTHENTICATION: usize = 32;

/// The ciphers that encrypt.
const CIPHERS: [AesCtr; 3] = [AesCtr::Aes128, AesCtr::Aes192, AesCtr::Aes256];

/// The places of the packets that are encrypted, by cipher.
struct Encrypted {
    places: [[u8; PACKETS]; CIPHERS.len()],
    counts: [usize; CIPHERS.len()],
}

impl Default for Encrypted {
    fn default() -> Self {
        Self { places: [[0; PACKETS]; CIPHERS.len()], counts: [0; CIPHERS.len()] }
    }
}

impl Encrypted {
    #[inline]
    fn add(&mut self, cipher: AesCtr, place: usize) {
        let list = match cipher {
            AesCtr::Null => return,
            AesCtr::Aes128 => 0,
            AesCtr::Aes192 => 1,
            AesCtr::Aes256 => 2,
        };
        self.places[list][self.counts[list]] = place as u8;
        self.counts[list] += 1;
    }

    fn is_empty(&self) -> bool {
        self.counts == [0; CIPHERS.len()]
    }

    fn lists(&self) -> impl Iterator<Item = (AesCtr, &[u8])> {
        let lists = CIPHERS.into_iter().zip(&self.places).zip(self.counts);
        lists.map(|((cipher, places), count)| (cipher, &places[..count])).filter(|(_, places)| !places.is_empty())
    }
}

/// For each length of a tag the octets of a whole hash that are compared.
const TAGS: [[u8; DIGEST]; MAX_TAG + 1] = {
    let mut masks = [[0; DIGEST]; MAX_TAG + 1];
    let mut tag = 0;
    while tag <= MAX_TAG {
        let mut octet = DIGEST - tag;
        while octet < DIGEST {
            masks[tag][octet] = 0xff;
            octet += 1;
        }
        tag += 1;
    }
    masks
};

/// Whether the last `tag` octets of `packet` are those of `hash`. Takes the same time wherever they differ.
#[inline]
fn ends_with(packet: &[u8], tag: usize, hash: &[u8; DIGEST]) -> bool {
    let mut end = [0; DIGEST];
    match packet.last_chunk() {
        Some(last) => end = *last,
        None => end[DIGEST - packet.len()..].copy_from_slice(packet),
    }
    let mask = &TAGS[tag];
    let difference = (0..DIGEST).fold(0, |difference, octet| difference | (end[octet] ^ hash[octet]) & mask[octet]);
    difference.ct_eq(&0).into()
}

/// Writes the last octets of `hash`.
#[inline]
fn end_with(tag: &mut [u8], hash: &[u8; DIGEST]) {
    // The usual length is a constant, so that it is written at once.
    match <&mut [u8; 10]>::try_from(&mut *tag) {
        Ok(ten) => ten.copy_from_slice(&hash[DIGEST - 10..]),
        Err(_) => tag.copy_from_slice(&hash[DIGEST - tag.len()..]),
    }
}

#[cfg(test)]
mod tests;
