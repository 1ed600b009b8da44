//! Customers in the order of the ranking, in memory: who stands where, and who stands at a place.
//!
//! Each customer has a slot: a number under which the id (its bytes, one after the other in a single
//! text) and the points are kept. The order is a list of short blocks of slots. To find a place is a
//! binary search over blocks and one within a block; what stands before it is the sum of the
//! lengths of the blocks before. That is a handful of bytes for each customer beside the id, which
//! matters: each api keeps all of them.

use std::{
    cmp::Ordering,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;

/// The most slots in a block.
const BLOCK_MAX: usize = 1_024;
/// How many are in a block when all are put in order at once, and at most when two become one.
const BLOCK_FILLED: usize = 768;
/// A block with fewer becomes one with its neighbour.
const BLOCK_MIN: usize = 256;

/// Customers, with what they have earned, in no order.
#[derive(Default)]
pub struct Customers {
    ids: String,
    /// Where each id ends.
    ends: Vec<usize>,
    points: Vec<i64>,
    slots: HashTable<u32>,
    hasher: RandomState,
}

/// Customers in their order: most points first; those with the same by their id, as bytes.
#[derive(Default)]
pub struct Ladder {
    customers: Customers,
    blocks: Vec<Vec<u32>>,
}

fn id<'a>(ids: &'a str, ends: &[usize], slot: u32) -> &'a str {
    let slot = slot as usize;
    let start = slot.checked_sub(1).map_or(0, |before| ends[before]);
    &ids[start..ends[slot]]
}

impl Customers {
    /// Room for about so many.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            ends: Vec::with_capacity(count),
            points: Vec::with_capacity(count),
            slots: HashTable::with_capacity(count),
            ..Self::default()
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a customer, or gives one that is here as many points.
    pub fn set(&mut self, customer: &str, points: i64) {
        match self.slot(customer) {
            Some(slot) => self.points[slot as usize] = points,
            None => {
                self.add(customer, points);
            }
        }
    }

    /// Adds a customer who is not here.
    ///
    /// # Panics
    /// With more than four billion.
    fn add(&mut self, customer: &str, points: i64) -> u32 {
        let slot = u32::try_from(self.ends.len()).expect("so many customers fit in no memory");
        self.ids.push_str(customer);
        self.ends.push(self.ids.len());
        self.points.push(points);
        let Self {
            ids,
            ends,
            slots,
            hasher,
            ..
        } = self;
        slots.insert_unique(hasher.hash_one(customer), slot, |slot| {
            hasher.hash_one(id(ids, ends, *slot))
        });
        slot
    }

    fn slot(&self, customer: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(customer);
        self.slots
            .find(hash, |slot| self.id(*slot) == customer)
            .copied()
    }

    fn id(&self, slot: u32) -> &str {
        id(&self.ids, &self.ends, slot)
    }

    fn points(&self, slot: u32) -> i64 {
        self.points[slot as usize]
    }

    /// How a customer stands to one with so many points and this id.
    fn order(&self, slot: u32, points: i64, customer: &str) -> Ordering {
        points
            .cmp(&self.points(slot))
            .then_with(|| self.id(slot).cmp(customer))
    }
}

impl Ladder {
    /// Puts customers in their order.
    pub fn of(mut customers: Customers) -> Self {
        customers.ids.shrink_to_fit();
        customers.ends.shrink_to_fit();
        customers.points.shrink_to_fit();
        // Points beside their slots: most comparisons are decided by them.
        let mut order: Vec<(i64, u32)> = (0..)
            .zip(&customers.points)
            .map(|(slot, points)| (*points, slot))
            .collect();
        order.sort_unstable_by(|(points, slot), (others, other)| {
            let by_id = || customers.id(*slot).cmp(customers.id(*other));
            others.cmp(points).then_with(by_id)
        });
        let block = |slots: &[(i64, u32)]| {
            let mut block = Vec::with_capacity(BLOCK_MAX);
            block.extend(slots.iter().map(|(_, slot)| *slot));
            block
        };
        let blocks = order.chunks(BLOCK_FILLED).map(block).collect();
        Self { customers, blocks }
    }

    /// How many customers there are.
    pub fn len(&self) -> usize {
        self.customers.len()
    }

    /// Lets a customer have at least so many points; whether that changed anything.
    pub fn raise(&mut self, customer: &str, points: i64) -> bool {
        let slot = match self.customers.slot(customer) {
            Some(slot) if self.customers.points(slot) >= points => return false,
            Some(slot) => {
                self.take_out(slot);
                self.customers.points[slot as usize] = points;
                slot
            }
            None => self.customers.add(customer, points),
        };
        self.put_in(slot);
        true
    }

    /// The place of a customer, from 0.
    pub fn place(&self, customer: &str) -> Option<usize> {
        let slot = self.customers.slot(customer)?;
        let (block, within) = self.find(slot);
        let before: usize = self.blocks[..block].iter().map(Vec::len).sum();
        Some(before + within)
    }

    /// Who stands at a place, counted from 0, and after it.
    pub fn from(&self, place: usize) -> impl Iterator<Item = (&str, i64)> {
        let mut before = place;
        let first = self.blocks.iter().position(|block| {
            let is_here = before < block.len();
            if !is_here {
                before -= block.len();
            }
            is_here
        });
        let blocks = first.map_or(&[][..], |first| &self.blocks[first..]);
        let slots = blocks.iter().flatten().skip(before);
        slots.map(|slot| (self.customers.id(*slot), self.customers.points(*slot)))
    }

