//! From what the kernel lists to what workers look up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anytun_common::wire::ethernet::{MAX_TAGS, TAG};
use anytun_common::wire::unmapped;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::config::Prefix;
use crate::table::Tags;
use crate::table::ways::{Action, Exit, Family, Fate, Hop, Next, Route, Rule, Wayless};

/// What the kernel knows of a neighbour.
pub(super) struct Known {
    pub(super) next: Next,
    pub(super) mac: [u8; 6],
    /// Whether it has not made sure of it lately.
    pub(super) stale: bool,
}

/// An address from 16 octets, in which an IPv4 one is mapped.
pub(super) fn address(octets: &[u8; 16]) -> IpAddr {
    match unmapped(*octets) {
        Some(v4) => Ipv4Addr::from(v4).into(),
        None => Ipv6Addr::from(*octets).into(),
    }
}

/// The interfaces that routes can lead through: those of the node, by slot, and VLANs on top of them, as far as they are up.
pub(super) fn exits(links: &[LinkMessage], slots: &HashMap<u32, u8>) -> HashMap<u32, Exit> {
    let by_index: HashMap<u32, &LinkMessage> = links.iter().map(|link| (link.header.index, link)).collect();
    by_index.iter().filter_map(|(&index, link)| Some((index, exit(link, &by_index, slots)?))).collect()
}

fn exit(link: &LinkMessage, all: &HashMap<u32, &LinkMessage>, slots: &HashMap<u32, u8>) -> Option<Exit> {
    let (mut mac, mut mtu) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(octets) => mac = octets.as_slice().try_into().ok(),
            LinkAttribute::Mtu(octets) => mtu = Some(u16::try_from(*octets).unwrap_or(u16::MAX)),
            _ => {}
        }
    }
    let mut tags = Vec::new();
    let mut at = link;
    loop {
        if !at.header.flags.contains(LinkFlags::Up | LinkFlags::Running) {
            return None;
        }
        if let Some(&slot) = slots.get(&at.header.index) {
            let tags = tags.iter().rev().flatten().copied().collect::<Vec<u8>>();
            return Some(Exit { slot, mac: mac?, tags: Tags::new(&tags)?, mtu: mtu? });
        }
        let (tag, below) = vlan(at)?;
        tags.push(tag);
        if tags.len() > MAX_TAGS {
            return None;
        }
        at = all.get(&below)?;
    }
}

/// The tag of a VLAN, and the interface below it.
fn vlan(link: &LinkMessage) -> Option<([u8; TAG], u32)> {
    let below = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(below) => Some(*below),
        _ => None,
    })?;
    let data = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
            _ => None,
        }),
        _ => None,
    })?;
    let (mut id, mut protocol) = (None, VlanProtocol::Ieee8021Q);
    for item in data {
        match item {
            InfoVlan::Id(number) => id = Some(*number),
            InfoVlan::Protocol(other) => protocol = *other,
            _ => {}
        }
    }
    let ([a, b], [c, d]) = (u16::from(protocol).to_be_bytes(), id?.to_be_bytes());
    Some(([a, b, c, d], below))
}

/// Neighbours that packets can be sent to.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Known> {
    let (mut to, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => to = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => to = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let state = message.header.state;
    let usable = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent
    );
    let next = Next::new(message.header.ifindex, to.filter(|_| usable)?);
    Some(Known { next, mac: mac?, stale: state == NeighbourState::Stale })
}

