//! Traces as examples of what a histogram counts, in the text format of OpenMetrics.
//!
//! The exporter writes the older text format, which has no exemplars. What differs is little: a counter is described without
//! its `_total`, the text ends with `# EOF`, and a bucket may have an example at its end. So the exporter's text is
//! taken and that much is changed; only requests that are traced cost anything here.
//!
//! Rejected: an exporter of our own, for one line in a bucket.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::trace::TraceId;

/// Buckets with an example, at most: there are never more than series, which are bounded; this bounds a defect.
const MOST: usize = 10_000;

/// The last example of every bucket that has one.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    /// By how the bucket's line begins.
    buckets: Mutex<HashMap<String, Exemplar>>,
}

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace: TraceId,
    value: f64,
    at: Timestamp,
}

impl Exemplars {
    /// The bucket of `value` has an example.
    pub(super) fn put(
        &self,
        name: &str,
        labels: &[(&'static str, &str)],
        buckets: &[f64],
        value: f64,
        trace: TraceId,
        at: Timestamp,
    ) {
        let bound = buckets.iter().find(|bound| value <= **bound);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let mut line = format!("{name}_bucket{{");
        for (label, value) in labels {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            // Writing to a string cannot fail.
            let _ = write!(line, "{label}=\"{value}\",");
        }
        let _ = write!(line, "le=\"{bound}\"}}");
        let mut known = self.buckets.lock();
        if known.len() < MOST || known.contains_key(&line) {
            known.insert(line, Exemplar { trace, value, at });
        }
    }

    /// The exporter's text as OpenMetrics.
    pub(super) fn add_to(&self, text: &str) -> String {
        let known = self.buckets.lock();
        let mut open = String::with_capacity(text.len() + text.len() / 8);
        let counters: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
            .collect();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ") {
                Some(about) => describe(&mut open, about, &counters),
                None => open.push_str(line),
            }
            let bucket = line.rsplit_once(' ').map(|(bucket, _)| bucket);
            if let Some(exemplar) = bucket.and_then(|bucket| known.get(bucket)) {
                let Exemplar { trace, value, at } = exemplar;
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "milliseconds since 1970 fit a double's 53 bits"
                )]
                let seconds = at.as_millisecond() as f64 / 1_000.0;
                let _ = write!(open, " # {{trace_id=\"{trace}\"}} {value} {seconds}");
            }
            open.push('\n');
        }
        open.push_str("# EOF\n");
        open
    }
}

/// `HELP name …` or `TYPE name …`, with a counter's name as OpenMetrics has it.
fn describe(open: &mut String, about: &str, counters: &[&str]) {
    let mut words = about.splitn(3, ' ');
    let (what, name, rest) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let name = match name.strip_suffix("_total") {
        Some(family) if counters.contains(&name) => family,
        _ => name,
    };
    let _ = write!(open, "# {what} {name} {rest}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Definition, Kind, Metrics};

    #[test]
    fn a_bucket_has_its_example_and_the_text_is_open_metrics() {
        const MINE: &[Definition] = &[
            Definition {
                name: "took_seconds",
                kind: Kind::Histogram(&[0.5, 1.0]),
                help: "How long.",
            },
            Definition {
                name: "things_total",
                kind: Kind::Counter,
                help: "Things.",
            },
        ];
        let metrics = Metrics::new(MINE).unwrap();
        metrics.counter("things_total", &[]).increment(1);
        for (value, trace) in [(0.7, 1_u8), (7.0, 2)] {
            metrics
                .histogram("took_seconds", &[("kind", "a\"b".to_owned())])
                .record(value);
            let trace = TraceId::from_bytes([trace; 16]);
            metrics.exemplify(
                "took_seconds",
                &[("kind", "a\"b")],
                value,
                trace,
                Timestamp::UNIX_EPOCH,
            );
        }
        let text = metrics.render_open();
        for expected in [
            r#"took_seconds_bucket{kind="a\"b",le="0.5"} 0"#.to_owned() + "\n",
            format!(
                "{} # {{trace_id=\"{}\"}} 0.7 0\n",
                r#"took_seconds_bucket{kind="a\"b",le="1"} 1"#,
                "01".repeat(16)
            ),
            format!(
                "{} # {{trace_id=\"{}\"}} 7 0\n",
                r#"took_seconds_bucket{kind="a\"b",le="+Inf"} 2"#,
                "02".repeat(16)
            ),
            "# TYPE things counter\n".to_owned(),
            "things_total 1\n".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
