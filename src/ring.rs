//! A ring of fixed capacity: the newest records, oldest first, overwriting the oldest when full.

/// Fixed capacity, allocated once; pushing into a full ring drops the oldest record and counts it.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    slots: Vec<T>,
    /// Where the oldest record is, once the ring has wrapped.
    head: usize,
    capacity: usize,
    overwritten: u64,
}

impl<T> Ring<T> {
    /// An empty ring of `capacity` records. The memory is reserved now and touched as it fills.
    ///
    /// # Panics
    /// If `capacity` is zero; the configuration refuses that.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a ring holds at least one record");
        Self { slots: Vec::with_capacity(capacity), head: 0, capacity, overwritten: 0 }
    }

    /// Adds the newest record; returns the one that had to go.
    pub fn push(&mut self, record: T) -> Option<T> {
        if self.slots.len() < self.capacity {
            self.slots.push(record);
            return None;
        }
        let oldest = std::mem::replace(&mut self.slots[self.head], record);
        self.head += 1;
        if self.head == self.capacity {
            self.head = 0;
        }
        self.overwritten += 1;
        Some(oldest)
    }

    /// Puts a record where it belongs in an order that the caller keeps: before position `at`, counted from the oldest.
    /// A full ring drops its oldest record to make room and returns it; a record that would itself be the oldest of a
    /// full ring is returned at once. Costs a move of everything behind it.
    ///
    /// # Panics
    /// If `at` is greater than the length.
    pub fn insert(&mut self, at: usize, record: T) -> Option<T> {
        assert!(at <= self.len(), "a record goes between records");
        if at == self.len() {
            return self.push(record);
        }
        if self.slots.len() < self.capacity {
            // Not wrapped yet: positions are indices.
            self.slots.insert(at, record);
            return None;
        }
        self.overwritten += 1;
        if at == 0 {
            return Some(record);
        }
        self.slots.rotate_left(self.head);
        self.head = 0;
        let oldest = std::mem::replace(&mut self.slots[0], record);
        self.slots[..at].rotate_left(1);
        Some(oldest)
    }

    /// How many records are held.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many records fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many records have been dropped to make room since the ring was made.
    pub fn overwritten(&self) -> u64 {
        self.overwritten
    }

    /// The record at `position`, counted from the oldest.
    pub fn get(&self, position: usize) -> Option<&T> {
        if position >= self.slots.len() {
            return None;
        }
        Some(&self.slots[self.index(position)])
    }

    /// The record at `position`, counted from the oldest, to be changed in place.
    pub fn get_mut(&mut self, position: usize) -> Option<&mut T> {
        if position >= self.slots.len() {
            return None;
        }
        let index = self.index(position);
        Some(&mut self.slots[index])
    }

    fn index(&self, position: usize) -> usize {
        let index = self.head + position;
        if index >= self.slots.len() { index - self.slots.len() } else { index }
    }

    /// The oldest record.
    pub fn first(&self) -> Option<&T> {
        self.get(0)
    }

    /// The newest record.
    pub fn last(&self) -> Option<&T> {
        self.get(self.slots.len().checked_sub(1)?)
    }

    /// The newest record, to be changed in place.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.get_mut(self.slots.len().checked_sub(1)?)
    }

    /// Oldest to newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        let (newer, older) = self.slots.split_at(self.head);
        older.iter().chain(newer)
    }

    /// The first position whose record does not satisfy `before`; the ring must be partitioned by it.
    pub fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&mut before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(ring: &Ring<u32>) -> Vec<u32> {
        ring.iter().copied().collect()
    }

    #[test]
    fn a_full_ring_keeps_the_newest_and_counts_the_rest() {
        let mut ring = Ring::new(3);
        for n in 1..=5 {
            ring.push(n);
        }
        assert_eq!(contents(&ring), [3, 4, 5]);
        assert_eq!((ring.first(), ring.last(), ring.overwritten()), (Some(&3), Some(&5), 2));
        assert_eq!(ring.partition_point(|n| *n < 4), 1);
    }

    #[test]
    fn a_late_record_is_put_in_its_place_wrapped_or_not() {
        for pushed in 0..9_u32 {
            for at in 0..4_usize {
                let mut ring = Ring::new(4);
                let mut model: Vec<u32> = Vec::new();
                for n in 0..pushed {
                    ring.push(n);
                    model.push(n);
                }
                if model.len() > 4 {
                    model.drain(..model.len() - 4);
                }
                if at > model.len() {
                    continue;
                }
                ring.insert(at, 99);
                model.insert(at, 99);
                if model.len() > 4 {
                    model.remove(0);
                }
                assert_eq!(contents(&ring), model, "pushed {pushed}, at {at}");
                ring.push(7);
                assert_eq!(ring.last(), Some(&7));
            }
        }
    }
}