/// A route. Nothing for one that leads no packet that is forwarded.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let RouteMessage { header, attributes, .. } = message;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut read = Attributes { table: header.table.into(), ..Attributes::default() };
    attributes.iter().for_each(|attribute| read.note(attribute));
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let prefix = Prefix::new(read.to.unwrap_or(any), header.destination_prefix_length)?;
    let fate = match header.kind {
        // What depends on more than the destination.
        _ if header.tos != 0 || header.source_prefix_length != 0 || read.encapsulated => Fate::End(Wayless::Kernel),
        RouteType::Unicast => read.hops(header),
        RouteType::Unreachable => Fate::End(Wayless::Unreachable),
        RouteType::Prohibit => Fate::End(Wayless::Prohibited),
        RouteType::BlackHole => Fate::End(Wayless::Blackhole),
        RouteType::Throw => Fate::Throw,
        _ => Fate::End(Wayless::Kernel),
    };
    Some(Route { table: read.table, prefix, metric: read.metric, fate, mtu: read.mtu })
}

/// What the attributes of a route say.
#[derive(Default)]
struct Attributes {
    table: u32,
    to: Option<IpAddr>,
    metric: u32,
    mtu: u16,
    ifindex: Option<u32>,
    gateway: Option<IpAddr>,
    hops: Option<Vec<RouteNextHop>>,
    encapsulated: bool,
}

impl Attributes {
    fn note(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::Destination(to) => self.to = ip(to),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::Oif(ifindex) => self.ifindex = Some(*ifindex),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => self.gateway = gateway(attribute),
            RouteAttribute::MultiPath(hops) => self.hops = Some(hops.clone()),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => self.encapsulated = true,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    if let RouteMetric::Mtu(mtu) = metric {
                        self.mtu = u16::try_from(*mtu).unwrap_or(u16::MAX);
                    }
                }
            }
            _ => {}
        }
    }

    /// Where a unicast route leads. Next hops whose link is gone are left out, as the kernel does.
    fn hops(&self, header: &RouteHeader) -> Fate {
        let hop = |ifindex, gateway: Option<IpAddr>, weight| Hop {
            ifindex,
            gateway: gateway.map(|gateway| Next::new(0, gateway).address),
            weight,
        };
        let hops: Vec<Hop> = match (&self.hops, self.ifindex) {
            (Some(hops), _) => {
                let alive =
                    |hop: &&RouteNextHop| !hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown);
                let read = |next: &RouteNextHop| {
                    let gateway = next.attributes.iter().find_map(gateway);
                    hop(next.interface_index, gateway, u32::from(next.hops) + 1)
                };
                hops.iter().filter(alive).map(read).collect()
            }
            (None, Some(ifindex)) if !header.flags.contains(RouteFlags::Dead) => vec![hop(ifindex, self.gateway, 1)],
            // A nexthop object that the kernel does not spell out.
            (None, None) => return Fate::End(Wayless::Kernel),
            (None, Some(_)) => Vec::new(),
        };
        if hops.is_empty() { Fate::End(Wayless::Unreachable) } else { Fate::Hops(hops) }
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// A rule. Nothing for one of no family that is forwarded here.
pub(super) fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let (mut priority, mut from, mut to, mut suppressed) = (0, None, None, None);
    let mut more = header.tos != 0 || header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(address) => from = Prefix::new(*address, header.src_len),
            RuleAttribute::Destination(address) => to = Prefix::new(*address, header.dst_len),
            // All ones say that nothing is left out.
            RuleAttribute::SuppressPrefixLen(length) => suppressed = u8::try_from(*length).ok(),
            RuleAttribute::SuppressIfGroup(group) => more |= *group != u32::MAX,
            RuleAttribute::FwMark(_)
            | RuleAttribute::FwMask(_)
            | RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::TunId(_)
            | RuleAttribute::L3MDev(true) => more = true,
            _ => {}
        }
    }
    let action = match header.action {
        RuleAction::ToTable => Action::Table(table, suppressed),
        RuleAction::Unreachable => Action::End(Wayless::Unreachable),
        RuleAction::Prohibit => Action::End(Wayless::Prohibited),
        RuleAction::Blackhole => Action::End(Wayless::Blackhole),
        RuleAction::Nop => Action::Nothing,
        _ => Action::End(Wayless::Kernel),
    };
    Some(Rule { priority, family, from, to, more, action })
}
