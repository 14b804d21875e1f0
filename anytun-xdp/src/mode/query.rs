//! Queries that make hosts report of which groups they are members: of IGMPv3 (RFC 3376 §4.1) and MLDv2 (RFC 3810 §5.1), which
//! hosts of the older versions understand as theirs.

use std::net::{Ipv4Addr, Ipv6Addr};

use anytun_common::wire::{checksum, icmpv6, igmp, ipv4, ipv6, mld, unmapped};

use crate::table::membership::{Question, ROBUSTNESS, Snooped};

/// Octets of the option router alert of IPv4 (RFC 2113), and of a header with hop-by-hop options that has that of IPv6
/// (RFC 2711).
const ALERT: usize = 4;
const OPTIONS: usize = 8;
const HEAD_V4: usize = ipv4::HEADER + ALERT;
const HEAD_V6: usize = ipv6::HEADER + OPTIONS;
/// Octets of a query of IGMPv3 without sources.
const QUERY_V4: usize = igmp::HEADER + 4;
const LONGEST: usize = HEAD_V6 + mld::QUERY_HEADER;

/// What queries of MLD come from: the same link-local address towards every client.
const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xc000, 8);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// DSCP of queries: internetwork control (RFC 3376 §4).
pub const TOS: u8 = 6 << 5;

/// A query as an inner packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    length: usize,
    octets: [u8; LONGEST],
}

impl Query {
    /// The query that asks `question` in a network.
    pub fn new(question: Question, snooped: &Snooped) -> Self {
        let (interval, response) = (snooped.query_interval(), snooped.response(question));
        let igmp = |group| igmp(group, snooped.source(), response, interval);
        match question {
            Question::AllV4 => igmp(None),
            Question::AllV6 => mld(None, response, interval),
            Question::Group(group) => match unmapped(group) {
                Some(group) => igmp(Some(group.into())),
                None => mld(Some(group.into()), response, interval),
            },
        }
    }

