//! The agent: reads the question, gathers the days, lets the skill judge them, and answers.

use jiff::ToSpan as _;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use muster_agent_sdk::{Agent, Card, Failure, Reply, Request, Skill, Task};
use muster_runtime::clock::SharedClock;
use serde_json::json;

use crate::alert::Thresholds;
use crate::answer::{Answer, summary};
use crate::climate;
use crate::day::{Basis, Day};
use crate::period::{Period, days_between};
use crate::question::{Input, Question, When};
use crate::source::{self, About, Observation, Source};
use crate::{advice, alert, statistics};

/// Days of the archive that are analysed where none are named: a year.
const ANALYSED_DAYS: i32 = 365;

/// What the agent can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ability {
    Current,
    Forecast,
    Alerts,
    Advice,
    Analysis,
    Comparison,
}

impl Ability {
    const ALL: [Self; 6] = [
        Self::Current,
        Self::Forecast,
        Self::Alerts,
        Self::Advice,
        Self::Analysis,
        Self::Comparison,
    ];

    const fn id(self) -> &'static str {
        match self {
            Self::Current => "current_weather_lookup",
            Self::Forecast => "weather_forecasting",
            Self::Alerts => "weather_alerts",
            Self::Advice => "travel_weather_advice",
            Self::Analysis => "weather_data_analysis",
            Self::Comparison => "weather_comparison",
        }
    }

    fn skill(self) -> Skill {
        let (name, description, example) = match self {
            Self::Current => (
                "Weather of a day",
                "The weather of one day, by default the newest that is known; with a time of day also what that hour is usually like (Seattle).",
                "Seattle 2014-03-01 14:00",
            ),
            Self::Forecast => (
                "Weather forecast",
                "Day by day over a range of at most 366 days: observations where they exist, else the climate of the same days with rain probability.",
                "Seattle 2014-03-01 to 2014-03-05",
            ),
            Self::Alerts => (
                "Weather alerts",
                "Days with heat (30 °C), precipitation (0.1 mm/day) or wind (50 km/h) at or above a threshold.",
                r#"{"city": "New York", "from": "2012-10-27", "to": "2012-10-31", "thresholds": {"precipitation_mm": 10}}"#,
            ),
            Self::Advice => (
                "Travel advice",
                "Go, caution or no-go for each day with the reasons, the rainy days, and the best window.",
                "New York 2014-03-01 to 2014-03-14",
            ),
            Self::Analysis => (
                "Weather statistics",
                "Figures by month: temperatures, precipitation, rainy days, wind, kinds of weather.",
                r#"{"cities": ["Seattle", "New York"], "from": "2014-01-01", "to": "2014-12-31"}"#,
            ),
            Self::Comparison => (
                "Comparison of cities",
                "Up to 5 cities against each other over the same days.",
                "Compare Seattle and New York 2014-07-01 to 2014-07-31",
            ),
        };
        Skill::new(self.id(), name, description)
            .tags(["weather", "climate"])
            .example(example)
            .idempotent()
    }

    /// The skill asked for, or the one that fits the question.
    fn of(skill: Option<&str>, question: &Question) -> Self {
        let named = skill.and_then(|id| Self::ALL.into_iter().find(|ability| ability.id() == id));
        named.unwrap_or(match question.when {
            When::Days(period) if period.days() > 1 => Self::Forecast,
            When::Days(_) | When::Unsaid => Self::Current,
        })
    }
}

/// The weather agent over some source.
pub struct Weather<S> {
    source: S,
    thresholds: Thresholds,
    clock: SharedClock,
}

impl<S: Source> Weather<S> {
    /// An agent that asks `source`; `thresholds` hold where the caller gives none.
    pub fn new(source: S, thresholds: Thresholds, clock: SharedClock) -> Self {
        Self {
            source,
            thresholds,
            clock,
        }
    }

    fn today(&self) -> Date {
        TimeZone::UTC.to_datetime(self.clock.now()).date()
    }

    fn question(&self, request: &Request, about: &About) -> Result<Question, Failure> {
        match request.parse::<Input>()? {
            Some(input) => Question::from_data(input, &about.cities),
            None => Question::from_text(request.text(), &about.cities, self.today()),
        }
    }

    fn period(&self, ability: Ability, question: &Question, about: &About) -> Result<Period, Failure> {
        let newest = about.period.last();
        let period = match (ability, question.when) {
            (_, When::Days(period)) => period,
            (Ability::Current, When::Unsaid) => Period::day(newest),
            (Ability::Analysis, When::Unsaid) => {
                Period::starting(newest.saturating_sub((ANALYSED_DAYS - 1).days()), ANALYSED_DAYS)
            }
            (Ability::Forecast | Ability::Alerts | Ability::Advice | Ability::Comparison, When::Unsaid) => {
                question.period(self.today())
            }
        };
        if ability == Ability::Current && period.days() > 1 {
            return Err(Failure::invalid_field(
                "to",
                format!(
                    "{} answers one day; ask `{}` for several",
                    ability.id(),
                    Ability::Forecast.id()
                ),
            ));
        }
        if ability != Ability::Current && question.time.is_some() {
            return Err(Failure::invalid_field(
                "time",
                format!("only `{}` answers for a time of day", Ability::Current.id()),
            ));
        }
        Ok(period)
    }

