//! Searches, one after the other.

use hdrhistogram::Histogram;
use muster_api::registry::{DiscoverRequest, SortOrder};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{Arguments, Client, number, refused};
use crate::failure::Failure;

/// Skills that many agents share.
pub const COMMON: u32 = 10;

/// One kind of search, measured.
pub struct Search {
    name: &'static str,
    times: Histogram<u64>,
    found: usize,
}

impl Search {
    fn micros(&self, quantile: f64) -> f64 {
        number(self.times.value_at_quantile(quantile)) / 1e3
    }

    pub fn json(&self) -> Value {
        json!({
            "search": self.name,
            "p50Micros": self.micros(0.5),
            "p99Micros": self.micros(0.99),
            "maxMicros": number(self.times.max()) / 1e3,
            "found": self.found,
        })
    }

    pub fn row(&self) -> [String; 5] {
        [
            self.name.to_owned(),
            format!("{:.0} µs", self.micros(0.5)),
            format!("{:.0} µs", self.micros(0.99)),
            format!("{:.0} µs", number(self.times.max()) / 1e3),
            self.found.to_string(),
        ]
    }
}

type Ask = fn(u32) -> DiscoverRequest;

/// Makes every kind of search.
pub async fn all(client: &Client, arguments: &Arguments) -> Result<Vec<Search>, Failure> {
    let kinds: [(&'static str, Ask); 7] = [
        ("an agent's own skill", |n| ask(&format!("own-{n}"))),
        ("a skill of a tenth", |n| ask(&format!("common-{}", n % COMMON))),
        ("a skill of all", |_| ask("everything")),
        ("no filter", |_| DiscoverRequest {
            page_size: 10,
            ..Default::default()
        }),
        ("a skill of all, by latency", |_| DiscoverRequest {
            sort: SortOrder::Latency.into(),
            ..ask("everything")
        }),
        ("a tag and a word", |n| DiscoverRequest {
            tags: vec![format!("tag-{}", n % 100)],
            text: "questions".to_owned(),
            page_size: 10,
            ..Default::default()
        }),
        ("a skill nobody has", |_| ask("everythink")),
    ];
    let mut searches = Vec::new();
    for (name, make) in kinds {
        searches.push(search(client, arguments, name, make).await?);
    }
    Ok(searches)
}

fn ask(skill: &str) -> DiscoverRequest {
    DiscoverRequest {
        skills: vec![skill.to_owned()],
        page_size: 10,
        ..DiscoverRequest::default()
    }
}

async fn search(
    client: &Client,
    arguments: &Arguments,
    name: &'static str,
    make: Ask,
) -> Result<Search, Failure> {
    let clock = SystemClock::default();
    let mut client = client.clone();
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let mut times = Histogram::new(3).map_err(|error| failed(&error))?;
    let mut found = 0;
    for number in 0..arguments.searches {
        // Spread over all agents.
        let request = make(number.wrapping_mul(7_919) % arguments.agents);
        let began = clock.monotonic();
        let answer = client
            .discover(request)
            .await
            .map_err(|status| refused(&status))?;
        let took = clock.monotonic().saturating_sub(began);
        found = answer.into_inner().instances.len();
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        times.record(nanoseconds).map_err(|error| failed(&error))?;
    }
    Ok(Search { name, times, found })
}
