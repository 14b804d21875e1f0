//! What is to be done, checked: links, engines, traffic.

use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::Link;

use crate::traffic::Plain;

/// How packets are sent or received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// AF_XDP sockets.
    Xsk,
    /// XDP programs.
    Xdp,
}

impl Engine {
    /// The name on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xsk => "xsk",
            Self::Xdp => "xdp",
        }
    }
}

/// Everything but rate and duration.
pub struct Plan {
    /// Where packets are sent.
    pub interface: Link,
    /// Where they must come out; may be the same.
    pub sink: Link,
    /// How they are sent.
    pub engine: Engine,
    /// How they are received.
    pub sink_engine: Engine,
    /// The mode of XDP programs and AF_XDP sockets.
    pub mode: XdpMode,
    /// The packets.
    pub traffic: Plain,
    /// The UDP destination port of packets that arrive.
    pub arrive_port: u16,
    /// Octets in front of the payload of packets that arrive.
    pub arrive_prefix: Vec<u8>,
}
