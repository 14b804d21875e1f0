//! The names of the stages.

/// What a batch goes through in a turn, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Completed frames are collected, FILL rings filled, received frames taken.
    Receive,
    /// The SATP packet in each frame is found.
    Parse,
    /// The client whose MUX it carries is found.
    LookUp,
    /// The client's record is fetched, the length checked against its tag.
    Measure,
    /// Tags are checked.
    Verify,
    /// Sequence numbers pass the replay window and count for the client.
    Accept,
    /// Payloads are decrypted.
    Decrypt,
    /// Inner packets are checked and find the client they go to.
    Route,
    /// Endpoint, place in the frame and sequence number are found, outer headers written.
    LayOut,
    /// Packets are encrypted and get their tags.
    Seal,
    /// Outer checksums are completed, frames put into outboxes.
    Enclose,
    /// Frames go into TX rings and count for the client.
    Transmit,
    /// The kernel is made to send, unless more is to be sent with it, and the worker's counters are shown.
    Close,
}

impl Stage {
    /// Every stage, in order; the index of each is its discriminant.
    pub const ALL: &[Stage] = &[
        Stage::Receive,
        Stage::Parse,
        Stage::LookUp,
        Stage::Measure,
        Stage::Verify,
        Stage::Accept,
        Stage::Decrypt,
        Stage::Route,
        Stage::LayOut,
        Stage::Seal,
        Stage::Enclose,
        Stage::Transmit,
        Stage::Close,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// One word for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Parse => "parse",
            Stage::LookUp => "look-up",
            Stage::Measure => "measure",
            Stage::Verify => "verify",
            Stage::Accept => "accept",
            Stage::Decrypt => "decrypt",
            Stage::Route => "route",
            Stage::LayOut => "lay-out",
            Stage::Seal => "seal",
            Stage::Enclose => "enclose",
            Stage::Transmit => "transmit",
            Stage::Close => "close",
        }
    }
}
