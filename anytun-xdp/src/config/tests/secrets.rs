//! Secrets: the ways to give them, what is wrong with them, and that they stay where they are.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::{Config, Error, explain, parse, read};
use super::{BASE, base_with, refused};
use crate::satp::{AesCtr, Secret};

const PASSPHRASE: &str = "passphrase = \"correct horse battery\"";
const KEY: &str = "000102030405060708090a0b0c0d0e0f";
const SALT: &str = "a0a1a2a3a4a5a6a7a8a9aaabacad";

fn key() -> Vec<u8> {
    (0..16).collect()
}

fn salt() -> [u8; 14] {
    std::array::from_fn(|index| 0xa0 + index as u8)
}

/// A directory with a file `secret` of that mode.
fn directory_with(content: &[u8], mode: u32) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    (directory, file)
}

/// The base with another secret for alice, as if it lay in a directory.
fn parsed_in(directory: &Path, secret: &str) -> Result<Config, Error> {
    parse(&base_with(PASSPHRASE, secret), &directory.join("node.toml"))
}

#[test]
fn every_way_gives_the_same_as_the_octets() {
    let from_key = Secret::from_key_and_salt(&key(), &salt());
    let from_passphrase = Secret::from_passphrase(b"correct horse battery", AesCtr::Aes128);
    let here = Path::new(".");
    let alice = |directory: &Path, lines: &str| parsed_in(directory, lines).unwrap().clients[0].secret.clone();
    assert_eq!(alice(here, PASSPHRASE), from_passphrase);
    assert_eq!(alice(here, &format!("key = \"{KEY}\"\nsalt = \"{SALT}\"")), from_key);
    assert_eq!(alice(here, &format!("salt = \"{}\"\nkey = \"{KEY}\"", SALT.to_uppercase())), from_key);
    for content in ["correct horse battery", "correct horse battery\n", "correct horse battery\r\nmore\n"] {
        let (directory, _file) = directory_with(content.as_bytes(), 0o600);
        assert_eq!(alice(directory.path(), "passphrase_file = \"secret\""), from_passphrase, "{content:?}");
    }
    for content in
        [format!("key = {KEY}\nsalt = {SALT}\n"), format!("# of alice\n\n  salt=\"{SALT}\"\n  key=\"{KEY}\"")]
    {
        let (directory, file) = directory_with(content.as_bytes(), 0o400);
        assert_eq!(alice(directory.path(), "key_file = \"secret\""), from_key, "{content:?}");
        assert_eq!(alice(here, &format!("key_file = {file:?}")), from_key, "{content:?}");
    }
}

#[test]
fn wrong_secrets() {
    let ways = "`passphrase`, `passphrase_file`, `key` with `salt`, or `key_file`";
    let none = format!("node.toml:16: [[client]] has no secret; give {ways}");
    let two = format!("node.toml:21: `passphrase` and `key_file` exclude each other; give one of {ways}");
    for (lines, message) in [
        (String::new(), none.as_str()),
        (format!("{PASSPHRASE}\nkey_file = \"k\""), &two),
        (
            "passphrase = \"\"".to_owned(),
            "node.toml:20: `passphrase` is empty; a passphrase protects only if it is long",
        ),
        ("passphrase = 5".to_owned(), "node.toml:20: `passphrase` must be a string, not an integer"),
        (format!("key = \"{KEY}\""), "node.toml:20: `key` needs `salt` beside it"),
        (format!("salt = \"{SALT}\""), "node.toml:20: `salt` needs `key` beside it"),
        (
            format!("key = \"{}\"\nsalt = \"{SALT}\"", &KEY[2..]),
            "node.toml:20: `key` must have 32 hex digits for kd_prf aes-ctr-128, not 30",
        ),
        (
            format!("key = \"{KEY}\"\nkd_prf = \"aes-ctr-256\"\nsalt = \"{SALT}\""),
            "node.toml:20: `key` must have 64 hex digits for kd_prf aes-ctr-256, not 32",
        ),
        (format!("key = \"{KEY}\"\nsalt = \"a0\""), "node.toml:21: `salt` must have 28 hex digits, not 2"),
        (
            format!("key = \"{}\"\nsalt = \"{SALT}\"", KEY.replace("0a", "0x")),
            "node.toml:20: `key`: character 22 is no hex digit",
        ),
    ] {
        assert_eq!(refused(&base_with(PASSPHRASE, &lines)), message, "{lines}");
    }
}

