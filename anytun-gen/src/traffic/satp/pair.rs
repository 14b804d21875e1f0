//! A client that sends, and whom it sends to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anytun_common::wire::ethernet;
use anytun_xdp::config::{self, Config, Open};
use anytun_xdp::kernel::Link;
use anytun_xdp::satp::{HEADER, Keys, PAYLOAD_TYPE, Role};

use super::{Places, Receivers};
use crate::error::Error;
use crate::traffic::Side;
use crate::traffic::headers::Ends;

/// UDP ports inside the tunnel.
const INNER_PORTS: [u16; 2] = [7000, 9000];

/// A client that sends, and the one it sends to, unless that is a host outside.
pub(super) struct Pair {
    sender: Client,
    receiver: Option<Client>,
    /// The addresses inside, from the first to the second.
    pub(super) inner: Ends,
}

/// One end.
pub(super) struct Client {
    pub(super) keys: Keys,
    /// Of the client; the node has the other one.
    pub(super) role: Role,
    pub(super) mux: u16,
    /// From the client to the service.
    pub(super) outer: Ends,
}

impl Pair {
    /// The pair with this number, of `clients`: as many as are needed, two or one.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when they cannot send to each other, or not to the outside.
    pub(super) fn new(
        config: &Config,
        number: u16,
        clients: &[config::Client],
        service: SocketAddr,
        places: &Places<'_>,
    ) -> Result<Self, Error> {
        for client in clients {
            let own = &config.services[client.service];
            if SocketAddr::new(own.address, own.port) != service {
                return Err(wrong(config, clients, &format!("not of the service {service}, as the first one is")));
            }
        }
        let from = &clients[0];
        let (receiver, addresses) = match places.receivers {
            Receivers::Clients { source, .. } => {
                let to = &clients[1];
                (Some(Client::new(to, number, source, service)), between(config, clients, [from, to])?)
            }
            Receivers::Outside(outside) => (None, beyond(config, clients, from, outside)?),
        };
        let [source, destination] = addresses;
        let sender = Client::new(from, number, places.source, service);
        Ok(Self { sender, receiver, inner: Ends { source, destination } })
    }

    /// The client behind a side; nothing where a host outside is.
    #[inline]
    pub(super) fn client(&self, side: Side) -> Option<&Client> {
        match side {
            Side::Interface => Some(&self.sender),
            Side::Sink => self.receiver.as_ref(),
        }
    }

    /// The client that sends.
    pub(super) fn sender(&self) -> &Client {
        &self.sender
    }

    /// The largest size before sealing whose packet fits the MTU on both sides.
    pub(super) fn room(&self, places: &Places<'_>) -> usize {
        let room = |(side, link): (Side, &Link)| {
            let frame = link.mtu as usize + ethernet::HEADER;
            frame.saturating_sub(self.client(side).map_or(0, Client::overhead))
        };
        let [interface, sink] = places.links;
        [(Side::Interface, interface), (Side::Sink, sink)].into_iter().map(room).min().unwrap_or_default()
    }
}

impl Client {
    fn new(client: &config::Client, number: u16, mut source: SocketAddr, service: SocketAddr) -> Self {
        source.set_port(source.port() + number);
        Self {
            keys: Keys::new(&client.secret, &client.crypto),
            role: client.role.opposite(),
            mux: client.mux,
            outer: Ends { source, destination: service },
        }
    }

    /// Octets that the tunnel adds to a packet.
    pub(super) fn overhead(&self) -> usize {
        self.outer.length() + HEADER + PAYLOAD_TYPE + self.keys.tag()
    }
}

/// The ends inside the tunnel from one client to another.
fn between(
    config: &Config,
    clients: &[config::Client],
    [from, to]: [&config::Client; 2],
) -> Result<[SocketAddr; 2], Error> {
    if from.network != to.network {
        return Err(wrong(config, clients, "in different networks, so one cannot send to the other"));
    }
    let addresses = [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6]
        .into_iter()
        .find_map(|family| Some([address(from, family)?, address(to, family)?]));
    let [source, destination] = addresses.ok_or_else(|| wrong(config, clients, "without prefixes of one family"))?;
    Ok([SocketAddr::new(source, INNER_PORTS[0]), SocketAddr::new(destination, INNER_PORTS[1])])
}

/// The ends inside the tunnel from a client to a host outside.
fn beyond(
    config: &Config,
    clients: &[config::Client],
    from: &config::Client,
    outside: SocketAddr,
) -> Result<[SocketAddr; 2], Error> {
    let network = &config.networks[from.network];
    if network.open == Open::No {
        let name = &network.name;
        let what = format!(
            "in the network {name:?}, which is not open, so nothing of it reaches {outside}; give the network `open = \
             \"routed\"` or `open = \"nat\"`, or --sink-source instead of --destination"
        );
        return Err(wrong(config, clients, &what));
    }
    let family = if outside.is_ipv4() { IpAddr::is_ipv4 } else { IpAddr::is_ipv6 };
    let source = address(from, family)
        .ok_or_else(|| wrong(config, clients, &format!("without a prefix of the family of {outside}")))?;
    Ok([SocketAddr::new(source, INNER_PORTS[0]), outside])
}

/// What clients are that cannot be used.
fn wrong(config: &Config, clients: &[config::Client], what: &str) -> Error {
    let names: Vec<_> = clients.iter().map(|client| format!("{:?}", client.name)).collect();
    let (clients, are) = if names.len() == 1 { ("client", "is") } else { ("clients", "are") };
    Error::usage(format!("{}: {clients} {} {are} {what}", config.file.display(), names.join(" and ")))
}

/// An inner address of a client: the first one of a prefix.
fn address(client: &config::Client, family: fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let prefix = client.prefixes.iter().find(|prefix| !prefix.is_default() && family(&prefix.address))?;
    Some(match prefix.address {
        IpAddr::V4(v4) if prefix.length < 31 => Ipv4Addr::from_bits(v4.to_bits() + 1).into(),
        IpAddr::V6(v6) if prefix.length < 127 => Ipv6Addr::from_bits(v6.to_bits() + 1).into(),
        address => address,
    })
}
