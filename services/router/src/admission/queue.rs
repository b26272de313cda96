//! A bounded queue with priorities: pure.

use std::collections::BTreeMap;

use crate::priority::Priority;

/// Where an entry stands; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    priority: Priority,
    number: u64,
}

/// First the more urgent, among equals first come first served.
#[derive(Debug)]
pub struct Queue<T> {
    capacity: usize,
    lanes: [BTreeMap<u64, T>; 4],
    next: u64,
}

impl<T> Queue<T> {
    /// An empty queue for that many entries.
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            lanes: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
            next: 0,
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(BTreeMap::len).sum()
    }

    /// Adds an entry. In a full queue it displaces the newest of the least urgent entries, which is returned, if
    /// that is less urgent than the new one; else the new one comes back as the error.
    pub fn push(&mut self, priority: Priority, entry: T) -> Result<(Position, Option<T>), T> {
        let mut displaced = None;
        if self.len() >= self.capacity {
            let least = self
                .lanes
                .iter_mut()
                .take(priority.rank())
                .find(|lane| !lane.is_empty());
            match least.and_then(BTreeMap::pop_last) {
                Some((_, entry)) => displaced = Some(entry),
                None => return Err(entry),
            }
        }
        let position = Position {
            priority,
            number: self.next,
        };
        self.next += 1;
        self.lanes[priority.rank()].insert(position.number, entry);
        Ok((position, displaced))
    }

    /// Takes out who is next.
    pub fn pop(&mut self) -> Option<T> {
        let lane = self.lanes.iter_mut().rev().find(|lane| !lane.is_empty())?;
        lane.pop_first().map(|(_, entry)| entry)
    }

    /// Takes out an entry that no longer wants to wait; `None` when it is not there any more.
    pub fn remove(&mut self, position: Position) -> Option<T> {
        self.lanes[position.priority.rank()].remove(&position.number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_urgent_go_first_and_equals_in_order() {
        let mut queue = Queue::new(10);
        for (priority, entry) in [
            (Priority::Normal, 1),
            (Priority::Low, 2),
            (Priority::Urgent, 3),
            (Priority::Normal, 4),
        ] {
            queue.push(priority, entry).unwrap();
        }
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [3, 1, 4, 2]);
    }

    #[test]
    fn a_full_queue_gives_up_the_newest_of_the_least_urgent() {
        let mut queue = Queue::new(3);
        queue.push(Priority::Low, 1).unwrap();
        queue.push(Priority::Low, 2).unwrap();
        queue.push(Priority::High, 3).unwrap();
        assert_eq!(queue.push(Priority::Low, 4), Err(4));
        assert_eq!(queue.push(Priority::Normal, 5).unwrap().1, Some(2));
        assert_eq!(queue.push(Priority::Urgent, 6).unwrap().1, Some(1));
        assert_eq!(queue.push(Priority::Normal, 7), Err(7));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_loses_nobody(
            capacity in 0usize..8, steps in proptest::collection::vec((0u8..3, 0usize..4), 0..100),
        ) {
            let mut queue = Queue::new(capacity);
            let mut positions = Vec::new();
            let (mut pushed, mut out) = (0u64, 0u64);
            for (action, rank) in steps {
                match action {
                    0 | 1 if action == 0 || positions.is_empty() => {
                        if let Ok((position, displaced)) = queue.push(Priority::ALL[rank], pushed) {
                            positions.push(position);
                            pushed += 1;
                            out += u64::from(displaced.is_some());
                        }
                    }
                    1 => out += u64::from(queue.remove(positions[rank % positions.len()]).is_some()),
                    _ => out += u64::from(queue.pop().is_some()),
                }
                prop_assert!(queue.len() <= capacity);
                prop_assert_eq!(pushed, out + queue.len() as u64);
            }
        }
    }
}
