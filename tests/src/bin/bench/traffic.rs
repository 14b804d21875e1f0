//! What a contestant is sent.

use std::fmt;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::topology::{SINK, SOURCE, Topology};

/// The first port that packets come from, on both sides.
pub(crate) const SOURCE_PORT: u16 = 7000;
/// The port that plain packets go to, at the relay and at the sink.
pub(crate) const PORT: u16 = 9000;

/// Octets for prepared packets.
const MEMORY: u64 = 1 << 30;

/// Octets of an Ethernet frame without FCS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Size {
    /// All alike.
    Octets(u16),
    /// The generator's mix of small, middling and large ones.
    Imix,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(octets) => write!(f, "{octets}"),
            Size::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(octets @ 64..=1514) => Ok(Size::Octets(octets)),
            _ if text == "imix" => Ok(Size::Imix),
            _ => Err(format!("{text} is no size; use octets from 64 to 1514, or imix")),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Size::Octets(octets) => serializer.serialize_u16(*octets),
            Size::Imix => serializer.serialize_str("imix"),
        }
    }
}

/// What a contestant is sent, and where it comes out.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    /// Whether it comes out of the interface that it went into.
    pub(crate) one_interface: bool,
    /// Queues that it is sent to.
    pub(crate) queues: usize,
    pub(crate) what: What,
}

/// What the packets are.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Plain UDP.
    Plain {
        /// Where they are sent to.
        destination: SocketAddrV4,
        /// How many source ports they have.
        flows: u16,
        /// What stands before the payload; a function of the frame's octets.
        prefix: Option<fn(u16) -> Vec<u8>>,
    },
    /// From the first client to the second, or plain to the sink.
    Tunnel {
        /// The configuration of the node.
        config: PathBuf,
        /// Whether it comes out plain.
        open: bool,
        /// Whether packets are sealed, and so must be made before they can be sent fast.
        sealed: bool,
    },
}

impl Traffic {
    /// The arguments of the generator that say all this, for frames of a size.
    pub(crate) fn arguments(&self, topology: &Topology, size: Size) -> Vec<String> {
        let macs = &topology.macs;
        let mut words = vec![("--interface", "gen0".to_owned()), ("--gateway-mac", macs.link0.clone())];
        if !self.one_interface {
            words.push(("--sink", "sink0".to_owned()));
        }
        words.push(("--source", SocketAddrV4::new(SOURCE, SOURCE_PORT).to_string()));
        let mut shown = size;
        if self.queues > 1 {
            words.push(("--queues", format!("0-{}", self.queues - 1)));
        }
        match &self.what {
            What::Plain { destination, flows, prefix } => {
                words.push(("--destination", destination.to_string()));
                words.push(("--flows", flows.to_string()));
                words.push(("--arrive-port", PORT.to_string()));
                if let (Some(prefix), Size::Octets(octets)) = (prefix, size) {
                    let prefix = prefix(octets);
                    words.push(("--prefix", prefix.iter().map(|octet| format!("{octet:02x}")).collect()));
                    // What comes out has the size, as with a tunnel.
                    shown = Size::Octets(octets + prefix.len() as u16);
                }
            }
            What::Tunnel { config, open: true, .. } => {
                words.push(("--config", config.display().to_string()));
                // As many flows as without open tunnel mode, where the other client receives.
                words.push(("--clients", "0".to_owned()));
                words.push(("--destination", SocketAddrV4::new(SINK, PORT).to_string()));
            }
            What::Tunnel { config, open: false, .. } => {
                words.push(("--config", config.display().to_string()));
                // Behind one interface the second client is told from the first by its port.
                let (address, port, mac) = match self.one_interface {
                    true => (SOURCE, SOURCE_PORT + 1, &macs.link0),
                    false => (SINK, SOURCE_PORT, &macs.link1),
                };
                words.push(("--sink-source", SocketAddrV4::new(address, port).to_string()));
                words.push(("--sink-gateway-mac", mac.clone()));
            }
        }
        words.push(("--size", shown.to_string()));
        words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The longest run at a rate. The generator prepares sealed packets before it sends them fast, and its memory is that
    /// of a small machine: a slot for a packet is a power of two.
    pub(crate) fn longest(&self, size: Size, rate: u64) -> Duration {
        let slot: u64 = match size {
            Size::Octets(..=128) => 256,
            Size::Octets(..=900) => 1024,
            _ => 2048,
        };
        match self.what {
            What::Tunnel { sealed: true, .. } => Duration::from_millis(MEMORY / slot * 1000 / rate.max(1)),
            _ => Duration::MAX,
        }
    }

    /// Why frames of this size cannot be sent, if so.
    pub(crate) fn obstacle(&self, size: Size) -> Option<&'static str> {
        match (&self.what, size) {
            (What::Plain { prefix: Some(_), .. }, Size::Imix) => Some("the length is in front of the payload"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_octets_or_the_mix() {
        assert_eq!("64".parse(), Ok(Size::Octets(64)));
        assert_eq!("imix".parse(), Ok(Size::Imix));
        assert!(["63", "1515", "", "mix"].iter().all(|text| text.parse::<Size>().is_err()));
        assert_eq!(serde_json::to_string(&[Size::Octets(1400), Size::Imix]).unwrap(), "[1400,\"imix\"]");
    }
}
