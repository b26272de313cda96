//! Every example of the README's chapters for workflow authors and for operators is executed.
//!
//! A comment before a fenced block says what the block is:
//!
//! - `<!-- example: NAME.yaml -->`: a file. A document is validated, and every file is there for the commands below it.
//! - `<!-- example: NAME.yaml, refused -->`: a document that `validate` refuses.
//! - `<!-- example: muster.toml -->`: the configuration with which `muster dev` runs all of the README.
//! - `<!-- example: commands -->`: lines of a shell. Each must end with exit code 0, or the one after `# exit`, and say
//!   what stands after `# →`. A line that does not is repeated for a while: a run takes its time to get somewhere.
//!
//! Addresses are those of the default ports in the README; here they become those of free ones.

use std::path::Path;

use muster_testkit::wait_for;
use muster_tests::{Dev, PATIENCE, repository_file};

/// The directory that the configuration names; in the test, the one that all files are in.
const SETTINGS: &str = "/etc/muster";

/// A marked block of the README.
struct Example {
    what: String,
    line: usize,
    text: String,
}

fn examples() -> Vec<Example> {
    let readme = std::fs::read_to_string(repository_file("README.md")).expect("it is there");
    let mut lines = readme.lines().enumerate();
    let mut found = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(what) = line.trim().strip_prefix("<!-- example: ") else {
            continue;
        };
        let what = what.strip_suffix(" -->").expect("a marker ends on its line");
        let fence = lines.next().map(|(_, line)| line).unwrap_or_default();
        assert!(fence.starts_with("```"), "line {}: no block follows", number + 1);
        let block = lines.by_ref().map(|(_, line)| line);
        found.push(Example {
            what: what.to_owned(),
            line: number + 3,
            text: block
                .take_while(|line| *line != "```")
                .map(|line| format!("{line}\n"))
                .collect(),
        });
    }
    found
}

/// A command, with what it must come to.
#[derive(Debug)]
struct Command {
    text: String,
    exit: i32,
    says: Option<String>,
}

/// The commands of a block: comments are left out, lines that end in `\` go on.
fn commands(block: &str) -> Vec<Command> {
    let joined = block.replace("\\\n", " ");
    joined
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|line| {
            let (text, says) = match line.split_once("# → ") {
                Some((text, says)) => (text, Some(says.trim().to_owned())),
                None => (line, None),
            };
            let (text, exit) = match text.split_once("# exit ") {
                Some((text, exit)) => (text, exit.trim().parse().expect("an exit code")),
                None => (text, 0),
            };
            Command {
                text: text.trim().to_owned(),
                exit,
                says,
            }
        })
        .collect()
}

/// The text with the addresses of this process in place of the defaults.
fn placed(dev: &Dev, text: &str) -> String {
    [
        ("registry", "127.0.0.1:7401"),
        ("router", "127.0.0.1:7402"),
        ("workflow-engine", "127.0.0.1:7403"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (service, address)| {
        text.replace(address, dev.url(service).trim_start_matches("http://"))
    })
}

#[tokio::test]
async fn the_examples_of_the_readme_do_what_it_says() {
    let examples = examples();
    let directory = tempfile::tempdir().unwrap();
    let settings = examples.iter().find(|example| example.what == "muster.toml");
    let mut arguments = Vec::new();
    let path = directory.path().join("muster.toml");
    if let Some(settings) = settings {
        let text = settings
            .text
            .replace(SETTINGS, &directory.path().display().to_string());
        std::fs::write(&path, text).unwrap();
        arguments = vec!["--config", path.to_str().expect("it is text")];
    }
    let dev = Dev::start_with(&directory.path().join("data"), &arguments).await;
    let mut wrong = Vec::new();
    for example in &examples {
        let result = match example.what.as_str() {
            "muster.toml" => Ok(()),
            "commands" => execute(&dev, directory.path(), &example.text).await,
            name => match name.strip_suffix(", refused") {
                Some(name) => file(&dev, directory.path(), name, &example.text, 2).await,
                None => file(&dev, directory.path(), name, &example.text, 0).await,
            },
        };
        if let Err(what) = result {
            wrong.push(format!("README.md:{}: {what}", example.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(examples.len() >= 3, "found only {} examples", examples.len());
}

async fn file(dev: &Dev, directory: &Path, name: &str, text: &str, exit: i32) -> Result<(), String> {
    let text = placed(dev, text);
    let path = directory.join(name);
    std::fs::write(&path, &text).map_err(|error| error.to_string())?;
    if !text.contains("document:") {
        return Ok(());
    }
    let checked = dev
        .muster(&["workflow", "validate", path.to_str().expect("it is text")])
        .await;
    if checked.code == exit {
        Ok(())
    } else {
        Err(format!("validate exits with {}: {checked:?}", checked.code))
    }
}

async fn execute(dev: &Dev, directory: &Path, block: &str) -> Result<(), String> {
    for command in commands(&placed(dev, block)) {
        let mut tries = 0;
        let done = wait_for(&command.text, PATIENCE, async || {
            let ended = dev.shell(directory, &command.text).await;
            let said = format!("{}{}", ended.stdout, ended.stderr);
            let as_told = command.says.as_ref().is_none_or(|says| said.contains(says));
            tries += 1;
            if ended.code == command.exit && as_told {
                return Ok(Ok(()));
            }
            if tries < 100 {
                return Err(said);
            }
            Ok(Err(format!("{command:?}: exit {}: {said}", ended.code)))
        })
        .await;
        done?;
    }
    Ok(())
}

#[test]
fn commands_are_read_with_their_expectations() {
    let block = "# only a remark\nmuster a \\\n  --b\nmuster c # exit 2 # → no such\n\nmuster d # → fine\n";
    let read: Vec<_> = commands(block)
        .into_iter()
        .map(|command| (command.text, command.exit, command.says))
        .collect();
    let expected = [
        ("muster a    --b", 0, None),
        ("muster c", 2, Some("no such".to_owned())),
        ("muster d", 0, Some("fine".to_owned())),
    ]
    .map(|(text, exit, says)| (text.to_owned(), exit, says));
    assert_eq!(read, expected);
}
