//! Outer IPv6 packets that a way does not take although it takes what is in them: the smallest of inner IPv6 packets have to
//! pass whatever is around them, so what is around them is fragmented (RFC 2473 §7.2 b, RFC 8200 §4.5).

use anytun_common::wire::ipv6;

/// Octets of a fragment header.
pub const FRAGMENT_HEADER: usize = 8;

/// Bit of the offset: more fragments follow.
const MORE: u16 = 1;

/// Cuts the IPv6 packet between `network` and `end` of a frame into two fragments that a way with `path` octets takes. The
/// first stays in `frame`, the second is written to `out` behind the same link headers. Returns the octets of both frames;
/// nothing, and the frame as it was, when the packet is not larger than the way takes, two are not enough, or there is no room
/// for them.
pub fn halve(
    frame: &mut [u8],
    network: usize,
    end: usize,
    path: usize,
    identification: u32,
    out: &mut [u8],
) -> Option<[usize; 2]> {
    let data = network + ipv6::HEADER;
    let room = path.checked_sub(ipv6::HEADER + FRAGMENT_HEADER)? & !7;
    let middle = data + room;
    let rest = end.checked_sub(middle).filter(|rest| (1..=room).contains(rest))?;
    let totals = [middle + FRAGMENT_HEADER, data + FRAGMENT_HEADER + rest];
    let second = out.get_mut(..totals[1])?;
    let (headers, behind) = second.split_at_mut_checked(data)?;
    headers.copy_from_slice(frame.get(..data)?);
    behind.get_mut(FRAGMENT_HEADER..)?.copy_from_slice(frame.get(middle..end)?);
    frame.get(..totals[0])?;
    frame.copy_within(data..middle, data + FRAGMENT_HEADER);
    finish(frame.get_mut(network..totals[0])?, MORE, identification)?;
    finish(second.get_mut(network..)?, u16::try_from(room).ok()?, identification)?;
    Some(totals)
}

/// Completes the headers of a fragment.
fn finish(packet: &mut [u8], offset: u16, identification: u32) -> Option<()> {
    let payload = u16::try_from(packet.len().checked_sub(ipv6::HEADER)?).ok()?;
    let (h, rest) = packet.split_first_chunk_mut::<{ ipv6::HEADER }>()?;
    let fragment = rest.first_chunk_mut::<FRAGMENT_HEADER>()?;
    *fragment = [0; FRAGMENT_HEADER];
    fragment[0] = h[ipv6::NEXT_HEADER];
    fragment[2..4].copy_from_slice(&offset.to_be_bytes());
    fragment[4..].copy_from_slice(&identification.to_be_bytes());
    h[ipv6::NEXT_HEADER] = ipv6::FRAGMENT;
    h[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&payload.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of link headers with a VLAN tag.
    const LINK: usize = 18;

    /// A frame with an IPv6 packet of `length` octets, with room behind it.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..2048usize).map(|at| at as u8 ^ (at >> 8) as u8).collect();
        frame[LINK..][..8].copy_from_slice(&[0x60, 0, 0, 0, ((length - 40) >> 8) as u8, (length - 40) as u8, 17, 64]);
        frame
    }

    /// What a receiver makes of fragments (RFC 8200 §4.5): the payload behind the fixed header.
    fn reassembled(fragments: &[&[u8]]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (index, fragment) in fragments.iter().enumerate() {
            let packet = &fragment[LINK..];
            assert_eq!(usize::from(packet[4]) << 8 | usize::from(packet[5]), packet.len() - 40);
            assert_eq!((packet[6], packet[40], packet[41]), (44, 17, 0));
            let offset = usize::from(packet[42]) << 8 | usize::from(packet[43]);
            assert_eq!((offset & !7, offset & 7), (payload.len(), usize::from(index + 1 < fragments.len())));
            assert_eq!(packet[44..48], [0xde, 0xad, 0xbe, 0xef]);
            payload.extend_from_slice(&packet[48..]);
        }
        payload
    }

    #[test]
    fn two_fragments_have_all_of_it_and_fit() {
        for path in [1280, 1300, 1347] {
            for length in path + 1..=1348 {
                let mut first = frame(length);
                let (whole, mut second) = (first.clone(), vec![0; 2048]);
                let end = LINK + length;
                let octets = halve(&mut first, LINK, end, path, 0xdead_beef, &mut second).expect("two fragments");
                assert!(octets.iter().all(|octets| octets - LINK <= path), "{octets:?} of {path}");
                let fragments = [&first[..octets[0]], &second[..octets[1]]];
                assert!(fragments.iter().all(|fragment| fragment[..LINK] == whole[..LINK]));
                assert!(fragments.iter().all(|fragment| fragment[LINK + 7..LINK + 40] == whole[LINK + 7..LINK + 40]));
                assert_eq!(reassembled(&fragments), whole[LINK + 40..end]);
            }
        }
    }

    #[test]
    fn what_fits_or_has_no_room_stays_as_it_is() {
        for (length, path, room) in [(1272, 1280, 2048), (1348, 47, 2048), (1348, 600, 2048), (1348, 1280, 100)] {
            let (mut whole, mut out) = (frame(length), vec![0; room]);
            assert_eq!(halve(&mut whole, LINK, LINK + length, path, 1, &mut out), None, "{length} octets, {path}");
            assert_eq!(whole, frame(length));
        }
        let mut whole = frame(1348);
        whole.truncate(LINK + 1280);
        assert_eq!(halve(&mut whole, LINK, LINK + 1348, 1280, 1, &mut [0; 2048]), None);
    }
}
