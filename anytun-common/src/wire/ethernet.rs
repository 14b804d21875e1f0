//! Ethernet II with IEEE 802.1Q tags.

/// Octets of a MAC address.
pub type Mac = [u8; 6];

/// Octets of a header without tags: destination, source, EtherType.
pub const HEADER: usize = 14;
/// Offset of the source address.
pub const SOURCE: usize = 6;
/// Offset of the EtherType, or of the first tag.
pub const TYPE: usize = 12;
/// Octets of one tag: TPID and TCI.
pub const TAG: usize = 4;
/// Tags a frame may carry here.
pub const MAX_TAGS: usize = 2;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an Ethernet frame inside something else: transparent Ethernet bridging (RFC 1701).
pub const TRANSPARENT: u16 = 0x6558;
/// TPID of a customer tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// TPID of a service tag (IEEE 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Whether an EtherType announces a tag.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}
