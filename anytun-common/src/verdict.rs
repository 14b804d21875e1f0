//! What became of a packet: one enum for both halves, so that a counter has one name wherever it is shown.

/// Where the counters of a [`Verdict`] are kept and what it means for the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// XDP handed the packet to a worker.
    Steered,
    /// XDP dropped the packet, before it cost anything.
    Shed,
    /// XDP left the packet to the kernel, untouched.
    Passed,
    /// A worker used the packet up as meant: it was sent on, or was for the node itself.
    Done,
    /// A worker dropped the packet.
    Dropped,
}

macro_rules! verdicts {
    ($($variant:ident $name:literal $outcome:ident $help:literal,)*) => {
        /// The fate of one packet. The discriminant is the index of its counter.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Verdict {
            $(#[doc = $help] $variant,)*
        }

        impl Verdict {
            /// Every verdict, in the order of the counters.
            pub const ALL: &[Verdict] = &[$(Verdict::$variant,)*];
            /// How many there are: the length of a block of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The name used in `status`, metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Verdict::$variant => $name,)* }
            }

            /// One sentence for an operator.
            pub const fn help(self) -> &'static str {
                match self { $(Verdict::$variant => $help,)* }
            }

            /// Who decided and whether the packet went on.
            pub const fn outcome(self) -> Outcome {
                match self { $(Verdict::$variant => Outcome::$outcome,)* }
            }
        }
    };
}

verdicts! {
    Steered "steered" Steered "handed to the AF_XDP socket of the packet's queue",
    Overload "overload" Shed "for a service whose worker is behind, from whoever sent most of what waits",
    Truncated "truncated" Passed "shorter than the headers it announces",
    GroupAddress "group-address" Passed "sent to a broadcast or multicast MAC address",
    VlanDepth "vlan-depth" Passed "more than two VLAN tags",
    NotIp "not-ip" Passed "neither IPv4 nor IPv6",
    MalformedIp "malformed-ip" Passed "an IP header whose version or lengths contradict themselves",
    IpChecksum "ip-checksum" Passed "an IPv4 header with a wrong checksum",
    Fragment "fragment" Passed "a fragment of an IP packet",
    NotUdp "not-udp" Passed "IP, but not UDP right behind the IP header",
    MalformedUdp "malformed-udp" Passed "a UDP length that contradicts the IP length, or source port 0",
    NotService "not-service" Passed "UDP to an address and port that is no service of this node, and no client of an open network",
    NoSocket "no-socket" Passed "for a service, but its queue has no AF_XDP socket",
    Forwarded "forwarded" Done "sealed for a client and handed to the kernel for transmission",
    Outward "outward" Done "sent out of an open network as it was in the tunnel",
    Copied "copied" Done "to a group or broadcast: a copy for each member but the sender has a verdict of its own",
    Membership "membership" Done "a report of IGMP or MLD, in a network that learns from these who is a member of which group",
    Keepalive "keepalive" Done "authentic and empty: the client's endpoint was noted",
    Delivered "delivered" Done "handed to the kernel through the device of its network: for the node, or for the kernel to route",
    Stray "stray" Dropped "reached a worker, but is for no service or client of the configuration in force",
    UnknownMux "unknown-mux" Dropped "a MUX that no client of the service has",
    NatPortsExhausted "nat-ports-exhausted" Dropped "every port of the NAT's range is in use or at rest",
    NatTableFull "nat-table-full" Dropped "the NAT has as many sessions as there may be",
    NatForeignRange "nat-foreign-range" Dropped "to a port of the NAT's address that is not of this node's range",
    MacTableFull "mac-table-full" Dropped "from a new MAC address, for which the network has no room",
    ReportsLimit "reports-limit" Dropped "a report of IGMP or MLD: more came than the node looks at",
    SlowPathFull "slow-path-full" Dropped "for the kernel, which takes less than comes for it",
    NoSequence "no-sequence" Dropped "the next lease of sequence numbers was not written in time",
    Short "short" Dropped "too short for a SATP header and the client's tag",
    BadTag "bad-tag" Dropped "not authentic: forged, damaged, or made with another key or role",
    Replayed "replayed" Dropped "a sequence number seen before, or older than the client's window",
    SenderLimit "sender-limit" Dropped "more sender IDs than the node keeps windows for",
    PayloadType "payload-type" Dropped "a payload type that the client's network does not carry",
    MalformedInner "malformed-inner" Dropped "an inner packet whose header contradicts itself",
    LinkScope "link-scope" Dropped "an inner packet that no router forwards: link-local, loopback, unspecified or multicast",
    ForeignSource "foreign-source" Dropped "an inner source address that is not the client's",
    HopLimit "hop-limit" Dropped "the inner TTL or hop limit was used up",
    EcnMismatch "ecn-mismatch" Dropped "congestion marked outside on a packet that cannot carry the mark inside (RFC 6040)",
    NatLimit "nat-limit" Dropped "the client has as many ports or sessions of the NAT as one may have",
    NatNoMapping "nat-no-mapping" Dropped "to a port of the NAT that no client has, or an answer to what was not asked",
    NatFiltered "nat-filtered" Dropped "to a port of the NAT from somebody that its client has not sent to",
    NatProtocol "nat-protocol" Dropped "neither TCP, UDP nor a message of ICMP that a NAT translates",
    NatFragment "nat-fragment" Dropped "a later fragment whose first one did not pass the NAT shortly before or after, or that found no room to wait for it",
    NoWay "no-way" Dropped "to outside of its network, where no route of the host leads through an interface of the node",
    NoNeighbour "no-neighbour" Dropped "the kernel did not find the next hop within a second, or too many packets waited for it",
    NoRoute "no-route" Dropped "no client of the network has a prefix with the inner destination",
    NoMember "no-member" Dropped "to a multicast group that no other client of the network is a member of",
    CopiesLimit "copies-limit" Dropped "to a group or broadcast: more waited for being copied than the worker keeps, or clients changed meanwhile",
    SlowPathShare "slow-path-share" Dropped "for the kernel, for which as many packets of the client wait as may",
    SameSide "same-side" Dropped "for a MAC address behind the client that sent it",
    MacLimit "mac-limit" Dropped "from a new MAC address, but as many as may be are behind the client",
    StormLimit "storm-limit" Dropped "to everybody, or to a MAC address not heard of, more often than a client may",
    NoEndpoint "no-endpoint" Dropped "the destination client has not been heard from yet",
    TooBig "too-big" Dropped "larger than the MTU of the way to the destination client",
    SequenceExhausted "sequence-exhausted" Dropped "every sequence number of every sender ID of this node is used up for the client's key",
    TxRingFull "tx-ring-full" Dropped "the transmit ring of the interface stayed full",
}
