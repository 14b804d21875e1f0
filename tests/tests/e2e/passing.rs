//! What is not for the node is the kernel's, also while the node is busy.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use anytun_tests::lab::{ANYCAST, ANYCAST6, HOST, Layout, PORT, Running, Who};
use anytun_tests::namespace::Namespace;
use anytun_tests::node::{self, Node};
use anytun_tests::traffic::ping;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("passing/other-traffic-native", || other_traffic("native")),
        case("passing/other-traffic-generic", || other_traffic("generic")),
    ]
}

/// TCP, ICMP, UDP and fragments to the host's own addresses and to the anycast addresses, while 2,000 pings a second go
/// through the node each way.
fn other_traffic(xdp: &'static str) -> Result<()> {
    let mut running = Running::usual(Layout { queues: 2, ..Layout::default() })?;
    if xdp != running.config.xdp {
        running.node.stop()?;
        running.config.xdp = xdp;
        running.node = Node::start(&node::program()?, &running.lab.node, running.lab.directory(), &running.config)?;
        running.lab.introduce()?;
    }
    let flows = running.both_ways(2_000, 0)?;
    let (node, alice) = (&running.lab.node, running.lab.client(Who::Alice));
    let anycast = [IpAddr::V4(ANYCAST), IpAddr::V6(ANYCAST6)];
    for address in HOST.into_iter().chain(anycast) {
        ping(alice, address, 50, 56)?;
        // Larger than the MTU: fragments both ways.
        ping(alice, address, 20, 4_000)?;
        tcp(node, alice, (address, 7_000).into())?;
        udp(node, alice, (address, PORT + 1).into(), 100, 200)?;
        udp(node, alice, (address, PORT + 1).into(), 4_000, 20)?;
    }
    // The service's port, but an address that is not the service's.
    for address in HOST {
        udp(node, alice, (address, PORT).into(), 100, 200)?;
    }
    // A burst of TCP can fill the ring of a veth; then pings are lost on their way to the node. But the load was there.
    for flow in flows {
        let report = flow.stop()?;
        ensure!(report.sent > 2_000 && report.received > report.sent / 2, "there was no load: {report:?}");
    }
    let status = running.node.status()?;
    for verdict in ["not-udp", "not-service", "fragment"] {
        ensure!(status.program(verdict) > 0, "the XDP program has counted no {verdict}");
    }
    ensure!(status.verdict("stray") == 0, "{} packets reached a worker by mistake", status.verdict("stray"));
    status.ensure_ledgers_hold()
}

/// Sends a megabyte to a server in `node` that sends it back.
fn tcp(node: &Namespace, client: &Namespace, address: SocketAddr) -> Result<()> {
    const LIMIT: Option<Duration> = Some(Duration::from_secs(10));
    let listener = node.enter(|| TcpListener::bind(address))?.context("cannot listen")?;
    let server = thread::spawn(move || -> std::io::Result<u64> {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(LIMIT)?;
        stream.set_write_timeout(LIMIT)?;
        std::io::copy(&mut &stream, &mut &stream)
    });
    let sent: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_be_bytes).collect();
    let stream = client.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))?;
    let stream = stream.with_context(|| format!("no TCP connection to {address}"))?;
    stream.set_read_timeout(LIMIT)?;
    let received = thread::scope(|scope| -> Result<Vec<u8>> {
        let reader = scope.spawn(|| {
            let mut received = Vec::new();
            (&stream).read_to_end(&mut received).map(|_| received)
        });
        (&stream).write_all(&sent)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        Ok(reader.join().map_err(|_| anyhow!("the reader panicked"))??)
    })
    .with_context(|| format!("TCP to {address}"))?;
    ensure!(received == sent, "TCP to {address} brought back {} of {} octets", received.len(), sent.len());
    server.join().map_err(|_| anyhow!("the server panicked"))??;
    Ok(())
}

/// Sends `count` datagrams one by one to a server in `node` that sends them back.
fn udp(node: &Namespace, client: &Namespace, address: SocketAddr, size: usize, count: u32) -> Result<()> {
    let server = node.enter(|| UdpSocket::bind(address))?.with_context(|| format!("cannot bind {address}"))?;
    server.set_read_timeout(Some(Duration::from_millis(20)))?;
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = client.enter(|| UdpSocket::bind((any, 0)))??;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(address)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, from)) = server.recv_from(&mut buffer) {
                    // If this fails the client waits in vain and says so.
                    let _ = server.send_to(&buffer[..length], from);
                }
            }
        });
        let exchanged = exchange(&socket, size, count).with_context(|| format!("UDP to {address}"));
        done.store(true, Ordering::Relaxed);
        exchanged
    })
}

fn exchange(socket: &UdpSocket, size: usize, count: u32) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    for number in 0..count {
        let datagram = vec![number as u8; size];
        socket.send(&datagram)?;
        let length = socket.recv(&mut buffer).with_context(|| format!("datagram {number} was not answered"))?;
        ensure!(buffer[..length] == datagram, "datagram {number} came back changed");
    }
    Ok(())
}
