//! The keys of one client: opening and sealing its packets (protocol.md §3.2 to §3.4).
//!
//! Every packet has session keys of its own, so nothing but the key schedule of the master key outlives a packet.
//! Derivation, cipher and tag are functions of their own: a batch can run each over all of its packets.

use std::ops::Range;
use std::slice;

use aes::cipher::array::typenum::U16;
use aes::cipher::{Block, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, Key, KeyInit, StreamCipherCore};
use aes::{Aes128Enc, Aes192Enc, Aes256Enc};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::secret::{MASTER_SALT, Secret};
use super::simd::aes::Master;
use super::{AesCtr, HEADER, Header, MAX_TAG, Role, Shared, Suite};
use crate::satp::prefetch;

/// A block of AES.
type AesBlock = Block<Aes128Enc>;
/// Octets of a block of AES.
const BLOCK: usize = 16;
/// Octets of a session authentication key.
const AUTH_KEY: usize = 20;

/// What a client's packets are opened and sealed with, expanded once. Holds no state per packet; clones share what was
/// expanded. What says whether there is anything to do stands beside the pointer to it, so that packets without
/// cryptography never touch it.
#[derive(Clone)]
pub struct Keys {
    expanded: Shared<Expanded>,
    kd_prf: AesCtr,
    cipher: AesCtr,
    tag: u8,
}

/// What session values are derived with.
#[repr(C)]
struct Expanded {
    /// In batches.
    master: Master,
    /// Packet by packet.
    prf: Prf,
}

/// AES under the master key.
enum Prf {
    Null,
    Aes128(Aes128Enc),
    Aes192(Aes192Enc),
    Aes256(Aes256Enc),
}

/// Which session value is derived.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Encryption,
    Salt,
    Authentication,
}

impl Purpose {
    /// The first four octets of SHA-1 of an ASCII digit, one for each purpose and role of the sender.
    pub(super) const fn label(self, sender: Role) -> [u8; 4] {
        let label: u32 = match (self, sender) {
            (Purpose::Encryption, Role::Left) => 0x356a_192b,
            (Purpose::Encryption, Role::Right) => 0xda4b_9237,
            (Purpose::Salt, Role::Left) => 0x77de_68da,
            (Purpose::Salt, Role::Right) => 0x1b64_5389,
            (Purpose::Authentication, Role::Left) => 0xac34_78d6,
            (Purpose::Authentication, Role::Right) => 0xc1df_d96e,
        };
        label.to_be_bytes()
    }
}

/// Where the session values of a packet stand among its keystream blocks. The encryption key ends where the salt
/// starts, so what one operation needs is one run of blocks and one call of the cipher, whatever the key's length.
const KEY_END: usize = 2;
const SALT: usize = KEY_END;
const AUTHENTICATION: usize = SALT + 1;
const SESSION: usize = AUTHENTICATION + 2;

/// The session values of one packet, as far as they were asked for. Wiped when dropped.
pub(super) struct Session([AesBlock; SESSION]);

impl Session {
    /// The key of `C`, which is the cipher of the suite.
    fn encryption_key<C: KeyInit>(&self) -> Key<C> {
        let mut key = Key::<C>::default();
        let octets = AesBlock::slice_as_flattened(&self.0[key_start(key.len())..KEY_END]);
        let length = key.len();
        key.copy_from_slice(&octets[..length]);
        key
    }

    /// The initial counter block: the salt, MUX, sender ID and sequence number, and a block counter of 0.
    fn counter_block(&self, header: &Header) -> AesBlock {
        let mut block = self.0[SALT];
        block[MASTER_SALT..].fill(0);
        xor(&mut block[4..6], &header.mux.to_be_bytes());
        xor(&mut block[6..8], &header.sender.to_be_bytes());
        xor(&mut block[10..14], &header.sequence.to_be_bytes());
        block
    }

    fn authentication_key(&self) -> &[u8] {
        &AesBlock::slice_as_flattened(&self.0[AUTHENTICATION..])[..AUTH_KEY]
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        AesBlock::slice_as_flattened_mut(&mut self.0).zeroize();
    }
}

impl Keys {
    /// Expands the master key.
    ///
    /// # Panics
    /// When the secret was not made for the kd-prf of `suite`. The configuration makes both from one client.
    pub fn new(secret: &Secret, suite: &Suite) -> Self {
        let key = secret.key();
        assert_eq!(key.len(), suite.kd_prf.key_length(), "the master key does not have the length of the kd-prf");
        let prf = match suite.kd_prf {
            AesCtr::Null => Prf::Null,
            AesCtr::Aes128 => Prf::Aes128(expand(key)),
            AesCtr::Aes192 => Prf::Aes192(expand(key)),
            AesCtr::Aes256 => Prf::Aes256(expand(key)),
        };
        let expanded = Shared::new(Expanded { master: Master::new(suite.kd_prf, key, secret.salt()), prf });
        Self { expanded, kd_prf: suite.kd_prf, cipher: suite.cipher, tag: suite.tag().min(MAX_TAG) as u8 }
    }

