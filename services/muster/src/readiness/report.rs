//! What came out: a table for people, one JSON object for scripts, and JUnit for whatever shows the results of tests.

use std::path::Path;

use quick_xml::Writer;
use quick_xml::events::BytesText;
use serde_json::{Value, json};

use super::check::{Area, Done, Outcome};
use crate::failure::Failure;
use crate::output::Output;

/// All that was found out about a target.
#[derive(Debug)]
pub struct Report {
    /// What was looked at.
    pub target: String,
    /// The seed of what was left to chance.
    pub seed: u64,
    /// Every check, in order.
    pub checks: Vec<Done>,
    /// What could not be taken away again.
    pub left: Vec<String>,
}

impl Report {
    /// How many came out like this.
    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|done| done.outcome == outcome).count()
    }

    fn seconds(&self) -> f64 {
        self.checks.iter().map(|done| done.took.as_secs_f64()).sum()
    }

    /// Prints it.
    pub fn print(&self, output: &Output) {
        if output.is_json() {
            output.json(&self.json());
            return;
        }
        let rows = self.checks.iter().map(|done| {
            [
                done.area.name().to_owned(),
                done.name.to_owned(),
                done.outcome.name().to_owned(),
                format!("{:.1}", done.took.as_secs_f64()),
                done.told.clone(),
            ]
        });
        output.table(
            ["AREA", "CHECK", "OUTCOME", "SECONDS", "EVIDENCE"],
            rows.collect(),
        );
        for left in &self.left {
            output.line(&format!("left behind: {left}"));
        }
        output.line(&format!(
            "{}: {} passed, {} failed, {} skipped in {:.1} s; seed {}",
            self.target,
            self.count(Outcome::Passed),
            self.count(Outcome::Failed),
            self.count(Outcome::Skipped),
            self.seconds(),
            self.seed
        ));
    }

    fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|done| {
                json!({
                    "area": done.area.name(),
                    "name": done.name,
                    "outcome": done.outcome.name(),
                    "evidence": done.told,
                    "figures": done.figures,
                    "seconds": done.took.as_secs_f64(),
                })
            })
            .collect();
        json!({
            "target": self.target,
            "seed": self.seed,
            "passed": self.count(Outcome::Passed),
            "failed": self.count(Outcome::Failed),
            "skipped": self.count(Outcome::Skipped),
            "seconds": self.seconds(),
            "leftBehind": self.left,
            "checks": checks,
        })
    }

    /// Writes it in the form of JUnit.
    pub fn write_junit(&self, path: &Path) -> Result<(), Failure> {
        let wrong = |error: std::io::Error| Failure::usage(format!("--junit {}: {error}", path.display()));
        let text = self.junit().map_err(wrong)?;
        std::fs::write(path, text).map_err(wrong)
    }

    /// One suite for each area, one case for each check.
    fn junit(&self) -> std::io::Result<Vec<u8>> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        let areas = Area::ALL
            .into_iter()
            .filter(|area| self.checks.iter().any(|done| done.area == *area));
        let root = counted(&mut writer, "testsuites", "muster readiness", self.checks.iter());
        root.write_inner_content(|writer| {
            for area in areas {
                let of_area = || self.checks.iter().filter(move |done| done.area == area);
                counted(writer, "testsuite", area.name(), of_area())
                    .write_inner_content(|writer| of_area().try_for_each(|done| case(writer, done)))?;
            }
            Ok(())
        })?;
        let mut text = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_vec();
        text.extend(writer.into_inner());
        text.push(b'\n');
        Ok(text)
    }

    /// Fails where a check has, or where something stays behind.
    pub fn outcome(&self) -> Result<(), Failure> {
        let failed: Vec<&str> = self
            .checks
            .iter()
            .filter(|done| done.outcome == Outcome::Failed)
            .map(|done| done.name)
            .collect();
        if !failed.is_empty() {
            return Err(Failure::failed(format!(
                "{} of {} checks failed: {}",
                failed.len(),
                self.checks.len(),
                failed.join("; ")
            ))
            .with_remedy("each line above says what was seen; `--only AREA` repeats an area"));
        }
        if !self.left.is_empty() {
            return Err(Failure::failed(format!("left behind: {}", self.left.join("; "))));
        }
        Ok(())
    }
}

