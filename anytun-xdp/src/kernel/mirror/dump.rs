//! What the kernel lists when it is asked (rtnetlink(7)).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::read;
use crate::table::ways::Next;

/// Octets of the largest portion of a list (NLMSG_GOODSIZE is less).
const PORTION: usize = 64 << 10;
/// How often a list is asked for again that changed while it was told.
const TRIES: usize = 5;
/// Marks a list that changed while it was told (include/uapi/linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A socket on which lists are asked for.
pub(super) struct Dumps {
    socket: Socket,
    sequence: u32,
    portion: Vec<u8>,
}

impl Dumps {
    /// Opens it, in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, portion: Vec::with_capacity(PORTION) })
    }

    /// All interfaces.
    pub(super) fn links(&mut self) -> io::Result<Vec<LinkMessage>> {
        self.list(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
    }

    /// All routes of both families, in all tables.
    pub(super) fn routes(&mut self) -> io::Result<Vec<RouteMessage>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            all.append(&mut self.list(RouteNetlinkMessage::GetRoute(request), |message| match message {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })?);
        }
        Ok(all)
    }

    /// All rules of both families.
    pub(super) fn rules(&mut self) -> io::Result<Vec<RuleMessage>> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            all.append(&mut self.list(RouteNetlinkMessage::GetRule(request), |message| match message {
                RouteNetlinkMessage::NewRule(rule) => Some(rule),
                _ => None,
            })?);
        }
        Ok(all)
    }

    /// All neighbours.
    pub(super) fn neighbours(&mut self) -> io::Result<Vec<NeighbourMessage>> {
        self.list(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
            _ => None,
        })
    }

    /// Makes the kernel find a neighbour, or make sure of one that it has not heard from for a while, as if it had sent it a
    /// packet (`NTF_USE`). It takes `CAP_NET_ADMIN`.
    pub(super) fn use_neighbour(&mut self, next: Next) -> io::Result<()> {
        let address = read::address(&next.address);
        let mut message = NeighbourMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = next.ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes = vec![NeighbourAttribute::Destination(match address {
            std::net::IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            std::net::IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        })];
        self.send(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_REQUEST | NLM_F_ACK | netlink_packet_core::NLM_F_CREATE,
        )?;
        self.receive(&mut |_| ()).map(drop)
    }

    fn list<T>(
        &mut self,
        request: RouteNetlinkMessage,
        keep: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..TRIES {
            self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut all = Vec::new();
            if self.receive(&mut |message| all.extend(keep(message)))? {
                return Ok(all);
            }
        }
        Err(io::Error::other("the list changed each time it was asked for"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.serialize(&mut octets);
        self.socket.send(&octets, 0).map(drop)
    }

    /// Takes the answers to the last request; says whether they are of one moment.
    fn receive(&mut self, take: &mut impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let mut whole = true;
        loop {
            self.portion.clear();
            self.socket.recv(&mut self.portion, 0)?;
            let mut rest = self.portion.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                // Messages are aligned to four octets (NLMSG_ALIGN).
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                let (header, payload) = message.into_parts();
                if header.sequence_number != self.sequence {
                    // What is left of a request that failed.
                    continue;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(whole),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}
