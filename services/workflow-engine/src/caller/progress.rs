//! What is known about a call that has not ended: for people who ask, and for telling the agent to stop.

use parking_lot::Mutex;

/// What is known about a call that has not ended.
#[derive(Debug, Default)]
pub struct Progress {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    task_id: Option<String>,
    note: Option<String>,
}

impl Progress {
    /// The agent's task, once known.
    #[must_use]
    pub fn task_id(&self) -> Option<String> {
        self.known.lock().task_id.clone()
    }

    /// What holds the call up, or what the agent says it does.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.known.lock().note.clone()
    }

    pub(crate) fn learn_task(&self, id: &str) {
        if !id.is_empty() {
            self.known.lock().task_id = Some(id.to_owned());
        }
    }

    pub(crate) fn set_note(&self, note: Option<String>) {
        self.known.lock().note = note;
    }
}
