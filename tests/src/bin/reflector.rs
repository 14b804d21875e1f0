//! The yardstick of the benchmark: what a relay over these interfaces can reach at all. It gives every IPv4 UDP packet a
//! new Ethernet header and sends it out of the other interface, over AF_XDP sockets or, without them, in the kernel. It
//! looks at nothing; how it sleeps, how much it sends with one call, and its scheduling are the node's own.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use anytun_xdp::config::{Idle, Scheduling, XdpMode};
use anytun_xdp::kernel::{Link, PortSpec, RealTime, Xsk, object, privilege};
use anytun_xdp::worker::io::PacketIo;
use anytun_xdp::worker::{BATCH, Held, Pace, Pause};
use aya::Ebpf;
use aya::maps::{Array, DevMap, HashMap, XskMap};
use aya::programs::Xdp;
use clap::Parser;

const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Places for sockets of one interface in the program's map.
const QUEUES: u32 = 64;

/// Sends every IPv4 UDP packet that comes in through one interface out of the other, with new Ethernet addresses.
#[derive(Parser)]
#[command(name = "reflector")]
struct Arguments {
    /// An interface and the Ethernet address of the host behind it. Once: packets go out as they came in; twice: they
    /// cross
    #[arg(long = "port", value_name = "INTERFACE=MAC", required = true, value_parser = port)]
    ports: Vec<(String, Mac)>,
    /// Receive queues of each interface, each with a thread
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    queues: u32,
    /// Forward in the XDP program, without sockets
    #[arg(long)]
    in_kernel: bool,
    /// Never sleep, as a node with `idle = "spin"`
    #[arg(long)]
    spin: bool,
}

type Mac = [u8; 6];
/// The Ethernet addresses that a packet leaves with.
type Addresses = [u8; 12];

fn main() -> Result<()> {
    let Arguments { ports, queues, in_kernel, spin } = Arguments::parse();
    ensure!(ports.len() <= 2 && queues <= QUEUES, "at most two interfaces of {QUEUES} queues");
    let links = ports.iter().map(|(name, _)| Link::find(name)).collect::<Result<Vec<_>, _>>()?;
    let leaving = |from: usize| (from + 1) % links.len();
    let addresses = |from: usize| -> Addresses {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&ports[leaving(from)].1);
        addresses[6..].copy_from_slice(&links[leaving(from)].mac);
        addresses
    };
    privilege::raise_locked_memory();
    let mut ebpf = Ebpf::load(object::FORWARD)?;
    let mut slots: HashMap<_, u32, u32> = ebpf.map_mut("SLOTS").context("SLOTS")?.try_into()?;
    for (slot, link) in links.iter().enumerate() {
        slots.insert(link.ifindex, slot as u32, 0)?;
    }
    let workers = if in_kernel { 0 } else { queues };
    let mut sockets = Vec::new();
    for queue in 0..workers {
        let specs: Vec<_> =
            links.iter().map(|link| Some(PortSpec { link: link.clone(), queue, mode: XdpMode::Native })).collect();
        sockets.push(Xsk::open(&specs)?);
    }
    let mut map: XskMap<_> = ebpf.map_mut("SOCKETS").context("SOCKETS")?.try_into()?;
    for (slot, queue, socket) in sockets.iter().flat_map(Xsk::sockets) {
        map.set(slot * QUEUES + queue, socket.as_raw_fd(), 0)?;
    }
    if in_kernel {
        let mut devices: DevMap<_> = ebpf.map_mut("DEVICES").context("DEVICES")?.try_into()?;
        for from in 0..links.len() {
            devices.set(from as u32, links[leaving(from)].ifindex, None, 0)?;
        }
        let mut headers: Array<_, Addresses> = ebpf.map_mut("HEADERS").context("HEADERS")?.try_into()?;
        for from in 0..links.len() {
            headers.set(from as u32, addresses(from), 0)?;
        }
    }
    let name = if in_kernel { "forward" } else { "reflect" };
    let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
    program.load()?;
    for link in &links {
        program.attach(&link.name, aya::programs::XdpMode::Driver)?;
    }
    // Threads inherit it.
    let _real_time = (!spin).then(RealTime::begin).transpose()?;
    let addresses: Arc<[Addresses]> = (0..links.len()).map(addresses).collect();
    for (queue, xsk) in sockets.into_iter().enumerate() {
        let addresses = Arc::clone(&addresses);
        thread::Builder::new().name(format!("reflect-{queue}")).spawn(move || reflect(xsk, &addresses, spin))?;
    }
    println!("ready");
    // Killed when it is no more wanted; the program goes with the process.
    loop {
        thread::park();
    }
}

/// Reflects the packets of one queue of every interface, for ever.
fn reflect(mut io: Xsk, addresses: &[Addresses], spin: bool) {
    let mut frames = Vec::with_capacity(BATCH);
    let idle = if spin { Idle::Spin } else { Idle::Sleep };
    let scheduling = if spin { Scheduling::Other } else { Scheduling::Fifo };
    let start = Instant::now();
    let (mut pace, mut held) = (Pace::new(idle, scheduling, start.elapsed()), Held::default());
    loop {
        io.reclaim();
        let (mut total, mut is_full) = (0, false);
        for (from, addresses) in addresses.iter().enumerate() {
            let received = io.receive(from, &mut frames, BATCH);
            total += received;
            is_full |= received == BATCH;
            for frame in &mut frames {
                if let Some(header) = io.buffer(frame).first_chunk_mut() {
                    *header = *addresses;
                }
            }
            let to = (from + 1) % io.ports();
            io.transmit(to, &mut frames);
            if !frames.is_empty() {
                io.kick();
                io.reclaim();
                io.transmit(to, &mut frames);
                frames.drain(..).for_each(|frame| io.recycle(frame));
            }
        }
        if held.is_due(total, is_full) {
            held.release(io.kick());
        }
        match pace.after(total, total, || start.elapsed()) {
            Pause::No | Pause::Show => continue,
            Pause::Rest(time) => {
                held.release(io.kick());
                thread::sleep(time);
            }
            Pause::Gather(time) => io.gather(time),
            Pause::Sleep => io.wait(LONGEST_SLEEP),
        }
        pace.resume(start.elapsed());
    }
}

/// Reads `link0=02:00:00:00:00:01`.
fn port(text: &str) -> Result<(String, Mac), String> {
    let wrong = || format!("{text} is no interface with an Ethernet address, such as link0=02:00:00:00:00:01");
    let (name, mac) = text.split_once('=').ok_or_else(wrong)?;
    let octets: Vec<u8> =
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>().map_err(|_| wrong())?;
    Ok((name.to_owned(), octets.try_into().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn ports_have_addresses() {
        assert_eq!(port("eth0=02:00:0a:ff:00:01"), Ok(("eth0".to_owned(), [2, 0, 10, 255, 0, 1])));
        assert!(["eth0", "eth0=", "eth0=1:2:3:4:5", "eth0=02:00:0a:ff:00:zz"].iter().all(|text| port(text).is_err()));
    }
}
