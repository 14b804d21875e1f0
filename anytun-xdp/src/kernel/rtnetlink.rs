//! Requests that change interfaces, addresses and routes of the kernel (rtnetlink(7)), in the network namespace of the thread
//! that opened the socket. They need `CAP_NET_ADMIN`.

use std::io;
use std::net::IpAddr;

use anytun_common::wire::ethernet::Mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::config::{HostAddress, Prefix};

/// Room for an answer: an acknowledgement, or an error with the request it is about.
const ANSWER: usize = 4096;

/// Something new, and an error when it is there already.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A socket to the kernel.
pub(super) struct Rtnetlink {
    socket: Socket,
    /// Of the last request.
    sequence: u32,
}

impl Rtnetlink {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sets the MTU of an interface, and it up.
    pub(super) fn set_up(&mut self, ifindex: u32, mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the MAC address of an interface.
    pub(super) fn set_mac(&mut self, ifindex: u32, mac: Mac) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes = vec![LinkAttribute::Address(mac.to_vec())];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Says which IPv6 link-local address of its own the kernel gives an interface that is down when it comes up.
    pub(super) fn set_link_local(&mut self, ifindex: u32, mode: In6AddrGenMode) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        let mode = AfSpecInet6::AddrGenMode(mode);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface an address, and with it the route to the address's prefix.
    pub(super) fn add_address(&mut self, ifindex: u32, own: HostAddress) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewAddress(address(ifindex, own)), NEW)
    }

    /// Takes an address from an interface.
    pub(super) fn remove_address(&mut self, ifindex: u32, own: HostAddress) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelAddress(address(ifindex, own)), 0)
    }

    /// Adds a route to what is behind an interface.
    pub(super) fn add_route(&mut self, ifindex: u32, prefix: Prefix) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewRoute(route(ifindex, prefix)), NEW)
    }

    /// Removes such a route.
    pub(super) fn remove_route(&mut self, ifindex: u32, prefix: Prefix) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelRoute(route(ifindex, prefix)), 0)
    }

    /// Sends a request and waits for what the kernel says to it.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        self.socket.send(&octets, 0)?;
        loop {
            let mut answer = Vec::with_capacity(ANSWER);
            self.socket.recv(&mut answer, 0)?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
            match answer.payload {
                // To an earlier request whose answer was not waited for.
                _ if answer.header.sequence_number != self.sequence => {}
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(()),
                    Some(code) => return Err(io::Error::from_raw_os_error(code.get().saturating_neg())),
                },
                _ => {}
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(ifindex: u32, HostAddress { address, length }: HostAddress) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = length;
    message.header.index = ifindex;
    if address.is_ipv6() {
        // On a TUN device nobody else could have it, and on a TAP device no client is to keep the node from it: it is not
        // asked for before it is used (RFC 4862 section 5.4).
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

fn route(ifindex: u32, prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.address);
    message.header.destination_prefix_length = prefix.length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if prefix.address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::from(prefix.address)), RouteAttribute::Oif(ifindex)];
    message
}
