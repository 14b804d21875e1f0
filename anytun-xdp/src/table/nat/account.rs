//! What each client has of a NAT.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Nat;

/// Accounts of one piece of memory.
const PIECE: usize = 1024;
/// Pieces there can be.
const PIECES: usize = 1024;

/// Accounts a NAT can have.
pub(super) const MOST: u32 = (PIECE * PIECES) as u32;
/// Bits of an epoch that are used.
pub(super) const EPOCH: u32 = 28;

/// Accounts that were used before and are looked at before a new one is taken.
const LOOKS: u32 = 64;

/// Names what a client has of a NAT, across snapshots. Numbers are used again; the epoch tells whose an account was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Account {
    number: u32,
    epoch: u32,
}

impl Account {
    /// Index of the account: small, for tables from account to client.
    pub fn number(self) -> usize {
        self.number as usize
    }

    /// Number and epoch in the upper 48 bits of a word.
    pub(super) fn to_bits(self) -> u64 {
        (u64::from(self.number) << EPOCH | u64::from(self.epoch)) << 16
    }

    /// Reads [`to_bits`](Self::to_bits), whatever the lower 16 bits are.
    pub(super) fn from_bits(bits: u64) -> Self {
        let (number, epoch) = (bits >> (16 + EPOCH), bits >> 16 & ((1 << EPOCH) - 1));
        Self { number: number as u32, epoch: epoch as u32 }
    }
}

/// A client's membership. Snapshots of the tables share it; when the last of them lets go, the account is closed and its
/// mappings are void at once.
#[derive(Debug)]
pub struct Member {
    nat: Arc<Nat>,
    account: Account,
}

impl Member {
    pub(super) fn new(nat: Arc<Nat>, account: Account) -> Self {
        Self { nat, account }
    }

    /// The client's account.
    pub fn account(&self) -> Account {
        self.account
    }

    /// The NAT the client is a member of.
    pub fn nat(&self) -> &Arc<Nat> {
        &self.nat
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.nat.accounts().close(self.account);
    }
}

#[derive(Default)]
struct Slot {
    /// Odd while the account is open; modulo 2^28.
    epoch: AtomicU32,
    /// Ports, those that rest included.
    ports: AtomicU32,
    sessions: AtomicU32,
}

/// What is counted of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Ports,
    Sessions,
}

/// All accounts. Memory is added when clients are admitted, never by packets.
pub(super) struct Accounts {
    pieces: Box<[OnceLock<Box<[Slot]>>]>,
    vacant: Mutex<Vacant>,
}

/// Where to look for an account for the next client.
#[derive(Default)]
struct Vacant {
    /// The lowest number that was never used.
    next: u32,
    /// Where to go on looking for one that was.
    hand: u32,
}

impl Accounts {
    pub(super) fn new() -> Self {
        Self { pieces: (0..PIECES).map(|_| OnceLock::new()).collect(), vacant: Mutex::default() }
    }

    #[inline]
    fn slot(&self, number: u32) -> Option<&Slot> {
        self.pieces.get(number as usize / PIECE)?.get()?.get(number as usize % PIECE)
    }

    /// Opens an account: one that is closed and has nothing left, or a new one.
    pub(super) fn open(&self) -> Option<Account> {
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..LOOKS.min(vacant.next) {
            vacant.hand = (vacant.hand + 1) % vacant.next;
            if let Some(account) = self.reopen(vacant.hand) {
                return Some(account);
            }
        }
        if vacant.next == MOST {
            return (0..MOST).find_map(|number| self.reopen(number));
        }
        let number = vacant.next;
        vacant.next += 1;
        let piece = &self.pieces[number as usize / PIECE];
        piece.get_or_init(|| (0..PIECE).map(|_| Slot::default()).collect());
        self.reopen(number)
    }

    fn reopen(&self, number: u32) -> Option<Account> {
        let slot = self.slot(number)?;
        let epoch = slot.epoch.load(Ordering::Acquire);
        let unused = [&slot.ports, &slot.sessions].into_iter().all(|count| count.load(Ordering::Acquire) == 0);
        if epoch % 2 == 1 || !unused {
            return None;
        }
        slot.epoch.store(next(epoch), Ordering::Release);
        Some(Account { number, epoch: next(epoch) })
    }

    fn close(&self, account: Account) {
        if let Some(slot) = self.slot(account.number) {
            slot.epoch.store(next(account.epoch), Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn is_open(&self, account: Account) -> bool {
        self.slot(account.number).is_some_and(|slot| slot.epoch.load(Ordering::Acquire) == account.epoch)
    }

    fn count(&self, account: Account, part: Part) -> Option<&AtomicU32> {
        let slot = self.slot(account.number)?;
        Some(match part {
            Part::Ports => &slot.ports,
            Part::Sessions => &slot.sessions,
        })
    }

    /// Counts one more, if that stays within `limit`.
    pub(super) fn reserve(&self, account: Account, part: Part, limit: u32) -> bool {
        let Some(count) = self.count(account, part) else { return false };
        let more = |count: u32| (count < limit).then(|| count + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one less of those that were reserved.
    pub(super) fn release(&self, account: Account, part: Part) {
        if let Some(count) = self.count(account, part) {
            let before = count.fetch_sub(1, Ordering::AcqRel);
            debug_assert!(before > 0, "what is released was reserved");
        }
    }

    /// How many an account has.
    pub(super) fn used(&self, account: Account, part: Part) -> u32 {
        self.count(account, part).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

fn next(epoch: u32) -> u32 {
    (epoch + 1) & ((1 << EPOCH) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_when_nothing_of_it_is_left_and_never_as_the_same_account() {
        let accounts = Accounts::new();
        let first = accounts.open().expect("an account");
        let second = accounts.open().expect("an account");
        assert!(accounts.is_open(first) && accounts.is_open(second) && first != second);
        assert!(accounts.reserve(first, Part::Ports, 1));
        assert!(!accounts.reserve(first, Part::Ports, 1));
        accounts.close(first);
        assert!(!accounts.is_open(first));
        let third = accounts.open().expect("an account");
        assert_eq!(third.number(), 2, "the first has a port left");
        accounts.release(first, Part::Ports);
        let fourth = accounts.open().expect("an account");
        assert_eq!(fourth.number(), first.number());
        assert_ne!(fourth, first);
        assert!(accounts.is_open(fourth) && !accounts.is_open(first));
    }

    #[test]
    fn accounts_survive_the_way_through_a_word() {
        for (number, epoch) in [(0, 1), (MOST - 1, (1 << EPOCH) - 1), (77, 3)] {
            let account = Account { number, epoch };
            assert_eq!(Account::from_bits(account.to_bits() | 0xffff), account);
        }
        assert_eq!(next((1 << EPOCH) - 1), 0);
    }
}
