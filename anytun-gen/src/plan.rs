//! What is to be done, checked: links, engines, traffic.

use std::ops::RangeInclusive;

use anytun_common::wire::ethernet;
use anytun_xdp::config::XdpMode;
use anytun_xdp::kernel::Link;

use crate::error::Error;
use crate::traffic::{Side, Traffic};

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
    /// The queues that are used, of both interfaces.
    pub queues: RangeInclusive<u32>,
    /// The packets.
    pub traffic: Traffic,
    /// The first sequence number of SATP.
    pub first_sequence: u32,
    /// Whether the sink answers, and how many probes a second it is to answer.
    pub round_trip: Option<u64>,
}

impl Plan {
    /// Checks what only shows when the parts come together.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the way out.
    pub fn check(&self) -> Result<(), Error> {
        if self.round_trip.is_some() && (self.engine, self.sink_engine) != (Engine::Xsk, Engine::Xsk) {
            return Err(Error::usage(
                "--round-trip needs --engine xsk and --sink-engine xsk: each answer is made by hand",
            ));
        }
        if self.interface.ifindex == self.sink.ifindex {
            let [low, high] = self.traffic.ports(Side::Sink);
            let [first, last] = self.traffic.ports(Side::Interface);
            let apart = high < first || last < low;
            if !apart {
                return Err(Error::usage(format!(
                    "on one interface the ports {low} to {high} that packets arrive at must not be among the ports {first} \
                     to {last} that they come from; choose others in --source, --sink-source or --destination"
                )));
            }
        }
        for (link, option) in [(&self.interface, "--interface"), (&self.sink, "--sink")] {
            if !link.up {
                return Err(Error::Unavailable(format!("{option} {0} is down; `ip link set dev {0} up`", link.name)));
            }
            let last = *self.queues.end();
            if last >= link.queues {
                return Err(Error::usage(format!(
                    "--queues: {} has no queue {last}, its queues are 0 to {}",
                    link.name,
                    link.queues.saturating_sub(1)
                )));
            }
        }
        let room = self.interface.mtu as usize + ethernet::HEADER;
        if self.traffic.largest() > room {
            return Err(Error::usage(format!(
                "frames of {} octets; {} has an MTU of {}, so they can have {room}",
                self.traffic.largest(),
                self.interface.name,
                self.interface.mtu
            )));
        }
        Ok(())
    }
}
