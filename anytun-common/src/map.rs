//! Keys, values and sizes of the eBPF maps.

/// AF_XDP sockets an interface can have: one per queue. The index of a socket in the socket map is
/// `slot * QUEUES_PER_INTERFACE + queue`.
pub const QUEUES_PER_INTERFACE: u32 = 64;

/// Interfaces a node can have.
pub const MAX_INTERFACES: u32 = 16;

/// Entries of the socket map.
pub const MAX_SOCKETS: u32 = MAX_INTERFACES * QUEUES_PER_INTERFACE;

/// Services a node can have.
pub const MAX_SERVICES: u32 = 1024;

/// Prefixes that packets from outside can be for.
pub const MAX_INSIDE: u32 = 1 << 18;

/// What packets from outside are looked up by: the destination, an IPv4 one mapped, and behind it the
/// [`port`](crate::classify::port). Prefixes of clients end within the address; blocks of ports of a NAT go on behind it.
pub type InsideKey = [u8; 18];

/// The key for an address and a port.
#[inline(always)]
pub fn inside_key(address: &[u8; 16], port: u16) -> InsideKey {
    let mut key = [0; 18];
    key[..16].copy_from_slice(address);
    key[16..].copy_from_slice(&port.to_be_bytes());
    key
}

/// Key of the map of services: where a packet must be addressed to be steered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct ServiceKey {
    /// IPv6 address, or IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 §2.5.5.2). Network byte order.
    pub address: [u8; 16],
    /// UDP port. Network byte order.
    pub port: [u8; 2],
    /// Always zero: hash maps compare every octet.
    pub reserved: [u8; 2],
}

const _: () = assert!(size_of::<ServiceKey>() == 20 && align_of::<ServiceKey>() == 1);

impl ServiceKey {
    /// The key for an address and a port.
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), reserved: [0; 2] }
    }
}
