//! Charts of a table as SVG text: lines, bars, points, histograms.
//!
//! [`plan`] turns a request and a table into plain series (what is drawn, testable as data); `draw` turns the plan
//! into SVG. Sizes, points, bars and series are bounded: beyond them a chart is refused, since a chart of a silently
//! thinned table lies. Text is stripped of control characters, shortened and escaped.
//!
//! The x axis of a line chart or scatter plot is numeric, a calendar (a `date` column) or the distinct values of a
//! text column in order of appearance; bars stand on distinct values always. Rows that lack a value are left out and
//! counted.

use std::collections::HashMap;

use crate::table::{self, Cell, Column, Kind, Table, days};

mod draw;
mod histogram;
mod request;

pub use draw::svg;
pub use request::{ChartKind, Names, Request};

/// Most points of a line chart or scatter plot.
pub const MAX_POINTS: usize = 20_000;
/// Most bars per series.
pub const MAX_BARS: usize = 100;
/// Most series.
pub const MAX_SERIES: usize = 12;
/// Most bins of a histogram.
pub const MAX_BINS: usize = 200;
/// Values beyond it cannot be told apart on an axis.
const MAX_VALUE: f64 = 1e15;
/// Longest text in a chart, in characters.
const MAX_TITLE: usize = 120;
const MAX_LABEL: usize = 32;

/// What the numbers along the x axis mean.
#[derive(Debug, Clone, PartialEq)]
pub enum Axis {
    /// Themselves.
    Numbers,
    /// Days since 1970.
    Dates,
    /// Indices into these labels.
    Labels(Vec<String>),
}

/// One line, or one colour of bars or points.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// As the legend shows it.
    pub name: String,
    /// In order of x; of a histogram, the centre of each bin and its count.
    pub points: Vec<(f64, f64)>,
}

/// A chart as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The kind of chart.
    pub kind: ChartKind,
    /// Above the chart.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// What the x values mean.
    pub axis: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Width of a bar in units of x.
    pub bar_width: f64,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Rows left out because a value is missing.
    pub skipped: usize,
}

impl Plan {
    /// How many points or bars there are.
    #[must_use]
    pub fn points(&self) -> usize {
        self.series.iter().map(|series| series.points.len()).sum()
    }
}

/// Why there is no chart.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// A column is not there or holds no numbers.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A parameter is missing or out of bounds.
    #[error("'{field}' {what}")]
    Parameter {
        /// Which.
        field: &'static str,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// Nothing to draw.
    #[error("no row has a value for both axes, so there is nothing to draw")]
    Nothing,
    /// Too much to draw.
    #[error(
        "the chart would have {actual} {what}, and at most {limit} are drawn; aggregate first, for instance with 'query'"
    )]
    TooMany {
        /// Points, bars or series.
        what: &'static str,
        /// How many.
        actual: usize,
        /// How many at most.
        limit: usize,
    },
    /// Two bars in one place.
    #[error("'{0}' has several rows in one series; aggregate first, for instance with 'query' and GROUP BY")]
    Repeated(String),
    /// Values that no axis can show.
    #[error("column '{0}' has values beyond ±1e15, which a chart cannot show")]
    OutOfRange(String),
    /// The drawing library failed.
    #[error("drawing failed: {0}")]
    Drawing(String),
}

/// What a request means for a table.
///
/// # Errors
/// When columns are missing or of the wrong type, and when there is nothing or too much to draw.
pub fn plan(table: &Table, request: &Request) -> Result<Plan, Error> {
    within("width", request.width, 200, 2000)?;
    within("height", request.height, 150, 2000)?;
    let x = table.column(&request.x)?;
    match request.kind {
        ChartKind::Histogram => histogram::plan(table, request),
        ChartKind::Line | ChartKind::Bar | ChartKind::Scatter => xy(table, x, request),
    }
}

fn within(field: &'static str, value: u32, low: u32, high: u32) -> Result<(), Error> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Parameter {
        field,
        what: format!("is {value}; it must lie within {low} and {high}"),
    })
}

