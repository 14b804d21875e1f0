//! A client of a TURN server (RFC 8656), as far as it takes to have a channel: Allocate and ChannelBind without
//! authentication over UDP and IPv4.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::namespace::Namespace;
use anytun_tests::wait::{PATIENCE, until};

/// The number of the channel (RFC 8656 §12: 0x4000 to 0x4FFF).
const CHANNEL: u16 = 0x4000;
/// What every STUN message has (RFC 8489 §5).
const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
/// Requests (RFC 8656 §17), and what is added to their type in a success response.
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;
/// Attributes (RFC 8656 §18).
const CHANNEL_NUMBER: u16 = 0x000c;
const LIFETIME: u16 = 0x000d;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
/// UDP as a transport, in the first of four octets.
const UDP: [u8; 4] = [17, 0, 0, 0];
/// Octets of a STUN header.
const HEADER: usize = 20;
/// How long the allocation is to last, in seconds: longer than a benchmark.
const TIME: u32 = 86_400;

/// What stands in front of the payload in a frame of so many octets that comes out of the relay: the header of a
/// ChannelData message (RFC 8656 §12.4).
pub(crate) fn channel_data(octets: u16) -> Vec<u8> {
    // Ethernet, IPv4 and UDP headers are not in its length.
    [CHANNEL.to_be_bytes(), octets.saturating_sub(14 + 20 + 8).to_be_bytes()].concat()
}

/// Asks the server for a channel from `client` to `peer`. The client's socket is closed again: what sends over the
/// channel makes its packets itself.
pub(crate) fn bind(
    namespace: &Namespace,
    client: SocketAddrV4,
    server: SocketAddrV4,
    peer: SocketAddrV4,
) -> Result<()> {
    let socket = namespace.enter(|| UdpSocket::bind(client))?.with_context(|| format!("cannot bind {client}"))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let transport = attribute(REQUESTED_TRANSPORT, &UDP);
    let lifetime = attribute(LIFETIME, &TIME.to_be_bytes());
    until("the TURN server answers", PATIENCE, || request(&socket, ALLOCATE, &[transport.clone(), lifetime.clone()]))?;
    let channel = attribute(CHANNEL_NUMBER, &[CHANNEL.to_be_bytes(), [0, 0]].concat());
    let address = attribute(XOR_PEER_ADDRESS, &xored(peer));
    until("the TURN server binds the channel", PATIENCE, || {
        request(&socket, CHANNEL_BIND, &[channel.clone(), address.clone()])
    })
}

/// Sends a request; nothing if no answer came in time.
fn request(socket: &UdpSocket, kind: u16, attributes: &[Vec<u8>]) -> Result<Option<()>> {
    let message = message(kind, attributes);
    // What is sent before the server listens is answered by ICMP, which the next call reports.
    if socket.send(&message).is_err() {
        return Ok(None);
    }
    let mut answer = [0; 512];
    let Ok(length) = socket.recv(&mut answer) else { return Ok(None) };
    ensure!(length >= HEADER && answer[8..HEADER] == message[8..HEADER], "the TURN server answers something else");
    let answered = u16::from_be_bytes([answer[0], answer[1]]);
    if answered != kind | SUCCESS {
        bail!("the TURN server answers request {kind:#06x} with {answered:#06x}: {:02x?}", &answer[..length]);
    }
    Ok(Some(()))
}

fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    // The transaction ID tells one request from another; a request that is repeated keeps it.
    let id = [kind.to_be_bytes(); 6].concat();
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), &COOKIE, &id, &body].concat()
}

/// Type, length and value; all values here are multiples of four octets, so none is padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// An address as XOR-PEER-ADDRESS has it (RFC 8489 §14.2).
fn xored(address: SocketAddrV4) -> Vec<u8> {
    let port = address.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let octets = address.ip().octets().into_iter().zip(COOKIE).map(|(octet, cookie)| octet ^ cookie);
    [0, 1].into_iter().chain(port.to_be_bytes()).chain(octets).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// RFC 5769 §2.2: 192.0.2.1 port 32853.
    #[test]
    fn addresses_are_as_in_the_test_vectors() {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32853);
        assert_eq!(xored(address), [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn lengths_are_those_of_what_follows() {
        assert_eq!(channel_data(64), [0x40, 0x00, 0, 22]);
        assert_eq!(
            message(ALLOCATE, &[attribute(REQUESTED_TRANSPORT, &UDP)])[..8],
            [0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42]
        );
    }
}
