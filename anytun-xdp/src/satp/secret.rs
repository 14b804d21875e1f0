//! Master keys and salts.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::AesCtr;

/// Master key and salt of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    key: Vec<u8>,
    salt: [u8; 14],
}

impl Secret {
    /// Key and salt of a passphrase (protocol.md §3.1).
    pub fn from_passphrase(passphrase: &[u8], kd_prf: AesCtr) -> Self {
        let (key, salt) = (Sha256::digest(passphrase), Sha1::digest(passphrase));
        let mut secret = Self { key: key[32 - kd_prf.key_length()..].to_vec(), salt: [0; 14] };
        secret.salt.copy_from_slice(&salt[6..]);
        secret
    }

    /// A key as long as the kd-prf wants it, and a salt.
    pub fn from_key_and_salt(key: &[u8], salt: &[u8; 14]) -> Self {
        Self { key: key.to_vec(), salt: *salt }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
