//! One list of tasks made of the lists of several stores, page by page. Pure.
//!
//! Each store has its own order, newest first, and its own page tokens. The merged list takes the newest of what the stores have
//! at the front, again and again; its own page token says, for each store, at which of the store's pages it stands and which task
//! of that page was given last. So pages stay stable while tasks come, go and change: a place is that of a task and no number.
//! Where that task has moved away in the meantime, what is older than it was comes next.
//!
//! Instances of one agent often share a store. Where their cards say so they are one source from the start. Else the router sees
//! it by the tasks: instances of one agent that show the same task at the front of their lists share one. One of them is asked
//! from then on, or another where that one cannot be. Within a page a task of an agent is given once, whoever has shown it.

use std::collections::{BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::a2a::{ListTasksResponse, Task};
use serde::{Deserialize, Serialize};

/// Tasks of a page where the caller does not say.
const DEFAULT_SIZE: usize = 50;
/// Most tasks of a page.
const MOST: usize = 100;

/// What a page token of ours starts with, so that no agent's own is taken for one.
const MARK: &str = "merged1.";
/// Longest page token that is looked at.
const LONGEST_TOKEN: usize = 128 * 1024;
/// Instances of one store that a page token names: one is asked, the others are for when it is gone.
pub const NAMED: usize = 4;

/// How many tasks a page has.
///
/// # Errors
/// When a negative number is asked for; says what is allowed.
pub fn size(asked: Option<i32>) -> Result<usize, String> {
    match asked {
        None | Some(0) => Ok(DEFAULT_SIZE),
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(MOST))
            .map_err(|_| format!("is {asked}; 1 to {MOST} are allowed")),
    }
}

/// A time as tasks carry it; those without one are the oldest.
type Time = (i64, i32);

/// A store, and how far its list was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The agent.
    #[serde(rename = "a")]
    pub agent: String,
    /// Its instances that have the store, at least one.
    #[serde(rename = "i")]
    pub instances: Vec<String>,
    /// What the store is called, where its instances say so: then those that are not named have it as well.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The store's own token of the page at which the list stands; empty for the first.
    #[serde(rename = "t", default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// The task of that page which was given last.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    last: Option<Place>,
}

impl Source {
    /// The store of an instance, from the beginning.
    #[must_use]
    pub fn new(agent: String, instance: String) -> Self {
        Self {
            agent,
            instances: vec![instance],
            store: None,
            token: String::new(),
            last: None,
        }
    }
}

/// A task's time when it was given, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place(Time, String);

/// How far the merged list was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// A hash of whom it was made for.
    #[serde(rename = "c")]
    pub caller: String,
    /// How many tasks there were when it began.
    #[serde(rename = "n")]
    pub total: i32,
    /// The stores that have more.
    #[serde(rename = "s")]
    pub sources: Vec<Source>,
}

impl Cursor {
    /// As a page token; empty where no store has more.
    #[must_use]
    pub fn encode(&self) -> String {
        if self.sources.is_empty() {
            return String::new();
        }
        // Of texts and numbers alone, which always encode.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{MARK}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Whether this looks like a page token of the router's own.
    #[must_use]
    pub fn is_ours(token: &str) -> bool {
        token.starts_with(MARK)
    }

    /// From a page token; none where it is not one.
    #[must_use]
    pub fn decode(token: &str) -> Option<Self> {
        let text = token
            .strip_prefix(MARK)
            .filter(|text| text.len() <= LONGEST_TOKEN)?;
        let json = URL_SAFE_NO_PAD.decode(text).ok()?;
        let cursor: Self = serde_json::from_slice(&json).ok()?;
        let is_whole = cursor.sources.iter().all(|source| !source.instances.is_empty());
        is_whole.then_some(cursor)
    }
}

/// The first pages of all instances as the first pages of their stores, and how many tasks those have together.
#[must_use]
pub fn by_store(first: Vec<(Source, ListTasksResponse)>) -> (Vec<(Source, ListTasksResponse)>, i32) {
    let mut stores: Vec<(Source, ListTasksResponse, BTreeSet<String>)> = Vec::new();
    for (source, page) in first {
        let ids: BTreeSet<String> = page.tasks.iter().map(|task| task.id.clone()).collect();
        let same = stores
            .iter_mut()
            .find(|(other, _, known)| other.agent == source.agent && !known.is_disjoint(&ids));
        match same {
            Some((other, kept, known)) => {
                if other.instances.len() < NAMED {
                    other.instances.extend(source.instances);
                }
                kept.total_size = kept.total_size.max(page.total_size);
                known.extend(ids);
            }
            None => stores.push((source, page, ids)),
        }
    }
    let total = stores.iter().fold(0_i32, |total, (_, page, _)| {
        total.saturating_add(page.total_size.max(0))
    });
    let stores = stores.into_iter().map(|(source, page, _)| (source, page));
    (stores.collect(), total)
}

/// Makes one page.
#[derive(Debug)]
pub struct Merger {
    size: usize,
    lists: Vec<List>,
    page: Vec<Task>,
    /// Agent and id of what is in the page.
    given: BTreeSet<(String, String)>,
}

#[derive(Debug)]
struct List {
    source: Source,
    /// What is left of the page at which it stands.
    tasks: VecDeque<Task>,
    /// The store's token of the page after that; empty where there is none.
    next: String,
    /// Whether the page at which it stands is to be asked for yet.
    is_awaited: bool,
    /// Whether the task that was given last has been come by; if not, it may be in the next page.
    is_passed: bool,
}

impl List {
    fn new(source: Source) -> Self {
        Self {
            source,
            tasks: VecDeque::new(),
            next: String::new(),
            is_awaited: true,
            is_passed: false,
        }
    }

