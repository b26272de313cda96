//! Walking the tree with a JSON pointer at hand, and reading what a place must hold.

use super::Reader;
use crate::node::{Content, Entry, Node, pointer_to};
use crate::problem::{Place, listed, quoted};

/// A value of the tree and where it is.
#[derive(Clone)]
pub(super) struct Cursor<'n> {
    pub(super) node: &'n Node,
    pub(super) pointer: String,
    /// Where the value is named: at its key, or at itself in a list.
    pub(super) named_at: Place,
}

/// The fields of an object.
pub(super) struct Fields<'n> {
    pub(super) at: Cursor<'n>,
    pub(super) entries: &'n [Entry],
}

impl<'n> Cursor<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            pointer: String::new(),
            named_at: node.place,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.node.place
    }

    /// The value of a field of this object.
    pub(super) fn field(&self, entry: &'n Entry) -> Self {
        let pointer = pointer_to(&self.pointer, &entry.key);
        Self {
            node: &entry.value,
            pointer,
            named_at: entry.key_place,
        }
    }

    /// An item of this list.
    pub(super) fn item(&self, index: usize, node: &'n Node) -> Self {
        Self {
            node,
            pointer: pointer_to(&self.pointer, &index.to_string()),
            named_at: node.place,
        }
    }

    /// The value of the field `name`, if this is an object that has it.
    pub(super) fn child(&self, name: &str) -> Option<Self> {
        let Content::Object(entries) = &self.node.content else {
            return None;
        };
        let entry = entries.iter().find(|entry| entry.key == name)?;
        Some(self.field(entry))
    }

    /// The last token of the pointer in quotes, or what the document is called.
    fn name(&self) -> String {
        match self.pointer.rsplit_once('/') {
            Some((_, name)) => quoted(&name.replace("~1", "/").replace("~0", "~")),
            None => "the document".to_owned(),
        }
    }

    /// The value that `pointer`, relative to this one, leads to; as far as it leads.
    pub(super) fn descend(&self, pointer: &str) -> Self {
        pointer.split('/').skip(1).fold(self.clone(), |cursor, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            let node: &'n Node = cursor.node;
            match &node.content {
                Content::Object(entries) => entries
                    .iter()
                    .find(|entry| entry.key == token)
                    .map_or(cursor.clone(), |entry| cursor.field(entry)),
                Content::Array(items) => {
                    let index = token.parse().unwrap_or(usize::MAX);
                    items
                        .get(index)
                        .map_or(cursor.clone(), |item| cursor.item(index, item))
                }
                _ => cursor,
            }
        })
    }
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, name: &str) -> Option<Cursor<'n>> {
        self.entries
            .iter()
            .find(|entry| entry.key == name)
            .map(|entry| self.at.field(entry))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'n str, Cursor<'n>)> {
        self.entries
            .iter()
            .map(|entry| (entry.key.as_str(), self.at.field(entry)))
    }
}

impl Reader {
    /// Reports that the value at a place is wrong.
    pub(super) fn wrong(&mut self, at: &Cursor<'_>, message: impl Into<String>) {
        self.problems.error(at.place(), &at.pointer, message);
    }

    /// Reports that the name of a value is wrong.
    pub(super) fn wrong_name(&mut self, at: &Cursor<'_>, message: impl Into<String>) {
        self.problems.error(at.named_at, &at.pointer, message);
    }

    pub(super) fn doubtful(&mut self, at: &Cursor<'_>, message: impl Into<String>) {
        self.problems.warning(at.named_at, &at.pointer, message);
    }

    fn expected(&mut self, at: &Cursor<'_>, expected: &str) {
        let remedy = match at.node.content {
            Content::Bool(_) | Content::Number(_) if expected == "text" => "; put it in quotes",
            _ => "",
        };
        self.wrong(
            at,
            format!(
                "{} must be {expected}, found {}{remedy}",
                at.name(),
                at.node.kind()
            ),
        );
    }

    /// An object whose names are the author's own.
    pub(super) fn object<'n>(&mut self, at: &Cursor<'n>) -> Option<Fields<'n>> {
        match &at.node.content {
            Content::Object(entries) => Some(Fields {
                at: at.clone(),
                entries,
            }),
            _ => {
                self.expected(at, "an object");
                None
            }
        }
    }

    /// An object that may have the fields `allowed`.
    pub(super) fn fields<'n>(&mut self, at: &Cursor<'n>, allowed: &[&str]) -> Option<Fields<'n>> {
        let fields = self.object(at)?;
        for (name, field) in fields.iter() {
            self.refuse_unless_allowed(name, &field, allowed);
        }
        Some(fields)
    }

    fn refuse_unless_allowed(&mut self, name: &str, field: &Cursor<'_>, allowed: &[&str]) {
        if allowed.contains(&name) {
            return;
        }
        let nearest = muster_api::names::suggestion(name, allowed.iter().copied());
        let allowed = listed(allowed.iter().copied());
        self.wrong_name(
            field,
            format!("no such field {}; allowed are {allowed}{nearest}", quoted(name)),
        );
    }

    /// A field that must be there.
    pub(super) fn require<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Option<Cursor<'n>> {
        let field = fields.get(name);
        if field.is_none() {
            let owner = fields.at.name();
            self.wrong_name(&fields.at, format!("the field '{name}' of {owner} is missing"));
        }
        field
    }

    pub(super) fn items<'n>(&mut self, at: &Cursor<'n>) -> Option<Vec<Cursor<'n>>> {
        match &at.node.content {
            Content::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| at.item(index, item))
                    .collect(),
            ),
            _ => {
                self.expected(at, "a list");
                None
            }
        }
    }

    pub(super) fn text<'n>(&mut self, at: &Cursor<'n>) -> Option<&'n str> {
        match &at.node.content {
            Content::Text(text) => Some(text),
            _ => {
                self.expected(at, "text");
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, at: &Cursor<'_>) -> Option<bool> {
        match at.node.content {
            Content::Bool(value) => Some(value),
            _ => {
                self.expected(at, "true or false");
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&mut self, at: &Cursor<'_>, least: u64, most: u64) -> Option<u64> {
        let number = match &at.node.content {
            Content::Number(number) => number.as_u64().filter(|number| (least..=most).contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.expected(at, &format!("a whole number from {least} to {most}"));
        }
        number
    }

    /// The text of a field that may be left away.
    pub(super) fn optional_text(&mut self, fields: &Fields<'_>, name: &str) -> Option<String> {
        let field = fields.get(name)?;
        self.text(&field).map(str::to_owned)
    }
}
