//! One partition's messages on their way in: what waits, what is in flight, what may be committed.

use std::collections::VecDeque;

use crate::record::Record;

/// How large batches may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Messages in a batch, at most.
    pub messages: usize,
    /// Bytes in a batch, at most; a single larger message is a batch of its own.
    pub bytes: usize,
}

/// What to tell the consumer about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on as before.
    Unchanged,
    /// Its buffer is full: fetch no more.
    Pause,
    /// There is room again.
    Resume,
}

/// A partition that is assigned to this process.
///
/// One batch is in flight at a time, so that events of one customer stay in order. The buffer
/// holds up to two batches: pausing throws away what the consumer has fetched ahead, so it is
/// done rarely.
#[derive(Debug)]
pub struct Lane {
    epoch: u64,
    limits: BatchLimits,
    waiting: VecDeque<Record>,
    waiting_bytes: usize,
    in_flight: bool,
    in_line: bool,
    paused: bool,
}

impl Lane {
    /// A partition as it is assigned. The epoch tells this assignment from earlier ones.
    pub fn new(epoch: u64, limits: BatchLimits) -> Self {
        Self {
            epoch,
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: false,
            in_line: false,
            paused: false,
        }
    }

    /// Which assignment this is.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes a message in.
    pub fn push(&mut self, record: Record) -> Flow {
        self.waiting_bytes += record.bytes();
        self.waiting.push_back(record);
        let full = self.waiting.len() >= 2 * self.limits.messages
            || self.waiting_bytes >= 2 * self.limits.bytes;
        if full && !self.paused {
            self.paused = true;
            return Flow::Pause;
        }
        Flow::Unchanged
    }

    /// Gets in line for a batch. Yes when it had to: something waits, nothing is in flight, and
    /// it is not in line already.
    pub fn get_in_line(&mut self) -> bool {
        let gets = !self.in_line && !self.in_flight && !self.waiting.is_empty();
        self.in_line |= gets;
        gets
    }

    /// Cuts the next batch, if one may go: whatever waits, up to the limits, without delay.
    pub fn next_batch(&mut self) -> Option<Vec<Record>> {
        self.in_line = false;
        if self.in_flight || self.waiting.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for record in self.waiting.iter().take(self.limits.messages) {
            bytes += record.bytes();
            if count > 0 && bytes > self.limits.bytes {
                break;
            }
            count += 1;
        }
        let batch: Vec<Record> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= batch.iter().map(Record::bytes).sum::<usize>();
        self.in_flight = true;
        Some(batch)
    }

    /// Whether there is room again after a batch was cut.
    pub fn relieve(&mut self) -> Flow {
        let roomy = self.waiting.len() <= self.limits.messages / 2
            && self.waiting_bytes <= self.limits.bytes / 2;
        if self.paused && roomy {
            self.paused = false;
            return Flow::Resume;
        }
        Flow::Unchanged
    }

    /// The batch in flight is done up to and including this offset. The offset to commit:
    /// everything before it is done. A completion of an earlier assignment says nothing about this
    /// one; then nothing may be committed.
    pub fn complete(&mut self, epoch: u64, last_offset: i64) -> Option<i64> {
        if epoch != self.epoch {
            return None;
        }
        self.in_flight = false;
        Some(last_offset + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    const LIMITS: BatchLimits = BatchLimits {
        messages: 3,
        bytes: 1_000,
    };

    fn offsets(batch: Option<Vec<Record>>) -> Vec<i64> {
        batch.into_iter().flatten().map(|r| r.offset).collect()
    }

    #[test]
    fn a_single_message_goes_at_once() {
        let mut lane = Lane::new(1, LIMITS);
        assert_eq!(lane.push(record(5)), Flow::Unchanged);
        assert_eq!(offsets(lane.next_batch()), [5]);
    }

    #[test]
    fn one_batch_is_in_flight_and_the_next_takes_what_has_gathered() {
        let mut lane = Lane::new(1, LIMITS);
        lane.push(record(1));
        assert_eq!(offsets(lane.next_batch()), [1]);
        for offset in [2, 3, 5, 6] {
            lane.push(record(offset));
        }
        assert_eq!(lane.next_batch(), None, "one is in flight");
        assert_eq!(lane.complete(1, 1), Some(2));
        assert_eq!(offsets(lane.next_batch()), [2, 3, 5], "up to the limit");
        assert_eq!(lane.complete(1, 5), Some(6));
        assert_eq!(offsets(lane.next_batch()), [6]);
    }

    #[test]
    fn a_lane_is_in_line_once_and_not_while_a_batch_is_in_flight() {
        let mut lane = Lane::new(1, LIMITS);
        assert!(!lane.get_in_line(), "nothing waits");
        lane.push(record(1));
        assert!(lane.get_in_line());
        lane.push(record(2));
        assert!(!lane.get_in_line(), "it is in line");
        assert_eq!(offsets(lane.next_batch()), [1, 2]);
        lane.push(record(3));
        assert!(!lane.get_in_line(), "one is in flight");
        lane.complete(1, 2);
        assert!(lane.get_in_line());
    }

    #[test]
    fn a_full_buffer_pauses_once_and_resumes_when_there_is_room() {
        let mut lane = Lane::new(1, LIMITS);
        let flows: Vec<Flow> = (0..8).map(|offset| lane.push(record(offset))).collect();
        assert_eq!(
            flows.iter().position(|f| *f == Flow::Pause),
            Some(5),
            "two batches wait"
        );
        assert_eq!(flows.iter().filter(|f| **f == Flow::Pause).count(), 1);
        assert_eq!(offsets(lane.next_batch()), [0, 1, 2]);
        assert_eq!(lane.relieve(), Flow::Unchanged, "five wait");
        lane.complete(1, 2);
        lane.next_batch();
        assert_eq!(lane.relieve(), Flow::Unchanged, "two wait");
        lane.complete(1, 5);
        lane.next_batch();
        assert_eq!(lane.relieve(), Flow::Resume);
        assert_eq!(lane.relieve(), Flow::Unchanged, "said once");
    }

    #[test]
    fn bytes_bound_a_batch_but_a_large_message_still_goes() {
        let mut lane = Lane::new(
            1,
            BatchLimits {
                messages: 10,
                bytes: 100,
            },
        );
        let large = |offset| Record {
            value: Some(vec![0; 80]),
            ..record(offset)
        };
        lane.push(large(1));
        lane.push(large(2));
        lane.push(Record {
            value: Some(vec![0; 5_000]),
            ..record(3)
        });
        assert_eq!(offsets(lane.next_batch()), [1]);
        lane.complete(1, 1);
        assert_eq!(offsets(lane.next_batch()), [2]);
        lane.complete(1, 2);
        assert_eq!(offsets(lane.next_batch()), [3]);
    }

    #[test]
    fn a_completion_of_an_earlier_assignment_is_never_committed() {
        let mut lane = Lane::new(1, LIMITS);
        lane.push(record(1));
        lane.next_batch();
        let mut again = Lane::new(2, LIMITS);
        again.push(record(1));
        again.next_batch();
        assert_eq!(again.complete(1, 1), None);
        again.push(record(2));
        assert_eq!(
            again.next_batch(),
            None,
            "its own batch is still on its way"
        );
        assert_eq!(again.complete(2, 1), Some(2));
    }
}
