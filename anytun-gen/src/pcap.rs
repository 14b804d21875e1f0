//! Writes what would be sent as a pcap file (draft-ietf-opsawg-pcap), in the byte order of this host.

use std::io::{self, Write};

/// The magic number of times in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
/// The version of the format.
const VERSION: [u16; 2] = [2, 4];
/// Octets of a packet that are kept at most.
const SNAP: u32 = 65_535;
/// Link type: Ethernet.
const ETHERNET: u32 = 1;

/// A pcap file that is being written.
#[derive(Debug)]
pub struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    /// Writes the head of the file.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn new(mut file: W) -> io::Result<Self> {
        file.write_all(&MAGIC.to_ne_bytes())?;
        for number in VERSION {
            file.write_all(&number.to_ne_bytes())?;
        }
        // Time zone and accuracy, which everybody leaves zero.
        file.write_all(&[0; 8])?;
        file.write_all(&SNAP.to_ne_bytes())?;
        file.write_all(&ETHERNET.to_ne_bytes())?;
        Ok(Self(file))
    }

    /// Writes a packet with its time in nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn packet(&mut self, time: u64, frame: &[u8]) -> io::Result<()> {
        let micros = time / 1_000;
        let length = frame.len() as u32;
        for word in [(micros / 1_000_000) as u32, (micros % 1_000_000) as u32, length, length] {
            self.0.write_all(&word.to_ne_bytes())?;
        }
        self.0.write_all(frame)
    }

    /// Writes what is still in a buffer.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_the_format_has_it() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        writer.packet(1_700_000_000_123_456_789, &[7; 60]).unwrap();
        writer.finish().unwrap();
        let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(16), word(20)), (0xa1b2_c3d4, 65_535, 1));
        assert_eq!(&file[4..8], [2u16.to_ne_bytes(), 4u16.to_ne_bytes()].as_flattened());
        assert_eq!([24, 28, 32, 36].map(word), [1_700_000_000, 123_456, 60, 60]);
        assert_eq!(file[40..], [7; 60]);
    }
}
