//! Inner IPv4 packets that may be fragmented, and are larger than the way takes (RFC 791 §3.2).

use anytun_common::wire::{Bytes, checksum, ipv4};

/// Fragments that one packet becomes, at most. The largest packet that a frame holds needs fewer where the way takes what
/// every host takes (RFC 791 §3.2).
pub const MOST: usize = 8;

/// Octets of the longest header.
const LONGEST_HEADER: usize = 60;
/// Bit of an option's type: it goes into every fragment.
const COPIED: u8 = 0x80;
const END: u8 = 0;
const NOP: u8 = 1;

/// How a packet is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Octets of the packet and of its header.
    total: usize,
    header: usize,
    /// Octets of the data in the first and in each later fragment but the last; multiples of 8.
    first: usize,
    later: usize,
    /// The header of later fragments, and its octets.
    copied: [u8; LONGEST_HEADER],
    copied_length: usize,
    /// Flags and offset of the packet itself.
    flags: u16,
}

impl Cut {
    /// Finds how `packet`, without anything behind it, is cut into fragments of up to `limit` octets. Nothing when it is no
    /// such packet, must not be fragmented, needs not be, or needs too many.
    pub fn new(packet: &[u8], limit: usize) -> Option<Self> {
        let h: [u8; ipv4::HEADER] = packet.read(0)?;
        let (total, header) = (packet.len(), usize::from(h[0] & 0x0f) * 4);
        let flags = u16::from_be_bytes([h[ipv4::FLAGS], h[ipv4::FLAGS + 1]]);
        let said = usize::from(u16::from_be_bytes([h[ipv4::TOTAL_LENGTH], h[ipv4::TOTAL_LENGTH + 1]]));
        let sound = h[0] >> 4 == 4 && header >= ipv4::HEADER && header <= total && said == total;
        if !sound || flags & ipv4::DONT_FRAGMENT != 0 || total <= limit {
            return None;
        }
        let mut copied = [0; LONGEST_HEADER];
        copied[..ipv4::HEADER].copy_from_slice(&h);
        let options = copied_options(packet.get(ipv4::HEADER..header)?, &mut copied[ipv4::HEADER..])?;
        let copied_length = ipv4::HEADER + options;
        let (first, later) = (limit.checked_sub(header)? & !7, limit.checked_sub(copied_length)? & !7);
        // The offset of the last must not be more than the field holds.
        let end = usize::from(flags & ipv4::OFFSET_MASK) * 8 + total - header;
        let cut = Self { total, header, first, later, copied, copied_length, flags };
        (first > 0 && later > 0 && end <= usize::from(u16::MAX) && cut.count() <= MOST).then_some(cut)
    }

    /// How many fragments it becomes: two or more.
    #[inline]
    pub fn count(&self) -> usize {
        1 + (self.total - self.header - self.first).div_ceil(self.later)
    }

    /// Writes the fragment `index`, from 1, of the packet to the start of `out`; returns its octets. Nothing when there is no
    /// such fragment, or no room for it.
    pub fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        let start = self.first + index.checked_sub(1)? * self.later;
        let data = packet.get(self.header..self.total)?.get(start..).filter(|data| !data.is_empty())?;
        let data = data.get(..self.later).unwrap_or(data);
        let length = self.copied_length + data.len();
        let (header, rest) = out.get_mut(..length)?.split_at_mut_checked(self.copied_length)?;
        header.copy_from_slice(self.copied.get(..self.copied_length)?);
        rest.copy_from_slice(data);
        let last = start + data.len() == self.total - self.header;
        self.finish(header, length, start, last);
        Some(length)
    }

    /// Makes the packet its own first fragment, when all others are written; returns its octets.
    pub fn shorten(&self, packet: &mut [u8]) -> Option<usize> {
        let length = self.header + self.first;
        self.finish(packet.get_mut(..self.header)?, length, 0, false);
        Some(length)
    }

    /// Completes the header of a fragment of `length` octets whose data was at `start` of the packet's.
    fn finish(&self, header: &mut [u8], length: usize, start: usize, last: bool) {
        let more = if last { self.flags & ipv4::MORE_FRAGMENTS } else { ipv4::MORE_FRAGMENTS };
        let flags = more | ((self.flags & ipv4::OFFSET_MASK) + (start / 8) as u16);
        let words = (header.len() / 4) as u8;
        let Some(h) = header.first_chunk_mut::<{ ipv4::HEADER }>() else { return };
        h[0] = 0x40 | words;
        h[ipv4::TOTAL_LENGTH..][..2].copy_from_slice(&(length as u16).to_be_bytes());
        h[ipv4::FLAGS..][..2].copy_from_slice(&flags.to_be_bytes());
        h[ipv4::CHECKSUM..][..2].fill(0);
        let sum = checksum::of(header);
        if let Some(field) = header.get_mut(ipv4::CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>) {
            *field = sum.to_be_bytes();
        }
    }
}

/// Puts the options that go into every fragment to the start of `out`, filled up to a word; returns their octets. Nothing
/// when they contradict themselves.
fn copied_options(options: &[u8], out: &mut [u8]) -> Option<usize> {
    let (mut at, mut length) = (0, 0);
    while at < options.len() {
        match *options.get(at)? {
            END => break,
            NOP => at += 1,
            kind => {
                let octets = usize::from(*options.get(at + 1)?);
                let option = options.get(at..at + octets).filter(|option| option.len() >= 2)?;
                if kind & COPIED != 0 {
                    out.get_mut(length..length + octets)?.copy_from_slice(option);
                    length += octets;
                }
                at += octets;
            }
        }
    }
    let filled = length.next_multiple_of(4);
    out.get_mut(length..filled)?.fill(END);
    Some(filled)
}

#[cfg(test)]
mod tests;
