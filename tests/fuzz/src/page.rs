//! Page tokens: any text is a place in a list or refused without a panic, what is a place is written and read again as the same, and no
//! list takes another's.

use muster_router::pages::Cursor;
use muster_workflow_engine::page::List;
use serde_json::Value;

/// The lists of an engine.
const LISTS: [List; 6] = [
    List::Workflows,
    List::Runs,
    List::History,
    List::Approvals,
    List::Events,
    List::Schedules,
];

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(cursor) = Cursor::decode(text)
        && !cursor.sources.is_empty()
    {
        assert!(Cursor::is_ours(text));
        // One that is longer as we write it is none.
        if let Some(again) = Cursor::decode(&cursor.encode()) {
            assert_eq!(again, cursor);
        }
    }
    let takers = LISTS.iter().filter(|list| {
        let place = list.cursor::<Value>(&"search", text);
        matches!(place, Ok(Some(_)))
    });
    assert!(takers.count() <= 1, "{text}");
}
