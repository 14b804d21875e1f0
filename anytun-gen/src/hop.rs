//! The next hop: the Ethernet address that frames for a destination must have.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anytun_xdp::kernel::Link;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Deserialize;

use crate::error::Error;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no MAC address; write it such as 02:00:00:00:00:01");
        let octets: Vec<u8> = text
            .split([':', '-'])
            .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten().ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
        let mac: [u8; 6] = octets.try_into().map_err(|_| wrong())?;
        match mac {
            [0, 0, 0, 0, 0, 0] => Err("00:00:00:00:00:00 is nobody's MAC address".to_owned()),
            [first, ..] if first & 1 != 0 => Err(format!("{text} is the address of a group, not of a next hop")),
            _ => Ok(Self(mac)),
        }
    }
}

/// How long the kernel may take to resolve a neighbour.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked.
const NAP: Duration = Duration::from_millis(20);
/// The port `discard` (RFC 863): a datagram for it makes the kernel resolve the neighbour.
const DISCARD: u16 = 9;

/// A line of `ip -json route get`.
#[derive(Deserialize)]
struct Route {
    dev: Option<String>,
    gateway: Option<IpAddr>,
}

/// A line of `ip -json neighbour show`.
#[derive(Deserialize)]
struct Neighbour {
    lladdr: Option<String>,
}

/// Asks the kernel for the next hop from `link` to `destination`, and makes it resolve its address.
///
/// # Errors
///
/// [`Error::Unavailable`] with the way out, where the link is down, there is no route or nobody answers.
pub fn resolve(link: &Link, destination: IpAddr, option: &str) -> Result<Mac, Error> {
    let name = &link.name;
    if !link.up {
        return Err(Error::Unavailable(format!("{name} is down; `ip link set dev {name} up`")));
    }
    let mend = format!("give the MAC address of the next hop with {option}");
    let routes: Vec<Route> = ip(&["route", "get", &destination.to_string(), "oif", name])
        .map_err(|why| Error::Unavailable(format!("no route to {destination} out of {name} ({why}); {mend}")))?;
    let route = routes.into_iter().next();
    let Some(Route { dev, gateway }) = route.filter(|route| route.dev.as_deref() == Some(name)) else {
        return Err(Error::Unavailable(format!("the route to {destination} does not lead out of {name}; {mend}")));
    };
    debug_assert!(dev.is_some(), "the filter has seen it");
    let hop = gateway.unwrap_or(destination);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let known: Vec<Neighbour> = ip(&["neighbour", "show", "to", &hop.to_string(), "dev", name])
            .map_err(|why| Error::Unavailable(format!("the neighbours of {name}: {why}; {mend}")))?;
        if let Some(mac) = known.into_iter().find_map(|neighbour| neighbour.lladdr?.parse().ok()) {
            return Ok(mac);
        }
        if Instant::now() > deadline {
            return Err(Error::Unavailable(format!(
                "{hop} does not answer on {name}, so its MAC address is unknown; {mend}"
            )));
        }
        // Whether it can be sent does not matter: the table tells.
        let _ = nudge(name, hop);
        thread::sleep(NAP);
    }
}

/// Sends a datagram to a neighbour.
fn nudge(name: &str, hop: IpAddr) -> std::io::Result<()> {
    let any = match hop {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    setsockopt(&socket, sockopt::BindToDevice, &name.into())?;
    socket.send_to(&[], (hop, DISCARD)).map(drop)
}

/// Runs `ip -json` and reads what it prints.
fn ip<T: serde::de::DeserializeOwned>(words: &[&str]) -> Result<Vec<T>, String> {
    let output =
        Command::new("ip").arg("-json").args(words).output().map_err(|error| format!("`ip` of iproute2: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the answer of `ip`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        assert_eq!("02:00:5e:10:00:ff".parse(), Ok(Mac([2, 0, 0x5e, 0x10, 0, 0xff])));
        for text in ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:01", "02:00:5e:10:00:fg", "0:0:0:0:0:1"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert!("01:00:5e:00:00:01".parse::<Mac>().unwrap_err().contains("group"));
        assert!("00:00:00:00:00:00".parse::<Mac>().is_err());
    }
}
