//! Sequence tracking: which packets of a flow are new, late, or were there before.

/// Sequence numbers behind the highest for which it is known whether they were there.
pub const WINDOW: u32 = 1024;

/// What a packet's number says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// The highest so far.
    New,
    /// Overtaken by a later one, and not there before.
    Late,
    /// There before.
    Again,
    /// So far behind that nobody knows whether it was there before.
    Old,
}

/// The numbers of one flow.
#[derive(Clone, Debug)]
pub struct Track {
    /// One more than the highest number; 0 before the first.
    next: u64,
    /// A bit for each of the last [`WINDOW`] numbers, at the number modulo the window.
    seen: [u64; WINDOW as usize / 64],
}

impl Default for Track {
    fn default() -> Self {
        Self { next: 0, seen: [0; WINDOW as usize / 64] }
    }
}

impl Track {
    /// Notes a number. Numbers must not wrap.
    #[inline]
    pub fn note(&mut self, number: u32) -> Seen {
        let number = u64::from(number);
        if number >= self.next {
            if number - self.next >= u64::from(WINDOW) {
                self.seen.fill(0);
            } else {
                for passed in self.next..number {
                    self.clear(passed);
                }
            }
            self.next = number + 1;
            self.set(number);
            return Seen::New;
        }
        if self.next - number > u64::from(WINDOW) {
            return Seen::Old;
        }
        if self.has(number) {
            return Seen::Again;
        }
        self.set(number);
        Seen::Late
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] &= !bit;
    }
}

const fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW as u64;
    ((at / 64) as usize, 1 << (at % 64))
}

/// The tracks of one client, by the sender ID of who sends to it.
#[derive(Clone, Debug, Default)]
pub struct Senders(Vec<(u16, Track)>);

impl Senders {
    /// Notes a number of a sender.
    #[inline]
    pub fn note(&mut self, sender: u16, number: u32) -> Seen {
        if let Some((_, track)) = self.0.iter_mut().find(|(id, _)| *id == sender) {
            return track.note(number);
        }
        let mut track = Track::default();
        let seen = track.note(number);
        self.0.push((sender, track));
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What [`Track`] must say, from all that was there.
    #[derive(Default)]
    struct Model(HashSet<u32>);

    impl Model {
        fn note(&mut self, number: u32) -> Seen {
            let highest = self.0.iter().max().copied();
            let seen = match highest {
                Some(highest) if number + WINDOW <= highest => Seen::Old,
                _ if self.0.contains(&number) => Seen::Again,
                Some(highest) if number < highest => Seen::Late,
                _ => Seen::New,
            };
            self.0.insert(number);
            seen
        }
    }

    #[test]
    fn equals_the_model_on_jumps_forth_and_back() {
        let (mut track, mut model) = (Track::default(), Model::default());
        let mut state = 1u64;
        let mut at = 5_000u32;
        for step in 0..6_000 {
            // A linear congruential generator (Knuth, MMIX) is random enough.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (state >> 33) as u32;
            at = match random % 16 {
                0 => at + random / 16 % 3_000,
                1 => at.saturating_sub(random / 16 % 1_500),
                2..5 => at.saturating_sub(random / 16 % 20),
                _ => at + 1,
            };
            assert_eq!(track.note(at), model.note(at), "step {step}, number {at}");
        }
    }

    #[test]
    fn edges_of_the_window() {
        let mut track = Track::default();
        assert_eq!(track.note(u32::MAX - WINDOW), Seen::New);
        assert_eq!(track.note(u32::MAX), Seen::New);
        assert_eq!(track.note(u32::MAX), Seen::Again);
        assert_eq!(track.note(u32::MAX - WINDOW + 1), Seen::Late);
        assert_eq!(track.note(u32::MAX - WINDOW), Seen::Old);
        assert_eq!(track.note(0), Seen::Old);
    }

    #[test]
    fn senders_are_told_apart() {
        let mut senders = Senders::default();
        assert_eq!(senders.note(1, 5), Seen::New);
        assert_eq!(senders.note(2, 5), Seen::New);
        assert_eq!(senders.note(1, 5), Seen::Again);
        assert_eq!(senders.note(2, 4), Seen::Late);
    }
}
