//! How much room everything takes.

use super::{Chart, Shape, To};

/// Width of a letter, roughly: the font is not known.
const LETTER: u32 = 7;
/// Height of a line of text.
pub(super) const LINE: u32 = 16;
/// Room around what is inside a task.
pub(super) const PADDING: u32 = 14;
/// Room between tasks that follow each other, for the arrow.
pub(super) const BELOW: u32 = 36;
/// Room between what stands side by side.
pub(super) const BESIDE: u32 = 18;
/// Room between the lines of two jumps.
pub(super) const LANE: u32 = 12;

/// A list with its room.
pub(super) struct Area<'d> {
    pub(super) chart: &'d Chart,
    pub(super) shapes: Vec<Room<'d>>,
    /// Width of the tasks, without the jumps beside them.
    pub(super) column: u32,
    /// Width of the words at the jumps.
    pub(super) words: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// A task with its room.
pub(super) struct Room<'d> {
    pub(super) shape: &'d Shape,
    pub(super) inside: Vec<Area<'d>>,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Height of its own text.
    pub(super) head: u32,
}

/// Width of text.
pub(super) fn width_of(text: &str) -> u32 {
    u32::try_from(text.chars().count())
        .unwrap_or(u32::MAX)
        .saturating_mul(LETTER)
}

impl<'d> Area<'d> {
    pub(super) fn of(chart: &'d Chart) -> Self {
        let mut jumps = vec![0_u32; chart.shapes.len()];
        let mut words = 0;
        for arrow in chart
            .arrows
            .iter()
            .filter(|arrow| leaves_column(chart, arrow.from, arrow.to))
        {
            if let Some(jumps) = jumps.get_mut(arrow.from) {
                *jumps += 1;
            }
            let label = arrow.label.as_ref().map_or(0, |label| width_of(label));
            words = words.max(label + 9 * LETTER);
        }
        let shapes: Vec<Room<'d>> = chart
            .shapes
            .iter()
            .zip(&jumps)
            .map(|(shape, jumps)| Room::of(shape, *jumps))
            .collect();
        let count = u32::try_from(shapes.len()).unwrap_or(u32::MAX);
        let widest = shapes.iter().map(|room| room.width).max().unwrap_or_default();
        let highest = shapes.iter().map(|room| room.height).max().unwrap_or_default();
        let sum = |lengths: &mut dyn Iterator<Item = u32>, between: u32| {
            let gaps = between.saturating_mul(count.saturating_sub(1));
            lengths.fold(gaps, u32::saturating_add)
        };
        let (column, height) = if chart.side_by_side {
            (sum(&mut shapes.iter().map(|room| room.width), BESIDE), highest)
        } else {
            (widest, sum(&mut shapes.iter().map(|room| room.height), BELOW))
        };
        let lanes = chart
            .arrows
            .iter()
            .filter(|arrow| is_jump(arrow.from, arrow.to))
            .count();
        let lanes = u32::try_from(lanes).unwrap_or(u32::MAX).saturating_mul(LANE);
        let caption = if chart.caption.is_some() { LINE } else { 0 };
        Self {
            chart,
            shapes,
            column,
            words,
            width: column.saturating_add(words).saturating_add(lanes),
            height: height.saturating_add(caption),
        }
    }
}

impl<'d> Room<'d> {
    fn of(shape: &'d Shape, jumps: u32) -> Self {
        let text = shape
            .lines
            .iter()
            .map(|line| width_of(line))
            .max()
            .unwrap_or_default();
        let lines = u32::try_from(shape.lines.len()).unwrap_or(u32::MAX);
        let head = lines.saturating_mul(LINE).saturating_add(PADDING);
        let inside: Vec<Area<'d>> = shape.inside.iter().map(Area::of).collect();
        let gaps = u32::try_from(inside.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let within = inside.iter().fold(gaps.saturating_mul(BESIDE), |sum, area| {
            sum.saturating_add(area.width)
        });
        let tallest = inside.iter().map(|area| area.height).max().unwrap_or_default();
        let bottom = if inside.is_empty() { 0 } else { PADDING };
        let jumps = jumps.saturating_mul(LINE).saturating_add(PADDING);
        Self {
            shape,
            width: text.max(within).saturating_add(2 * PADDING),
            height: head.saturating_add(tallest).saturating_add(bottom).max(jumps),
            head,
            inside,
        }
    }
}

/// Whether the way is a line beside the tasks: not to the next one.
pub(super) fn is_jump(from: usize, to: To) -> bool {
    matches!(to, To::Task(target) if target != from + 1)
}

/// Whether the way is drawn to the right of its task and not below it.
pub(super) fn leaves_column(chart: &Chart, from: usize, to: To) -> bool {
    let last = from + 1 == chart.shapes.len();
    match to {
        To::Task(_) => is_jump(from, to),
        To::Out => !last,
        To::End => true,
    }
}
