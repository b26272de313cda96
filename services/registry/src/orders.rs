//! Instances in the orders that are asked for, so that a page is read from where it begins and not chosen from all.
//!
//! An order is made when somebody asks for it, and kept up while it is asked for: once it has cost as many changes as it
//! has entries since it was last asked for, making it anew would have been cheaper, and it goes. So heartbeats pay for
//! orders only where somebody searches. At most [`MOST`] are kept; the one that was asked for longest ago goes first.
//!
//! Rejected: every order for every skill at all times, which every heartbeat would pay for several times over, although
//! routers watch and do not search.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::catalogue::Term;
use crate::discovery::{Rank, Sort};

/// Most orders that are kept.
const MOST: usize = 16;

/// Which instances, by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Whose.
    pub namespace: Arc<str>,
    /// Those that have this; `None` for all.
    pub term: Option<Term>,
    /// What decides who comes first.
    pub sort: Sort,
}

#[derive(Debug)]
struct Order {
    name: Name,
    ranks: BTreeSet<Rank>,
    /// Changes since it was last asked for.
    changes: usize,
    /// When it was last asked for, counted in questions.
    asked: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Orders {
    kept: Vec<Order>,
    questions: u64,
}

impl Orders {
    /// The instances of an order after a place in it; `make` yields all of them where the order is not kept.
    pub fn after<I: Iterator<Item = Rank>>(
        &mut self,
        name: &Name,
        after: Option<&Rank>,
        make: impl FnOnce() -> I,
    ) -> impl Iterator<Item = &Rank> {
        self.questions += 1;
        let index = match self.kept.iter().position(|order| order.name == *name) {
            Some(index) => index,
            None => self.add(name, make().collect()),
        };
        let order = &mut self.kept[index];
        order.changes = 0;
        order.asked = self.questions;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        order.ranks.range((start, Bound::Unbounded))
    }

    /// An instance came (`after`), went (`before`) or moved. `has` says whether it has a term.
    pub fn change(
        &mut self,
        namespace: &str,
        has: impl Fn(&Term) -> bool,
        before: Option<&dyn Fn(Sort) -> Rank>,
        after: Option<&dyn Fn(Sort) -> Rank>,
    ) {
        for order in &mut self.kept {
            let Name {
                namespace: whose,
                term,
                sort,
            } = &order.name;
            if **whose != *namespace || !term.as_ref().is_none_or(&has) {
                continue;
            }
            let (before, after) = (before.map(|rank| rank(*sort)), after.map(|rank| rank(*sort)));
            if before == after {
                continue;
            }
            order.changes += 1;
            if let Some(before) = before {
                order.ranks.remove(&before);
            }
            if let Some(after) = after {
                order.ranks.insert(after);
            }
        }
        self.kept.retain(|order| order.changes <= order.ranks.len());
    }

    fn add(&mut self, name: &Name, ranks: BTreeSet<Rank>) -> usize {
        let oldest = self.kept.iter().enumerate().min_by_key(|(_, order)| order.asked);
        if let Some((oldest, _)) = oldest
            && self.kept.len() >= MOST
        {
            self.kept.swap_remove(oldest);
        }
        self.kept.push(Order {
            name: name.clone(),
            ranks,
            changes: 0,
            asked: self.questions,
        });
        self.kept.len() - 1
    }
}
