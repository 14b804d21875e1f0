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
    /// Is no service's: packets have zeros where it has none.
    pub const NONE: Self = Self { address: [0; 16], port: [0; 2], reserved: [0xff; 2] };

    /// The key for an address and a port.
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port: port.to_be_bytes(), reserved: [0; 2] }
    }

    /// Whether both are the same, by words: BPF compares arrays octet by octet.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let words = |key: &Self| {
            let (address, _) = key.address.as_chunks::<8>();
            let [a, b] = [0, 1].map(|at| address.get(at).map_or(0, |word| u64::from_ne_bytes(*word)));
            let ([p, q], [r, s]) = (key.port, key.reserved);
            [a, b, u64::from(u32::from_ne_bytes([p, q, r, s]))]
        };
        let ([a, b, c], [x, y, z]) = (words(self), words(other));
        a ^ x | b ^ y | c ^ z == 0
    }
}

/// The first of the services, for the XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FewServices {
    /// The services, [`ServiceKey::NONE`] in places that are free.
    pub keys: [ServiceKey; FEW],
    /// Zero when there are no others.
    pub more: u32,
}

const _: () = assert!(size_of::<FewServices>() == 84 && align_of::<FewServices>() == 4);
