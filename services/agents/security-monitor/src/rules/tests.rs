use super::*;

const RULE: &str = "title: Night login\nlogsource:\n    product: linux\ndetection:\n    selection:\n        event: \
    login_succeeded\n    condition: selection\nlevel: low\n";

fn mistakes(files: &[(&str, &str)]) -> String {
    let files: Vec<(String, String)> = files
        .iter()
        .map(|&(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    Ruleset::new(&files, Vec::new()).unwrap_err().to_string()
}

#[test]
fn the_built_in_rules_work_and_say_what_to_do() {
    let ruleset = Ruleset::load(None).unwrap();
    assert!(ruleset.count() >= 14);
    for rule in ruleset.rules.values().filter(|rule| !rule.feeds_only) {
        assert!(
            !rule.mitre.is_empty() && !rule.tactics.is_empty(),
            "{}",
            rule.name
        );
        assert!(
            !rule.response.starts_with("Look at the quoted lines"),
            "{}",
            rule.name
        );
    }
    let chained = ruleset
        .correlations()
        .iter()
        .find(|correlation| correlation.fed_by.len() == 2)
        .unwrap();
    assert_eq!(
        ruleset.rule(&chained.id).unwrap().name,
        "ssh_login_after_brute_force"
    );
}

#[test]
fn a_folder_adds_rules() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("night.yml"), RULE).unwrap();
    std::fs::write(folder.path().join("README.md"), "not a rule").unwrap();
    let ruleset = Ruleset::load(Some(folder.path())).unwrap();
    assert_eq!(ruleset.rule("Night login").unwrap().severity, Severity::Low);
    let missing = Ruleset::load(Some(&folder.path().join("missing")))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("missing"), "{missing}");
}

#[test]
fn every_mistake_is_reported_with_its_file() {
    let text = mistakes(&[
        ("syntax.yml", "title: [\n"),
        ("empty.yml", ""),
        (
            "condition.yml",
            &RULE.replace("condition: selection", "condition: selektion"),
        ),
        (
            "regex.yml",
            &RULE
                .replace("event: ", "event|re: '('\n        x: ")
                .replace("Night", "Regex"),
        ),
        (
            "modifier.yml",
            &RULE
                .replace("event:", "event|startwith:")
                .replace("Night", "Modifier"),
        ),
    ]);
    for file in [
        "syntax.yml",
        "empty.yml",
        "condition.yml",
        "regex.yml",
        "modifier.yml",
    ] {
        assert!(text.contains(&format!("{file}: ")), "{file}: {text}");
    }
    assert!(mistakes(&[("a.yml", RULE), ("b.yml", RULE)]).contains("b.yml: the id 'Night login'"));
    let correlation = "title: Many\ncorrelation:\n    type: event_count\n    rules:\n        - night_logins\n    \
        group-by:\n        - user\n    timespan: 1m\n    condition:\n        gte: 3\n";
    let named = RULE.replace("title: Night login", "title: Night login\nname: night_login");
    let text = mistakes(&[("a.yml", &named), ("c.yml", correlation)]);
    assert!(
        text.contains("c.yml: 'Many' refers to the unknown rule 'night_logins'; did you mean 'night_login'"),
        "{text}"
    );
}
