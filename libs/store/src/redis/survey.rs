//! What Redis says of itself, as far as it may lose what it has acknowledged.

use redis::{Value, cmd};

use super::{Connection, Error};

/// The oldest version that is supported: scripts need its flags.
const OLDEST: u32 = 7;

/// Values of `appendfsync` with which an answer comes before the disk has it.
const SYNCS_LATE: [&str; 2] = ["everysec", "no"];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Version of each node.
    pub versions: Vec<String>,
    /// What may lose acknowledged work, each with what to do.
    pub risks: Vec<String>,
}

impl Survey {
    /// A version that is too old, if there is one.
    #[must_use]
    pub fn too_old(&self) -> Option<&str> {
        let major = |version: &&String| {
            version
                .split('.')
                .next()
                .and_then(|part| part.parse::<u32>().ok())
        };
        let old = self
            .versions
            .iter()
            .find(|version| major(version).is_some_and(|major| major < OLDEST));
        old.map(String::as_str)
    }

    fn read(information: &str, syncs_late: bool) -> Self {
        let all = |name: &str| -> Vec<&str> {
            let lines = information.lines().filter_map(|line| line.split_once(':'));
            lines
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
                .collect()
        };
        let mut risks = Vec::new();
        let aof = all("aof_enabled");
        if aof.iter().any(|value| *value != "1") {
            risks.push("'appendonly' is off: a restart of Redis loses what came after its last snapshot; set 'appendonly yes'".to_owned());
        } else if aof.is_empty() {
            risks.push("whether 'appendonly' is on cannot be read; without it a restart of Redis loses acknowledged work".to_owned());
        } else if syncs_late {
            risks.push("'appendfsync' is not 'always': when its machine fails, Redis loses about the last second of acknowledged work".to_owned());
        }
        if let Some(policy) = all("maxmemory_policy")
            .iter()
            .find(|policy| **policy != "noeviction")
        {
            risks.push(format!("'maxmemory-policy' is '{policy}': a full Redis throws data away without a word; set 'noeviction'"));
        }
        Self {
            versions: all("redis_version").into_iter().map(str::to_owned).collect(),
            risks,
        }
    }
}

impl Connection {
    /// Asks Redis, all nodes of a Cluster, for its version and its durability. What must not be read counts as unknown.
    ///
    /// # Errors
    /// Redis is not there, or does not answer `INFO`.
    pub async fn survey(&self) -> Result<Survey, Error> {
        let mut information = String::new();
        collect(&self.run::<Value>(&cmd("INFO")).await?, &mut information);
        let mut settings = String::new();
        let asked = self
            .run::<Value>(cmd("CONFIG").arg("GET").arg("appendfsync"))
            .await;
        if let Ok(value) = asked {
            collect(&value, &mut settings);
        }
        let syncs_late = settings.lines().any(|line| SYNCS_LATE.contains(&line));
        Ok(Survey::read(&information, syncs_late))
    }
}

/// All texts in an answer, one a line; a Cluster answers with one value for each node.
fn collect(value: &Value, lines: &mut String) {
    match value {
        Value::BulkString(bytes) => {
            lines.push_str(&String::from_utf8_lossy(bytes));
            lines.push('\n');
        }
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            lines.push_str(text);
            lines.push('\n');
        }
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| collect(value, lines)),
        Value::Map(entries) => {
            for (key, value) in entries {
                collect(key, lines);
                collect(value, lines);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_lose_work_is_named() {
        let good = "redis_version:7.0.15\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let survey = Survey::read(good, false);
        assert_eq!(
            (survey.risks, survey.versions),
            (vec![], vec!["7.0.15".to_owned()])
        );
        assert_eq!(Survey::read(good, true).risks.len(), 1);
        let bad = "redis_version:6.2.1\r\naof_enabled:0\r\nmaxmemory_policy:allkeys-lru\r\n";
        let survey = Survey::read(&format!("{good}{bad}"), false);
        assert_eq!((survey.risks.len(), survey.too_old()), (2, Some("6.2.1")));
    }
}
