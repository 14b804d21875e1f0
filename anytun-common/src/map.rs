//! Keys, values and sizes of the eBPF maps.

/// AF_XDP sockets an interface can have: one per queue. The index of a socket in the socket map is
/// `slot * QUEUES_PER_INTERFACE + queue`.
pub const QUEUES_PER_INTERFACE: u32 = 64;

/// Interfaces a node can have.
pub const MAX_INTERFACES: u32 = 16;

/// The interfaces of a node: at the place of each slot an interface index, or 0, which none has.
pub type Interfaces = [u32; MAX_INTERFACES as usize];

/// Entries of the socket map.
pub const MAX_SOCKETS: u32 = MAX_INTERFACES * QUEUES_PER_INTERFACE;

/// Services a node can have.
pub const MAX_SERVICES: u32 = 1024;

/// So many services are compared one by one: most nodes have no more, and that is quicker than to hash.
pub const FEW: usize = 4;

/// Prefixes that packets from outside can be for.
pub const MAX_INSIDE: u32 = 1 << 18;

/// Datagrams in fragments that are told apart at once.
pub const MAX_FRAGMENTS: u32 = 1 << 14;

/// What packets from outside are looked up by: the destination, an IPv4 one mapped, and behind it the
/// [`port`](crate::classify::port). Prefixes of clients end within the address; blocks of ports of a NAT go on behind it.
pub type InsideKey = [u8; 18];

/// Stands in the place of the port for a fragment of a datagram whose ports are not known.
pub const FRAGMENT: u16 = 0;

/// Stands in the place of the port for a packet without one. No NAT has it, as their ports begin at 1024.
pub const NO_PORT: u16 = 1;

/// The key for an address and a port.
#[inline(always)]
pub fn inside_key(address: &[u8; 16], port: u16) -> InsideKey {
    let mut key = [0; 18];
    key[..16].copy_from_slice(address);
    key[16..].copy_from_slice(&port.to_be_bytes());
    key
}

/// Key of the map of datagrams in fragments: what all fragments of one have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address, an IPv4 one mapped. Network byte order.
    pub source: [u8; 16],
    /// Destination address, an IPv4 one mapped. Network byte order.
    pub destination: [u8; 16],
    /// Identification. Network byte order.
    pub identification: [u8; 4],
    /// Protocol of IPv4; zero of IPv6, whose fragments need not agree in it.
    pub protocol: u8,
    /// Always zero: hash maps compare every octet.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<FragmentKey>() == 40 && align_of::<FragmentKey>() == 1);

/// Key of the map of services: where a packet must be addressed to be steered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, align(4))]
pub struct ServiceKey {
    /// IPv6 address, or IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 §2.5.5.2). Network byte order.
    pub address: [u8; 16],
    /// UDP port. Network byte order.
    pub port: [u8; 2],
    /// Always zero: hash maps compare every octet.
    pub reserved: [u8; 2],
}

// Aligned, so that the XDP program makes it of words, as the kernel reads it.
const _: () = assert!(size_of::<ServiceKey>() == 20 && align_of::<ServiceKey>() == 4);

impl ServiceKey {
    /// The key for an address and a port.
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), reserved: [0; 2] }
    }

    /// What it says in words: the halves of the address and the port, each as it lies in memory.
    #[inline(always)]
    pub fn words(&self) -> ServiceWords {
        let address = u128::from_be_bytes(self.address);
        [((address >> 64) as u64).to_be(), (address as u64).to_be(), u16::from_ne_bytes(self.port).into()]
    }

    /// The key that has these [words](Self::words).
    #[inline(always)]
    pub fn from_words([high, low, port]: ServiceWords) -> Self {
        let address = u128::from(u64::from_be(high)) << 64 | u128::from(u64::from_be(low));
        Self { address: address.to_be_bytes(), port: (port as u16).to_ne_bytes(), reserved: [0; 2] }
    }
}

/// A [`ServiceKey`] in words, which BPF loads as such: octets it loads one by one.
pub type ServiceWords = [u64; 3];

/// The first of the services, for the XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FewServices {
    /// The services, [`NO_SERVICE`](Self::NO_SERVICE) in places that are free.
    pub keys: [ServiceWords; FEW],
    /// Zero when there are no others.
    pub more: u64,
}

const _: () = assert!(size_of::<FewServices>() == (3 * FEW + 1) * 8);

impl FewServices {
    /// The key of no service: no port is so large.
    pub const NO_SERVICE: ServiceWords = [0, 0, u64::MAX];

    /// Whether a service is among them.
    #[inline(always)]
    pub fn contains(&self, key: &ServiceWords) -> bool {
        self.keys.iter().any(|few| few.iter().zip(key).fold(0, |all, (a, b)| all | (a ^ b)) == 0)
    }
}
