//! Where a client's master key and salt come from. Nothing here puts a part of a secret into a message.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::document::{At, Table};
use super::error::Report;
use crate::satp::{AesCtr, Secret};

/// Octets of a master salt (protocol.md §3.1).
const SALT: usize = 14;

/// Characters below which a passphrase is warned about: key and salt are one unsalted hash of it, so guessing is cheap.
const SHORT: usize = 16;

/// Octets that a file with a secret may have.
const FILE_LIMIT: u64 = 64 * 1024;

const WAYS: &str = "`passphrase`, `passphrase_file`, `key` with `salt`, or `key_file`";

/// Whether the table itself holds a secret.
pub(super) fn is_inline(table: &Table<'_>) -> bool {
    table.has("passphrase") || table.has("key")
}

/// Reads the secret of a client in the one way it is given. With kd-prf null there is nothing to be secret.
pub(super) fn secret(report: &mut Report, table: &Table<'_>, kd_prf: AesCtr, directory: &Path) -> Option<Secret> {
    let ways = [
        ("passphrase", table.has("passphrase")),
        ("passphrase_file", table.has("passphrase_file")),
        (if table.has("key") { "key" } else { "salt" }, table.has("key") || table.has("salt")),
        ("key_file", table.has("key_file")),
    ];
    let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(way, _)| *way).collect();
    match given[..] {
        [] if kd_prf == AesCtr::Null => Some(Secret::from_passphrase(b"", AesCtr::Null)),
        [] => {
            report.error(table.line, format!("[[client]] has no secret; give {WAYS}"));
            None
        }
        [way] if kd_prf == AesCtr::Null => {
            report.warn(table.line_of(way), format!("`{way}` is not used: without a kd-prf all keys are zero"));
            Some(Secret::from_passphrase(b"", AesCtr::Null))
        }
        ["passphrase"] => inline_passphrase(report, table, kd_prf),
        ["passphrase_file"] => passphrase_file(report, table, kd_prf, directory),
        ["key_file"] => key_file(report, table, kd_prf, directory),
        [_] => key_and_salt(report, table, kd_prf),
        [first, second, ..] => {
            let line = table.line_of(first).max(table.line_of(second));
            report.error(line, format!("`{first}` and `{second}` exclude each other; give one of {WAYS}"));
            None
        }
    }
}

fn inline_passphrase(report: &mut Report, table: &Table<'_>, kd_prf: AesCtr) -> Option<Secret> {
    let At { line, value } = table.string(report, "passphrase")?;
    from_passphrase(report, line, "`passphrase`", value.as_bytes(), kd_prf)
}

/// The passphrase is the first line, without the newline that ends it.
fn passphrase_file(report: &mut Report, table: &Table<'_>, kd_prf: AesCtr, directory: &Path) -> Option<Secret> {
    let (line, name, content) = file(report, table, "passphrase_file", directory)?;
    let first = content.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let passphrase = first.strip_suffix(b"\r").unwrap_or(first);
    from_passphrase(report, line, &format!("the first line of {name}"), passphrase, kd_prf)
}

fn from_passphrase(report: &mut Report, line: usize, what: &str, passphrase: &[u8], kd_prf: AesCtr) -> Option<Secret> {
    if passphrase.is_empty() {
        report.error(line, format!("{what} is empty; a passphrase protects only if it is long"));
        return None;
    }
    // Characters where it is UTF-8, else octets.
    let length = std::str::from_utf8(passphrase).map_or(passphrase.len(), |text| text.chars().count());
    if length < SHORT {
        report.warn(
            line,
            format!(
                "{what} has less than {SHORT} characters; key and salt are one unsalted hash of it, so it can be \
                 guessed from a single packet: take a longer one, or `key` and `salt`"
            ),
        );
    }
    Some(Secret::from_passphrase(passphrase, kd_prf))
}

fn key_and_salt(report: &mut Report, table: &Table<'_>, kd_prf: AesCtr) -> Option<Secret> {
    for (present, absent) in [("key", "salt"), ("salt", "key")] {
        if table.has(present) && !table.has(absent) {
            report.error(table.line_of(present), format!("`{present}` needs `{absent}` beside it"));
        }
    }
    let key = table.string(report, "key").and_then(|at| key_octets(report, at, "`key`", kd_prf));
    let salt = table.string(report, "salt").and_then(|at| salt_octets(report, at, "`salt`"));
    Some(Secret::from_key_and_salt(&key?, &*salt?))
}

