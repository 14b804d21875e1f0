use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::utils::CachePadded;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};
use tempfile::TempDir;

use super::keeper::Senders;
use super::store::Store;
use super::*;
use crate::satp::Fingerprint;

/// Numbers of a first lease.
const FIRST: usize = 1 << 18;

fn keys(count: u128) -> Vec<Fingerprint> {
    (1..=count).map(Fingerprint::from).collect()
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Opens a keeper of one key and one worker.
fn open_one(directory: &Path, first: u16, last: u16) -> (Keeper, Sequences) {
    let mut keeper = Keeper::open(directory, first, last, 1).unwrap();
    let sequences = keeper.sequences(&keys(1)).unwrap().remove(0);
    (keeper, sequences)
}

/// Marks all numbers of a sender ID as used but the last `left`.
fn use_up(directory: &Path, key: Fingerprint, sender: u16, left: u64) {
    let mut store = Store::open(directory).unwrap();
    store.update(|records| records.set(&key, sender, NUMBERS - left)).unwrap();
    store.close().unwrap();
}

fn failure(directory: &Path) -> String {
    let Err(error) = Keeper::open(directory, 1, 64, 1) else { panic!("opened") };
    error.to_string()
}

#[test]
fn every_worker_has_sender_ids_of_its_own() {
    let directory = directory();
    let mut keeper = Keeper::open(directory.path(), 10, 12, 3).unwrap();
    let sequences = keeper.sequences(&keys(2)).unwrap();
    for key in &sequences {
        let taken: Vec<_> = key.iter().map(|worker| (worker.take(), worker.take())).collect();
        assert_eq!(taken, [10, 11, 12].map(|sender| (Ok((sender, 0)), Ok((sender, 1)))));
    }
}

#[test]
fn what_was_taken_is_known_for_a_while() {
    let directory = directory();
    let (_keeper, sequences) = open_one(directory.path(), 3, 3);
    let sequence = &sequences[0];
    assert!(!sequence.was_taken_lately(3, 0));
    for _ in 0..=65_536 {
        sequence.take().unwrap();
    }
    let known = |sender, number| sequence.was_taken_lately(sender, number);
    assert!(known(3, 1) && known(3, 65_536), "the last 65,536");
    assert!(!known(3, 0) && !known(3, 65_537), "the one before, and the next");
    assert!(!known(2, 65_536) && !known(4, 65_536) && !known(3, u32::MAX), "what was never handed out");
}

#[test]
fn one_key_has_one_sequence_over_all_calls() {
    let directory = directory();
    let mut keeper = Keeper::open(directory.path(), 1, 2, 2).unwrap();
    let [one, two] = keys(2)[..] else { unreachable!() };
    let first = keeper.sequences(&[one, two, one]).unwrap();
    assert!(first[0].is(&first[2]) && !first[0].is(&first[1]));
    assert!(keeper.sequences(&[two]).unwrap()[0].is(&first[1]));
}

#[test]
fn workers_need_a_sender_id_each() {
    let directory = directory();
    for (first, last, workers) in [(5, 6, 3), (6, 5, 1), (1, 64, 0), (0, u16::MAX, 65_537)] {
        let error = Keeper::open(directory.path(), first, last, workers).err().unwrap().to_string();
        assert!(error.contains(&format!("\"{first}-{last}\"")) && error.contains("node.sender_ids"), "{error}");
    }
    assert!(Keeper::open(directory.path(), 0, u16::MAX, 65_535).is_ok());
}

/// What a crash leaves is the file as it is at that moment. Number of workers and lease sizes change between lives.
#[test]
fn no_number_comes_twice_over_crashes() {
    let mut home = directory();
    let mut seen = HashSet::new();
    for life in 0..12 {
        let mut keeper = Keeper::open(home.path(), 1, 6, 1 + life % 3).unwrap();
        let sequences = keeper.sequences(&keys(2)).unwrap();
        // Enough for a second lease every now and then.
        for _ in 0..if life % 4 == 0 { FIRST * 2 / 3 } else { 100 } {
            for (key, workers) in sequences.iter().enumerate() {
                let (sender, sequence) = workers[life % workers.len()].take().unwrap();
                assert!(seen.insert((key, sender, sequence)), "{sender} {sequence} again in life {life}");
            }
        }
        keeper.extend().unwrap();
        if life % 2 == 0 {
            let image = directory();
            fs::copy(home.path().join("leases.redb"), image.path().join("leases.redb")).unwrap();
            home = image;
        }
    }
    assert!(seen.len() > FIRST * 4);
}

#[test]
fn a_clean_end_wastes_no_number() {
    let directory = directory();
    for life in 0..5 {
        let mut keeper = Keeper::open(directory.path(), 1, 2, 2).unwrap();
        let sequences = keeper.sequences(&keys(1)).unwrap().remove(0);
        for step in 0..10 {
            assert_eq!(sequences[0].take(), Ok((1, life * 10 + step)));
        }
        assert_eq!(sequences[1].take(), Ok((2, life)));
        keeper.close().unwrap();
        assert_eq!(sequences[0].take(), Err(Empty::Late), "taken after the end");
    }
}

#[test]
fn a_used_up_lease_is_late_until_it_is_extended() {
    let directory = directory();
    let (mut keeper, sequences) = open_one(directory.path(), 3, 3);
    for number in 0..FIRST as u32 {
        assert_eq!(sequences[0].take(), Ok((3, number)));
    }
    assert_eq!(sequences[0].take(), Err(Empty::Late));
    assert_eq!(keeper.extend().unwrap().extended, 1);
    assert_eq!(keeper.extend().unwrap().extended, 0);
    assert_eq!(sequences[0].take(), Ok((3, FIRST as u32)));
}

#[test]
fn a_lease_half_used_is_extended_without_a_gap() {
    let directory = directory();
    let (mut keeper, sequences) = open_one(directory.path(), 3, 3);
    for number in 0..4 * FIRST as u32 {
        assert_eq!(sequences[0].take(), Ok((3, number)));
        if number % 1000 == 0 {
            keeper.extend().unwrap();
        }
    }
}

#[test]
fn a_used_up_sender_id_is_followed_by_the_next_and_then_by_none() {
    let directory = directory();
    let key = keys(1)[0];
    // Of worker 0: sender IDs 5, 7 and 9. Numbers are left in 5 and 9.
    for (sender, left) in [(5, 3), (7, 0), (9, 2)] {
        use_up(directory.path(), key, sender, left);
    }
    let mut keeper = Keeper::open(directory.path(), 5, 10, 2).unwrap();
    let sequences = keeper.sequences(&[key]).unwrap().remove(0);
    let mut taken = Vec::new();
    for _ in 0..3 {
        while let Ok(number) = sequences[0].take() {
            taken.push(number);
        }
        keeper.extend().unwrap();
    }
    let end = u32::MAX;
    assert_eq!(taken, [(5, end - 2), (5, end - 1), (5, end), (9, end - 1), (9, end)]);
    assert_eq!(sequences[0].take(), Err(Empty::Exhausted));
    assert_eq!(sequences[1].take(), Ok((6, 0)), "the other worker goes on");

    drop(keeper);
    let mut keeper = Keeper::open(directory.path(), 5, 10, 2).unwrap();
    let sequences = keeper.sequences(&[key]).unwrap().remove(0);
    assert_eq!(sequences[0].take(), Err(Empty::Exhausted), "never from the start again");
}

/// Sender IDs next to each other: the position after the last number of one is the first of the other.
#[test]
fn neighbouring_sender_ids_follow_each_other() {
    let directory = directory();
    use_up(directory.path(), keys(1)[0], u16::MAX - 1, 2);
    let (mut keeper, sequences) = open_one(directory.path(), u16::MAX - 1, u16::MAX);
    assert_eq!(sequences[0].take(), Ok((u16::MAX - 1, u32::MAX - 1)));
    assert_eq!(sequences[0].take(), Ok((u16::MAX - 1, u32::MAX)));
    assert_eq!(sequences[0].take(), Err(Empty::Late));
    keeper.extend().unwrap();
    assert_eq!(sequences[0].take(), Ok((u16::MAX, 0)));
}

#[test]
fn exhaustion_is_told_once() {
    let directory = directory();
    let key = keys(1)[0];
    use_up(directory.path(), key, 8, 1);
    let (mut keeper, sequences) = open_one(directory.path(), 8, 8);
    assert_eq!(sequences[0].take(), Ok((8, u32::MAX)));
    let mut told = Vec::new();
    for _ in 0..4 {
        assert!(sequences[0].take().is_err());
        told.extend(keeper.extend().unwrap().exhausted);
    }
    assert_eq!(told, [Exhausted { key, worker: 0 }]);
}

#[test]
fn several_threads_get_different_numbers() {
    const NUMBERS: usize = FIRST * 3;
    let directory = directory();
    use_up(directory.path(), keys(1)[0], 1, FIRST as u64);
    let (mut keeper, sequences) = open_one(directory.path(), 1, 2);
    let mut all: Vec<(u16, u32)> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut taken = Vec::with_capacity(NUMBERS);
                    while taken.len() < NUMBERS {
                        match sequences[0].take() {
                            Ok(number) => taken.push(number),
                            Err(Empty::Late) => std::thread::yield_now(),
                            Err(Empty::Exhausted) => panic!("exhausted"),
                        }
                    }
                    taken
                })
            })
            .collect();
        while takers.iter().any(|taker| !taker.is_finished()) {
            keeper.extend().unwrap();
        }
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a number was taken twice");
    let used_after = all.last().unwrap();
    keeper.close().unwrap();
    let (_keeper, sequences) = open_one(directory.path(), 1, 2);
    assert_eq!(sequences[0].take(), Ok((used_after.0, used_after.1 + 1)));
}

