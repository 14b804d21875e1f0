//! SATP as pure functions: master keys, per-packet keys, opening, sealing, replay windows and sequence leases
//! (protocol.md §2 and §3).

mod batch;
mod keys;
pub mod lease;
mod secret;
mod simd;
pub mod window;

pub use anytun_common::wire::satp::{HEADER, Header, MAX_TAG, PAYLOAD_TYPE};
pub use batch::{Batch, Engine, Passed, ToOpen, ToSeal};
pub use keys::Keys;
pub use secret::{Fingerprint, MASTER_SALT, Secret};
pub use simd::pages::Pages;
pub(crate) use simd::prefetch;
pub use simd::shared::Shared;

/// The side of a connection. Every packet is protected with the keys of the role of its sender (protocol.md §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Alice, the server.
    Left,
    /// Bob, the client.
    Right,
}

impl Role {
    /// The role of the other end.
    pub const fn opposite(self) -> Self {
        match self {
            Role::Left => Role::Right,
            Role::Right => Role::Left,
        }
    }
}

/// AES in counter mode with one of its key lengths, or nothing. Serves as the kd-prf and as the cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AesCtr {
    /// No keystream: keys of zero octets, payload in clear.
    Null,
    /// AES-128.
    Aes128,
    /// AES-192.
    Aes192,
    /// AES-256.
    Aes256,
}

impl AesCtr {
    /// Octets of the key; 0 for [`AesCtr::Null`].
    pub const fn key_length(self) -> usize {
        match self {
            AesCtr::Null => 0,
            AesCtr::Aes128 => 16,
            AesCtr::Aes192 => 24,
            AesCtr::Aes256 => 32,
        }
    }

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            AesCtr::Null => "null",
            AesCtr::Aes128 => "aes-ctr-128",
            AesCtr::Aes192 => "aes-ctr-192",
            AesCtr::Aes256 => "aes-ctr-256",
        }
    }
}

/// What authenticates a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Nothing: there is no tag.
    Null,
    /// HMAC-SHA1, of which the last octets are the tag.
    Sha1,
}

/// The cryptographic choices of one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suite {
    /// Derives the session keys of each packet.
    pub kd_prf: AesCtr,
    /// Encrypts payload type and payload.
    pub cipher: AesCtr,
    /// Authenticates header and encrypted part.
    pub auth: Auth,
    /// Octets of the tag with [`Auth::Sha1`], 0 to 20.
    pub tag_length: u8,
}

impl Suite {
    /// What `anytun` and `uanytun` use when nothing is said.
    pub const DEFAULT: Suite =
        Suite { kd_prf: AesCtr::Aes128, cipher: AesCtr::Aes128, auth: Auth::Sha1, tag_length: 10 };

    /// Octets behind the encrypted part.
    pub const fn tag(&self) -> usize {
        match self.auth {
            Auth::Null => 0,
            Auth::Sha1 => self.tag_length as usize,
        }
    }
}