    /// In which block a customer stands or would stand, and where in it.
    fn find(&self, slot: u32) -> (usize, usize) {
        let (points, customer) = (self.customers.points(slot), self.customers.id(slot));
        let is_before = |slot: &u32| self.customers.order(*slot, points, customer).is_lt();
        let block = self
            .blocks
            .partition_point(|block| block.last().is_some_and(is_before));
        let within = self.blocks.get(block);
        (
            block,
            within.map_or(0, |block| block.partition_point(is_before)),
        )
    }

    fn put_in(&mut self, slot: u32) {
        let (mut block, mut within) = self.find(slot);
        if block == self.blocks.len() {
            let Some(last) = block.checked_sub(1) else {
                self.blocks.push(vec![slot]);
                return;
            };
            (block, within) = (last, self.blocks[last].len());
        }
        if self.blocks[block].len() >= BLOCK_MAX {
            let mut second = Vec::with_capacity(BLOCK_MAX);
            second.extend(self.blocks[block].drain(BLOCK_MAX / 2..));
            self.blocks.insert(block + 1, second);
            if within > BLOCK_MAX / 2 {
                (block, within) = (block + 1, within - BLOCK_MAX / 2);
            }
        }
        self.blocks[block].insert(within, slot);
    }

    fn take_out(&mut self, slot: u32) {
        let (block, within) = self.find(slot);
        self.blocks[block].remove(within);
        if self.blocks[block].len() >= BLOCK_MIN {
            return;
        }
        let becomes_one = |first: &usize| {
            let both = self.blocks.get(*first).zip(self.blocks.get(first + 1));
            both.is_some_and(|(first, second)| first.len() + second.len() <= BLOCK_FILLED)
        };
        let candidates = [Some(block), block.checked_sub(1)];
        if let Some(first) = candidates.into_iter().flatten().find(becomes_one) {
            let second = self.blocks.remove(first + 1);
            self.blocks[first].extend(second);
        } else if self.blocks[block].is_empty() {
            self.blocks.remove(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn shown(ladder: &Ladder) -> Vec<(String, i64)> {
        let all = ladder.from(0);
        all.map(|(customer, points)| (customer.to_owned(), points))
            .collect()
    }

    fn expected(points: &BTreeMap<String, i64>) -> Vec<(String, i64)> {
        let mut all: Vec<(String, i64)> = points.clone().into_iter().collect();
        all.sort_by(|a, b| {
            b.1.cmp(&a.1)
                .then_with(|| a.0.as_bytes().cmp(b.0.as_bytes()))
        });
        all
    }

    fn agrees(ladder: &Ladder, points: &BTreeMap<String, i64>) {
        let expected = expected(points);
        assert_eq!(shown(ladder), expected);
        assert_eq!(ladder.len(), expected.len());
        for (place, (customer, _)) in expected.iter().enumerate() {
            assert_eq!(ladder.place(customer), Some(place), "{customer}");
        }
        for place in [0, 1, expected.len() / 2, expected.len().saturating_sub(1)] {
            let here = ladder.from(place).next().map(|(customer, _)| customer);
            assert_eq!(
                here,
                expected.get(place).map(|(customer, _)| customer.as_str())
            );
        }
        assert_eq!(ladder.from(expected.len()).count(), 0);
        assert_eq!(ladder.place("nobody"), None);
        for block in &ladder.blocks {
            assert!((1..=BLOCK_MAX).contains(&block.len()), "{}", block.len());
        }
    }

    proptest! {
        #[test]
        fn it_is_the_sorted_list(
            first in prop::collection::vec(("[a-zä]{1,3}", 0i64..20), 0..60),
            then in prop::collection::vec(("[a-zä]{1,3}", 0i64..40), 0..60),
        ) {
            let mut points: BTreeMap<String, i64> = BTreeMap::new();
            let mut customers = Customers::with_capacity(4);
            for (customer, earned) in first {
                customers.set(&customer, earned);
                points.insert(customer, earned);
            }
            let mut ladder = Ladder::of(customers);
            agrees(&ladder, &points);
            for (customer, earned) in then {
                let before = points.get(&customer).copied();
                let changed = ladder.raise(&customer, earned);
                prop_assert_eq!(changed, before.is_none_or(|before| before < earned));
                points.insert(customer, earned.max(before.unwrap_or_default()));
            }
            agrees(&ladder, &points);
        }
    }

    /// Enough to split blocks and to make two of them one, from an empty ladder and from a full one.
    #[test]
    fn blocks_are_split_and_joined() {
        let mut points: BTreeMap<String, i64> = BTreeMap::new();
        let mut ladder = Ladder::default();
        let mut dice: u64 = 1;
        let mut next = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % below
        };
        for _ in 0..20_000 {
            let customer = format!("C{}", next(6_000));
            let earned = points.entry(customer.clone()).or_default();
            *earned += i64::try_from(next(50)).unwrap();
            ladder.raise(&customer, *earned);
        }
        agrees(&ladder, &points);
        assert!(ladder.blocks.len() > 4, "{}", ladder.blocks.len());
        // Everybody leaves the lower places for the same one.
        for (customer, earned) in &mut points {
            *earned = 1_000_000;
            ladder.raise(customer, *earned);
        }
        agrees(&ladder, &points);
        let mut customers = Customers::default();
        for (customer, earned) in &points {
            customers.set(customer, *earned);
        }
        agrees(&Ladder::of(customers), &points);
    }
}