    /// What a batch derives session values with.
    pub(super) fn master(&self) -> &Master {
        &self.expanded.master
    }

    /// What session values are derived with.
    pub(super) fn kd_prf(&self) -> AesCtr {
        self.kd_prf
    }

    /// What the payload is encrypted with.
    pub(super) fn cipher(&self) -> AesCtr {
        self.cipher
    }

    /// Derives the session values of a packet for a batch that has no AES instructions: the first block of the
    /// encryption key, the initial counter block and the authentication key; and the rest of a longer encryption key.
    pub(super) fn portable_session(
        &self,
        sender: Role,
        header: &Header,
        blocks: &mut [u8; 4 * BLOCK],
        longer: &mut [u8; BLOCK],
    ) {
        let start = key_start(self.cipher.key_length()).min(KEY_END - 1);
        let session = self.session(sender, header.sequence, key_start(self.cipher.key_length())..SESSION);
        let values =
            [session.0[start], session.counter_block(header), session.0[AUTHENTICATION], session.0[SESSION - 1]];
        blocks.copy_from_slice(AesBlock::slice_as_flattened(&values));
        longer.copy_from_slice(&session.0[KEY_END - 1]);
    }

    /// Brings near what a batch derives session values with.
    #[inline]
    pub fn prefetch(&self) {
        if self.is_sealing() {
            prefetch::slice(slice::from_ref(&self.expanded.master), Master::lines(self.kd_prf));
        }
    }

    /// Whether packets are authenticated or encrypted with these keys.
    #[inline]
    pub fn is_sealing(&self) -> bool {
        self.tag != 0 || self.cipher != AesCtr::Null
    }

    /// Octets of the tag.
    pub fn tag(&self) -> usize {
        usize::from(self.tag)
    }

    /// Whether `packet`, header to tag, was sealed by `sender` with these keys. False when it is shorter than header
    /// and tag. True without a tag. The time taken does not depend on where two tags differ.
    pub fn verify(&self, sender: Role, packet: &[u8]) -> bool {
        let Some(end) = packet.len().checked_sub(self.tag()) else { return false };
        let Some(header) = Header::read(packet, 0) else { return false };
        let (authenticated, tag) = packet.split_at(end);
        if authenticated.len() < HEADER {
            return false;
        }
        if tag.is_empty() {
            return true;
        }
        let session = self.session(sender, header.sequence, AUTHENTICATION..SESSION);
        let computed = authenticate(session.authentication_key(), authenticated);
        computed[MAX_TAG - tag.len()..].ct_eq(tag).into()
    }

    /// Encrypts or decrypts `body`, payload type and payload, in place.
    pub fn crypt(&self, sender: Role, header: &Header, body: &mut [u8]) {
        if self.cipher != AesCtr::Null {
            let session = self.session(sender, header.sequence, key_start(self.cipher.key_length())..AUTHENTICATION);
            encrypt(self.cipher, &session, header, body);
        }
    }

    /// Seals a packet in place. `packet` holds payload type and payload, `plain` octets, at [`HEADER`]; the header is
    /// written before them, they are encrypted, and the tag is appended. Returns the octets of the whole, or `None`
    /// when `packet` has no room for it; then nothing was changed.
    pub fn seal(&self, sender: Role, header: &Header, packet: &mut [u8], plain: usize) -> Option<usize> {
        let end = HEADER.checked_add(plain)?;
        let whole = end.checked_add(self.tag())?;
        let (authenticated, tag) = packet.get_mut(..whole)?.split_at_mut(end);
        let (start, body) = authenticated.split_at_mut(HEADER);
        start.copy_from_slice(&header.to_bytes());

        let from = if self.cipher == AesCtr::Null { AUTHENTICATION } else { key_start(self.cipher.key_length()) };
        let to = if tag.is_empty() { AUTHENTICATION } else { SESSION };
        let session = self.session(sender, header.sequence, from..to);
        encrypt(self.cipher, &session, header, body);
        if !tag.is_empty() {
            let computed = authenticate(session.authentication_key(), authenticated);
            tag.copy_from_slice(&computed[MAX_TAG - tag.len()..]);
        }
        Some(whole)
    }

