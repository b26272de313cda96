//! Paths of rules: literals and variables of one segment each, such as `/v1/runs/{run_id}:cancel`.
//!
//! A raw `:` in the last segment begins the verb; in a value it is written `%3A`. So `/v1/runs/{run_id}` never takes
//! `x:cancel` for a run's id.

use percent_encoding::percent_decode_str;

/// A path with variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    text: String,
    segments: Vec<Segment>,
    verb: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// The path of a field of the request, such as `instance.agent_id`.
    Variable(String),
}

impl Template {
    /// Reads a path; the error says what about it is not served.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("the path '{text}' {why}"));
        let Some(rest) = text.strip_prefix('/') else {
            return refused("does not begin with '/'");
        };
        let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, verb) = match rest[last_slash..].find(':') {
            Some(at) => (
                &rest[..last_slash + at],
                Some(rest[last_slash + at + 1..].to_owned()),
            ),
            None => (rest, None),
        };
        let mut segments = Vec::new();
        for segment in path.split('/') {
            match segment
                .strip_prefix('{')
                .and_then(|inner| inner.strip_suffix('}'))
            {
                _ if segment.is_empty() => return refused("has an empty segment"),
                Some(field) if !field.contains(['=', '*', '{', '}']) => {
                    segments.push(Segment::Variable(field.to_owned()));
                }
                None if !segment.contains(['*', '{', '}']) => {
                    segments.push(Segment::Literal(segment.to_owned()));
                }
                _ => return refused("has a wildcard; a variable is one segment, such as '{run_id}'"),
            }
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
            verb,
        })
    }

    /// The path as it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How many segments are fixed: more is more specific.
    pub(super) fn literals(&self) -> usize {
        let fixed = |segment: &&Segment| matches!(segment, Segment::Literal(_));
        self.segments.iter().filter(fixed).count()
    }

    /// The fields that the path sets.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(field) => Some(field.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The values of the variables, decoded; nothing when the path is another.
    pub(super) fn matches(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let mut path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |at| at + 1);
        match (path[last..].find(':'), &self.verb) {
            (None, None) => {}
            (Some(at), Some(verb)) if path[last + at + 1..] == **verb => path = &path[..last + at],
            _ => return None,
        }
        let mut variables = Vec::new();
        let mut segments = path.split('/');
        for expected in &self.segments {
            let actual = percent_decode_str(segments.next()?).decode_utf8().ok()?;
            match expected {
                Segment::Literal(literal) if *literal == actual => {}
                Segment::Variable(field) if !actual.is_empty() => {
                    variables.push((field.as_str(), actual.into_owned()));
                }
                _ => return None,
            }
        }
        segments.next().is_none().then_some(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<String>> {
        let template = Template::parse(template).unwrap();
        let values = template.matches(path)?;
        Some(values.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn literals_variables_and_verbs_match() {
        assert_eq!(values("/v1/runs", "/v1/runs"), Some(vec![]));
        assert_eq!(
            values("/v1/runs/{run_id}", "/v1/runs/a%2Fb%3Ac"),
            Some(vec!["a/b:c".to_owned()])
        );
        assert_eq!(
            values("/v1/runs/{run_id}:cancel", "/v1/runs/7:cancel"),
            Some(vec!["7".to_owned()])
        );
        assert_eq!(values("/v1/agents:watch", "/v1/agents:watch"), Some(vec![]));
        assert_eq!(
            values("/v1/runs/{run_id}/history", "/v1/runs/7/history"),
            Some(vec!["7".to_owned()])
        );
    }

    #[test]
    fn other_paths_do_not() {
        for path in [
            "/v1/runs/",
            "/v1/runs/7:cancel",
            "/v1/runs/7/",
            "/v1/runs/7/x",
            "/v1/other/7",
            "v1/runs/7",
            "/v1/runs/%FF",
        ] {
            assert_eq!(values("/v1/runs/{run_id}", path), None, "{path}");
        }
        for path in ["/v1/runs/7", "/v1/runs/7:pause", "/v1/runs/:cancel"] {
            assert_eq!(values("/v1/runs/{run_id}:cancel", path), None, "{path}");
        }
    }

    #[test]
    fn wildcards_are_refused_by_name() {
        for text in ["v1", "/v1/*", "/v1/{name=runs/*}", "/v1//x", "/v1/{a}{b}"] {
            assert!(Template::parse(text).unwrap_err().contains(text), "{text}");
        }
    }
}
