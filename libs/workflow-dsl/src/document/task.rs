//! Tasks: what every task has, and what each kind adds.

use serde_json::{Map, Value};

use super::policy::TaskPolicy;
use super::{Call, Launch, Listen, Period, Retry, Schemas, Template, Uri};
use crate::expression::Expression;

/// Tasks that run one after the other: a `do`, or the tasks of a `try` or of a `catch`.
#[derive(Debug, Clone)]
pub struct TaskList {
    /// JSON pointer of the list, such as `/do` or `/do/2/eachCity/do`.
    pub pointer: String,
    /// The tasks, at least one, with unique names.
    pub tasks: Vec<Task>,
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Name, unique in its list.
    pub name: String,
    /// JSON pointer of the task's definition: that of its list, its index, its name.
    pub pointer: String,
    /// Line of the document, from 1, at which the task is named.
    pub line: u32,
    /// `if`: the task is skipped, with its input as output, unless this is true of the raw input.
    pub condition: Option<Expression>,
    /// `input.from`: raw input → input.
    pub input: Option<Template>,
    /// `output.as`: raw output → output.
    pub output: Option<Template>,
    /// `export.as`: output → the new `$context`.
    pub export: Option<Template>,
    /// `timeout`: how long the task may take, with its retries.
    pub timeout: Option<Period>,
    /// `input.schema`, `output.schema` and `export.schema`.
    pub schemas: Schemas,
    /// Indexes of the workflow's extensions that may apply, in order. Empty for the tasks of an extension.
    pub extensions: Vec<usize>,
    /// `then`: where the flow goes afterwards.
    pub then: Flow,
    /// `metadata`: anything the author wants to keep with the task; only [`super::policy::KEY`] in it is interpreted.
    pub metadata: Map<String, Value>,
    /// What [`super::policy::KEY`] in the metadata says.
    pub policy: TaskPolicy,
    /// What the task does.
    pub kind: Kind,
}

/// Where the flow goes after a task or a switch case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// To the next task of the list; after the last one, out of the list.
    Continue,
    /// Out of the list, as if its last task had ended.
    Exit,
    /// To the end of the run, which completes.
    End,
    /// To the task with this index in the same list.
    Task(usize),
}

/// What a task does.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `do`: tasks one after the other.
    Do(TaskList),
    /// `set`: the output is this value. An object, or one expression.
    Set(Template),
    /// `call`: a function; its result is the raw output.
    Call(Call),
    /// `switch`: the first case that holds decides where the flow goes.
    Switch(Vec<Case>),
    /// `for`: the same tasks for each item of a collection.
    For(For),
    /// `fork`: branches at the same time.
    Fork(Fork),
    /// `try`: tasks with a handler for their errors.
    Try(Box<Try>),
    /// `raise`: the task fails with this error.
    Raise(Box<ErrorTemplate>),
    /// `wait`: nothing, for this long.
    Wait(Period),
    /// `emit`: an event with these attributes; all of it is the raw output.
    Emit(Template),
    /// `listen`: waits for events; the list of those that were consumed is the raw output.
    Listen(Box<Listen>),
    /// `run`: another workflow, or a process.
    Run(Launch),
}

/// One case of a `switch`.
#[derive(Debug, Clone)]
pub struct Case {
    /// Name, unique in its switch.
    pub name: String,
    /// JSON pointer of the case.
    pub pointer: String,
    /// `when`; the case without one is the default, taken when no other holds wherever it stands. There is at most
    /// one.
    pub when: Option<Expression>,
    /// Where the flow goes if this case is taken.
    pub then: Flow,
}

/// `for`: the same tasks for each item of a collection.
#[derive(Debug, Clone)]
pub struct For {
    /// `each`: name of the variable that holds the item, without `$`.
    pub each: String,
    /// `at`: name of the variable that holds the item's index, without `$`.
    pub at: String,
    /// `in`: yields the collection.
    pub items: Expression,
    /// `while`: checked before each iteration; the loop ends when it is not true.
    pub condition: Option<Expression>,
    /// What is done for each item.
    pub tasks: TaskList,
}

/// `fork`: branches at the same time.
#[derive(Debug, Clone)]
pub struct Fork {
    /// Each task is one branch. Their `then` is never [`Flow::Task`]: a branch has no neighbour to go to.
    pub branches: TaskList,
    /// Whether the first branch that completes wins and the others are cancelled. If not, all are awaited and the
    /// output is the array of theirs. In both cases a branch that fails fails the fork: nothing has caught its error.
    pub compete: bool,
}