    fn fill(&mut self, page: ListTasksResponse) {
        let mut tasks = VecDeque::from(page.tasks);
        self.is_passed = true;
        if let Some(Place(time_of_last, id)) = &self.source.last {
            let same = |task: &Task| task.id == *id && time(task) == *time_of_last;
            let skipped = match tasks.iter().position(same) {
                Some(index) => index + 1,
                None => {
                    // It has moved, or newer ones have pushed it out of this page.
                    let newer = tasks.iter().take_while(|task| time(task) > *time_of_last);
                    let newer = newer.count();
                    self.is_passed = newer < tasks.len();
                    newer
                }
            };
            tasks.drain(..skipped);
        }
        self.tasks = tasks;
        self.next = page.next_page_token;
        self.is_awaited = false;
    }

    /// Turns to the next page, if this one is at its end.
    fn turn(&mut self) {
        if self.is_awaited || !self.tasks.is_empty() || self.next.is_empty() {
            return;
        }
        self.source.token = std::mem::take(&mut self.next);
        self.is_awaited = true;
        if self.is_passed {
            self.source.last = None;
        }
    }

    fn take(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        self.source.last = Some(Place(time(&task), task.id.clone()));
        self.is_passed = true;
        Some(task)
    }
}

impl Merger {
    /// Of the pages at which the stores stand.
    #[must_use]
    pub fn new(size: usize, pages: Vec<(Source, ListTasksResponse)>) -> Self {
        let lists = pages.into_iter().map(|(source, page)| {
            let mut list = List::new(source);
            list.fill(page);
            list
        });
        Self {
            size,
            lists: lists.collect(),
            page: Vec::new(),
            given: BTreeSet::new(),
        }
    }

    /// Goes on until the page is complete, or a store has to be asked for a page: which one that is, and its number.
    pub fn go_on(&mut self) -> Option<(usize, &Source)> {
        loop {
            self.skip_given();
            if self.page.len() >= self.size {
                return None;
            }
            self.lists.iter_mut().for_each(List::turn);
            if let Some(dry) = self.lists.iter().position(|list| list.is_awaited) {
                return self.lists.get(dry).map(|list| (dry, &list.source));
            }
            let fronts = self.lists.iter_mut().filter(|list| !list.tasks.is_empty());
            // Of several as new the first.
            let newest = fronts.reduce(|newest, list| {
                if list.tasks.front().map(time) > newest.tasks.front().map(time) {
                    list
                } else {
                    newest
                }
            })?;
            if let Some(task) = newest.take() {
                let name = (newest.source.agent.clone(), task.id.clone());
                self.given.insert(name);
                self.page.push(task);
            }
        }
    }

    /// The page that was asked for.
    pub fn add(&mut self, number: usize, page: ListTasksResponse) {
        if let Some(list) = self.lists.get_mut(number) {
            list.fill(page);
        }
    }

    /// The tasks of the page, which are fewer where it was not completed, and the stores that have more.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Task>, Vec<Source>) {
        self.lists.iter_mut().for_each(List::turn);
        let more = self.lists.into_iter();
        let more = more.filter(|list| list.is_awaited || !list.tasks.is_empty());
        (self.page, more.map(|list| list.source).collect())
    }

    /// Comes by what another list has shown already.
    fn skip_given(&mut self) {
        for list in &mut self.lists {
            while let Some(task) = list.tasks.front()
                && self.given.contains(&(list.source.agent.clone(), task.id.clone()))
            {
                list.take();
            }
        }
    }
}

fn time(task: &Task) -> Time {
    let timestamp = task.status.as_ref().and_then(|status| status.timestamp);
    timestamp.map_or((i64::MIN, 0), |time| (time.seconds, time.nanos))
}

#[cfg(test)]
mod tests;