fn xy(table: &Table, x: &Column, request: &Request) -> Result<Plan, Error> {
    if request.bins.is_some() {
        return Err(Error::Parameter {
            field: "bins",
            what: "is for histograms only".to_owned(),
        });
    }
    let ys = request
        .y
        .list()
        .iter()
        .map(|name| table.numeric(name))
        .collect::<Result<Vec<_>, _>>()?;
    if ys.is_empty() {
        return Err(Error::Parameter {
            field: "y",
            what: "is missing; name one or more numeric columns".to_owned(),
        });
    }
    let split = request
        .series
        .as_deref()
        .map(|name| table.column(name))
        .transpose()?;
    if split.is_some() && ys.len() > 1 {
        let what = "needs a single 'y' column; several are named".to_owned();
        return Err(Error::Parameter {
            field: "series",
            what,
        });
    }
    let (axis, xs) = positions(x, request.kind);
    let (mut series, skipped) = match split {
        Some(split) => split_series(&xs, ys.first().copied(), split),
        None => ys.iter().fold((Vec::new(), 0), |(mut all, skipped), y| {
            let (points, missing) = pairs(&xs, y);
            all.push(Series {
                name: shorten(&y.name, MAX_LABEL),
                points,
            });
            (all, skipped + missing)
        }),
    };
    series.retain(|series| !series.points.is_empty());
    check(&series, request, &axis, &ys, x)?;
    if request.kind != ChartKind::Scatter {
        for series in &mut series {
            series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
    }
    let y_label = ys.iter().map(|y| y.name.as_str()).collect::<Vec<_>>().join(", ");
    let title = request.title.clone().unwrap_or_else(|| match split {
        Some(split) => format!("{y_label} by {} and {}", x.name, split.name),
        None => format!("{y_label} by {}", x.name),
    });
    Ok(Plan {
        kind: request.kind,
        title: shorten(&title, MAX_TITLE),
        x_label: shorten(&x.name, MAX_LABEL),
        y_label: shorten(&y_label, MAX_LABEL),
        axis,
        series,
        bar_width: 0.8,
        size: (request.width, request.height),
        skipped,
    })
}

fn check(series: &[Series], request: &Request, axis: &Axis, ys: &[&Column], x: &Column) -> Result<(), Error> {
    let points = series.iter().map(|series| series.points.len()).sum();
    if points == 0 {
        return Err(Error::Nothing);
    }
    at_most("series", series.len(), MAX_SERIES)?;
    at_most("points", points, MAX_POINTS)?;
    let beyond = |value: &f64| value.abs() > MAX_VALUE;
    if *axis == Axis::Numbers
        && series
            .iter()
            .flat_map(|series| &series.points)
            .any(|(x, _)| beyond(x))
    {
        return Err(Error::OutOfRange(x.name.clone()));
    }
    if let Some(y) = ys.iter().find(|y| y.numbers().iter().any(beyond)) {
        return Err(Error::OutOfRange(y.name.clone()));
    }
    if let Axis::Labels(labels) = axis {
        let limit = if request.kind == ChartKind::Bar {
            MAX_BARS
        } else {
            MAX_POINTS
        };
        at_most(
            if request.kind == ChartKind::Bar {
                "bars"
            } else {
                "labels"
            },
            labels.len(),
            limit,
        )?;
        if request.kind == ChartKind::Bar {
            only_one_bar_in_each_place(series, labels)?;
        }
    }
    Ok(())
}

fn only_one_bar_in_each_place(series: &[Series], labels: &[String]) -> Result<(), Error> {
    for series in series {
        let mut taken = vec![false; labels.len()];
        for &(x, _) in &series.points {
            let place = index_of(x);
            match taken.get_mut(place) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(Error::Repeated(labels.get(place).cloned().unwrap_or_default())),
            }
        }
    }
    Ok(())
}

/// The whole number that a position on a label axis is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are counted from 0 up"
)]
fn index_of(x: f64) -> usize {
    x.round().max(0.0) as usize
}

fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), Error> {
    if actual > limit {
        Err(Error::TooMany { what, actual, limit })
    } else {
        Ok(())
    }
}

/// Where each row stands along the x axis.
fn positions(x: &Column, kind: ChartKind) -> (Axis, Vec<Option<f64>>) {
    if kind != ChartKind::Bar && x.kind.is_numeric() {
        return (Axis::Numbers, x.cells.iter().map(Cell::number).collect());
    }
    if kind != ChartKind::Bar && x.kind == Kind::Date {
        let xs = x.cells.iter().map(|cell| match cell {
            Cell::Text(text) => days(text),
            _ => None,
        });
        return (Axis::Dates, xs.collect());
    }
    let mut labels: Vec<String> = Vec::new();
    let mut index: HashMap<String, f64> = HashMap::new();
    let xs = x
        .cells
        .iter()
        .map(|cell| {
            if matches!(cell, Cell::Missing) {
                return None;
            }
            let label = cell.label();
            #[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
            let next = labels.len() as f64;
            let position = *index.entry(label.clone()).or_insert(next);
            if position >= next {
                labels.push(shorten(&label, MAX_LABEL));
            }
            Some(position)
        })
        .collect();
    (Axis::Labels(labels), xs)
}

fn pairs(xs: &[Option<f64>], y: &Column) -> (Vec<(f64, f64)>, usize) {
    let points: Vec<(f64, f64)> = xs
        .iter()
        .zip(&y.cells)
        .filter_map(|(x, cell)| Some(((*x)?, cell.number()?)))
        .collect();
    let skipped = y.cells.len() - points.len();
    (points, skipped)
}

fn split_series(xs: &[Option<f64>], y: Option<&Column>, split: &Column) -> (Vec<Series>, usize) {
    let mut series: Vec<Series> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut skipped = 0;
    let rows = xs
        .iter()
        .zip(y.map(|y| y.cells.as_slice()).unwrap_or_default())
        .zip(&split.cells);
    for ((x, y), name) in rows {
        let (Some(x), Some(y)) = (x, y.number()) else {
            skipped += 1;
            continue;
        };
        let name = if matches!(name, Cell::Missing) {
            "(none)".to_owned()
        } else {
            name.label()
        };
        let at = *index.entry(name.clone()).or_insert(series.len());
        if at == series.len() {
            series.push(Series {
                name: shorten(&name, MAX_LABEL),
                points: Vec::new(),
            });
        }
        if let Some(series) = series.get_mut(at) {
            series.points.push((*x, y));
        }
    }
    (series, skipped)
}

/// Text that is safe in XML and short enough for its place.
fn shorten(text: &str, limit: usize) -> String {
    let clean = |c: char| {
        if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') {
            ' '
        } else {
            c
        }
    };
    let mut short: String = text.chars().take(limit).map(clean).collect();
    if text.chars().nth(limit).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
