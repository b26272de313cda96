//! `use.extensions`.

use super::Reader;
use super::catch::given;
use super::cursor::Cursor;
use super::task::List;
use crate::document::{Extension, Kind, Target};
use crate::problem::{listed, quoted};

impl Reader {
    /// The extensions in order. One that is wrong is left out; the document is refused anyway.
    pub(super) fn extensions(&mut self, at: &Cursor<'_>) -> Vec<Extension> {
        const MOST: usize = 32;
        let Some(items) = self.items(at) else {
            return Vec::new();
        };
        if items.len() > MOST {
            self.wrong(at, format!("a document has at most {MOST} extensions"));
            return Vec::new();
        }
        let mut names = Vec::new();
        items
            .iter()
            .filter_map(|item| {
                let (name, definition) = self.named(item, "extension", &mut names)?;
                self.extension(name, &definition)
            })
            .collect()
    }

    fn extension(&mut self, name: String, at: &Cursor<'_>) -> Option<Extension> {
        let fields = self.fields(at, &["extend", "when", "before", "after"])?;
        let target = self
            .require(&fields, "extend")
            .and_then(|target| self.target(&target));
        let when = fields.get("when").map(|when| self.expression_field(&when));
        // The list is only handed out when it is complete, so that the tasks read here are extended by nothing.
        let before = fields
            .get("before")
            .map(|tasks| self.tasks(&tasks, List::Sequence));
        let after = fields
            .get("after")
            .map(|tasks| self.tasks(&tasks, List::Sequence));
        if before.is_none() && after.is_none() {
            self.doubtful(
                at,
                "the extension has neither 'before' nor 'after', and does nothing",
            );
        }
        Some(Extension {
            name,
            pointer: at.pointer.clone(),
            target: target?,
            when: given(when)?,
            before: given(before)?,
            after: given(after)?,
        })
    }

    fn target(&mut self, at: &Cursor<'_>) -> Option<Target> {
        let text = self.text(at)?;
        let names = || Target::NAMES.iter().map(|(name, _)| *name);
        let target = Target::NAMES.iter().find(|(name, _)| *name == text);
        if target.is_none() {
            let nearest = muster_api::names::suggestion(text, names());
            let message = format!(
                "no such kind of task to extend {}; there are {}{nearest}",
                quoted(text),
                listed(names())
            );
            self.wrong(at, message);
        }
        target.map(|(_, target)| *target)
    }

    /// The extensions that may apply to a task of this kind.
    pub(super) fn extensions_of(&self, kind: &Kind) -> Vec<usize> {
        let extensions = self.reusable.extensions.iter().enumerate();
        extensions
            .filter(|(_, extension)| extension.target.covers(kind))
            .map(|(index, _)| index)
            .collect()
    }
}
