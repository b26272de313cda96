//! Which agents have which skill.
//!
//! An agent is listed under a skill exactly as long as it counts at least one instance with it; [`Skills`] keeps the list and
//! the agent's counts in step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Skills {
    agents: BTreeMap<String, BTreeSet<Arc<str>>>,
}

impl Skills {
    /// The agents that have a skill; `None` when nobody has it.
    pub(super) fn agents(&self, skill: &str) -> Option<&BTreeSet<Arc<str>>> {
        self.agents.get(skill)
    }

    /// All skills.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(String::as_str)
    }

    /// One more instance of the agent has these skills.
    pub(super) fn gain(
        &mut self,
        counts: &mut BTreeMap<String, usize>,
        skills: &BTreeSet<String>,
        agent: &Arc<str>,
    ) {
        for skill in skills {
            match counts.get_mut(skill) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(skill.clone(), 1);
                    let agents = self.agents.entry(skill.clone()).or_default();
                    agents.insert(Arc::clone(agent));
                }
            }
        }
    }

    /// One instance of the agent less has these skills.
    pub(super) fn lose(
        &mut self,
        counts: &mut BTreeMap<String, usize>,
        skills: &BTreeSet<String>,
        agent: &str,
    ) {
        for skill in skills {
            match counts.get_mut(skill) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    counts.remove(skill);
                    self.remove(skill, agent);
                }
            }
        }
    }

    /// The agent does not have the skill any more.
    pub(super) fn remove(&mut self, skill: &str, agent: &str) {
        if let Some(agents) = self.agents.get_mut(skill) {
            agents.remove(agent);
            if agents.is_empty() {
                self.agents.remove(skill);
            }
        }
    }
}
