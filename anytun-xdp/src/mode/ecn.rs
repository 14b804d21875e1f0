//! Explicit congestion notification through a tunnel (RFC 6040).

/// The two ECN bits of a type of service or traffic class.
pub const MASK: u8 = 0b11;
/// Not capable of explicit congestion notification.
pub const NOT_ECT: u8 = 0b00;
const ECT1: u8 = 0b01;
const CE: u8 = 0b11;

/// The ECN bits an inner packet goes on with, given its own and those of the outer header it came in (RFC 6040 §4.2).
/// Nothing when it has to be dropped: congestion was met, and the inner packet has no way to tell.
#[inline]
pub const fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (CE, _) => Some(CE),
        (_, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 figure 4, row by row; columns are the outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn figure_4() {
        const ECT0: u8 = 0b10;
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
                assert_eq!(decapsulate(0xb8 | inner, 0x28 | outer), expected, "inner {inner:02b}, outer {outer:02b}");
            }
        }
    }
}
