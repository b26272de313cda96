//! Workflows by chance.
//!
//! How one ends follows from its input, the seed and its events, and not from how long anything takes: what may be late only
//! because of a crash is never raced with something that is near. So a crash-free life can say what every other must come to.

use super::chance::Chance;

/// Workflows that others run, of the namespace `a`.
pub(crate) const CHILDREN: usize = 2;

/// Deepest nesting of tasks.
const DEEPEST: u32 = 2;

/// How long documents take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Hours.
    Unhurried,
    /// Minutes.
    Brisk,
}

impl Pace {
    fn waits(self) -> [&'static str; 4] {
        match self {
            Self::Unhurried => ["PT1S", "PT7S", "PT2M", "PT1H"],
            Self::Brisk => ["PT1S", "PT7S", "PT20S", "PT2M"],
        }
    }

    /// What is never reached beside something that is near.
    fn far(self) -> &'static str {
        match self {
            Self::Unhurried => "PT12H",
            Self::Brisk => "PT10M",
        }
    }

    fn deadline(self) -> &'static str {
        match self {
            Self::Unhurried => "deadline: PT2H, escalate: {after: PT1H, to: [boss]}",
            Self::Brisk => "deadline: PT4M, escalate: {after: PT2M, to: [boss]}",
        }
    }
}

/// A document in the making.
pub(crate) struct Writer<'c> {
    chance: &'c mut Chance,
    /// Makes names of events its own.
    name: String,
    /// Whether it runs others.
    may_run: bool,
    pace: Pace,
    /// The event that people send it.
    pub(crate) awaits: Option<String>,
    listens: bool,
}

impl<'c> Writer<'c> {
    pub(crate) fn new(chance: &'c mut Chance, name: &str, may_run: bool, pace: Pace) -> Self {
        Self {
            chance,
            name: name.to_owned(),
            may_run,
            pace,
            awaits: None,
            listens: false,
        }
    }

    /// The whole text.
    pub(crate) fn document(&mut self, namespace: &str, policy: &str) -> String {
        let count = self.chance.within(1..=4);
        let tasks: String = (0..count)
            .map(|index| format!("  - t{index}: {}\n", self.task(0)))
            .collect();
        let name = &self.name;
        format!(
            "document: {{dsl: '1.0.0', namespace: {namespace}, name: {name}, version: '1.0.0', metadata: {{muster: {{{policy}}}}}}}\ndo:\n{tasks}"
        )
    }

    fn list(&mut self, depth: u32) -> String {
        let count = self.chance.within(1..=3);
        let tasks: Vec<String> = (0..count)
            .map(|index| format!("{{s{index}: {}}}", self.task(depth + 1)))
            .collect();
        format!("[{}]", tasks.join(", "))
    }

    fn task(&mut self, depth: u32) -> String {
        let kinds = if depth < DEEPEST { 21 } else { 13 };
        match self.chance.within(0..=kinds) {
            0 | 1 => "{set: {n: '${ (.n? // 0) + 1 }'}}".to_owned(),
            2..=4 => self.call(""),
            5 => self.wait(),
            6 => self
                .call(", timeout: {after: PT20S}")
                .replace("steady", "silent")
                .replace("flaky", "silent"),
            7 => self.approval(),
            8 => self.compensated(),
            9 => "{switch: [{small: {when: '(.n? // 0) < 3', then: continue}}, {large: {then: exit}}]}"
                .to_owned(),
            10 => self.child(),
            11 => self.emit(),
            // Where it is repeated, it would wait for another event.
            12 if depth == 0 => self.listen(),
            12 => self.wait(),
            13 => {
                if self.chance.percent(40) {
                    "{raise: {error: {type: 'about:blank', status: 500}}}".to_owned()
                } else {
                    self.call("")
                }
            }
            14 => format!("{{do: {}}}", self.list(depth)),
            15 => {
                let count = self.chance.within(1..=3);
                format!(
                    "{{for: {{each: item, in: '[range({count})]'}}, do: {}}}",
                    self.list(depth)
                )
            }
            16 | 17 => format!(
                "{{fork: {{branches: {}}}, output: {{as: '{{n: length}}'}}}}",
                self.list(depth)
            ),
            18 => format!(
                "{{fork: {{compete: true, branches: [{{near: {}}}, {{far: {{wait: {}}}}}]}}, output: {{as: '{{n: (.n? // 0)}}'}}}}",
                self.call("")
                    .replace("flaky", "steady")
                    .replace("silent", "steady"),
                self.pace.far()
            ),
            19 => self.exchange(),
            _ => self.guarded(depth),
        }
    }

