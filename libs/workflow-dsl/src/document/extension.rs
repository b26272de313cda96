//! Extensions: tasks that run before and after tasks of a kind.

use super::{Kind, TaskList};
use crate::expression::Expression;

/// An extension of `use.extensions`.
#[derive(Debug, Clone)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// JSON pointer of its definition.
    pub pointer: String,
    /// Which tasks it extends.
    pub target: Target,
    /// `when`: it applies only if this is true when a task begins. `$task` is the extended task.
    pub when: Option<Expression>,
    /// `before`: runs before the extended task, on its input; `then: exit` makes what it yields the task's output.
    pub before: Option<TaskList>,
    /// `after`: runs after the extended task, on its output, and does not change it.
    pub after: Option<TaskList>,
}

/// Which tasks an extension extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Every task that does not belong to an extension.
    All,
    /// `do` and `fork`.
    Composite,
    /// Tasks of one kind.
    Kind(&'static str),
}

impl Extension {
    /// Its lists of tasks.
    pub fn lists(&self) -> impl Iterator<Item = &TaskList> {
        self.before.iter().chain(&self.after)
    }
}

impl Target {
    /// The names of the language with what they mean.
    pub const NAMES: [(&'static str, Self); 12] = [
        ("call", Self::Kind("call")),
        ("composite", Self::Composite),
        ("emit", Self::Kind("emit")),
        ("for", Self::Kind("for")),
        ("listen", Self::Kind("listen")),
        ("raise", Self::Kind("raise")),
        ("run", Self::Kind("run")),
        ("set", Self::Kind("set")),
        ("switch", Self::Kind("switch")),
        ("try", Self::Kind("try")),
        ("wait", Self::Kind("wait")),
        ("all", Self::All),
    ];

    /// Whether tasks of this kind are extended.
    #[must_use]
    pub fn covers(self, kind: &Kind) -> bool {
        match self {
            Self::All => true,
            Self::Composite => matches!(kind, Kind::Do(_) | Kind::Fork(_)),
            Self::Kind(name) => kind.name() == name,
        }
    }
}