#[test]
fn forgotten_keys_come_back_behind_their_leases() {
    let directory = directory();
    let (mut keeper, old) = open_one(directory.path(), 1, 1);
    let taken = old[0].take().unwrap();
    keeper.forget(|key| *key == keys(1)[0]);
    let new = keeper.sequences(&keys(1)).unwrap().remove(0);
    assert_eq!(old[0].take(), Ok((1, taken.1 + 1)), "a worker that has not noticed goes on with its lease");
    assert_eq!(new[0].take(), Ok((1, FIRST as u32)));
}

/// A disk that can be made to fail.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    broken: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), BackendError> {
        if self.broken.load(Ordering::Relaxed) { Err(std::io::Error::other("broken disk").into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }
}

#[test]
fn what_is_not_on_disk_is_not_handed_out() {
    let directory = directory();
    drop(Keeper::open(directory.path(), 1, 1, 1).unwrap());
    let broken = Arc::new(AtomicBool::new(false));
    let path = directory.path().join("leases.redb");
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let disk = Disk { file: FileBackend::new(file).unwrap(), broken: broken.clone() };
    let mut keeper = Keeper::with_store(Store::open_through(directory.path(), disk), Senders::new(1, 1, 1).unwrap());
    let sequences = keeper.sequences(&keys(1)).unwrap().remove(0);
    for number in 0..FIRST as u32 {
        assert_eq!(sequences[0].take(), Ok((1, number)));
    }

    broken.store(true, Ordering::Relaxed);
    let error = keeper.extend().unwrap_err().to_string();
    assert!(error.contains("leases.redb") && error.contains("broken disk"), "{error}");
    // The next attempt opens the file itself. What was asked for is not forgotten: no packet asked again for this one.
    assert_eq!(keeper.extend().unwrap().extended, 1);
    assert_eq!(sequences[0].take(), Ok((1, FIRST as u32)));
}

