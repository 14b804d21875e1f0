//! An archive that the kernel unpacks at boot: cpio in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
/// The name of the entry that ends an archive.
const END: &str = "TRAILER!!!";
/// Header with name, and contents, begin at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive in the making. All files belong to root and can be executed.
#[derive(Default)]
pub(crate) struct Archive {
    octets: Vec<u8>,
    directories: BTreeSet<String>,
    entries: usize,
}

impl Archive {
    /// Adds a file under an absolute path, and the directories above it.
    ///
    /// # Errors
    /// When the path is not absolute, not UTF-8, or the file larger than the format can say.
    pub(crate) fn file(&mut self, path: &Path, contents: &[u8]) -> Result<()> {
        let name = name(path)?;
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        self.entry(name, PROGRAM, contents)
    }

    /// Adds a directory under an absolute path, and those above it. One that is there already stays.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        let outermost_first: Vec<&Path> = path.ancestors().collect();
        for directory in outermost_first.into_iter().rev().skip(1) {
            let name = name(directory)?;
            if self.directories.insert(name.to_owned()) {
                self.entry(name, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// The octets of the whole.
    ///
    /// # Errors
    /// Never: the end of an archive is an entry like any other.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(END, 0, &[])?;
        Ok(self.octets)
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entries += 1;
        let inode = u32::try_from(self.entries)?;
        let length = u32::try_from(contents.len()).with_context(|| format!("{name} is too large"))?;
        let name_length = u32::try_from(name.len() + 1)?;
        // Inode, mode, owner, group, links, time, length, device (2), device meant (2), length of the name, checksum.
        let fields = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.octets.extend(b"070701");
        self.octets.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        self.octets.extend(name.bytes().chain([0]));
        self.align();
        self.octets.extend(contents);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.octets.resize(self.octets.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// A path as an archive has it: without the slash in front.
fn name(path: &Path) -> Result<&str> {
    path.to_str()
        .and_then(|path| path.strip_prefix('/'))
        .with_context(|| format!("{} cannot be put into an archive", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_first_and_once() {
        let mut archive = Archive::default();
        archive.file(Path::new("/bin/x"), b"12345").unwrap();
        archive.file(Path::new("/bin/yy"), b"").unwrap();
        archive.directory(Path::new("/bin")).unwrap();
        let octets = archive.finish().unwrap();
        assert_eq!(octets.len() % ALIGNMENT, 0);
        // Header and name of the directory, then those of the first file with its contents.
        let first_file = (110 + 4usize).next_multiple_of(4);
        assert_eq!(&octets[..6], b"070701");
        assert_eq!(&octets[14..22], b"000041ed");
        assert_eq!(&octets[110..114], b"bin\0");
        assert_eq!(&octets[first_file + 14..first_file + 22], b"000081ed");
        assert_eq!(&octets[first_file + 54..first_file + 62], b"00000005");
        let contents = (first_file + 110 + 6).next_multiple_of(4);
        assert_eq!(&octets[contents..contents + 8], b"12345\0\0\0");
        let text = String::from_utf8_lossy(&octets);
        assert_eq!(text.matches("070701").count(), 4, "two files, one directory, the end");
        assert!(text.trim_end_matches('\0').ends_with(END));
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(Archive::default().file(Path::new("init"), b"").is_err());
    }
}
