//! The diagram as Mermaid text.

use std::fmt::Write as _;

use super::{Chart, Diagram, Shape, To};

/// The whole diagram.
pub(super) fn draw(diagram: &Diagram) -> String {
    let mut text = Text::default();
    text.line(0, "---");
    // As JSON, which is YAML, whatever the author wrote.
    text.line(
        0,
        &format!("title: {}", serde_json::Value::from(diagram.title.as_str())),
    );
    text.line(0, "---");
    text.line(0, "flowchart TD");
    text.line(1, "start([start])");
    text.line(1, "stop([end])");
    text.chart(1, &diagram.tasks, "stop");
    if let Some(first) = diagram.tasks.shapes.first() {
        text.line(1, &format!("start --> {}", name(first)));
    }
    for (index, (caption, chart)) in diagram.extensions.iter().enumerate() {
        text.line(1, &format!("subgraph extension{index}[\"{}\"]", escaped(caption)));
        text.chart(2, chart, &format!("extended{index}"));
        text.line(1, "end");
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, level: usize, line: &str) {
        let _infallible = writeln!(self.0, "{}{line}", "    ".repeat(level));
    }

    /// The tasks of a list; `out` is the node that stands for leaving it.
    fn chart(&mut self, level: usize, chart: &Chart, out: &str) {
        for shape in &chart.shapes {
            self.shape(level, shape);
        }
        let last = chart.shapes.len().saturating_sub(1);
        let top = out == "stop";
        for arrow in &chart.arrows {
            let Some(from) = chart.shapes.get(arrow.from) else {
                continue;
            };
            let to = match arrow.to {
                To::Task(index) => match chart.shapes.get(index) {
                    Some(shape) => name(shape),
                    None => continue,
                },
                To::End => "stop".to_owned(),
                // The end of a list that is inside a task is where the task goes on.
                To::Out if !top && arrow.from == last && arrow.label.is_none() => continue,
                To::Out => out.to_owned(),
            };
            if arrow.to == To::Out && !top {
                self.line(level, &format!("{out}(( ))"));
            }
            let label = arrow.label.as_ref();
            let label = label.map_or_else(String::new, |label| format!("|\"{}\"|", escaped(label)));
            self.line(level, &format!("{} -->{label} {to}", name(from)));
        }
    }

    fn shape(&mut self, level: usize, shape: &Shape) {
        let lines: Vec<String> = shape.lines.iter().map(|line| escaped(line)).collect();
        let (name, label) = (name(shape), lines.join("<br/>"));
        if shape.inside.is_empty() {
            let (open, close) = match shape.kind {
                "switch" => ("{\"", "\"}"),
                "call" | "run" => ("[[\"", "\"]]"),
                "wait" | "listen" => ("([\"", "\"])"),
                "raise" => (">\"", "\"]"),
                _ => ("[\"", "\"]"),
            };
            self.line(level, &format!("{name}{open}{label}{close}"));
            return;
        }
        self.line(level, &format!("subgraph {name}[\"{label}\"]"));
        for (index, chart) in shape.inside.iter().enumerate() {
            let out = format!("{name}out{index}");
            match chart.caption {
                None => self.chart(level + 1, chart, &out),
                Some(caption) => {
                    self.line(level + 1, &format!("subgraph {name}part{index}[\"{caption}\"]"));
                    self.chart(level + 2, chart, &out);
                    self.line(level + 1, "end");
                }
            }
        }
        self.line(level, "end");
    }
}

fn name(shape: &Shape) -> String {
    format!("task{}", shape.id)
}

/// Text that Mermaid takes for nothing but text.
fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut escaped, letter| {
            match letter {
                letter if letter.is_alphanumeric() || " .,:/_-@()'!?+*=…".contains(letter) => {
                    escaped.push(letter)
                }
                letter => {
                    let _infallible = write!(escaped, "#{};", u32::from(letter));
                }
            }
            escaped
        })
}
