//! IP prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP prefix. Host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// The address; its host bits are zero.
    pub address: IpAddr,
    /// Bits of the network: up to 32 or 128.
    pub length: u8,
}

/// Why something is not a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefixError {
    /// An address without a length. Holds the prefix of that one address.
    NoLength(Prefix),
    /// The part before the slash is no IP address.
    Address,
    /// The length is no number from 0 to the one given.
    Length(u8),
    /// Host bits are set. Holds the prefix without them.
    HostBits(Prefix),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLength(meant) => write!(f, "has no length; write {meant} if the one address is meant"),
            Self::Address => f.write_str("does not begin with an IPv4 or IPv6 address"),
            Self::Length(most) => write!(f, "has a length that is no number from 0 to {most}"),
            Self::HostBits(meant) => write!(f, "has bits set behind its length; probably {meant} is meant"),
        }
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// The prefix of an address: whatever lies behind `length` is cleared. `None` when `length` exceeds the address.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let host_bits = u32::from(bits(address).checked_sub(length)?);
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Some(Self { address, length })
    }

    /// Whether an address lies in the prefix.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::new(address, self.length).is_some_and(|prefix| prefix == *self)
    }

    /// Whether an address lies in the prefix, given as octets, an IPv4 one mapped.
    #[inline]
    pub fn has(&self, address: &[u8; 16]) -> bool {
        let (prefix, length) = self.mapped();
        let differs = u128::from_be_bytes(prefix) ^ u128::from_be_bytes(*address);
        differs.leading_zeros() >= u32::from(length)
    }

    /// Whether every address of `other` lies in the prefix.
    pub fn covers(&self, other: &Prefix) -> bool {
        self.length <= other.length && self.contains(other.address)
    }

    /// The octets of the address and the bits of them that count, an IPv4 one mapped (RFC 4291 §2.5.5.2).
    pub fn mapped(&self) -> ([u8; 16], u8) {
        match self.address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 96 + self.length),
            IpAddr::V6(v6) => (v6.octets(), self.length),
        }
    }

    /// Whether this is `0.0.0.0/0` or `::/0`.
    pub fn is_default(&self) -> bool {
        self.length == 0
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `ADDRESS/LENGTH` (RFC 4632 §3.1, RFC 4291 §2.3).
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let HostAddress { address, length } = text.parse()?;
        let prefix = Self::new(address, length).ok_or(PrefixError::Length(bits(address)))?;
        if prefix.address == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An address of a host, and how many of its bits are those of its network: `10.9.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostAddress {
    /// The address, host bits included.
    pub address: IpAddr,
    /// Bits of the network: up to 32 or 128.
    pub length: u8,
}

impl HostAddress {
    /// The prefix of the network.
    pub fn network(&self) -> Prefix {
        Prefix::new(self.address, self.length).unwrap_or(self.host())
    }

    /// The prefix of this one address.
    pub fn host(&self) -> Prefix {
        Prefix { address: self.address, length: bits(self.address) }
    }
}

impl FromStr for HostAddress {
    type Err = PrefixError;

    /// Reads `ADDRESS/LENGTH`. Never fails with [`PrefixError::HostBits`].
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let most = bits(address);
        let Some(length) = length else {
            return Err(PrefixError::NoLength(Prefix { address, length: most }));
        };
        // `parse` alone would take "+8".
        let digits = !length.is_empty() && length.bytes().all(|octet| octet.is_ascii_digit());
        let length = length.parse().ok().filter(|length| digits && *length <= most);
        Ok(Self { address, length: length.ok_or(PrefixError::Length(most))? })
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Bits of an address of that family.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for text in ["0.0.0.0/0", "10.9.0.0/16", "10.9.0.11/32", "::/0", "fd00:9::/64", "fd00:9::11/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            ("10.9.0.11", "has no length; write 10.9.0.11/32 if the one address is meant"),
            ("fd00::1", "has no length; write fd00::1/128 if the one address is meant"),
            ("10.9.0/24", "does not begin with an IPv4 or IPv6 address"),
            ("10.9.0.0/33", "has a length that is no number from 0 to 32"),
            ("10.9.0.0/+8", "has a length that is no number from 0 to 32"),
            ("10.9.0.0/", "has a length that is no number from 0 to 32"),
            ("fd00::/129", "has a length that is no number from 0 to 128"),
            ("10.9.0.11/24", "has bits set behind its length; probably 10.9.0.0/24 is meant"),
            ("fd00:9::11/64", "has bits set behind its length; probably fd00:9::/64 is meant"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn contains_its_addresses_only() {
        let contains =
            |prefix: &str, address: &str| prefix.parse::<Prefix>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.9.0.0/24", "10.9.0.255"));
        assert!(!contains("10.9.0.0/24", "10.9.1.0"));
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(!contains("::/0", "10.0.0.1"));
        assert!(contains("fd00:9::/64", "fd00:9::ffff"));
        assert!(!contains("fd00:9::11/128", "fd00:9::12"));
    }
}
