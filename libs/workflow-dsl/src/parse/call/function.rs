//! Calls of functions of one's own.

use crate::document::{Call, FunctionCall};
use crate::node::Content;
use crate::parse::cursor::{Cursor, Fields};
use crate::parse::{Reader, embedded};
use crate::problem::{listed, quoted};

impl Reader {
    /// A call of something that is no function of the language.
    pub(super) fn own_function(
        &mut self,
        function: &Cursor<'_>,
        name: &str,
        fields: &Fields<'_>,
    ) -> Option<Call> {
        let known = self.reusable.functions.names.iter().any(|known| known == name);
        if !known && !self.external_function(function, name)? {
            self.wrong(function, self.refusal(name));
            return None;
        }
        self.reusable.note_use("functions", name);
        let arguments = match fields.get("with") {
            None => None,
            Some(with) => match &with.node.content {
                Content::Object(_) => Some(self.template(&with)?),
                Content::Text(text) => {
                    if embedded(text).is_none() && !self.loose {
                        let message = format!(
                            "the arguments of a function are an object; its input is the text {} here",
                            quoted(text)
                        );
                        self.doubtful(&with, message);
                    }
                    Some(self.template(&with)?)
                }
                _ => {
                    let found = with.node.kind();
                    self.wrong(
                        &with,
                        format!("the arguments are an object, or an expression; found {found}"),
                    );
                    return None;
                }
            },
        };
        Some(Call::Function(FunctionCall {
            function: name.to_owned(),
            arguments,
        }))
    }

    fn refusal(&self, name: &str) -> String {
        let own = self.reusable.functions.names.iter().map(String::as_str);
        let known: Vec<&str> = super::FUNCTIONS.into_iter().chain(own).collect();
        let nearest = muster_api::names::suggestion(name, known.iter().copied());
        format!(
            "no such function {}; there are {}, and those that 'use.functions' defines, NAME:VERSION@CATALOG and addresses{nearest}",
            quoted(name),
            listed(known.iter().copied())
        )
    }
}
