//! What of a bounded store each sender may have: as much as there is room left, so one alone gets half, and what others send
//! still finds room (dynamic thresholds; Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
//! switches", 1998).

/// Into how many classes senders fall. Those of one class share its part.
const CLASSES: usize = 1 << u8::BITS;

/// The class of a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// That of the sender with this number.
    #[inline]
    pub(super) fn of(sender: u32) -> Self {
        Self(sender as u8)
    }
}

/// What senders of each class have in the store.
#[derive(Debug)]
pub(super) struct Shares(Box<[u16; CLASSES]>);

impl Default for Shares {
    fn default() -> Self {
        Self(Box::new([0; CLASSES]))
    }
}

impl Shares {
    /// Whether the class may have one more, where there is room for `room`.
    #[inline]
    pub(super) fn admits(&self, class: Class, room: usize) -> bool {
        usize::from(self.0[usize::from(class.0)]) < room
    }

    /// Notes that the class has one more.
    #[inline]
    pub(super) fn add(&mut self, class: Class) {
        let held = &mut self.0[usize::from(class.0)];
        *held = held.saturating_add(1);
    }

    /// Notes that the class has one less.
    #[inline]
    pub(super) fn remove(&mut self, class: Class) {
        let held = &mut self.0[usize::from(class.0)];
        *held = held.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that a number of senders fill, each as far as it may.
    fn filled(size: usize, senders: u32) -> Vec<usize> {
        let (mut shares, mut held) = (Shares::default(), vec![0; senders as usize]);
        for sender in (0..senders).cycle().take(size * senders as usize) {
            let room = size - held.iter().sum::<usize>();
            if shares.admits(Class::of(sender), room) {
                shares.add(Class::of(sender));
                held[sender as usize] += 1;
            }
        }
        held
    }

    #[test]
    fn whoever_sends_without_end_leaves_room_for_others() {
        assert_eq!(filled(256, 1), [128]);
        assert_eq!(filled(1, 1), [1]);
        for senders in [2, 3, 7] {
            let held = filled(256, senders);
            let share = 256 / (senders as usize + 1);
            assert!(held.iter().all(|held| (share..=share + 1).contains(held)), "{held:?}");
        }
        assert!(filled(128, 100).iter().all(|held| *held > 0), "many floods leave something for each");
    }

    #[test]
    fn what_is_given_back_may_be_had_again() {
        let mut shares = Shares::default();
        let [one, other] = [7, 8].map(Class::of);
        (0..3).for_each(|_| shares.add(one));
        assert!(!shares.admits(one, 3) && shares.admits(one, 4) && shares.admits(other, 1));
        (0..4).for_each(|_| shares.remove(one));
        assert!(shares.admits(one, 1) && !shares.admits(one, 0));
    }
}