/// Two lines, `key = HEX` and `salt = HEX`, in any order; empty lines and those that begin with `#` are skipped.
fn key_file(report: &mut Report, table: &Table<'_>, kd_prf: AesCtr, directory: &Path) -> Option<Secret> {
    let (line, name, content) = file(report, table, "key_file", directory)?;
    let Ok(content) = std::str::from_utf8(&content) else {
        report.error(line, format!("{name} is not text; it must have the lines `key = HEX` and `salt = HEX`"));
        return None;
    };
    let (mut key, mut salt) = (None, None);
    for (number, text) in content.lines().enumerate().map(|(index, text)| (index + 1, text.trim())) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (word, hex) = text.split_once('=').map_or((text, ""), |(word, hex)| (word.trim(), unquoted(hex.trim())));
        let slot = match word {
            "key" => &mut key,
            "salt" => &mut salt,
            // The word may be the secret itself, so it is not shown.
            _ => {
                report.error(line, format!("{name}:{number}: neither `key = HEX` nor `salt = HEX`"));
                return None;
            }
        };
        if slot.replace((number, hex)).is_some() {
            report.error(line, format!("{name}:{number}: a second `{word}`"));
            return None;
        }
    }
    for (word, found) in [("key", key), ("salt", salt)] {
        if found.is_none() {
            report.error(line, format!("{name} has no line `{word} = HEX`"));
        }
    }
    let key = key
        .and_then(|(number, value)| key_octets(report, At { line, value }, &format!("{name}:{number}: `key`"), kd_prf));
    let salt =
        salt.and_then(|(number, value)| salt_octets(report, At { line, value }, &format!("{name}:{number}: `salt`")));
    Some(Secret::from_key_and_salt(&key?, &*salt?))
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn key_octets(report: &mut Report, hex: At<&str>, what: &str, kd_prf: AesCtr) -> Option<Zeroizing<Vec<u8>>> {
    octets(report, hex, what, kd_prf.key_length(), &format!(" for kd_prf {}", kd_prf.name()))
}

fn salt_octets(report: &mut Report, hex: At<&str>, what: &str) -> Option<Zeroizing<[u8; SALT]>> {
    let octets = octets(report, hex, what, SALT, "")?;
    <[u8; SALT]>::try_from(octets.as_slice()).ok().map(Zeroizing::new)
}

/// As many octets as wanted, from hex digits.
fn octets(report: &mut Report, hex: At<&str>, what: &str, wanted: usize, purpose: &str) -> Option<Zeroizing<Vec<u8>>> {
    let At { line, value } = hex;
    if let Some(position) = value.chars().position(|digit| !digit.is_ascii_hexdigit()) {
        report.error(line, format!("{what}: character {} is no hex digit", position + 1));
        return None;
    }
    if value.len() != 2 * wanted {
        let (wanted, got) = (2 * wanted, value.len());
        report.error(line, format!("{what} must have {wanted} hex digits{purpose}, not {got}"));
        return None;
    }
    hex::decode(value).ok().map(Zeroizing::new)
}

/// Line of the key, name and content of the file a key points to. Relative paths are relative to `directory`.
fn file(
    report: &mut Report,
    table: &Table<'_>,
    key: &str,
    directory: &Path,
) -> Option<(usize, String, Zeroizing<Vec<u8>>)> {
    let At { line, value } = table.string(report, key)?;
    if value.is_empty() {
        report.error(line, format!("`{key}` is empty; it must be the path of a file"));
        return None;
    }
    let path = directory.join(value);
    let name = path.display().to_string();
    match read_private(&path) {
        Ok(content) => Some((line, name, content)),
        Err(why) => {
            report.error(line, format!("`{key}` {name} {why}"));
            None
        }
    }
}

/// The content of a file that only its owner can read and write.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    // Non-blocking: a FIFO would wait for its writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let cannot_read = |error: std::io::Error| format!("cannot be read: {error}");
    let file = opened.map_err(cannot_read)?;
    // Of the open file: what the path names may change in between.
    let metadata = file.metadata().map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let chmod = format!("chmod 600 {}", path.display());
        return Err(format!("has mode {mode:04o}, so others than its owner have access; run: {chmod}"));
    }
    if metadata.len() > FILE_LIMIT {
        return Err(format!("has {} octets; {FILE_LIMIT} are the most for a secret", metadata.len()));
    }
    // Room for all of it: growing would leave copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_LIMIT as usize + 1));
    file.take(FILE_LIMIT).read_to_end(&mut content).map_err(cannot_read)?;
    Ok(content)
}
