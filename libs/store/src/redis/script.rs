//! Scripts and their calls.

use std::sync::OnceLock;

use redis::{Cmd, cmd};

/// What gives a script the function `server()`.
const SERVER: &str = include_str!("server.lua");

/// A script of ours. Kept in a static, so that its hash is computed once.
#[derive(Debug)]
pub struct Script {
    source: &'static str,
    /// What comes behind its first line.
    prelude: &'static str,
    made: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    text: String,
    hash: String,
}

impl Script {
    /// From its text.
    #[must_use]
    pub const fn new(source: &'static str) -> Self {
        Self {
            source,
            prelude: "",
            made: OnceLock::new(),
        }
    }

    /// From its text, which begins with `#!lua` and may call `server()`: it says which server answers, and which life of it. Another
    /// one may be behind what the one before has acknowledged.
    #[must_use]
    pub const fn knowing_the_server(source: &'static str) -> Self {
        Self {
            source,
            prelude: SERVER,
            made: OnceLock::new(),
        }
    }

    /// Begins a call.
    #[must_use]
    pub fn call(&'static self) -> Call {
        Call {
            script: self,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Whether it may write what needs room: what a full Redis refuses.
    fn grows(&self) -> bool {
        self.source.starts_with("#!lua\n")
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let (first, rest) = self.source.split_once('\n').unwrap_or((self.source, ""));
            let text = format!("{first}\n{}{rest}", self.prelude);
            Made {
                hash: redis::Script::new(&text).get_hash().to_owned(),
                text,
            }
        })
    }
}

/// A call of a script: its keys, all in one slot, and its arguments.
#[derive(Debug, Clone)]
pub struct Call {
    script: &'static Script,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.push(argument);
        self
    }

    /// Adds a number as an argument, in decimal.
    #[must_use]
    pub fn number(mut self, number: impl Into<i128>) -> Self {
        self.push_number(number);
        self
    }

    /// Adds an argument.
    pub fn push(&mut self, argument: impl Into<Vec<u8>>) {
        self.arguments.push(argument.into());
    }

    /// Adds a number as an argument, in decimal.
    pub fn push_number(&mut self, number: impl Into<i128>) {
        self.push(number.into().to_string());
    }

    /// Size of what is sent, without what frames it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.keys.iter().chain(&self.arguments).map(Vec::len).sum()
    }

    pub(super) fn grows(&self) -> bool {
        self.script.grows()
    }

    /// The call by hash.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.made().hash)
    }

    /// The call with the script in full, which also makes it known.
    pub(super) fn in_full(&self) -> Cmd {
        self.command("EVAL", &self.script.made().text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(self.keys.len());
        for part in self.keys.iter().chain(&self.arguments) {
            command.arg(part.as_slice());
        }
        command
    }
}
