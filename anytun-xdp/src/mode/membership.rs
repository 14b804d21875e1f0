//! Reports of IGMP (RFC 1112 appendix I, RFC 2236, RFC 3376 §4.2) and MLD (RFC 2710, RFC 3810 §5.2): of which groups a host is
//! a member. Of groups with the scope of a link nobody is.

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::wire::{Bytes, checksum, icmpv6, igmp, ipv4, ipv6, mapped, mld};

use super::inner::Ends;
use super::upper;
use crate::table::membership::Kind;

/// A report whose form is sound: what it says, group by group. Addresses are 16 octets, IPv4 ones mapped.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Of a message about one group.
    one: Option<(Kind, [u8; 16])>,
    records: Records<'a>,
}

impl<'a> Report<'a> {
    /// Reads an inner packet, which ends where its header says, as a report. Nothing when it is none, or not sound.
    pub fn new(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::igmp(packet),
            6 => Self::mld(packet),
            _ => None,
        }
    }

    fn igmp(packet: &'a [u8]) -> Option<Self> {
        let h: [u8; ipv4::HEADER] = packet.read(0)?;
        let upper = upper::find(packet).filter(|upper| upper.protocol == igmp::PROTOCOL && !upper.fragment)?;
        let to = Ipv4Addr::from(packet.read::<4>(ipv4::DESTINATION)?);
        let message = packet.get(upper.offset..)?;
        if h[ipv4::TTL] != 1 || !to.is_multicast() || checksum::of(message) != 0 {
            return None;
        }
        let head: [u8; igmp::HEADER] = message.read(0)?;
        let group = mapped(message.read(igmp::GROUP)?);
        match head[0] {
            igmp::V1_REPORT | igmp::V2_REPORT => Some(Self::one(Kind::Join, group, Width::V4)),
            igmp::LEAVE => Some(Self::one(Kind::Leave, group, Width::V4)),
            igmp::V3_REPORT => Self::records(message.read(igmp::RECORDS)?, message.get(igmp::HEADER..)?, Width::V4),
            _ => None,
        }
    }

    fn mld(packet: &'a [u8]) -> Option<Self> {
        let h: [u8; ipv6::HEADER] = packet.read(0)?;
        let upper = upper::find(packet).filter(|upper| upper.protocol == icmpv6::PROTOCOL && !upper.fragment)?;
        let message = packet.get(upper.offset..)?;
        let ends = packet.get(ipv6::SOURCE..ipv6::HEADER)?;
        let pseudo = message.len() as u64 + u64::from(icmpv6::PROTOCOL);
        let sum = !checksum::fold(checksum::add(checksum::add(pseudo, ends), message));
        let is_group = h[ipv6::DESTINATION] == 0xff;
        if h[ipv6::HOP_LIMIT] != 1 || !is_group || !alerts_routers(packet) || sum != 0 {
            return None;
        }
        match *message.first()? {
            mld::V1_REPORT => Some(Self::one(Kind::Join, message.read(mld::GROUP)?, Width::V6)),
            mld::DONE => Some(Self::one(Kind::Leave, message.read(mld::GROUP)?, Width::V6)),
            mld::V2_REPORT => Self::records(message.read(mld::RECORDS)?, message.get(mld::FIRST_RECORD..)?, Width::V6),
            _ => None,
        }
    }

    fn one(kind: Kind, group: [u8; 16], width: Width) -> Self {
        Self { one: Some((kind, group)), records: Records { left: 0, octets: &[], width } }
    }

    fn records(count: [u8; 2], octets: &'a [u8], width: Width) -> Option<Self> {
        let left = u16::from_be_bytes(count);
        let records = Records { left, octets, width };
        (records.clone().count() == usize::from(left)).then_some(Self { one: None, records })
    }
}

