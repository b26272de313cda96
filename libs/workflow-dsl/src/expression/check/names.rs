//! What the names in an expression mean: variables, definitions and calls.

use jaq_core::load::parse::{Def, Term};
use muster_api::names::suggestion;

use super::{Function, Refusal, Walk, Walked, refuse};
use crate::expression::library::{ABSENT, Found};

impl<'s> Walk<'s, '_> {
    pub(super) fn variable(&mut self, name: &'s str) -> Result<Term<&'s str>, Refusal<'s>> {
        if name.contains("::") {
            return refuse(name, "there are no modules");
        }
        if !self.bound.contains(&name) {
            match name {
                "$ENV" => return refuse(name, "there is no $ENV: expressions cannot read the environment"),
                "$__loc__" | "$__prog_args" => return refuse(name, format!("there is no {name}")),
                _ => self.free.insert(name),
            };
        }
        Ok(Term::Var(name))
    }

    pub(super) fn definitions(
        &mut self,
        definitions: Vec<Def<&'s str>>,
        body: Term<&'s str>,
        level: u32,
    ) -> Walked<'s> {
        let functions = self.functions.len();
        let mut walked = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let (name, arity) = (definition.name, definition.args.len());
            let (definition, depth) = self.definition(definition, level)?;
            self.functions.push(Function { name, arity, depth });
            walked.push(definition);
        }
        let (body, depth) = self.term(body, level)?;
        self.functions.truncate(functions);
        Ok((Term::Def(walked, Box::new(body)), depth))
    }

    pub(super) fn definition(
        &mut self,
        definition: Def<&'s str>,
        level: u32,
    ) -> Result<(Def<&'s str>, u32), Refusal<'s>> {
        let Def { name, args, body } = definition;
        if !self.trusted && name.starts_with("__") {
            return refuse(name, "names that begin with '__' are reserved");
        }
        let (functions, bound) = (self.functions.len(), self.bound.len());
        for argument in &args {
            match argument.starts_with('$') {
                true => self.bound.push(argument),
                false => self.functions.push(Function {
                    name: argument,
                    arity: 0,
                    depth: 1,
                }),
            }
        }
        self.open.push((name, args.len()));
        let (body, depth) = self.term(body, level)?;
        self.open.pop();
        self.functions.truncate(functions);
        self.bound.truncate(bound);
        Ok((Def { name, args, body }, depth))
    }

    pub(super) fn call(&mut self, name: &'s str, arguments: Vec<Term<&'s str>>, level: u32) -> Walked<'s> {
        let depth = self.function(name, arguments.len())?;
        let mut deepest = 0;
        let mut walked = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let (argument, depth) = self.term(argument, level)?;
            deepest = deepest.max(depth);
            walked.push(argument);
        }
        Ok((
            Term::Call(name, walked),
            depth.saturating_add(deepest).saturating_add(1),
        ))
    }

    /// How deep calling the function nests, apart from its arguments.
    pub(super) fn function(&mut self, name: &'s str, arity: usize) -> Result<u32, Refusal<'s>> {
        let own = self
            .functions
            .iter()
            .rev()
            .find(|known| known.name == name && known.arity == arity);
        if self.open.contains(&(name, arity)) {
            if self.trusted {
                return Ok(1);
            }
            let message =
                format!("'{name}' calls itself; use 'recurse', 'walk', 'until', 'while' or 'reduce'");
            return refuse(name, message);
        }
        if let Some(known) = own {
            return Ok(known.depth);
        }
        if name.contains("::") {
            return refuse(name, "there are no modules");
        }
        let reserved = !self.trusted && name.starts_with("__");
        match self.library.find(name, arity) {
            Some(Found::Definition(position)) if !reserved => {
                let entry = &self.library.entries[position];
                self.needs.definitions.insert(position);
                self.needs.extend(&entry.needs);
                self.recursive |= entry.recursive;
                Ok(entry.depth)
            }
            Some(Found::Native(position)) if !reserved => {
                self.needs.natives.insert(position);
                Ok(1)
            }
            _ => refuse(name, self.unknown(name, arity)),
        }
    }

    pub(super) fn unknown(&self, name: &str, arity: usize) -> String {
        if let Some((_, reason)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
            return format!("there is no '{name}': {reason}");
        }
        let arities = self.library.arities(name);
        if !arities.is_empty() && !name.starts_with("__") {
            let known: Vec<String> = arities.iter().map(ToString::to_string).collect();
            return format!("'{name}' takes {} arguments, not {arity}", known.join(" or "));
        }
        let mut known: Vec<&str> = self.library.names().collect();
        known.extend(self.functions.iter().map(|function| function.name));
        format!("there is no function '{name}'{}", suggestion(name, known))
    }
}
