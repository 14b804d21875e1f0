use std::collections::HashSet;
use std::sync::atomic::AtomicUsize;

use super::*;

const NEWEST: Result<Fresh, Refusal> = Ok(Fresh::Newest);
const LATE: Result<Fresh, Refusal> = Ok(Fresh::Late);
const REPLAYED: Result<Fresh, Refusal> = Err(Refusal::Replayed);

/// What becomes of these numbers, whether others may come in between or not.
fn expect(windows: &Windows, steps: &[(u32, Result<Fresh, Refusal>)]) {
    let alone = windows.emptied().alone(true);
    for (step, (sequence, expected)) in steps.iter().enumerate() {
        assert_eq!(windows.accept(9, *sequence), *expected, "step {step}: {sequence:#x}");
        assert_eq!(alone.accept(9, *sequence), *expected, "step {step}, alone: {sequence:#x}");
    }
}

/// The rows of protocol.md §3.6.
#[test]
fn does_what_the_daemons_do() {
    expect(
        &Windows::new(64),
        &[
            (1000, NEWEST),
            (1000, REPLAYED),
            (999, LATE),
            (999, REPLAYED),
            (937, LATE),
            (936, REPLAYED),
            (1001, NEWEST),
            (1001 + 0x7fff_ffff, NEWEST),
            (1002, REPLAYED),
            (1000 + 0x7fff_ffff, LATE),
        ],
    );
    expect(
        &Windows::new(64),
        &[
            (0xffff_fffe, NEWEST),
            (0xffff_ffff, NEWEST),
            (0, NEWEST),
            (1, NEWEST),
            (0xffff_ffff, REPLAYED),
            (0xffff_fffd, LATE),
            (0xffff_fffd, REPLAYED),
            (0xffff_ff00, REPLAYED),
            (0, REPLAYED),
            (2, NEWEST),
        ],
    );
}

#[test]
fn the_count_starts_over_only_near_its_end() {
    expect(&Windows::new(64), &[(0xffff_ffff - 64, NEWEST), (3, REPLAYED), (0xffff_ffff - 63, NEWEST), (3, NEWEST)]);
    expect(&Windows::new(1), &[(0xffff_fffe, NEWEST), (0, REPLAYED), (0xffff_ffff, NEWEST), (0, NEWEST)]);
    expect(&Windows::new(64), &[(0, NEWEST), (0xffff_ffff, LATE), (0xffff_0000, NEWEST)]);
}

/// A capture from before the count started over must not push the window ahead of its sender.
#[test]
fn numbers_of_the_epoch_before_stay_refused() {
    expect(
        &Windows::new(64),
        &[(0xf000_0000, NEWEST), (0xffff_ffff, NEWEST), (5000, NEWEST), (0xf000_0000, REPLAYED), (5001, NEWEST)],
    );
}

#[test]
fn sender_ids_have_windows_of_their_own_up_to_the_limit() {
    let windows = Windows::new(32);
    for sender in [0, 7, 65535, 8] {
        assert_eq!(windows.accept(sender, 5), NEWEST);
    }
    assert_eq!(windows.accept(9, 5), Err(Refusal::SenderLimit));
    for sender in [0, 7, 65535, 8] {
        assert_eq!(windows.accept(sender, 5), REPLAYED);
        assert_eq!(windows.accept(sender, 6), NEWEST);
    }
}

#[test]
fn is_newest_follows_the_highest_number() {
    let windows = Windows::new(32);
    assert!(!windows.is_newest(3, 0));
    windows.accept(3, 0).unwrap();
    assert!(windows.is_newest(3, 0) && !windows.is_newest(4, 0));
    windows.accept(3, 10).unwrap();
    windows.accept(3, 9).unwrap();
    assert!(windows.is_newest(3, 10) && !windows.is_newest(3, 9) && !windows.is_newest(3, 0));
}

#[test]
fn without_protection_everything_is_accepted_and_a_restart_is_followed() {
    let windows = Windows::new(0);
    expect(&windows, &[(5000, NEWEST), (5000, LATE), (4999, LATE), (3976, LATE), (5001, NEWEST), (0, NEWEST)]);
    assert!(windows.is_newest(9, 0) && !windows.is_newest(9, 5001));
    for sender in 0..3 {
        assert_eq!(windows.accept(sender, 1), NEWEST);
    }
    assert_eq!(windows.accept(500, 1), LATE);
    assert!(!windows.is_newest(500, 1));
}

/// The same in the plainest way: a set of all that was accepted, and the newest, both with their epoch.
struct Model {
    size: i128,
    newest: Option<i128>,
    accepted: HashSet<i128>,
}

impl Model {
    fn accept(&mut self, sequence: u32) -> Result<Fresh, Refusal> {
        const TURN: i128 = 1 << 32;
        let Some(newest) = self.newest else {
            self.newest = Some(sequence.into());
            self.accepted.insert(sequence.into());
            return NEWEST;
        };
        let here = newest.div_euclid(TURN) * TURN + i128::from(sequence);
        let near_end = newest.rem_euclid(TURN) + self.size >= TURN;
        let window = newest - self.size + 1..newest + 1;
        let number = if near_end && here < newest && here + TURN - newest < TURN / 2 {
            here + TURN
        } else if window.contains(&(here - TURN)) || newest >= TURN && here - newest >= TURN / 2 {
            here - TURN
        } else {
            here
        };
        if number < window.start || !self.accepted.insert(number) {
            return REPLAYED;
        }
        self.newest = Some(newest.max(number));
        if number > newest { NEWEST } else { LATE }
    }
}