    /// The packet.
    #[inline]
    pub fn packet(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// A query for `group`, or all. Answers take up to `response` milliseconds; the next general one comes in `interval` seconds.
fn igmp(group: Option<Ipv4Addr>, source: Ipv4Addr, response: u64, interval: u32) -> Query {
    const LENGTH: usize = HEAD_V4 + QUERY_V4;
    let mut query = Query { length: LENGTH, octets: [0; LONGEST] };
    let (head, rest) = query.octets.split_at_mut(HEAD_V4);
    head[..8].copy_from_slice(&[0x46, TOS, 0, LENGTH as u8, 0, 0, 0x40, 0]);
    head[8..12].copy_from_slice(&[1, igmp::PROTOCOL, 0, 0]);
    head[ipv4::SOURCE..][..4].copy_from_slice(&source.octets());
    head[ipv4::DESTINATION..][..4].copy_from_slice(&group.unwrap_or(ALL_SYSTEMS).octets());
    head[ipv4::HEADER..].copy_from_slice(&[0x94, ALERT as u8, 0, 0]);
    let sum = checksum::of(head);
    head[ipv4::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    let message = &mut rest[..QUERY_V4];
    let tenths = u32::try_from(response / 100).unwrap_or(u32::MAX);
    message[..2].copy_from_slice(&[igmp::QUERY, code(tenths)]);
    message[igmp::GROUP..][..4].copy_from_slice(&group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    message[igmp::HEADER..][..2].copy_from_slice(&[ROBUSTNESS as u8, code(interval)]);
    let sum = checksum::of(message);
    message[igmp::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    query
}

/// As [`igmp`].
fn mld(group: Option<Ipv6Addr>, response: u64, interval: u32) -> Query {
    const PAYLOAD: usize = OPTIONS + mld::QUERY_HEADER;
    let mut query = Query { length: ipv6::HEADER + PAYLOAD, octets: [0; LONGEST] };
    let (head, message) = query.octets.split_at_mut(HEAD_V6);
    let (h, options) = head.split_at_mut(ipv6::HEADER);
    let destination = group.unwrap_or(ALL_NODES).octets();
    h[..4].copy_from_slice(&[0x60 | TOS >> 4, TOS << 4, 0, 0]);
    h[ipv6::PAYLOAD_LENGTH..][..4].copy_from_slice(&[0, PAYLOAD as u8, ipv6::HOP_BY_HOP, 1]);
    h[ipv6::SOURCE..][..16].copy_from_slice(&QUERIER.octets());
    h[ipv6::DESTINATION..].copy_from_slice(&destination);
    // Router alert for MLD, and padding to 8 octets.
    options.copy_from_slice(&[icmpv6::PROTOCOL, 0, 5, 2, 0, 0, 1, 0]);
    message[0] = mld::QUERY;
    // From 32,768 on it would be written otherwise (RFC 3810 §5.1.3).
    message[mld::RESPONSE..][..2].copy_from_slice(&(response.min(0x7fff) as u16).to_be_bytes());
    message[mld::GROUP..][..16].copy_from_slice(&group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message[mld::HEADER..][..2].copy_from_slice(&[ROBUSTNESS as u8, code(interval)]);
    let pseudo = mld::QUERY_HEADER as u64 + u64::from(icmpv6::PROTOCOL);
    let sum = checksum::add(checksum::add(pseudo, &QUERIER.octets()), &destination);
    let sum = !checksum::fold(checksum::add(sum, message));
    message[icmpv6::CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
    query
}

/// A number in one octet, as codes of queries hold it: from 128 on rounded down to a mantissa of five bits, of which the
/// highest is not written, and an exponent (RFC 3376 §4.1.1).
const fn code(value: u32) -> u8 {
    const MOST: u32 = 0x1f << 10;
    let value = if value < MOST { value } else { MOST };
    match value.checked_ilog2() {
        Some(top @ 7..) => (0x80 | (top - 7) << 4 | value >> (top - 4) & 0x0f) as u8,
        _ => value as u8,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::table::Tables;

    /// The `Snooped` of a network with an interval of 125 s.
    fn snooped(keys: &str) -> Snooped {
        let text = format!(
            "[node]\nname = \"n\"\nsender_ids = \"1\"\n[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"s\"\n\
             address = \"192.0.2.53\"\nport = 4444\n[[network]]\nname = \"o\"\nsnooping = true\n{keys}\n"
        );
        let config = crate::config::parse(&text, Path::new("node.toml")).expect("a configuration");
        let host = crate::table::Host { workers: 1, mtus: vec![1500], partial: vec![false] };
        *Tables::build(&config, &host, Vec::new(), None).snooped(0).expect("a network that learns")
    }

    /// By hand: RFC 791, 2113 and 3376 §4.1.
    #[test]
    fn queries_of_igmp_are_those_of_version_3() {
        let query = Query::new(Question::AllV4, &snooped("address = \"10.9.0.1/24\""));
        let packet = query.packet();
        assert_eq!(packet[..10], [0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, 2]);
        assert_eq!(packet[12..24], [10, 9, 0, 1, 224, 0, 0, 1, 0x94, 4, 0, 0]);
        assert_eq!((packet[24..26].to_vec(), packet[28..].to_vec()), (vec![0x11, 100], vec![0, 0, 0, 0, 2, 125, 0, 0]));
        assert_eq!((checksum::of(&packet[..24]), checksum::of(&packet[24..])), (0, 0));
        let group = anytun_common::wire::mapped([239, 1, 2, 3]);
        let query = Query::new(Question::Group(group), &snooped("query_interval = 1000"));
        let packet = query.packet();
        assert_eq!(packet[12..20], [0, 0, 0, 0, 239, 1, 2, 3]);
        // 1000 is (0x10 | 15) << 5 = 992 in the code, of an exponent 2.
        assert_eq!((packet[25], packet[28..].to_vec()), (10, vec![239, 1, 2, 3, 2, 0xaf, 0, 0]));
        assert_eq!((checksum::of(&packet[..24]), checksum::of(&packet[24..])), (0, 0));
    }

    /// By hand: RFC 8200, 2711 and 3810 §5.1.
    #[test]
    fn queries_of_mld_are_those_of_version_2() {
        let group: Ipv6Addr = "ff05::1:3".parse().expect("an address");
        for (question, response, to, asked) in [
            (Question::AllV6, 10_000_u16, ALL_NODES, Ipv6Addr::UNSPECIFIED),
            (Question::Group(group.octets()), 1000, group, group),
        ] {
            let query = Query::new(question, &snooped(""));
            let packet = query.packet();
            assert_eq!(packet[..8], [0x6c, 0, 0, 0, 0, 36, 0, 1]);
            assert_eq!(packet[8..10], [0xfe, 0x80]);
            assert_eq!(packet[24..40], to.octets());
            assert_eq!(packet[40..50], [58, 0, 5, 2, 0, 0, 1, 0, 130, 0]);
            assert_eq!((packet[52..54].to_vec(), &packet[54..56]), (response.to_be_bytes().to_vec(), &[0, 0][..]));
            assert_eq!((packet[56..72].to_vec(), &packet[72..]), (asked.octets().to_vec(), &[2, 125, 0, 0][..]));
            let pseudo = [&packet[8..40], &[0, 0, 0, 28, 0, 0, 0, 58], &packet[48..]].concat();
            assert_eq!(checksum::of(&pseudo), 0);
        }
    }

    /// RFC 3376 §4.1.1: the value of a code of 128 or more is (mant | 0x10) << (exp + 3).
    #[test]
    fn large_numbers_are_rounded_down_to_what_a_code_can_say() {
        for value in [1, 10, 127, 128, 135, 136, 255, 256, 1000, 3600, 31_743, 31_744] {
            let code = u32::from(code(value));
            let said = if code < 128 { code } else { (code & 0x0f | 0x10) << ((code >> 4 & 7) + 3) };
            assert!(said <= value && value - said <= value / 16, "{value} is written as {said}");
        }
        assert_eq!((code(0), code(40_000), code(u32::MAX)), (0, 255, 255));
    }
}
