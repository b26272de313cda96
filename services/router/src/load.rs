//! Load that an agent tells with an answer, between two heartbeats: pure.
//!
//! It is told as [ORCA](https://github.com/cncf/xds) has it, in its textual form (`TEXT application_utilization=0.5,
//! cpu_utilization=0.8`), which Envoy and the servers that report to it write. What cannot be read is as if it had not been said:
//! a header that somebody else writes must fail no call.

use muster_api::extension::LOAD_METADATA;
use tonic::metadata::MetadataMap;

/// Which of an agent's figures is its load: the first that it tells.
const FIGURES: [&str; 2] = ["application_utilization", "cpu_utilization"];

/// The load in these headers, from 0 to 1.
#[must_use]
pub fn told(headers: &MetadataMap) -> Option<f64> {
    let text = headers.get(LOAD_METADATA)?.to_str().ok()?;
    let figures = text.strip_prefix("TEXT")?;
    let value = |name: &str| {
        let mut pairs = figures.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
        let load: f64 = value.trim().parse().ok()?;
        // More than all there is, is all there is.
        (load >= 0.0).then(|| load.min(1.0))
    };
    FIGURES.into_iter().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Option<f64> {
        let mut headers = MetadataMap::new();
        headers.insert(LOAD_METADATA, text.parse().unwrap());
        told(&headers)
    }

    #[test]
    fn the_load_is_read_and_what_is_none_is_not_there() {
        for (text, load) in [
            ("TEXT application_utilization=0.25", Some(0.25)),
            (
                "TEXT cpu_utilization=0.5,application_utilization=0.75",
                Some(0.75),
            ),
            ("TEXT cpu_utilization=0.5, mem_utilization=0.1", Some(0.5)),
            ("TEXT application_utilization=1.5", Some(1.0)),
            ("TEXT application_utilization=-1", None),
            ("TEXT application_utilization=NaN", None),
            ("TEXT application_utilization", None),
            ("TEXT rps=5", None),
            ("JSON {\"cpu_utilization\": 0.5}", None),
            ("", None),
        ] {
            assert_eq!(of(text), load, "{text}");
        }
        assert_eq!(told(&MetadataMap::new()), None);
    }
}
