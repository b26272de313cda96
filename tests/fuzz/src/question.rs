//! What people write to agents: questions about the weather, and plans as lists. Any text is understood or refused without a panic.

use jiff::civil::date;
use muster_agent_planning::outline;
use muster_agent_weather::question::Question;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let known = ["Oslo".to_owned(), "Seattle".to_owned()];
    let today = date(2014, 3, 3);
    if let Ok(question) = Question::from_text(text, &known, today) {
        assert!(question.cities.iter().all(|city| known.contains(city)));
        let _period = question.period(today);
    }
    if let Ok(outline) = outline::parse("text", text) {
        let ids: Vec<&str> = outline
            .request
            .tasks
            .iter()
            .map(|task| task.id.as_str())
            .collect();
        let of_groups = outline.groups.iter().flat_map(|group| &group.tasks);
        for task in of_groups {
            assert!(ids.contains(&task.as_str()), "{task}");
        }
        let _plan = outline.request.plan(Some(today));
    }
}
