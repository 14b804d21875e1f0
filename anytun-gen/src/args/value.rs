//! Values of arguments, as they are written.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Octets written in hex.
#[derive(Clone, Debug)]
pub(super) struct Octets(pub(super) Vec<u8>);

/// Numbers from one to another.
#[derive(Clone, Debug)]
pub(super) struct Range(pub(super) RangeInclusive<u32>);

/// Reads an address and a port. Port 0 is reserved (IANA, service names and port numbers).
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(socket) if socket.port() == 0 => Err(format!("{text} has port 0, which is nobody's; ports are 1 to 65535")),
        Ok(socket) => Ok(socket),
        Err(_) => {
            Err(format!("`{text}` is no address and port; write them such as 198.18.0.1:7000 or [2001:db8::1]:7000"))
        }
    }
}

/// Reads a time such as `2s`, `500ms` or `1m`, from a millisecond to an hour.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match pause(text)? {
        duration if duration < Duration::from_millis(1) => {
            Err(format!("{text} is too short; a millisecond is the least"))
        }
        duration => Ok(duration),
    }
}

/// The same, and nothing at all.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write it such as 500ms, 2s or 1m");
    let split = text.find(|character: char| character.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let digits = number.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    let seconds = number.parse::<f64>().ok().filter(|_| digits).ok_or_else(wrong)? * unit;
    match seconds {
        0.0..=3600.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("{text} is longer than an hour")),
    }
}

/// Reads a share such as `0.1%` or `0.001`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    match number.trim().parse::<f64>().map(|number| number * unit) {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is no share of packets; write it such as 0.1% or 0.001")),
    }
}

/// Reads a number or two, such as `0` or `0-3`.
pub(super) fn range(text: &str) -> Result<Range, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Range(first..=last)),
        _ => Err(format!("`{text}` is no range; write one number, or two such as 0-3")),
    }
}

/// Reads octets in hex, such as `40000048`.
pub(super) fn octets(text: &str) -> Result<Octets, String> {
    hex::decode(text).map(Octets).map_err(|error| format!("no hex digits: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_shares_and_ranges_are_read() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(pause("0s"), Ok(Duration::ZERO));
        for text in ["", "2", "s", "-1s", "2h", "61m", "0s", "1e3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!((share("0.1%").unwrap() - share("0.001").unwrap()).abs() < 1e-12);
        for text in ["", "1", "100%", "-1%", "x"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(range("2-5").unwrap().0, 2..=5);
        assert_eq!(range("7").unwrap().0, 7..=7);
        for text in ["", "3-2", "a-b", "1-", "-1"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
