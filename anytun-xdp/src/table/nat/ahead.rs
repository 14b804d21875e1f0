//! What packets will look at, fetched while others of their batch are worked on.

use super::{Account, End, Flow, Nat, Protocol};
use crate::satp::prefetch;

impl Nat {
    /// Brings near what tells where the mapping of a client's end is.
    #[inline]
    pub fn prefetch_outbound(&self, account: Account, inside: &End, protocol: Protocol) {
        self.by_inside.prefetch(self.inside_key(account, protocol, inside).1);
    }

    /// Brings near the mapping, and what tells where the session is, when [`prefetch_outbound`](Self::prefetch_outbound) is
    /// done.
    #[inline]
    pub fn prefetch_outbound_session(&self, account: Account, inside: &End, flow: &Flow) {
        let hash = self.inside_key(account, flow.protocol, inside).1;
        // Most likely its own: nearly all others have another part of the hash.
        let Some(number) = self.by_inside.find(hash, Some) else { return };
        prefetch::value(&self.mappings[number]);
        self.by_remote.prefetch(self.remote_key(number, flow).1);
    }

    /// Brings near the mapping of a port, and what tells where the session is.
    #[inline]
    pub fn prefetch_inbound(&self, port: u16, flow: &Flow) {
        let Some(number) = self.number(flow.protocol, port) else { return };
        prefetch::value(&self.mappings[number]);
        self.by_remote.prefetch(self.remote_key(number, flow).1);
    }

    /// Brings near the session, when [`prefetch_inbound`](Self::prefetch_inbound) is done.
    #[inline]
    pub fn prefetch_inbound_session(&self, port: u16, flow: &Flow) {
        let Some(number) = self.number(flow.protocol, port) else { return };
        if let Some(session) = self.by_remote.find(self.remote_key(number, flow).1, Some) {
            prefetch::value(&self.sessions[session]);
        }
    }
}
