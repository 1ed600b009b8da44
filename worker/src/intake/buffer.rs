//! Where the posting activity finds the messages of a range without reading Kafka again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use workflows::contract::MessageRange;

use crate::record::Record;

/// Messages of ranges that are in flight in this process.
#[derive(Debug, Default)]
pub struct BatchBuffer {
    ranges: Mutex<HashMap<MessageRange, Arc<[Record]>>>,
}

/// Keeps a range in the buffer for as long as it lives.
pub struct Buffered {
    buffer: Arc<BatchBuffer>,
    range: MessageRange,
    records: Arc<[Record]>,
}

impl BatchBuffer {
    /// Puts the messages of a range in.
    pub fn put(self: &Arc<Self>, range: MessageRange, records: Vec<Record>) -> Buffered {
        let records: Arc<[Record]> = records.into();
        self.locked().insert(range.clone(), Arc::clone(&records));
        Buffered {
            buffer: Arc::clone(self),
            range,
            records,
        }
    }

    /// The messages of a range, if they are here. They stay: the activity may run again.
    pub fn get(&self, range: &MessageRange) -> Option<Arc<[Record]>> {
        self.locked().get(range).cloned()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<MessageRange, Arc<[Record]>>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        // A later assignment may have put the same range in again; that one stays.
        let mut ranges = self.buffer.locked();
        if ranges
            .get(&self.range)
            .is_some_and(|records| Arc::ptr_eq(records, &self.records))
        {
            ranges.remove(&self.range);
        }
    }
}

/// The range of consecutive messages of one partition. Nothing for no messages.
pub fn range_of(records: &[Record]) -> Option<MessageRange> {
    let (first, last) = (records.first()?, records.last()?);
    Some(MessageRange {
        topic: first.topic.to_string(),
        partition: first.partition,
        first_offset: first.offset,
        last_offset: last.offset,
        messages: u32::try_from(records.len()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_range_is_there_while_it_is_in_flight() {
        let buffer = Arc::new(BatchBuffer::default());
        let records = vec![record(3), record(5)];
        let range = range_of(&records).expect("not empty");
        assert_eq!(
            (range.first_offset, range.last_offset, range.messages),
            (3, 5, 2)
        );
        let buffered = buffer.put(range.clone(), records);
        assert_eq!(buffer.get(&range).map(|r| r.len()), Some(2));
        assert_eq!(
            buffer.get(&range).map(|r| r.len()),
            Some(2),
            "again, for a retry"
        );
        drop(buffered);
        assert_eq!(buffer.get(&range), None);
        assert_eq!(range_of(&[]), None);
    }

    #[test]
    fn dropping_an_earlier_entry_leaves_a_later_one_of_the_same_range() {
        let buffer = Arc::new(BatchBuffer::default());
        let range = range_of(&[record(3)]).expect("not empty");
        let earlier = buffer.put(range.clone(), vec![record(3)]);
        let later = buffer.put(range.clone(), vec![record(3)]);
        drop(earlier);
        assert!(buffer.get(&range).is_some());
        drop(later);
        assert!(buffer.get(&range).is_none());
    }
}