#[test]
fn a_store_is_new_once_and_what_is_written_to_it_is_counted() {
    let directory = directory();
    let mut keeper = Keeper::open(directory.path(), 1, 2, 2).unwrap();
    assert_eq!(keeper.new_store(), Some(directory.path().join("leases.redb").as_path()));
    keeper.sequences(&keys(3)).unwrap();
    keeper.sequences(&keys(3)).unwrap();
    assert_eq!(keeper.written(), 6, "one for each key and worker, once");
    keeper.close().unwrap();
    assert_eq!(Keeper::open(directory.path(), 1, 2, 2).unwrap().new_store(), None);
}

#[test]
fn a_store_belongs_to_one_process() {
    let directory = directory();
    let keeper = Keeper::open(directory.path(), 1, 1, 1).unwrap();
    let error = failure(directory.path());
    assert!(error.contains("leases.redb is in use by another process: stop"), "{error}");
    drop(keeper);
    Keeper::open(directory.path(), 1, 1, 1).unwrap();
}

#[test]
fn the_store_is_for_its_owner_only() {
    let directory = directory();
    let state = directory.path().join("state");
    let keeper = Keeper::open(&state, 1, 1, 1).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("leases.redb"))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "something was left beside the store");
    drop(keeper);
}

#[test]
fn what_is_no_store_is_not_taken_for_an_empty_one() {
    let directory = directory();
    let path = directory.path().join("leases.redb");
    for content in [&b""[..], b"not a store", &[0; 100_000]] {
        fs::write(&path, content).unwrap();
        let error = failure(directory.path());
        assert!(error.contains("leases.redb cannot be read") && error.contains("sender_ids"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content, "the file was changed");
    }
    fs::remove_file(&path).unwrap();
    drop(redb::Database::create(&path).unwrap());
    let error = failure(directory.path());
    assert!(error.contains("leases.redb cannot be read"), "{error}");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = failure(directory.path());
    assert!(error.contains("cannot open the lease store"), "{error}");

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = failure(&file);
    assert!(error.contains("cannot create the directory") && error.contains("node.state_dir"), "{error}");
}

/// A damaged store is refused, or it still knows what was used.
#[test]
fn a_damaged_store_never_forgets() {
    let directory = directory();
    let (keeper, sequences) = open_one(directory.path(), 1, 1);
    for _ in 0..1000 {
        sequences[0].take().unwrap();
    }
    keeper.close().unwrap();
    let path = directory.path().join("leases.redb");
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for damage in 0..160 {
        let mut content = whole.clone();
        if damage % 8 == 0 {
            content.truncate(whole.len() * (damage + 1) / 160);
        } else {
            // One bit in every 512 octets or so, over the whole file.
            content[whole.len() * damage / 160 + damage] ^= 1 << (damage % 8);
        }
        fs::write(&path, content).unwrap();
        match Keeper::open(directory.path(), 1, 1, 1) {
            Err(error) => {
                assert!(error.to_string().contains("leases.redb"), "{error}");
                refused += 1;
            }
            Ok(mut keeper) => {
                let first = keeper.sequences(&keys(1)).unwrap()[0][0].take().unwrap();
                assert!(first >= (1, 1000), "{first:?} after damage {damage}");
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_keeper_may_move_to_another_thread_and_sequences_be_shared() {
    fn assert_send<T: Send>() {}
    fn assert_shared<T: Send + Sync>() {}
    assert_send::<Keeper>();
    assert_shared::<Sequences>();
    assert!(size_of::<CachePadded<Sequence>>() <= 128);
}
