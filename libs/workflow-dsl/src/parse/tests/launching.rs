//! `run`: what is accepted, and what is said of the rest.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::document::{Cleanup, Kind, Language, Launch, Launched, Process, Program, Pull, Return, Template};

fn launch(run: &str) -> Launch {
    let text = with_tasks(&format!("  - a:\n      run: {run}\n"));
    let definition = parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    match &definition.workflow.tasks.tasks[0].kind {
        Kind::Run(launch) => launch.clone(),
        other => panic!("{other:?}"),
    }
}

fn process(run: &str) -> Process {
    match launch(run).what {
        Launched::Process(process) => *process,
        other => panic!("{other:?}"),
    }
}

fn refuses_run(run: &str, pointer: &str, words: &[&str]) {
    let text = with_tasks(&format!("  - a:\n      run: {run}\n"));
    let complaints = complaints(&text);
    let [(place, message)] = complaints.as_slice() else {
        panic!("{complaints:#?} of {run}");
    };
    assert!(
        place.ends_with(&format!(" /do/0/a/run{pointer}")),
        "{place}: {message}"
    );
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn a_workflow_by_name() {
    let Launched::Workflow(subflow) =
        launch("{workflow: {namespace: n, name: m, version: latest, input: {a: '${ .b }'}}}").what
    else {
        panic!("a workflow")
    };
    assert_eq!(subflow.name, Template::Literal(json!("m")));
    assert!(subflow.returns && subflow.version.is_some() && subflow.input.is_some());
    assert!(!launch("{workflow: {namespace: n, name: m}, await: false}").awaited);
    let Launched::Workflow(subflow) =
        launch("{workflow: {namespace: n, name: '${ .m }'}, return: none}").what
    else {
        panic!("a workflow")
    };
    assert!(!subflow.returns);
}

#[test]
fn processes_of_each_kind() {
    let shell =
        process("{shell: {command: 'echo ${HOME} $1', arguments: [a], environment: {B: 1}}, return: all}");
    assert_eq!(shell.returns, Return::All);
    assert!(
        matches!(&shell.program, Program::Shell { command: Template::Literal(text) } if text == "echo ${HOME} $1"),
        "{shell:?}"
    );
    let script =
        process("{script: {language: javascript, code: 'console.log(`${x}`)', arguments: {x: '${ .x }'}}}");
    assert!(matches!(
        script.program,
        Program::Script {
            language: Language::Js,
            ..
        }
    ));
    let container = process(
        "{container: {image: alpine, pullPolicy: always, lifetime: {cleanup: eventually, after: PT1M}}, return: code}",
    );
    assert!(matches!(
        container.program,
        Program::Container { pull: Pull::Always, cleanup: Cleanup::Eventually(after), .. } if after == Duration::from_secs(60)
    ));
    let computed = process("{shell: {command: '${ \"echo \\(.x)\" }', stdin: '${ . }'}}");
    assert!(matches!(
        &computed.program,
        Program::Shell {
            command: Template::Expression(_)
        }
    ));
}

#[test]
fn what_cannot_be_run() {
    refuses_run("{}", "", &["names one of", "'workflow'"]);
    refuses_run(
        "{shell: {command: x}, workflow: {namespace: n, name: m}}",
        "",
        &["names one of"],
    );
    refuses_run(
        "{shel: {command: x}, shell: {command: x}}",
        "/shel",
        &["did you mean 'shell'"],
    );
    refuses_run(
        "{shell: {command: x}, return: stdot}",
        "/return",
        &["did you mean 'stdout'"],
    );
    refuses_run("{shell: {command: ''}}", "/shell/command", &["must not be empty"]);
    refuses_run(
        "{shell: {command: x, arguments: 5}}",
        "/shell/arguments",
        &["is a list"],
    );
    refuses_run(
        "{shell: {command: x, environment: [a]}}",
        "/shell/environment",
        &["is an object"],
    );
    refuses_run(
        "{script: {language: ruby, code: x}}",
        "/script/language",
        &["'js'", "'python'"],
    );
    refuses_run("{script: {language: js}}", "/script", &["'code'", "'source'"]);
    refuses_run(
        "{script: {language: js, code: x, source: {endpoint: 'http://x'}}}",
        "/script/source",
        &["give one of them"],
    );
    refuses_run(
        "{script: {language: js, source: {endpoint: {uri: '${ .address }'}}}}",
        "/script/source",
        &["the address of a script", "written out"],
    );
    refuses_run(
        "{container: {image: -rm}}",
        "/container/image",
        &["must name an image"],
    );
    refuses_run(
        "{container: {image: a, name: 'a b'}}",
        "/container/name",
        &["letters, digits"],
    );
    refuses_run(
        "{container: {image: a, lifetime: {cleanup: eventually}}}",
        "/container/lifetime",
        &["'after'"],
    );
    refuses_run(
        "{container: {image: a, lifetime: {cleanup: never, after: PT1M}}}",
        "/container/lifetime/after",
        &["'cleanup: eventually'"],
    );
    refuses_run("{workflow: {name: m}}", "/workflow", &["the field 'namespace'"]);
    refuses_run("{workflow: {namespace: n, name: M}}", "/workflow/name", &["a-z"]);
    refuses_run(
        "{workflow: {namespace: n, name: m, version: '1'}}",
        "/workflow/version",
        &["'latest'"],
    );
    refuses_run(
        "{workflow: {namespace: n, name: m}, return: code}",
        "/return",
        &["an output only"],
    );
}

#[test]
fn an_expression_in_the_middle_of_a_command_is_doubtful() {
    let text = with_tasks("  - a: {run: {shell: {command: 'echo \"${ .name }\"'}}}\n");
    let complaints = complaints(&text);
    assert!(
        complaints.len() == 1
            && complaints[0].0.starts_with("warning ")
            && complaints[0].1.contains("not evaluated"),
        "{complaints:?}"
    );
}