impl Iterator for Report<'_> {
    type Item = (Kind, [u8; 16]);

    fn next(&mut self) -> Option<Self::Item> {
        let Self { one, records } = self;
        let width = records.width;
        let said = || one.take().or_else(|| records.find_map(|record| Some((record.kind?, record.group))));
        std::iter::from_fn(said).find(|(_, group)| is_routed(width, *group))
    }
}

/// Whether routers forward what is sent to a group, which a message of this family named.
fn is_routed(width: Width, group: [u8; 16]) -> bool {
    let ends = match (width, Ipv6Addr::from(group).to_ipv4_mapped()) {
        (Width::V4, Some(destination)) => Ends::V4 { source: Ipv4Addr::UNSPECIFIED, destination },
        (Width::V6, None) => Ends::V6 { source: Ipv6Addr::UNSPECIFIED, destination: group.into() },
        _ => return false,
    };
    ends.destination_is_routed_group()
}

/// Whether an IPv6 packet begins with hop-by-hop options, among them router alert for MLD (RFC 2711, RFC 3810 §5).
fn alerts_routers(packet: &[u8]) -> bool {
    const PAD1: u8 = 0;
    const ALERT: u8 = 5;
    if packet.get(ipv6::NEXT_HEADER) != Some(&ipv6::HOP_BY_HOP) {
        return false;
    }
    let length = packet.get(ipv6::HEADER + 1).map_or(0, |units| (usize::from(*units) + 1) * 8);
    let Some(mut options) = packet.get(ipv6::HEADER + 2..ipv6::HEADER + length) else { return false };
    while let Some((&kind, rest)) = options.split_first() {
        if kind == PAD1 {
            options = rest;
            continue;
        }
        if kind == ALERT && rest.starts_with(&[2, 0, 0]) {
            return true;
        }
        let Some(&length) = rest.first() else { return false };
        options = rest.get(1 + usize::from(length)..).unwrap_or_default();
    }
    false
}

/// Octets of an address.
#[derive(Clone, Copy, Debug)]
enum Width {
    V4 = 4,
    V6 = 16,
}

/// Records of a report, as far as they are whole.
#[derive(Clone, Debug)]
struct Records<'a> {
    left: u16,
    octets: &'a [u8],
    width: Width,
}

/// A record about one group; nothing is to be done where there is no kind.
struct Record {
    kind: Option<Kind>,
    group: [u8; 16],
}

impl Iterator for Records<'_> {
    type Item = Record;

    /// Both protocols have type, length of auxiliary data in words, number of sources, group, sources, auxiliary data.
    fn next(&mut self) -> Option<Record> {
        const HEAD: usize = 4;
        self.left = self.left.checked_sub(1)?;
        let [kind, auxiliary, high, low]: [u8; HEAD] = self.octets.read(0)?;
        let sources = usize::from(u16::from_be_bytes([high, low]));
        let group = match self.width {
            Width::V4 => mapped(self.octets.read(HEAD)?),
            Width::V6 => self.octets.read(HEAD)?,
        };
        let length = HEAD + (1 + sources) * self.width as usize + 4 * usize::from(auxiliary);
        self.octets = self.octets.get(length..)?;
        Some(Record { kind: meaning(kind, sources), group })
    }
}

/// What a record means for whoever does not look at sources (RFC 3376 §4.2.12, RFC 3810 §5.2.12). Who wants a group from some
/// sources only is a member; one that blocks some may have wanted no others, so it is asked.
const fn meaning(kind: u8, sources: usize) -> Option<Kind> {
    const IS_INCLUDE: u8 = 1;
    const IS_EXCLUDE: u8 = 2;
    const TO_INCLUDE: u8 = 3;
    const TO_EXCLUDE: u8 = 4;
    const ALLOW: u8 = 5;
    const BLOCK: u8 = 6;
    match (kind, sources) {
        (IS_EXCLUDE | TO_EXCLUDE, _) | (IS_INCLUDE | TO_INCLUDE | ALLOW, 1..) => Some(Kind::Join),
        (IS_INCLUDE | TO_INCLUDE, 0) | (BLOCK, 1..) => Some(Kind::Leave),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