/// `try`: tasks with a handler for their errors.
#[derive(Debug, Clone)]
pub struct Try {
    /// What is tried.
    pub tasks: TaskList,
    /// What is done about an error.
    pub catch: Catch,
}

/// Which errors of a `try` are handled, and how.
#[derive(Debug, Clone)]
pub struct Catch {
    /// `errors.with`: only errors like this one are handled.
    pub errors: ErrorFilter,
    /// `as`: name of the variable that holds the error, without `$`.
    pub variable: String,
    /// `when`: the error is handled only if this is true.
    pub when: Option<Expression>,
    /// `exceptWhen`: the error is not handled if this is true.
    pub except_when: Option<Expression>,
    /// `retry`: try again first, under this policy.
    pub retry: Option<Retry>,
    /// `do`: what is done once retries are used up; without it the error is swallowed.
    pub tasks: Option<TaskList>,
}

/// What an error must be like; fields that are left away match anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorFilter {
    /// URI of the error's type.
    pub kind: Option<String>,
    /// Status code.
    pub status: Option<u16>,
    /// JSON pointer of the task that failed.
    pub instance: Option<String>,
    /// Title, exactly.
    pub title: Option<String>,
    /// Detail, exactly.
    pub detail: Option<String>,
}

/// An error to raise, before its expressions are evaluated.
#[derive(Debug, Clone)]
pub struct ErrorTemplate {
    /// `type`: a URI, perhaps with variables in it.
    pub kind: Uri,
    /// `status`, 100 to 599.
    pub status: u16,
    /// `instance`; by default the pointer of the task that raises the error.
    pub instance: Option<Template>,
    /// `title`: one line, the same for all errors of this type.
    pub title: Option<Template>,
    /// `detail`: what happened this time.
    pub detail: Option<Template>,
}

impl TaskList {
    /// The task of this list, or below it, whose definition is at `pointer`.
    #[must_use]
    pub fn descendant(&self, pointer: &str) -> Option<&Task> {
        if !is_inside(pointer, &self.pointer) {
            return None;
        }
        let task = self.tasks.iter().find(|task| is_inside(pointer, &task.pointer))?;
        if task.pointer == pointer {
            return Some(task);
        }
        task.lists().into_iter().find_map(|list| list.descendant(pointer))
    }

    /// Index of the task called `name`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tasks.iter().position(|task| task.name == name)
    }
}

impl Kind {
    /// The field that makes a task of this kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Do(_) => "do",
            Self::Set(_) => "set",
            Self::Call(_) => "call",
            Self::Switch(_) => "switch",
            Self::For(_) => "for",
            Self::Fork(_) => "fork",
            Self::Try(_) => "try",
            Self::Raise(_) => "raise",
            Self::Wait(_) => "wait",
            Self::Emit(_) => "emit",
            Self::Listen(_) => "listen",
            Self::Run(_) => "run",
        }
    }
}

/// Whether `pointer` is `ancestor` or points below it.
fn is_inside(pointer: &str, ancestor: &str) -> bool {
    pointer
        .strip_prefix(ancestor)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Task {
    /// The lists of tasks directly below this one, in the order of the document.
    #[must_use]
    pub fn lists(&self) -> Vec<&TaskList> {
        let mut lists = self.kind_lists();
        lists.extend(self.policy.compensation.as_deref());
        lists
    }

    fn kind_lists(&self) -> Vec<&TaskList> {
        match &self.kind {
            Kind::Do(tasks) => vec![tasks],
            Kind::For(each) => vec![&each.tasks],
            Kind::Fork(fork) => vec![&fork.branches],
            Kind::Try(attempt) => {
                let mut lists = vec![&attempt.tasks];
                lists.extend(&attempt.catch.tasks);
                lists
            }
            Kind::Listen(listen) => listen
                .each
                .iter()
                .filter_map(|each| each.tasks.as_ref())
                .collect(),
            Kind::Set(_)
            | Kind::Call(_)
            | Kind::Switch(_)
            | Kind::Raise(_)
            | Kind::Wait(_)
            | Kind::Emit(_)
            | Kind::Run(_) => Vec::new(),
        }
    }
}
