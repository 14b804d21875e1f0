//! Master keys and salts.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::AesCtr;

/// Octets of the master salt.
pub const MASTER_SALT: usize = 14;

/// Master key and master salt of a client (protocol.md §3.1). Equality takes the same time wherever two differ.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    /// The master key, padded with zero octets.
    key: [u8; 32],
    /// Octets of the master key; 0 when the kd-prf is null.
    length: u8,
    salt: [u8; MASTER_SALT],
}

impl Secret {
    /// Derives key and salt as the daemons do: the last octets of SHA-256 and of SHA-1 of the passphrase.
    /// One hash without a salt of its own: only a long passphrase is hard to guess from a captured packet.
    pub fn from_passphrase(passphrase: &[u8], kd_prf: AesCtr) -> Self {
        let mut key = Sha256::digest(passphrase);
        let mut salt = Sha1::digest(passphrase);
        let mut secret = Self { key: [0; 32], length: kd_prf.key_length() as u8, salt: [0; MASTER_SALT] };
        let used = kd_prf.key_length();
        secret.key[..used].copy_from_slice(&key[key.len() - used..]);
        secret.salt.copy_from_slice(&salt[salt.len() - MASTER_SALT..]);
        key.as_mut_slice().zeroize();
        salt.as_mut_slice().zeroize();
        secret
    }

    /// A key and salt agreed on by other means.
    ///
    /// # Panics
    /// When the key is not one of an [`AesCtr`]: 0, 16, 24 or 32 octets. The configuration checks that before.
    pub fn from_key_and_salt(key: &[u8], salt: &[u8; MASTER_SALT]) -> Self {
        assert!(matches!(key.len(), 0 | 16 | 24 | 32), "a master key has 0, 16, 24 or 32 octets, not {}", key.len());
        let mut secret = Self { key: [0; 32], length: key.len() as u8, salt: *salt };
        secret.key[..key.len()].copy_from_slice(key);
        secret
    }

    /// The name of this secret in the lease store.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(b"anytun-xdp sequence lease: master key and salt\0");
        hash.update([self.length]);
        hash.update(self.key());
        // With a null kd-prf the session keys are zero whatever the salt, so all such secrets are one.
        if self.length > 0 {
            hash.update(self.salt);
        }
        let digest = hash.finalize();
        let mut fingerprint = Fingerprint([0; 16]);
        fingerprint.0.copy_from_slice(&digest[..16]);
        fingerprint
    }

    /// The master key; empty when the kd-prf is null.
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..usize::from(self.length)]
    }

    /// The master salt.
    pub(super) fn salt(&self) -> &[u8; MASTER_SALT] {
        &self.salt
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        (self.key.ct_eq(&other.key) & self.length.ct_eq(&other.length) & self.salt.ct_eq(&other.salt)).into()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Identifies a master key and salt without telling them: a truncated SHA-256 with a prefix of its own. Equal for all
/// secrets whose packets are protected by the same session keys. Whoever knows it can try passphrases against it, so
/// it is kept as private as a secret: `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The octets, for the lease store.
    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

#[cfg(test)]
impl From<u128> for Fingerprint {
    fn from(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; MASTER_SALT] = [7; MASTER_SALT];

    /// V1 of protocol.md §3.8.
    #[test]
    fn passphrase_gives_the_daemons_master_key_and_salt() {
        let secret = Secret::from_passphrase(b"anytun-xdp interop passphrase one", AesCtr::Aes128);
        assert_eq!(hex::encode(secret.key()), "5b82bc634d3143ea40d0f58e38a64275");
        assert_eq!(hex::encode(secret.salt()), "1783958ca407275278069c01c20d");
    }

    #[test]
    fn a_longer_key_ends_with_the_shorter_one() {
        let [short, middle, long] = [AesCtr::Aes128, AesCtr::Aes192, AesCtr::Aes256]
            .map(|kd_prf| Secret::from_passphrase(b"pass", kd_prf).key().to_vec());
        assert_eq!((short.len(), middle.len(), long.len()), (16, 24, 32));
        assert!(long.ends_with(&middle) && middle.ends_with(&short));
        assert!(Secret::from_passphrase(b"pass", AesCtr::Null).key().is_empty());
    }

    #[test]
    fn fingerprint_follows_key_and_salt() {
        let one = Secret::from_key_and_salt(&[1; 16], &SALT);
        assert_eq!(one.fingerprint(), Secret::from_key_and_salt(&[1; 16], &SALT).fingerprint());
        assert_ne!(one.fingerprint(), Secret::from_key_and_salt(&[2; 16], &SALT).fingerprint());
        assert_ne!(one.fingerprint(), Secret::from_key_and_salt(&[1; 16], &[8; MASTER_SALT]).fingerprint());
        assert_ne!(
            Secret::from_key_and_salt(&[0; 16], &SALT).fingerprint(),
            Secret::from_key_and_salt(&[0; 24], &SALT).fingerprint()
        );
    }

    #[test]
    fn all_null_secrets_share_one_fingerprint() {
        let null = Secret::from_passphrase(b"one", AesCtr::Null);
        assert_eq!(null.fingerprint(), Secret::from_passphrase(b"two", AesCtr::Null).fingerprint());
        assert_eq!(null.fingerprint(), Secret::from_key_and_salt(&[], &SALT).fingerprint());
        assert_ne!(null.fingerprint(), Secret::from_passphrase(b"one", AesCtr::Aes128).fingerprint());
    }

    #[test]
    fn equality_sees_key_length_and_salt() {
        let one = Secret::from_key_and_salt(&[0; 16], &SALT);
        assert_eq!(one, one.clone());
        assert_ne!(one, Secret::from_key_and_salt(&[0; 24], &SALT));
        assert_ne!(one, Secret::from_key_and_salt(&[3; 16], &SALT));
        assert_ne!(one, Secret::from_key_and_salt(&[0; 16], &[8; MASTER_SALT]));
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::from_key_and_salt(&[0xab; 16], &SALT);
        assert_eq!(format!("{secret:?} {:?}", secret.fingerprint()), "Secret Fingerprint");
    }
}