#[test]
fn agrees_with_a_set_of_all_numbers() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut outcomes = [0; 3];
    for round in 0..400 {
        let size = [1, 2, 31, 32, 33, 64, 100, 1024][round % 8];
        let windows = Windows::new(size).alone(round / 32 % 2 == 1);
        let mut model = Model { size: size.into(), newest: None, accepted: HashSet::new() };
        let mut at = [0, 0xffff_ffff, 0xffff_fc00, 0x7fff_ffff][round / 8 % 4];
        for step in 0..1500 {
            let reach = u64::from(size) * 2 + 4;
            let sequence = match random(200) {
                0 => random(1 << 32) as u32,
                1 => 0u32.wrapping_sub(random(reach) as u32),
                2 => random(reach) as u32,
                3..100 => at + u32::from(at < u32::MAX),
                100..110 => u32::wrapping_add(at, random(reach) as u32),
                _ => u32::wrapping_sub(at, random(reach) as u32),
            };
            let (got, expected) = (windows.accept(5, sequence), model.accept(sequence));
            assert_eq!(got, expected, "round {round}, step {step}, size {size}: {sequence:#x} after {at:#x}");
            outcomes[[NEWEST, LATE, REPLAYED].iter().position(|outcome| *outcome == got).unwrap()] += 1;
            at = model.newest.unwrap() as u32;
            // Now and then the sender itself comes to the end and starts over.
            at = if random(50) == 0 && at == u32::MAX { 0 } else { at };
        }
    }
    assert!(outcomes.iter().all(|count| *count > 10_000), "one-sided: {outcomes:?}");
}

#[test]
fn blocks_take_turns_as_remainders_do() {
    for size in [1, 31, 32, 33, 64, 65, 1000, 1024, 32768, MAX_SIZE - 1, MAX_SIZE] {
        let words = u64::from(size.div_ceil(32)) + 1;
        let turn = Turn::new(size);
        let edges = [0, 1 << 27, 1 << 32, 1 << 59, 1 << 63, words << 32, u64::MAX / words * words, u64::MAX - words];
        for block in edges.into_iter().flat_map(|edge| edge.saturating_sub(words)..=edge.saturating_add(words)) {
            assert_eq!(turn.index(3, block) as u64, 3 * words + block % words, "{block} of {words}");
        }
    }
}

/// Two threads offer the same numbers at the same moment, in the same order and in orders of their own, over the end of
/// the count: each number is accepted exactly once.
#[test]
fn exactly_one_thread_accepts_a_number() {
    const THREADS: usize = 2;
    const NUMBERS: u32 = 400_000;
    const CHUNK: u32 = 64;
    for sender_ids in [1, SENDERS as u32] {
        let windows = Windows::new(1024);
        let counts: Vec<AtomicUsize> = (0..NUMBERS).map(|_| AtomicUsize::new(0)).collect();
        let arrived = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..THREADS as u32 {
                let (windows, counts, arrived) = (&windows, &counts, &arrived);
                scope.spawn(move || {
                    for chunk in 0..NUMBERS / CHUNK {
                        // They start each chunk together: they collide, and stay within a window of each other.
                        arrived.fetch_add(1, Relaxed);
                        while arrived.load(Relaxed) < (chunk as usize + 1) * THREADS {
                            std::thread::yield_now();
                        }
                        for step in 0..CHUNK {
                            let step = if chunk % 4 == 0 { (step * 5 + thread * 3) % CHUNK } else { step };
                            let index = chunk * CHUNK + step;
                            let sender = (index % sender_ids) as u16;
                            if windows.accept(sender, index.wrapping_sub(NUMBERS / 2)).is_ok() {
                                counts[index as usize].fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
        });
        for (index, count) in counts.iter().enumerate() {
            assert_eq!(count.load(Relaxed), 1, "number {index} with {sender_ids} sender IDs");
        }
    }
}

/// 60,000 clients have to fit into well under 100 MB.
#[test]
fn windows_are_compact() {
    let windows = Windows::new(1024);
    let octets = size_of::<Windows>() + size_of_val(&*windows.words);
    assert!(octets <= 1200, "{octets} octets");
    assert!(Windows::new(0).parts().bitmap.is_empty());
}

#[test]
fn windows_of_another_size_know_what_was_seen_and_what_comes() {
    for (old, new) in [(64, 1024), (1024, 64), (0, 1024), (1024, 1024)] {
        for newest in [0, 1, 31, 32, 5000, u32::MAX] {
            let windows = Windows::new(old);
            assert_eq!(windows.accept(7, newest), Ok(Fresh::Newest));
            let windows = windows.resized(new);
            for behind in 0..3000.min(newest) {
                assert_eq!(windows.accept(7, newest - behind), Err(Refusal::Replayed), "{newest} - {behind}");
            }
            assert_eq!(windows.accept(7, newest.wrapping_add(1)), Ok(Fresh::Newest), "{old} to {new}: {newest} + 1");
            assert_eq!(windows.accept(8, 0), Ok(Fresh::Newest), "a sender ID not heard before");
        }
    }
    assert_eq!(Windows::new(1024).resized(64).accept(0, 0), Ok(Fresh::Newest), "nothing was seen");
}