#[test]
fn wrong_key_files() {
    for (content, message) in [
        (format!("key = {KEY}\n"), "FILE has no line `salt = HEX`"),
        (format!("{KEY}\n{SALT}\n"), "FILE:1: neither `key = HEX` nor `salt = HEX`"),
        (format!("key = {KEY}\nkey = {KEY}\n"), "FILE:2: a second `key`"),
        (
            format!("\nkey = {KEY}0\nsalt = {SALT}\n"),
            "FILE:2: `key` must have 32 hex digits for kd_prf aes-ctr-128, not 33",
        ),
        (format!("key = {KEY}\nsalt = {SALT}g\n"), "FILE:2: `salt`: character 29 is no hex digit"),
    ] {
        let (directory, file) = directory_with(content.as_bytes(), 0o600);
        let error = parsed_in(directory.path(), "key_file = \"secret\"").unwrap_err();
        let message = message.replace("FILE", &file.display().to_string());
        assert_eq!(error.problems.len(), 1, "{error}");
        assert_eq!((error.problems[0].line, error.problems[0].message.as_str()), (20, message.as_str()));
        assert!(!format!("{error}{error:?}").contains(&KEY[2..]), "{error}");
    }
}

#[test]
fn files_must_be_private_regular_and_readable() {
    let message = |directory: &Path, lines: &str| {
        let error = parsed_in(directory, lines).unwrap_err();
        assert_eq!((error.problems.len(), error.problems[0].line), (1, 20), "{error}");
        error.problems[0].message.clone()
    };
    for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
        let (directory, file) = directory_with(b"correct horse battery\n", mode);
        let file = file.display();
        assert_eq!(
            message(directory.path(), "passphrase_file = \"secret\""),
            format!(
                "`passphrase_file` {file} has mode {mode:04o}, so others than its owner have access; run: chmod 600 {file}"
            )
        );
    }
    let (directory, file) = directory_with(b"", 0o600);
    let empty = format!("the first line of {} is empty; a passphrase protects only if it is long", file.display());
    assert_eq!(message(directory.path(), "passphrase_file = \"secret\""), empty);
    let none = directory.path().join("none");
    let missing = format!("`key_file` {} cannot be read: No such file or directory (os error 2)", none.display());
    assert_eq!(message(directory.path(), "key_file = \"none\""), missing);
    let itself = directory.path().join("");
    let irregular = format!("`key_file` {} is not a regular file", itself.join(".").display());
    assert_eq!(message(directory.path(), "key_file = \".\""), irregular);
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let irregular = format!("`key_file` {} is not a regular file", fifo.display());
    assert_eq!(message(directory.path(), "key_file = \"fifo\""), irregular);
}

#[test]
fn a_readable_file_with_secrets_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    fs::write(&file, BASE).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let warnings = read(&file).unwrap().warnings;
    assert_eq!((warnings.len(), warnings[0].line), (1, 0));
    assert!(warnings[0].message.starts_with("holds secrets and has mode 0644, so others than its owner can read them"));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read(&file).unwrap().warnings, []);
}

/// Every way to break the file by leaving out, doubling or replacing one octet, and none shows the passphrase.
#[test]
fn no_output_shows_a_secret() {
    let marker = "Zx9MarkerQ7vKwTbLh2Yd";
    let key_marker = "5ec4e75ec4e75ec4e75ec4e75ec4e75e";
    let text = BASE
        .replace("correct horse battery", marker)
        .replace("passphrase = \"staple correct horse\"", &format!("key = \"{key_marker}\"\nsalt = \"{SALT}\""));
    let shown = |text: &str| match parse(text, Path::new("node.toml")) {
        Ok(config) => (true, format!("{config:?}{}", explain(&config))),
        Err(error) => (false, format!("{error}{error:?}")),
    };
    // Any eight octets of a secret would be a part of it.
    let parts: Vec<&str> = [marker, key_marker, SALT]
        .iter()
        .flat_map(|secret| (0..=secret.len() - 8).map(move |start| &secret[start..start + 8]))
        .collect();
    let (taken, output) = shown(&text);
    assert!(taken, "{output}");
    let mut refusals = 0;
    for at in text.find("[[client]]").unwrap()..text.len() {
        let (before, after) = (&text[..at], &text[at + 1..]);
        for octet in ["", "\"", "\n", "=", "[", "#", "\\", "x", &text[at..at + 1].repeat(2)] {
            let (taken, output) = shown(&format!("{before}{octet}{after}"));
            refusals += usize::from(!taken);
            let leak = parts.iter().find(|part| output.contains(**part));
            assert_eq!(leak, None, "octet {at} replaced by {octet:?}: {output}");
        }
    }
    assert!(refusals > 1000, "{refusals}");
}