    /// Every day of the period, observed or expected.
    async fn days(
        &self,
        city: &str,
        period: Period,
        about: &About,
        rainy_mm: f64,
    ) -> Result<Vec<Day>, Failure> {
        let known = self
            .source
            .observations(city, period)
            .await
            .map_err(unavailable)?;
        let all = if known.len() < period.iter().count() {
            self.source
                .observations(city, about.period)
                .await
                .map_err(unavailable)?
        } else {
            Vec::new()
        };
        period
            .iter()
            .map(|date| {
                let found = known.binary_search_by_key(&date, |day| day.date);
                let day = match found.ok().and_then(|index| known.get(index)) {
                    Some(observation) => Some(observed(city, observation, rainy_mm)),
                    None => climate::expected(city, date, &all, rainy_mm),
                };
                day.ok_or_else(|| Failure::failed(format!("{} has no days of {city}", about.name)))
            })
            .collect()
    }

    /// What the hour asked for is usually like in each city.
    async fn hours(&self, question: &Question, date: Date) -> Result<Option<serde_json::Value>, Failure> {
        let Some(time) = question.time else {
            return Ok(None);
        };
        let mut hours = Vec::new();
        for city in &question.cities {
            let normal = self
                .source
                .hourly_normal(city, date, time.hour())
                .await
                .map_err(unavailable)?
                .ok_or_else(|| {
                    Failure::invalid_field(
                        "time",
                        format!("there is no hourly data of {city}; ask without a time"),
                    )
                })?;
            hours.push(json!({ "city": city, "date": date, "normal": normal }));
        }
        Ok(Some(json!(hours)))
    }
}

impl<S: Source> Agent for Weather<S> {
    fn card(&self) -> Card {
        let card = Card::new(
            "weather",
            "Weather",
            "Observations, climatological forecasts, alerts, travel advice and statistics for Seattle and New York, \
             from NOAA data of 2012 to 2015 that ships with the agent.",
            env!("CARGO_PKG_VERSION"),
        );
        Ability::ALL
            .into_iter()
            .fold(card, |card, ability| card.skill(ability.skill()))
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let about = self.source.about().await.map_err(unavailable)?;
        let mut question = self.question(&request, &about)?;
        let ability = Ability::of(request.skill.as_deref(), &question);
        if ability == Ability::Comparison && question.cities.is_empty() {
            question.cities.clone_from(&about.cities);
        }
        question.require_city(&about.cities)?;
        let period = self.period(ability, &question, &about)?;
        let thresholds = question.thresholds.unwrap_or(self.thresholds);

        let mut days = Vec::new();
        for city in &question.cities {
            task.working(format!("{city}: {} days from {}", period.days(), period.first()))
                .await;
            days.extend(
                self.days(city, period, &about, thresholds.precipitation_mm)
                    .await?,
            );
        }
        let hours = self.hours(&question, period.first()).await?;
        let mut answer = Answer {
            about: &about,
            cities: &question.cities,
            period,
            age_days: days_between(about.period.last(), self.today()),
            days: &days,
            findings: Vec::new(),
            summary: String::new(),
        };
        judge(ability, &mut answer, &thresholds, hours);
        let text = answer.summary.clone();
        let data = answer
            .into_json(ability.id())
            .map_err(|error| Failure::failed(format!("the answer cannot be written as JSON: {error}")))?;
        Ok(Reply::completed(text).data(data))
    }
}

/// Adds what the skill finds in the days, and says it in a sentence.
fn judge(
    ability: Ability,
    answer: &mut Answer<'_>,
    thresholds: &Thresholds,
    hours: Option<serde_json::Value>,
) {
    let days = answer.days;
    match ability {
        Ability::Current => {
            answer.summary = summary::of_days(answer, hours.as_ref());
            answer.findings.extend(hours.map(|hours| ("hours", hours)));
        }
        Ability::Forecast => answer.summary = summary::of_forecast(answer),
        Ability::Alerts => {
            let alerts: Vec<_> = days
                .iter()
                .flat_map(|day| alert::of_day(day, thresholds))
                .collect();
            answer.summary = summary::of_alerts(answer, &alerts);
            answer.find("alerts", &alerts);
            answer.find("thresholds", thresholds);
        }
        Ability::Advice => {
            let advice: Vec<_> = days.iter().map(|day| advice::of_day(day, thresholds)).collect();
            let window = advice::best_window(&advice);
            answer.summary = summary::of_advice(answer, &advice, window);
            answer.find("advice", &advice);
            answer.find(
                "best_window",
                &window.map(|days| json!({ "from": days.first(), "to": days.last() })),
            );
            answer.find("thresholds", thresholds);
        }
        Ability::Analysis => {
            let months = statistics::by_month(days);
            let cities = statistics::by_city(days, answer.cities);
            answer.summary = summary::of_cities(answer, &cities);
            answer.find("months", &months);
            answer.find("totals", &cities);
        }
        Ability::Comparison => {
            let cities = statistics::by_city(days, answer.cities);
            answer.summary = summary::of_cities(answer, &cities);
            answer.find("comparison", &cities);
        }
    }
}

fn observed(city: &str, observation: &Observation, rainy_mm: f64) -> Day {
    Day {
        date: observation.date,
        city: city.to_owned(),
        precipitation_mm: observation.precipitation_mm,
        temp_max_c: observation.temp_max_c,
        temp_min_c: observation.temp_min_c,
        wind_m_s: observation.wind_m_s,
        condition: observation.condition,
        rainy: observation.precipitation_mm >= rainy_mm,
        basis: Basis::Observed,
        spread: None,
    }
}

fn unavailable(error: source::Error) -> Failure {
    Failure::failed(format!("the weather source has no answer: {error}"))
}
