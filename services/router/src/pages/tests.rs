use std::collections::BTreeMap;

use muster_api::a2a::TaskStatus;
use proptest::prelude::*;
use prost_types::Timestamp;

use super::*;

fn task(id: &str, seconds: i64) -> Task {
    Task {
        id: id.to_owned(),
        status: Some(TaskStatus {
            timestamp: Some(Timestamp { seconds, nanos: 0 }),
            ..TaskStatus::default()
        }),
        ..Task::default()
    }
}

/// A store of an agent, as agents of the SDK list theirs: newest first, then by descending id.
#[derive(Debug, Clone, Default)]
struct Store {
    tasks: BTreeMap<String, i64>,
}

impl Store {
    fn of(tasks: &[(&str, i64)]) -> Self {
        let tasks = tasks.iter().map(|(id, time)| ((*id).to_owned(), *time));
        Self {
            tasks: tasks.collect(),
        }
    }

    fn list(&self, token: &str, size: usize) -> ListTasksResponse {
        let mut all: Vec<(i64, &String)> = self.tasks.iter().map(|(id, time)| (*time, id)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let after = token.split_once(' ');
        let after = after.map(|(time, id)| (time.parse::<i64>().unwrap(), id.to_owned()));
        let mut left = all
            .into_iter()
            .filter(|(time, id)| after.as_ref().is_none_or(|(t, i)| (*time, *id) < (*t, i)))
            .peekable();
        let page: Vec<(i64, &String)> = left.by_ref().take(size).collect();
        let more = left.peek().is_some();
        let next = page.last().filter(|_| more);
        ListTasksResponse {
            next_page_token: next.map(|(time, id)| format!("{time} {id}")).unwrap_or_default(),
            page_size: i32::try_from(page.len()).unwrap(),
            total_size: i32::try_from(self.tasks.len()).unwrap(),
            tasks: page.into_iter().map(|(time, id)| task(id, time)).collect(),
        }
    }
}

/// Instances by name; those of one store name the same one.
type Fleet = BTreeMap<(&'static str, &'static str), usize>;

fn ask(stores: &[Store], fleet: &Fleet, source: &Source, size: usize) -> ListTasksResponse {
    let found = fleet
        .iter()
        .find(|((agent, instance), _)| *agent == source.agent && *instance == source.instances[0]);
    stores[*found.unwrap().1].list(&source.token, size)
}

/// One page, and the next page token.
fn page(
    stores: &[Store],
    fleet: &Fleet,
    token: &str,
    size: usize,
    asked: usize,
) -> (Vec<String>, String, i32) {
    let (pages, total) = if token.is_empty() {
        let first = fleet.keys().map(|(agent, instance)| {
            let source = Source::new((*agent).to_owned(), (*instance).to_owned());
            let page = ask(stores, fleet, &source, asked);
            (source, page)
        });
        by_store(first.collect())
    } else {
        let cursor = Cursor::decode(token).unwrap();
        let pages = cursor.sources.into_iter().map(|source| {
            let page = ask(stores, fleet, &source, asked);
            (source, page)
        });
        (pages.collect(), cursor.total)
    };
    let mut merger = Merger::new(size, pages);
    while let Some((number, source)) = merger.go_on() {
        let page = ask(stores, fleet, source, asked);
        merger.add(number, page);
    }
    let (tasks, sources) = merger.finish();
    let next = Cursor {
        caller: String::new(),
        total,
        sources,
    }
    .encode();
    (tasks.into_iter().map(|task| task.id).collect(), next, total)
}

fn all(stores: &[Store], fleet: &Fleet, size: usize, asked: usize) -> Vec<Vec<String>> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let (tasks, next, _) = page(stores, fleet, &token, size, asked);
        pages.push(tasks);
        if next.is_empty() {
            return pages;
        }
        token = next;
    }
    panic!("the list does not end: {pages:?}");
}

#[test]
fn lists_are_merged_by_time_and_pages_are_full() {
    let stores = [
        Store::of(&[("a", 9), ("b", 5), ("c", 1)]),
        Store::of(&[("d", 8), ("e", 7)]),
        Store::default(),
    ];
    let fleet = Fleet::from([(("x", "1"), 0), (("x", "2"), 1), (("y", "1"), 2)]);
    for asked in [1, 2, 3, 20] {
        let pages = all(&stores, &fleet, 2, asked);
        assert_eq!(
            pages,
            [vec!["a", "d"], vec!["e", "b"], vec!["c"]],
            "{asked} at once"
        );
    }
    assert_eq!(page(&stores, &fleet, "", 2, 20).2, 5);
}

