//! Datagrams from outside that come to a NAT in fragments, of which only the first has the ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use anytun_tests::daemon::{Kind, TUN};
use anytun_tests::forge::udp;
use anytun_tests::lab::{ANYCAST, ANYCAST6, PORT, Who};
use anytun_tests::traffic::ping;
use anytun_tests::wait::{PATIENCE, until};

use crate::fragments::{raw_socket, send_cut};
use crate::nat::KEYS;
use crate::open::{OUTSIDE, Open, body};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("nat/fragments-at-the-address-of-a-service", in_order),
        case("nat/fragments-in-any-order-at-an-address-of-its-own", any_order),
    ]
}

/// The echo service outside (RFC 862).
const ECHO: u16 = 7;
/// More than fits two packets.
const OCTETS: usize = 3000;
/// An address that routing brings to the node, and nothing else there has.
const ALONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// What a kernel cuts on its own link arrives behind the NAT, both ways, and none of it takes the way of outer fragments, which
/// are put together all the same.
fn in_order() -> Result<()> {
    let open = Open::with(Kind::Anytun, true, KEYS)?;
    let datagram = body(OCTETS);
    let own: [IpAddr; 2] = [ANYCAST.into(), ANYCAST6.into()];
    for (family, inner) in Who::Alice.inner().into_iter().enumerate() {
        let outside: IpAddr = OUTSIDE[family].parse()?;
        open.introduce(outside)?;
        let [host, alice] = sockets(&open, outside, inner)?;
        // A host outside is told first what fits, and of IPv6 what was too large is lost.
        until("the datagram comes back", PATIENCE, || {
            alice.send(&datagram)?;
            let mut buffer = [0; 2 * OCTETS];
            let Ok((length, from)) = host.recv_from(&mut buffer) else { return Ok(None) };
            ensure!(from.ip() == own[family], "it came from {from}");
            ensure!(buffer[..length] == datagram, "{length} octets arrived outside, or not those that were sent");
            host.send_to(&datagram, from)?;
            let Ok(length) = alice.recv(&mut buffer) else { return Ok(None) };
            ensure!(buffer[..length] == datagram, "{length} octets came back, or not those that were sent");
            Ok(Some(()))
        })?;
        ping(open.lab.client(Who::Alice), outside, 20, OCTETS as u32)?;
    }
    let status = open.node.status()?;
    let (left, lost) = (status.program("fragment"), status.verdict("nat-fragment"));
    ensure!((left, lost) == (0, 0), "{left} fragments went to the kernel, {lost} were not known");
    // What comes before its first fragment may be for the service.
    let (outside, payload): (Ipv4Addr, _) = (OUTSIDE[0].parse()?, [0; 1200]);
    let packet = udp((outside, ECHO), (ANYCAST, PORT), &payload);
    send_cut(&raw_socket(open.lab.client(Who::Bob))?, [outside, ANYCAST], 9, &packet[20..], &[3])?;
    open.node.await_status("it goes to the kernel", |status| status.program("fragment") == 1)?;
    open.lab.client(Who::Alice).ip(&format!("link set {TUN} mtu 1500"))?;
    ping(open.lab.client(Who::Alice), outside.into(), 20, 1472)?;
    let status = open.node.status()?;
    let taken = status.datagrams.get("taken").copied().unwrap_or(0);
    ensure!(taken == 20, "{taken} of 20 packets were put together for the service");
    status.ensure_ledgers_hold()
}

/// Fragments that overtake the first one wait for it, but not without end.
fn any_order() -> Result<()> {
    let keys = format!("open = \"nat\"\nnat = {{ address = \"{ALONE}\", ports = \"20000-29999\" }}\n");
    let open = Open::with(Kind::Anytun, true, &keys)?;
    let outside: Ipv4Addr = OUTSIDE[0].parse()?;
    open.introduce(outside.into())?;
    let [host, alice] = sockets(&open, outside.into(), Who::Alice.inner()[0])?;
    alice.send(b"where am I?")?;
    let (_, SocketAddr::V4(seen)) = host.recv_from(&mut [0; 64]).context("nothing arrives")? else { bail!("not IPv4") };
    ensure!(*seen.ip() == ALONE, "the host saw {seen}");
    let raw = raw_socket(open.lab.client(Who::Bob))?;
    let datagram = |number: u16| -> Vec<u8> { (0..1200).map(|place: u16| (place ^ number) as u8).collect() };
    let send = |number: u16, places: &[usize]| {
        let packet = udp((outside, ECHO), (ALONE, seen.port()), &datagram(number));
        send_cut(&raw, [outside, ALONE], number, &packet[20..], places)
    };
    let mut buffer = [0; OCTETS];
    for (number, places) in (1..).zip([[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]]) {
        send(number, &places)?;
        let length = alice.recv(&mut buffer).with_context(|| format!("in the order {places:?}"))?;
        ensure!(buffer[..length] == datagram(number), "other octets in the order {places:?}");
    }
    let known = open.node.status()?;
    ensure!(known.verdict("nat-fragment") == 0, "fragments were dropped");
    send(9, &[3, 2, 1])?;
    open.node.await_status("what waits in vain is dropped", |status| status.verdict("nat-fragment") == 3)?;
    let status = open.node.status()?;
    status.ensure_every_packet_has_a_verdict()?;
    status.ensure_ledgers_hold()
}

/// One of the host outside, and one of alice that is connected with it.
fn sockets(open: &Open, outside: IpAddr, inner: IpAddr) -> Result<[UdpSocket; 2]> {
    let host = open.lab.client(Who::Bob).enter(|| UdpSocket::bind((outside, ECHO)))?.context("the host cannot bind")?;
    let alice = open.lab.client(Who::Alice).enter(|| UdpSocket::bind((inner, 0)))?.context("alice cannot bind")?;
    alice.connect((outside, ECHO))?;
    for socket in [&host, &alice] {
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    }
    Ok([host, alice])
}
