//! Tasks that steer: `switch`, `for` and `fork`.

use super::Reader;
use super::catch::given;
use super::cursor::{Cursor, Fields};
use super::flow::Targets;
use super::task::List;
use crate::document::{Case, For, Fork, Kind};
use crate::problem::quoted;

impl Reader {
    /// `switch`: a list of cases, each under its name.
    pub(super) fn switch(&mut self, fields: &Fields<'_>, targets: &Targets<'_>) -> Option<Kind> {
        let list = self.require(fields, "switch")?;
        let items = self.items(&list)?;
        if items.is_empty() {
            self.wrong(&list, "a switch needs at least one case");
        }
        let mut names = Vec::new();
        let mut default = None;
        let mut cases = Vec::with_capacity(items.len());
        for item in &items {
            let case = self
                .named(item, "case", &mut names)
                .and_then(|(name, at)| self.case(name, &at, targets));
            if let Some(case) = &case
                && case.when.is_none()
                && let Some(earlier) = default.replace(case.name.clone())
            {
                let message = format!("there is already a case without 'when': {}", quoted(&earlier));
                self.wrong(item, message);
            }
            cases.push(case);
        }
        cases.into_iter().collect::<Option<Vec<Case>>>().map(Kind::Switch)
    }

    fn case(&mut self, name: String, at: &Cursor<'_>, targets: &Targets<'_>) -> Option<Case> {
        let fields = self.fields(at, &["when", "then"])?;
        let when = fields.get("when").map(|when| self.expression_field(&when));
        let then = self
            .require(&fields, "then")
            .and_then(|then| self.flow(&then, targets));
        Some(Case {
            name,
            pointer: at.pointer.clone(),
            when: given(when)?,
            then: then?,
        })
    }

    /// `for`, with its `while` and `do`.
    pub(super) fn each(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let header = self
            .require(fields, "for")
            .and_then(|header| self.fields(&header, &["each", "in", "at"]));
        let Some(header) = header else {
            // The names of the variables are unknown; their defaults keep the tasks' own mistakes in sight.
            self.loop_body(fields, "item".to_owned(), "index".to_owned());
            return None;
        };
        let items = self
            .require(&header, "in")
            .and_then(|items| self.expression_field(&items));
        let each = self.loop_variable(&header, "each", "item");
        let at = self.loop_variable(&header, "at", "index");
        if each.is_some() && each == at {
            self.wrong(&header.at, "'each' and 'at' must name different variables");
        }
        let body = self.loop_body(
            fields,
            each.clone().unwrap_or_else(|| "item".to_owned()),
            at.clone().unwrap_or_else(|| "index".to_owned()),
        );
        let (condition, tasks) = body?;
        Some(Kind::For(For {
            each: each?,
            at: at?,
            items: items?,
            condition,
            tasks,
        }))
    }

    fn loop_variable(&mut self, header: &Fields<'_>, field: &str, default: &str) -> Option<String> {
        match header.get(field) {
            Some(name) => self.variable(&name),
            None => Some(default.to_owned()),
        }
    }

    fn loop_body(
        &mut self,
        fields: &Fields<'_>,
        each: String,
        at: String,
    ) -> Option<(Option<crate::expression::Expression>, crate::document::TaskList)> {
        self.with_variables([each, at], |reader| {
            let condition = fields
                .get("while")
                .map(|condition| reader.expression_field(&condition));
            let tasks = reader
                .require(fields, "do")
                .and_then(|tasks| reader.tasks(&tasks, List::Sequence));
            Some((given(condition)?, tasks?))
        })
    }

    /// `fork`.
    pub(super) fn fork(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let fork = self.require(fields, "fork")?;
        let fields = self.fields(&fork, &["branches", "compete"])?;
        let compete = fields.get("compete").map(|compete| self.boolean(&compete));
        let branches = self
            .require(&fields, "branches")
            .and_then(|branches| self.tasks(&branches, List::Branches));
        Some(Kind::Fork(Fork {
            branches: branches?,
            compete: given(compete)?.unwrap_or(false),
        }))
    }
}
