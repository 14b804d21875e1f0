//! Which packets are let through to a worker that falls behind.
//!
//! Without a limit the packets that a worker has no time for are copied into its ring first and lost there, whoever sent
//! them. Here they are dropped before they cost that, and those go that come from whoever sent most: each flow may fill
//! as much of the queue as is still free (dynamic thresholds; Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998). So one flow alone gets half, and what others send finds room beside it.

/// Flows told apart in each queue. Those that share a bucket share its part.
pub const FLOWS_PER_QUEUE: u32 = 256;

/// Packets in a queue up to which nobody is counted: what workers let gather.
pub const CALM: u64 = 256;

/// How far the worker of one queue is. Shared memory: the XDP program writes the one part, the worker the other, each on a
/// cache line of its own. `T` is an atomic `u64`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Backlog<T> {
    /// Packets handed over.
    pub given: Line<T>,
    /// How many of them the worker has taken, or were lost on the way.
    pub taken: Line<T>,
}

/// A counter on a cache line of its own.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line<T> {
    /// The counter.
    pub count: T,
}

const _: () = assert!(size_of::<Backlog<u64>>() == 128);

/// What one flow has in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Flow {
    /// How much had been handed over when `since` was begun.
    mark: u64,
    /// How much had been handed over after its last packet.
    last: u64,
    /// Its packets from before `mark` that may wait still.
    before: u32,
    /// Its packets from `mark` on.
    since: u32,
}

const _: () = assert!(size_of::<Flow>() == 24);

/// Whether so few packets wait that nobody is counted.
#[inline(always)]
pub const fn is_calm(given: u64, taken: u64) -> bool {
    given.saturating_sub(taken) < CALM
}

impl Flow {
    /// Whether the flow's next packet may join the queue, in which `given - taken` packets wait and at most `limit` may.
    #[inline(always)]
    pub fn admits(&mut self, given: u64, taken: u64, limit: u64) -> bool {
        if is_calm(given, taken) {
            return true;
        }
        let waiting = given.saturating_sub(taken);
        if waiting >= limit {
            return false;
        }
        if taken >= self.mark {
            // What was sent before the mark is gone, and all of it if the last one is.
            self.before = if taken >= self.last { 0 } else { self.since };
            self.since = 0;
            self.mark = given;
        }
        if u64::from(self.before) + u64::from(self.since) >= limit - waiting {
            return false;
        }
        self.since += 1;
        self.last = given + 1;
        true
    }
}

/// The bucket of a flow: of an outer source address and port and a MUX. `seed` keeps a sender from choosing whose bucket it
/// shares.
#[inline(always)]
pub const fn bucket(source: &[u8; 16], port: u16, mux: u16, seed: u64) -> u32 {
    // Multiplications by odd constants from the digits of the golden ratio and of the square root of 3.
    let address = u128::from_be_bytes(*source);
    let ends = (port as u64) << 16 | mux as u64;
    let mixed = ((address >> 64) as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ address as u64;
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbb67_ae85_84ca_a73b) ^ ends;
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u32 % FLOWS_PER_QUEUE
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;

    /// A queue whose worker takes its packets when told to.
    struct Queue {
        flows: Vec<Flow>,
        given: u64,
        waiting: VecDeque<usize>,
    }

    const LIMIT: u64 = 1024;

    impl Queue {
        fn new(flows: usize) -> Self {
            Self { flows: std::vec![Flow::default(); flows], given: 0, waiting: VecDeque::new() }
        }

        fn offer(&mut self, flow: usize) -> bool {
            let taken = self.given - self.waiting.len() as u64;
            let admitted = self.flows[flow].admits(self.given, taken, LIMIT);
            if admitted {
                self.given += 1;
                self.waiting.push_back(flow);
            }
            admitted
        }

        fn take(&mut self, packets: usize) {
            self.waiting.drain(..packets.min(self.waiting.len()));
        }
    }

    #[test]
    fn a_flow_alone_gets_half_of_the_queue_and_no_more() {
        let mut queue = Queue::new(1);
        let admitted = (0..10_000).filter(|_| queue.offer(0)).count() as u64;
        assert!((LIMIT / 2..=LIMIT / 2 + CALM).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_quiet_flow_beside_a_flood_loses_nothing() {
        let mut queue = Queue::new(2);
        let (mut admitted, mut refused) = (0, 0);
        for turn in 0..100_000 {
            admitted += u32::from(queue.offer(0));
            if turn % 100 == 0 {
                let quiet = queue.offer(1);
                admitted += u32::from(quiet);
                refused += u32::from(!quiet);
            }
            // The worker takes a batch of 64 for every 512 packets that arrive: an eighth.
            if turn % 512 == 0 {
                queue.take(64);
            }
        }
        assert_eq!(refused, 0);
        assert!(admitted >= 100_000 / 8, "the worker was kept busy: {admitted}");
    }

    #[test]
    fn floods_share_alike() {
        let mut queue = Queue::new(4);
        let mut admitted = [0u32; 4];
        for turn in 0..400_000 {
            let flow = turn % 4;
            admitted[flow] += u32::from(queue.offer(flow));
            if turn % 512 == 0 {
                queue.take(64);
            }
        }
        let (least, most) = (admitted.iter().min().expect("four"), admitted.iter().max().expect("four"));
        assert!(most - least <= most / 5, "{admitted:?}");
    }

    #[test]
    fn what_waited_long_ago_is_not_held_against_a_flow() {
        let mut queue = Queue::new(2);
        while queue.offer(0) {}
        queue.take(usize::MAX);
        for _ in 0..200 {
            assert!(queue.offer(1));
        }
        for _ in 0..300 {
            assert!(queue.offer(0), "{:?}", queue.flows[0]);
        }
    }

    #[test]
    fn a_worker_that_takes_more_than_was_counted_lets_everybody_in() {
        assert!(Flow::default().admits(10, 20, LIMIT));
        assert!(!Flow::default().admits(LIMIT, 0, LIMIT));
        assert!(!Flow::default().admits(u64::MAX, 0, LIMIT));
    }

    #[test]
    fn buckets_are_filled_evenly() {
        let mut filled = [0u32; FLOWS_PER_QUEUE as usize];
        for client in 0..25_600u32 {
            let mut source = [0; 16];
            source[12..].copy_from_slice(&(0xc633_6400 + client / 64).to_be_bytes());
            filled[bucket(&source, 4444, (client % 64) as u16, 7) as usize] += 1;
        }
        // 100 each on average, with a standard deviation of 10.
        assert!(filled.iter().all(|count| (40..=160).contains(count)), "{filled:?}");
        let differs = |seed| bucket(&[1; 16], 1, 1, seed);
        assert!((0..64).any(|seed| differs(seed) != differs(64)), "the seed counts");
    }
}
