//! The diagram as an SVG image.

use std::fmt::Write as _;

use super::size::{Area, BELOW, BESIDE, LANE, LINE, PADDING, Room, is_jump, leaves_column, width_of};
use super::{Diagram, To};

/// Room around the picture.
const MARGIN: u32 = 20;

/// Radius of the dots at which the flow begins and ends.
const DOT: u32 = 7;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2933}.name{font-weight:600}.word{font-size:11px;fill:#52606d}\
                     rect{fill:#fff;stroke:#52606d;rx:6}.around{fill:#f5f7fa}.part{fill:none;stroke-dasharray:4 3;stroke:#9aa5b1}\
                     .call,.run{stroke:#2563eb}.raise{stroke:#c81e1e}.wait,.listen{stroke:#b45309}.switch{stroke:#7c3aed}\
                     path{fill:none;stroke:#52606d;marker-end:url(#tip)}circle{fill:#1f2933}";

/// The whole diagram.
pub(super) fn draw(diagram: &Diagram) -> String {
    let title = 2 * LINE;
    let tasks = Area::of(&diagram.tasks);
    let extensions: Vec<(&str, Area<'_>)> = diagram
        .extensions
        .iter()
        .map(|(caption, chart)| (caption.as_str(), Area::of(chart)))
        .collect();
    let mut picture = Picture::default();
    let middle = MARGIN + tasks.column / 2;
    let mut y = MARGIN + title;
    picture.text("name", MARGIN, MARGIN + LINE / 2, &diagram.title);
    picture.dot(middle, y + DOT);
    y += 2 * DOT;
    picture.path(&format!("M{middle} {y}V{}", y + BELOW));
    y += BELOW;
    picture.area(&tasks, MARGIN, y);
    y = y.saturating_add(tasks.height);
    picture.path(&format!("M{middle} {y}V{}", y.saturating_add(BELOW)));
    y = y.saturating_add(BELOW);
    picture.dot(middle, y.saturating_add(DOT));
    y = y.saturating_add(2 * DOT + MARGIN);
    let mut width = tasks.width.max(width_of(&diagram.title));
    for (caption, area) in &extensions {
        y = y.saturating_add(LINE);
        picture.text("word", MARGIN, y, caption);
        y = y.saturating_add(LINE);
        picture.area(area, MARGIN, y);
        y = y.saturating_add(area.height).saturating_add(MARGIN);
        width = width.max(area.width).max(width_of(caption));
    }
    let width = width.saturating_add(2 * MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" viewBox=\"0 0 {width} {y}\" role=\"img\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <polygon points=\"0,0 8,4 0,8\" fill=\"#52606d\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" style=\"stroke:none\"/>\n{}</svg>\n",
        escaped(&diagram.title),
        picture.0
    )
}

#[derive(Default)]
struct Picture(String);

impl Picture {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        let _infallible = self.0.write_fmt(element);
        self.0.push('\n');
    }

    fn text(&mut self, class: &str, x: u32, y: u32, text: &str) {
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>",
            escaped(text)
        ));
    }

    fn dot(&mut self, x: u32, y: u32) {
        self.put(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"{DOT}\"/>"));
    }

    fn path(&mut self, path: &str) {
        self.put(format_args!("<path d=\"{path}\"/>"));
    }

    /// The tasks of a list, whose room begins here.
    fn area(&mut self, area: &Area<'_>, x: u32, y: u32) {
        let mut at = (x, y);
        if let Some(caption) = area.chart.caption {
            self.text("word", x, y.saturating_add(LINE / 2), caption);
            at.1 = y.saturating_add(LINE);
        }
        let mut places = Vec::with_capacity(area.shapes.len());
        for room in &area.shapes {
            let left = if area.chart.side_by_side {
                at.0
            } else {
                at.0.saturating_add(area.column.saturating_sub(room.width) / 2)
            };
            self.room(room, left, at.1);
            places.push((left, at.1));
            if area.chart.side_by_side {
                at.0 = at.0.saturating_add(room.width).saturating_add(BESIDE);
            } else {
                at.1 = at.1.saturating_add(room.height).saturating_add(BELOW);
            }
        }
        self.arrows(area, x, &places);
    }

    fn room(&mut self, room: &Room<'_>, x: u32, y: u32) {
        let around = if room.inside.is_empty() { "" } else { " around" };
        self.put(format_args!(
            "<rect class=\"{}{around}\" x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\"/>",
            room.shape.kind, room.width, room.height
        ));
        let mut line = y.saturating_add(PADDING / 2 + 12);
        for (index, text) in room.shape.lines.iter().enumerate() {
            let class = if index == 0 { "name" } else { "word" };
            self.text(class, x.saturating_add(PADDING), line, text);
            line = line.saturating_add(LINE);
        }
        let mut left = x.saturating_add(PADDING);
        for area in &room.inside {
            self.area(area, left, y.saturating_add(room.head));
            left = left.saturating_add(area.width).saturating_add(BESIDE);
        }
    }

    /// The ways between the tasks of a list: down to the next one, or beside the column to any other.
    fn arrows(&mut self, area: &Area<'_>, x: u32, places: &[(u32, u32)]) {
        let mut lane = x.saturating_add(area.column).saturating_add(area.words);
        let mut beside = vec![0_u32; area.shapes.len()];
        let middle = x.saturating_add(area.column / 2);
        for arrow in &area.chart.arrows {
            let (Some(room), Some((left, top))) = (area.shapes.get(arrow.from), places.get(arrow.from))
            else {
                continue;
            };
            let label = arrow.label.as_deref().unwrap_or_default();
            if !leaves_column(area.chart, arrow.from, arrow.to) {
                let bottom = top.saturating_add(room.height);
                if let To::Task(_) = arrow.to {
                    self.path(&format!("M{middle} {bottom}V{}", bottom.saturating_add(BELOW)));
                }
                self.text(
                    "word",
                    middle.saturating_add(6),
                    bottom.saturating_add(BELOW / 2),
                    label,
                );
                continue;
            }
            let Some(beside) = beside.get_mut(arrow.from) else {
                continue;
            };
            let right = left.saturating_add(room.width);
            let start = top.saturating_add(PADDING + *beside * LINE);
            *beside += 1;
            let target = match arrow.to {
                To::Task(target) => places.get(target).zip(area.shapes.get(target)),
                To::Out | To::End => None,
            };
            let Some(((target_left, target_top), target_room)) = target else {
                let word = if arrow.to == To::End { "end" } else { "exit" };
                let word = if label.is_empty() {
                    word.to_owned()
                } else {
                    format!("{label}: {word}")
                };
                self.path(&format!("M{right} {start}h14"));
                self.text("word", right.saturating_add(18), start.saturating_add(4), &word);
                continue;
            };
            // To just below the top of the other task, so that it does not meet what begins there.
            let end = target_top.saturating_add(PADDING / 2);
            let arrives = target_left.saturating_add(target_room.width);
            self.path(&format!("M{right} {start}H{lane}V{end}H{arrives}"));
            self.text("word", right.saturating_add(6), start.saturating_sub(3), label);
            if is_jump(arrow.from, arrow.to) {
                lane = lane.saturating_add(LANE);
            }
        }
    }
}

fn escaped(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut escaped, letter| {
            match letter {
                '&' => escaped.push_str("&amp;"),
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '"' => escaped.push_str("&quot;"),
                // XML has no place for them, not even escaped.
                letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                    escaped.push(' ')
                }
                letter => escaped.push(letter),
            }
            escaped
        })
}
