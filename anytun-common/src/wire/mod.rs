//! Formats on the wire, one file per protocol: offsets, values and checked reads.

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod mld;
pub mod satp;
pub mod tcp;
pub mod udp;

/// Bytes that can be read at an offset, and say when they end. A slice in the user half, packet memory in the kernel half.
pub trait Bytes {
    /// How many octets there are.
    fn length(&self) -> usize;

    /// `N` octets from `offset`, or nothing when the end is nearer.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}

/// An IPv4 address in the form that maps and tables use: `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    // Made in registers: octets that are stored one by one cannot be loaded as a whole at once.
    (0xffff_0000_0000 | u32::from_be_bytes(v4) as u128).to_be_bytes()
}

/// The IPv4 address of a mapped one.
#[inline(always)]
pub const fn unmapped(address: [u8; 16]) -> Option<[u8; 4]> {
    let number = u128::from_be_bytes(address);
    if number >> 32 == 0xffff { Some((number as u32).to_be_bytes()) } else { None }
}