    /// Derives the session values of the packet with this sequence number, as far as they lie in the blocks `wanted`.
    fn session(&self, sender: Role, sequence: u32, wanted: Range<usize>) -> Session {
        let mut session = Session([AesBlock::default(); SESSION]);
        let key_start = key_start(self.cipher.key_length());
        for at in wanted.clone() {
            let (purpose, counter) = match at {
                ..KEY_END => (Purpose::Encryption, at - key_start),
                SALT => (Purpose::Salt, 0),
                _ => (Purpose::Authentication, at - AUTHENTICATION),
            };
            let block = &mut session.0[at];
            block[..MASTER_SALT].copy_from_slice(self.expanded.master.salt());
            xor(&mut block[6..10], &purpose.label(sender));
            xor(&mut block[10..14], &sequence.to_be_bytes());
            block[BLOCK - 1] = counter as u8;
        }
        self.expanded.prf.encrypt(&mut session.0[wanted]);
        session
    }
}

impl Prf {
    /// Replaces counter blocks by keystream; by zero octets without a kd-prf. One call for all blocks of a packet, so
    /// that they pass through the AES unit together.
    fn encrypt(&self, blocks: &mut [AesBlock]) {
        match self {
            Prf::Null => blocks.fill(AesBlock::default()),
            Prf::Aes128(aes) => aes.encrypt_blocks(blocks),
            Prf::Aes192(aes) => aes.encrypt_blocks(blocks),
            Prf::Aes256(aes) => aes.encrypt_blocks(blocks),
        }
    }
}

/// The block where an encryption key of this length starts.
const fn key_start(key_length: usize) -> usize {
    KEY_END - key_length.div_ceil(BLOCK)
}

/// The key schedule of `key`, which has the length of `C`.
fn expand<C: KeyInit>(key: &[u8]) -> C {
    let mut copy = Key::<C>::default();
    copy.copy_from_slice(key);
    let schedule = C::new(&copy);
    copy.as_mut_slice().zeroize();
    schedule
}

/// Encrypts or decrypts `body` with the session values of its packet.
fn encrypt(cipher: AesCtr, session: &Session, header: &Header, body: &mut [u8]) {
    match cipher {
        AesCtr::Null => {}
        AesCtr::Aes128 => keystream::<Aes128Enc>(session, header, body),
        AesCtr::Aes192 => keystream::<Aes192Enc>(session, header, body),
        AesCtr::Aes256 => keystream::<Aes256Enc>(session, header, body),
    }
}

/// AES in counter mode; the whole block is the counter, big endian.
fn keystream<C>(session: &Session, header: &Header, body: &mut [u8])
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    apply::<C>(session.encryption_key::<C>(), &session.counter_block(header), body);
}

fn apply<C>(mut key: Key<C>, counter: &AesBlock, body: &mut [u8])
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let aes = C::new(&key);
    key.as_mut_slice().zeroize();
    CtrCore::<&C, Ctr128BE>::inner_iv_init(&aes, counter).apply_keystream_partial(body.into());
}

/// Encrypts or decrypts `body` with the values that [`Keys::portable_session`] gives.
pub(super) fn portable_crypt(cipher: AesCtr, blocks: &[u8; 4 * BLOCK], longer: &[u8; BLOCK], body: &mut [u8]) {
    fn with<C>(blocks: &[u8; 4 * BLOCK], longer: &[u8; BLOCK], body: &mut [u8])
    where
        C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    {
        let mut key = Key::<C>::default();
        for (octet, from) in key.iter_mut().zip(blocks[..BLOCK].iter().chain(longer)) {
            *octet = *from;
        }
        let mut counter = AesBlock::default();
        counter.copy_from_slice(&blocks[BLOCK..2 * BLOCK]);
        apply::<C>(key, &counter, body);
    }
    match cipher {
        AesCtr::Null => {}
        AesCtr::Aes128 => with::<Aes128Enc>(blocks, longer, body),
        AesCtr::Aes192 => with::<Aes192Enc>(blocks, longer, body),
        AesCtr::Aes256 => with::<Aes256Enc>(blocks, longer, body),
    }
}

/// HMAC-SHA1 of `octets`.
pub(super) fn authenticate(key: &[u8], octets: &[u8]) -> [u8; MAX_TAG] {
    // HMAC pads its key with zero octets to a block of the hash.
    let mut padded = Key::<Hmac<Sha1>>::default();
    padded[..key.len()].copy_from_slice(key);
    let mut hmac = Hmac::<Sha1>::new(&padded);
    padded.as_mut_slice().zeroize();
    hmac.update(octets);
    hmac.finalize().into_bytes().into()
}

fn xor<const N: usize>(octets: &mut [u8], with: &[u8; N]) {
    for (octet, with) in octets.iter_mut().zip(with) {
        *octet ^= with;
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

#[cfg(test)]
pub(super) mod tests;