#[test]
fn instances_of_one_store_are_one() {
    let stores = [Store::of(&[("a", 9), ("b", 5), ("c", 1)]), Store::of(&[("d", 6)])];
    let fleet = Fleet::from([
        (("x", "1"), 0),
        (("x", "2"), 0),
        (("x", "3"), 0),
        (("x", "4"), 1),
        (("y", "1"), 0),
    ]);
    let pages = all(&stores, &fleet, 2, 20);
    // Agent y has tasks of its own with the same ids.
    assert_eq!(pages.concat(), ["a", "a", "d", "b", "b", "c", "c"]);
    let (_, next, total) = page(&stores, &fleet, "", 1, 20);
    assert_eq!(total, 7);
    let cursor = Cursor::decode(&next).unwrap();
    assert_eq!(cursor.sources[0].instances, ["1", "2", "3"]);
    assert_eq!(cursor.sources.len(), 3);
}

#[test]
fn tasks_that_come_and_change_shift_nothing() {
    let mut stores = [
        Store::of(&[("a", 9), ("b", 7), ("c", 5), ("d", 3)]),
        Store::of(&[("e", 6)]),
    ];
    let fleet = Fleet::from([(("x", "1"), 0), (("x", "2"), 1)]);
    for asked in [2, 20] {
        let (first, token, _) = page(&stores, &fleet, "", 2, asked);
        assert_eq!(first, ["a", "b"]);
        // One is new, and the one that was given last moves to the front.
        stores[0].tasks.insert("new".to_owned(), 20);
        stores[0].tasks.insert("b".to_owned(), 21);
        let (second, token, _) = page(&stores, &fleet, &token, 2, asked);
        assert_eq!(second, ["e", "c"], "{asked} at once");
        let (third, token, _) = page(&stores, &fleet, &token, 2, asked);
        assert_eq!((third, token), (vec!["d".to_owned()], String::new()));
        stores[0].tasks.remove("new");
        stores[0].tasks.insert("b".to_owned(), 7);
    }
}

#[test]
fn an_agent_that_gives_all_at_once_in_any_order_is_listed_too() {
    let whole = |ids: &[&str]| ListTasksResponse {
        tasks: ids
            .iter()
            .map(|id| Task {
                id: (*id).to_owned(),
                ..Task::default()
            })
            .collect(),
        ..ListTasksResponse::default()
    };
    let (mut given, mut token) = (Vec::new(), String::new());
    for _ in 0..5 {
        let sources = match Cursor::decode(&token) {
            Some(cursor) => cursor.sources,
            None => vec![
                Source::new("x".into(), "1".into()),
                Source::new("x".into(), "2".into()),
            ],
        };
        let pages = sources.into_iter().map(|source| {
            let page = whole(if source.instances[0] == "1" {
                &["c", "a", "b"]
            } else {
                &["f", "e"]
            });
            (source, page)
        });
        let mut merger = Merger::new(2, pages.collect());
        assert!(merger.go_on().is_none());
        let (tasks, sources) = merger.finish();
        given.extend(tasks.into_iter().map(|task| task.id));
        token = Cursor {
            caller: String::new(),
            total: 5,
            sources,
        }
        .encode();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(given, ["c", "a", "b", "f", "e"]);
}

#[test]
fn what_is_no_token_of_ours_is_none() {
    let empty = URL_SAFE_NO_PAD.encode(r#"{"n":1,"s":[{"a":"x","i":[]}]}"#);
    for token in ["", "merged1.", "merged1.!", "12 a", &format!("{MARK}{empty}")] {
        assert_eq!(Cursor::decode(token), None, "{token}");
    }
    assert!(Cursor::is_ours("merged1.x") && !Cursor::is_ours("12 a"));
    assert_eq!(
        (size(None), size(Some(0)), size(Some(500))),
        (Ok(50), Ok(50), Ok(100))
    );
    assert!(size(Some(-1)).is_err());
}

proptest! {
    #[test]
    fn every_task_is_given_once_in_order(
        tasks in proptest::collection::vec((0..4_usize, 0..30_i64), 0..60),
        size in 1..12_usize,
        asked in 1..12_usize,
    ) {
        // Two stores of agent x, of which the first has two instances, and one of y.
        let mut stores = <[Store; 3]>::default();
        for (number, (store, time)) in tasks.iter().enumerate() {
            stores[*store % 3].tasks.insert(format!("{number:02}"), *time);
        }
        let fleet = Fleet::from([(("x", "1"), 0), (("x", "2"), 0), (("x", "3"), 1), (("y", "1"), 2)]);
        let pages = all(&stores, &fleet, size, asked);
        let given = pages.concat();
        let time = |id: &String| stores.iter().find_map(|store| store.tasks.get(id)).copied();
        prop_assert!(given.is_sorted_by(|one, other| time(one) >= time(other)), "{given:?}");
        let mut sorted = given.clone();
        sorted.sort_unstable();
        let expected: Vec<String> = (0..tasks.len()).map(|number| format!("{number:02}")).collect();
        prop_assert_eq!(sorted, expected);
        let (last, full) = pages.split_last().unwrap();
        prop_assert!(full.iter().all(|page| page.len() == size) && last.len() <= size);
        let total = page(&stores, &fleet, "", size, asked).2;
        prop_assert_eq!(usize::try_from(total).unwrap(), tasks.len());
    }
}