/// An element with the number of its checks, and of those that failed or were skipped.
fn counted<'w, 'd>(
    writer: &'w mut Writer<Vec<u8>>,
    element: &'w str,
    name: &'w str,
    checks: impl Iterator<Item = &'d Done> + Clone,
) -> quick_xml::writer::ElementWriter<'w, Vec<u8>> {
    let of = |outcome: Outcome| checks.clone().filter(|done| done.outcome == outcome).count();
    let seconds: f64 = checks.clone().map(|done| done.took.as_secs_f64()).sum();
    writer
        .create_element(element)
        .with_attribute(("name", name))
        .with_attribute(("tests", checks.clone().count().to_string().as_str()))
        .with_attribute(("failures", of(Outcome::Failed).to_string().as_str()))
        .with_attribute(("errors", "0"))
        .with_attribute(("skipped", of(Outcome::Skipped).to_string().as_str()))
        .with_attribute(("time", format!("{seconds:.3}").as_str()))
}

fn case(writer: &mut Writer<Vec<u8>>, done: &Done) -> std::io::Result<()> {
    let told = permitted(&done.told);
    let element = writer
        .create_element("testcase")
        .with_attribute(("classname", format!("readiness.{}", done.area.name()).as_str()))
        .with_attribute(("name", done.name))
        .with_attribute(("time", format!("{:.3}", done.took.as_secs_f64()).as_str()));
    element.write_inner_content(|writer| {
        match done.outcome {
            Outcome::Passed => {
                writer
                    .create_element("system-out")
                    .write_text_content(BytesText::new(&told))?;
            }
            Outcome::Failed => {
                let failure = writer
                    .create_element("failure")
                    .with_attribute(("message", told.as_str()));
                failure.write_text_content(BytesText::new(&told))?;
            }
            Outcome::Skipped => {
                let skipped = writer
                    .create_element("skipped")
                    .with_attribute(("message", told.as_str()));
                skipped.write_empty()?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// The text without what XML has no place for.
fn permitted(text: &str) -> String {
    let is_permitted = |letter: &char| matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(is_permitted).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn done(area: Area, name: &'static str, outcome: Outcome, told: &str) -> Done {
        Done {
            area,
            name,
            outcome,
            told: told.to_owned(),
            figures: serde_json::Map::new(),
            took: Duration::from_millis(1_500),
        }
    }

    fn report() -> Report {
        Report {
            target: "here".to_owned(),
            seed: 7,
            checks: vec![
                done(Area::Health, "one", Outcome::Passed, "fine & <well>"),
                done(Area::Health, "two", Outcome::Failed, "it says \"no\"\u{0}"),
                done(Area::Security, "three", Outcome::Skipped, "no key"),
            ],
            left: Vec::new(),
        }
    }

    #[test]
    fn junit_has_a_suite_for_each_area_and_escapes_what_was_seen() {
        let text = String::from_utf8(report().junit().unwrap()).unwrap();
        for part in [
            r#"<testsuites name="muster readiness" tests="3" failures="1" errors="0" skipped="1" time="4.500">"#,
            r#"<testsuite name="health" tests="2" failures="1" errors="0" skipped="0" time="3.000">"#,
            "<system-out>fine &amp; &lt;well&gt;</system-out>",
            "it says &quot;no&quot;</failure>",
            r#"<skipped message="no key"/>"#,
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{0}'));
    }

    #[test]
    fn what_failed_is_named_and_what_was_skipped_does_not_fail() {
        let failure = report().outcome().unwrap_err();
        assert!(
            failure.message.contains("1 of 3 checks failed: two"),
            "{failure:?}"
        );
        let mut skipped = report();
        skipped.checks.retain(|done| done.outcome != Outcome::Failed);
        assert!(skipped.outcome().is_ok());
        skipped.left.push("run x".to_owned());
        assert!(skipped.outcome().is_err());
    }

    #[test]
    fn scripts_get_every_check_with_its_outcome() {
        let value = report().json();
        assert_eq!(value["passed"], 1);
        assert_eq!(value["checks"][2]["outcome"], "skipped");
        assert_eq!(value["checks"][1]["name"], "two");
    }
}
