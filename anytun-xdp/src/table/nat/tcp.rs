//! How far a TCP connection has come, as far as a NAT has to know (RFC 5382 §5, RFC 7857 §2, RFC 6146 §3.5.2).

/// TCP flag (RFC 9293 §3.1).
pub const FIN: u8 = 0x01;
/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// From a client.
    Out,
    /// To a client.
    In,
}

/// What was seen of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tcp(u8);

const SYN_OUT: u8 = 1;
const SYN_IN: u8 = 1 << 1;
const FIN_OUT: u8 = 1 << 2;
const FIN_IN: u8 = 1 << 3;
const RESET: u8 = 1 << 4;

impl Tcp {
    pub(super) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(super) fn to_bits(self) -> u8 {
        self.0
    }

    /// Whether it lives for hours without packets: both ends have opened it (RFC 5382 REQ-5, a simultaneous open as well,
    /// REQ-2), not both have closed it (RFC 7857 §2), and neither has reset it.
    pub(super) fn is_established(self) -> bool {
        let both = |bits: u8| self.0 & bits == bits;
        both(SYN_OUT | SYN_IN) && !self.is_over()
    }

    fn is_over(self) -> bool {
        self.0 & RESET != 0 || self.0 & (FIN_OUT | FIN_IN) == FIN_OUT | FIN_IN
    }

    /// After a packet with these flags.
    ///
    /// A reset is believed until another packet shows that it was none (RFC 7857 §2): the connection is then what it was.
    /// So a forged reset costs at most a silence that is longer than the transitory timer. A client that opens a
    /// connection anew from the same port starts over.
    pub(super) fn after(self, way: Way, flags: u8) -> Self {
        let (syn, fin) = match way {
            Way::Out => (SYN_OUT, FIN_OUT),
            Way::In => (SYN_IN, FIN_IN),
        };
        if flags & RST != 0 {
            return Self(self.0 | RESET);
        }
        if way == Way::Out && flags & SYN != 0 && self.is_over() {
            return Self(SYN_OUT);
        }
        let seen = |flag: u8, bit: u8| if flags & flag != 0 { bit } else { 0 };
        Self(self.0 & !RESET | seen(SYN, syn) | seen(FIN, fin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(packets: &[(Way, u8)]) -> Tcp {
        packets.iter().fold(Tcp::default(), |tcp, (way, flags)| tcp.after(*way, *flags))
    }

    const OPEN: [(Way, u8); 2] = [(Way::Out, SYN), (Way::In, SYN)];

    #[test]
    fn rfc5382_req5_both_ends_must_open() {
        assert!(!after(&[(Way::Out, SYN)]).is_established());
        assert!(!after(&[(Way::Out, SYN), (Way::Out, 0)]).is_established());
        assert!(!after(&[(Way::Out, 0), (Way::In, 0)]).is_established(), "met halfway");
        assert!(after(&OPEN).is_established());
    }

    #[test]
    fn rfc7857_one_fin_leaves_the_other_half_open() {
        let [a, b] = OPEN;
        assert!(after(&[a, b, (Way::In, FIN)]).is_established());
        assert!(after(&[a, b, (Way::Out, FIN), (Way::Out, FIN)]).is_established());
        assert!(!after(&[a, b, (Way::Out, FIN), (Way::In, FIN)]).is_established());
        assert!(!after(&[a, b, (Way::Out, FIN), (Way::In, FIN), (Way::Out, 0)]).is_established(), "the last ACK");
    }

    #[test]
    fn rfc7857_a_reset_counts_until_traffic_goes_on() {
        let [a, b] = OPEN;
        assert!(!after(&[a, b, (Way::In, RST)]).is_established());
        assert!(after(&[a, b, (Way::In, RST), (Way::Out, 0)]).is_established());
        assert!(after(&[a, b, (Way::In, RST), (Way::In, 0)]).is_established());
    }

    #[test]
    fn a_closed_connection_can_be_opened_anew_from_inside_only() {
        let [a, b] = OPEN;
        let closed = [a, b, (Way::Out, FIN), (Way::In, FIN)];
        assert_eq!(after(&[&closed[..], &[a]].concat()), after(&[a]));
        assert!(after(&[&closed[..], &OPEN].concat()).is_established());
        assert!(!after(&[&closed[..], &[b]].concat()).is_established());
        assert_eq!(after(&[a, (Way::In, RST), a]), after(&[a]), "refused, and tried again");
    }
}
