//! What a client and the node must agree on to understand each other, as flags of the daemons, as configuration of the
//! node and as keys of a forger.

use std::path::PathBuf;

use anytun_xdp::satp::{AesCtr, Auth, Keys, Secret, Suite};

/// Where the master key and salt come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Both from a passphrase (`-E`).
    Passphrase(String),
    /// The same, but the node reads it from a file of this name.
    PassphraseFile(PathBuf, String),
    /// Both written out in hex (`-K`, `-A`).
    KeyAndSalt(String, String),
}

/// The cryptographic choices of one client and its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crypto {
    /// Key derivation, cipher, tag.
    pub suite: Suite,
    /// Master key and salt.
    pub source: Source,
}

impl Crypto {
    /// The daemons' defaults and a passphrase.
    pub fn passphrase(passphrase: &str) -> Self {
        Self { suite: Suite::DEFAULT, source: Source::Passphrase(passphrase.to_owned()) }
    }

    /// The same secret with another suite.
    pub fn with(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }

    /// The flags of `anytun` and `uanytun`.
    pub fn flags(&self) -> Vec<String> {
        let suite = &self.suite;
        let mut flags: Vec<String> =
            ["-k", suite.kd_prf.name(), "-c", suite.cipher.name(), "-a", auth_name(suite.auth)].map(Into::into).into();
        if suite.auth != Auth::Null {
            flags.extend(["-b".to_owned(), suite.tag_length.to_string()]);
        }
        match &self.source {
            Source::Passphrase(passphrase) | Source::PassphraseFile(_, passphrase) => {
                flags.extend(["-E".to_owned(), passphrase.clone()]);
            }
            Source::KeyAndSalt(key, salt) => {
                flags.extend(["-K".to_owned(), key.clone(), "-A".to_owned(), salt.clone()]);
            }
        }
        flags
    }

    /// The keys of a `[[client]]` table. What is a default is left out.
    pub fn toml(&self) -> String {
        let mut toml = match &self.source {
            Source::Passphrase(passphrase) => format!("passphrase = \"{passphrase}\"\n"),
            Source::PassphraseFile(file, _) => format!("passphrase_file = \"{}\"\n", file.display()),
            Source::KeyAndSalt(key, salt) => format!("key = \"{key}\"\nsalt = \"{salt}\"\n"),
        };
        let suite = &self.suite;
        for (name, value, default) in
            [("kd_prf", suite.kd_prf, Suite::DEFAULT.kd_prf), ("cipher", suite.cipher, Suite::DEFAULT.cipher)]
        {
            if value != default {
                toml += &format!("{name} = \"{}\"\n", value.name());
            }
        }
        if suite.auth == Auth::Null {
            toml += "auth = \"null\"\n";
        } else if suite.tag_length != Suite::DEFAULT.tag_length {
            toml += &format!("tag_length = {}\n", suite.tag_length);
        }
        toml
    }

    /// The keys of a forger that knows the secret.
    ///
    /// # Panics
    /// With [`Source::KeyAndSalt`]: forgers use passphrases.
    pub fn keys(&self) -> Keys {
        match &self.source {
            Source::Passphrase(passphrase) | Source::PassphraseFile(_, passphrase) => {
                Keys::new(&Secret::from_passphrase(passphrase.as_bytes(), self.suite.kd_prf), &self.suite)
            }
            Source::KeyAndSalt(..) => panic!("forgers use passphrases"),
        }
    }
}

/// The five combinations that every release is tried with, beside the defaults (protocol.md §3.1), by name.
pub fn combinations(passphrase: &str) -> [(&'static str, Crypto); 6] {
    let suite = |kd_prf, cipher, auth, tag_length| Suite { kd_prf, cipher, auth, tag_length };
    let phrase = |suite| Crypto::passphrase(passphrase).with(suite);
    // Any octets do; these differ from each other and with the client.
    let digits: String = passphrase.bytes().chain(0..32).take(32).map(|octet| format!("{octet:02x}")).collect();
    let written = Source::KeyAndSalt(digits.clone(), digits[..28].to_owned());
    [
        ("default", Crypto::passphrase(passphrase)),
        ("null", phrase(suite(AesCtr::Null, AesCtr::Null, Auth::Null, 0))),
        ("kd-null", phrase(suite(AesCtr::Null, AesCtr::Aes128, Auth::Sha1, 10))),
        ("aes-256", Crypto { suite: suite(AesCtr::Aes256, AesCtr::Aes256, Auth::Sha1, 20), source: written }),
        ("cipher-null", phrase(suite(AesCtr::Aes128, AesCtr::Null, Auth::Sha1, 10))),
        ("kd-128-cipher-256", phrase(suite(AesCtr::Aes128, AesCtr::Aes256, Auth::Sha1, 10))),
    ]
}

const fn auth_name(auth: Auth) -> &'static str {
    match auth {
        Auth::Null => "null",
        Auth::Sha1 => "sha1",
    }
}
