//! The agent as its callers see it: a real server on port 0, JSON-RPC in, results out, checked against the files.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as the tests do"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_agent_weather::{config, run};
use muster_runtime::{Error, Listeners, Shutdown};
use muster_testkit::http::{Method, get, send};
use muster_testkit::wait_for;
use proptest::strategy::{Strategy as _, ValueTree as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const DAILY: &str = include_str!("../data/weather-seattle-newyork-2012-2015.csv");

struct Agent {
    address: SocketAddr,
    shutdown: Shutdown,
    served: JoinSet<Result<(), Error>>,
}

impl Agent {
    async fn start() -> Self {
        let mut config = config();
        config.agent.registry_url = "http://127.0.0.1:1".to_owned();
        config.agent.data_directory = std::path::PathBuf::new();
        let listeners = Listeners::ephemeral().unwrap();
        let (address, health) = (listeners.data_address(), listeners.health_address());
        let shutdown = Shutdown::new();
        let mut served = JoinSet::new();
        served.spawn(run(config, listeners, shutdown.clone()));
        wait_for("the agent to be ready", Duration::from_secs(20), async || {
            get(health, "/ready")
                .await
                .is_ok_and(|ready| ready.status.is_success())
        })
        .await;
        Self {
            address,
            shutdown,
            served,
        }
    }

    async fn stop(mut self) {
        self.shutdown.trigger();
        self.served.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Sends one part to a skill and gives the task.
    async fn ask(&self, skill: &str, part: Value) -> Value {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let id = format!("m-{}", ASKED.fetch_add(1, Ordering::Relaxed));
        let params = json!({ "message": {
            "messageId": id, "role": "ROLE_USER", "parts": [part], "metadata": { "skill": skill },
        } });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params });
        let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
        let body = call.to_string().into_bytes().into();
        let answer = send(self.address, Method::POST, "/", &headers, body)
            .await
            .unwrap()
            .json();
        answer["result"]["task"].clone()
    }

    /// The structured result of a completed task.
    async fn result(&self, skill: &str, part: Value) -> Value {
        let task = self.ask(skill, part).await;
        assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
        assert_eq!(task["artifacts"][0]["name"], "result");
        let mut result = task["artifacts"][0]["parts"][0]["data"].clone();
        let summary = &task["artifacts"][0]["parts"][1]["text"];
        assert_eq!(&result["summary"], summary);
        assert_eq!(&task["status"]["message"]["parts"][0]["text"], summary);
        muster_api::json::restore_integers(&mut result);
        result
    }

    /// What a rejected task says.
    async fn refusal(&self, skill: &str, part: Value) -> String {
        let task = self.ask(skill, part).await;
        assert_eq!(task["status"]["state"], "TASK_STATE_REJECTED", "{task}");
        task["status"]["message"]["parts"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

/// Rows of the file: city, date, precipitation, highest, lowest, wind, kind.
fn rows() -> Vec<Vec<&'static str>> {
    DAILY
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect())
        .collect()
}

fn number(text: &str) -> f64 {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_range_in_the_archive_is_answered_with_its_observations() {
    let agent = Agent::start().await;
    let result = agent
        .result(
            "weather_forecasting",
            json!({ "text": "Seattle 2014-03-01 to 2014-03-05" }),
        )
        .await;
    let days = result["days"].as_array().unwrap();
    let rain: Vec<f64> = days
        .iter()
        .map(|day| day["precipitation_mm"].as_f64().unwrap())
        .collect();
    assert_eq!(rain, [0.5, 19.1, 10.7, 16.5, 46.7]);
    assert_eq!(
        days[0],
        json!({
            "date": "2014-03-01", "city": "Seattle", "precipitation_mm": 0.5, "temp_max_c": 7.2, "temp_min_c": 4.4,
            "wind_m_s": 4.7, "condition": "rain", "rainy": true, "basis": "observed",
        })
    );
    assert_eq!(result["rainy_dates"].as_array().unwrap().len(), 5);
    assert_eq!(result["source"]["basis"], "observed");
    assert!(
        result["source"]["age_days"].as_i64().unwrap() > 3_000,
        "the archive is years old and says so"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_range_beyond_the_archive_is_answered_with_the_climate_and_says_so() {
    let agent = Agent::start().await;
    let part = json!({ "data": { "city": "new york", "from": "2015-12-30", "to": "2016-01-02" } });
    let result = agent.result("weather_forecasting", part).await;
    let bases: Vec<&str> = result["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["basis"].as_str().unwrap())
        .collect();
    assert_eq!(bases, ["observed", "observed", "climatology", "climatology"]);
    let last = &result["days"][3];
    assert!(
        (0.0..=1.0).contains(&last["rain_probability"].as_f64().unwrap()),
        "{last}"
    );
    assert_eq!(last["samples"], 28);
    assert_eq!(result["source"]["basis"], "mixed");
    assert!(
        result["source"]["note"]
            .as_str()
            .unwrap()
            .contains("not a forecast")
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_day_and_an_hour_are_looked_up() {
    let agent = Agent::start().await;
    let part = json!({ "data": { "city": "Seattle", "date": "2014-03-14", "time": "14:30" } });
    let result = agent.result("current_weather_lookup", part).await;
    assert_eq!(result["days"].as_array().unwrap().len(), 1);
    assert_eq!(result["hours"][0]["normal"]["hour"], 14);
    assert!(
        result["hours"][0]["normal"]["temperature_c"].as_f64().unwrap() > 0.0,
        "{result}"
    );
    let newest = agent
        .result("current_weather_lookup", json!({ "text": "How is New York?" }))
        .await;
    assert_eq!(newest["days"][0]["date"], "2015-12-31");
    let part = json!({ "data": { "city": "New York", "date": "2014-03-14", "time": "14:00" } });
    let refusal = agent.refusal("current_weather_lookup", part).await;
    assert!(refusal.starts_with("time:"), "{refusal}");
    agent.stop().await;
}

#[tokio::test]
async fn alerts_are_the_days_beyond_the_thresholds() {
    let agent = Agent::start().await;
    let part = json!({ "data": {
        "city": "New York", "from": "2012-01-01", "to": "2012-12-31", "thresholds": { "precipitation_mm": 20 }
    } });
    let result = agent.result("weather_alerts", part).await;
    let of_year = || {
        rows()
            .into_iter()
            .filter(|row| row[0] == "New York" && row[1].starts_with("2012"))
    };
    let expected = of_year().filter(|row| number(row[2]) >= 20.0).count()
        + of_year().filter(|row| number(row[3]) >= 30.0).count()
        + of_year().filter(|row| number(row[5]) * 3.6 >= 50.0).count();
    assert!(expected > 0);
    assert_eq!(result["alerts"].as_array().unwrap().len(), expected);
    assert_eq!(result["thresholds"]["temperature_c"], 30);
    agent.stop().await;
}

#[tokio::test]
async fn advice_names_the_days_to_avoid_and_the_best_window() {
    let agent = Agent::start().await;
    let part = json!({ "text": "Seattle 2014-03-01 to 2014-03-31" });
    let result = agent.result("travel_weather_advice", part).await;
    let advice = result["advice"].as_array().unwrap();
    assert_eq!(advice.len(), 31);
    assert_eq!(advice[4]["verdict"], "no-go", "46.7 mm of rain");
    assert_eq!(advice[4]["reasons"][0], "precipitation 46.7 mm/day");
    assert!(result["best_window"]["from"].is_string());
    let rainy = rows()
        .into_iter()
        .filter(|row| row[0] == "Seattle" && row[1].starts_with("2014-03") && number(row[2]) >= 0.1)
        .count();
    assert_eq!(result["rainy_dates"].as_array().unwrap().len(), rainy);
    agent.stop().await;
}

#[tokio::test]
async fn monthly_figures_add_up_to_the_file() {
    let agent = Agent::start().await;
    let part = json!({ "data": { "city": "Seattle", "from": "2014-01-01", "to": "2014-12-31" } });
    let result = agent.result("weather_data_analysis", part).await;
    let months = result["months"].as_array().unwrap();
    assert_eq!(months.len(), 12);
    let rain: f64 = rows()
        .into_iter()
        .filter(|row| row[0] == "Seattle" && row[1].starts_with("2014"))
        .map(|row| number(row[2]))
        .sum();
    let total = result["totals"][0]["precipitation_mm"].as_f64().unwrap();
    assert!((total - rain).abs() < 0.06, "{total} {rain}");
    assert_eq!(months[2]["month"], "2014-03");
    agent.stop().await;
}

#[tokio::test]
async fn cities_are_compared_over_the_same_days() {
    let agent = Agent::start().await;
    let part =
        json!({ "data": { "cities": ["Seattle", "New York"], "from": "2014-07-01", "to": "2014-07-31" } });
    let result = agent.result("weather_comparison", part).await;
    let comparison = result["comparison"].as_array().unwrap();
    assert_eq!(comparison.len(), 2);
    assert_eq!(comparison[0]["city"], "Seattle");
    assert!(
        comparison[0]["precipitation_mm"].as_f64().unwrap()
            < comparison[1]["precipitation_mm"].as_f64().unwrap(),
        "Seattle's summer is the drier one"
    );
    assert_eq!(result["days"].as_array().unwrap().len(), 62);
    assert!(result["rainy_dates_by_city"]["New York"].is_array());
    agent.stop().await;
}

#[tokio::test]
async fn bad_questions_are_rejected_by_name() {
    let agent = Agent::start().await;
    let questions = [
        (json!({ "data": { "city": "Seatle" } }), "did you mean 'Seattle'"),
        (
            json!({ "data": { "city": "Berlin" } }),
            "known are New York, Seattle",
        ),
        (json!({ "data": { "citi": "Seattle" } }), "citi: unknown field"),
        (json!({ "data": {} }), "city: is missing"),
        (
            json!({ "data": { "city": "Seattle", "from": "2014-01-01", "to": "2015-12-31" } }),
            "at most 366",
        ),
        (
            json!({ "data": { "city": "Seattle", "date": "yesterday" } }),
            "write YYYY-MM-DD",
        ),
        (
            json!({ "data": { "city": "Seattle", "time": "10:00" } }),
            "only `current_weather_lookup`",
        ),
        (json!({ "data": [1, 2] }), "data:"),
    ];
    for (part, words) in questions {
        let refusal = agent.refusal("weather_forecasting", part.clone()).await;
        assert!(refusal.contains(words), "{part}: {refusal}");
    }
    let range = json!({ "text": "Seattle 2014-03-01 to 2014-03-05" });
    let refusal = agent.refusal("current_weather_lookup", range).await;
    assert!(refusal.contains("weather_forecasting"), "{refusal}");
    agent.stop().await;
}

#[tokio::test]
async fn any_range_of_the_archive_agrees_with_the_file() {
    let agent = Agent::start().await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let rows = rows();
    for _ in 0..32 {
        let strategy = (0..rows.len(), 1usize..40);
        let (start, length) = strategy.new_tree(&mut runner).unwrap().current();
        let city = rows[start][0];
        let expected: Vec<_> = rows
            .iter()
            .skip(start)
            .take(length)
            .filter(|row| row[0] == city)
            .collect();
        let (from, to) = (expected[0][1], expected[expected.len() - 1][1]);
        let part = json!({ "data": { "city": city, "from": from, "to": to } });
        let result = agent.result("weather_forecasting", part).await;
        let days = result["days"].as_array().unwrap();
        assert_eq!(days.len(), expected.len());
        for (day, row) in days.iter().zip(expected) {
            assert_eq!(day["date"], row[1]);
            assert_eq!(day["precipitation_mm"].as_f64(), Some(number(row[2])));
            assert_eq!(day["temp_max_c"].as_f64(), Some(number(row[3])));
            assert_eq!(day["temp_min_c"].as_f64(), Some(number(row[4])));
            assert_eq!(day["wind_m_s"].as_f64(), Some(number(row[5])));
            assert_eq!(day["condition"], row[6]);
        }
    }
    agent.stop().await;
}