    fn agent(&mut self) -> &'static str {
        match self.chance.within(0..=9) {
            0 | 1 => "flaky",
            2 => "silent",
            _ => "steady",
        }
    }

    fn call(&mut self, more: &str) -> String {
        let agent = self.agent();
        format!(
            "{{call: a2a, with: {{server: 'agent://{agent}', method: message/send, parameters: {{message: {{parts: [{{data: {{n: '${{ .n? // 0 }}'}}}}]}}}}}}, output: {{as: '{{n: (.n? // 0)}}'}}{more}}}"
        )
    }

    fn wait(&mut self) -> String {
        let time = *self.chance.pick(&self.pace.waits());
        format!("{{wait: {time}}}")
    }

    fn approval(&mut self) -> String {
        let deadline = self.pace.deadline();
        let gate =
            format!(", metadata: {{muster: {{approval: {{title: 'go on', assignees: [ada], {deadline}}}}}}}");
        self.call(&gate).replace("silent", "steady")
    }

    fn compensated(&mut self) -> String {
        let undo = self.call("").replace("silent", "steady");
        self.call(&format!(", metadata: {{muster: {{compensation: {undo}}}}}"))
            .replace("agent://silent", "agent://steady")
    }

    fn child(&mut self) -> String {
        if !self.may_run {
            return self.call("");
        }
        let last = CHILDREN as u64 - 1;
        let (child, awaited) = (self.chance.within(0..=last), self.chance.percent(70));
        format!(
            "{{run: {{workflow: {{namespace: a, name: child-{child}, version: '1.0.0', input: {{n: '${{ .n? // 0 }}'}}}}, await: {awaited}}}, output: {{as: '{{n: (.n? // 0)}}'}}}}"
        )
    }

    fn emit(&mut self) -> String {
        let name = &self.name;
        format!(
            "{{emit: {{event: {{with: {{source: /sim, type: 'made-{name}', data: {{n: '${{ .n? // 0 }}'}}}}}}}}, output: {{as: .data}}}}"
        )
    }

    /// Events are heard from the place on where the last one was; so only one task of a document listens.
    fn listen(&mut self) -> String {
        if std::mem::replace(&mut self.listens, true) || !self.may_run {
            return self.wait();
        }
        let kind = format!("go-{}", self.name);
        let listen = format!(
            "{{listen: {{to: {{one: {{with: {{type: '{kind}'}}}}}}}}, output: {{as: '{{n: length}}'}}}}"
        );
        self.awaits = Some(kind);
        listen
    }

    /// One branch tells the other.
    fn exchange(&mut self) -> String {
        if std::mem::replace(&mut self.listens, true) || !self.may_run {
            return self.emit();
        }
        let name = &self.name;
        let wait = self.chance.pick(&["PT1S", "PT30S"]);
        format!(
            "{{fork: {{branches: [{{hear: {{listen: {{to: {{one: {{with: {{type: 'told-{name}'}}}}}}}}}}}}, {{tell: {{do: [{{rest: {{wait: {wait}}}}}, {{say: {{emit: {{event: {{with: {{source: /sim, type: 'told-{name}', data: 1}}}}}}}}}}]}}}}]}}, output: {{as: '{{n: length}}'}}}}"
        )
    }

    fn guarded(&mut self, depth: u32) -> String {
        let list = self.list(depth);
        let catch = *self.chance.pick(&[
            "{}",
            "{do: [{caught: {set: {n: 7}}}]}",
            "{retry: {delay: PT1S, backoff: {exponential: {}}, limit: {attempt: {count: 3}}}, do: [{caught: {set: {n: 8}}}]}",
            "{retry: {delay: PT10S, jitter: {from: PT0S, to: PT5S}, limit: {attempt: {count: 2}}}}",
        ]);
        format!("{{try: {list}, catch: {catch}}}")
    }
}
