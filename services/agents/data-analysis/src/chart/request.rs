//! What a caller may say about a chart.

use serde::{Deserialize, Serialize};

/// What to draw.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The kind of chart.
    pub kind: ChartKind,
    /// The column along the x axis; of a histogram, the column whose values are counted.
    pub x: String,
    /// The column or columns along the y axis; none for a histogram.
    #[serde(default)]
    pub y: Names,
    /// A column whose distinct values split one `y` into several series.
    #[serde(default)]
    pub series: Option<String>,
    /// The title; made from the columns if absent.
    #[serde(default)]
    pub title: Option<String>,
    /// Bins of a histogram; chosen from the number of values if absent.
    #[serde(default)]
    pub bins: Option<usize>,
    /// Width in pixels, 200 to 2000.
    #[serde(default = "default_width")]
    pub width: u32,
    /// Height in pixels, 150 to 2000.
    #[serde(default = "default_height")]
    pub height: u32,
    /// A statement that yields the table to draw; without it, the table as it came.
    #[serde(default)]
    pub query: Option<String>,
}

fn default_width() -> u32 {
    800
}

fn default_height() -> u32 {
    480
}

/// One name or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// `"y": "rain"`.
    One(String),
    /// `"y": ["rain", "wind"]`.
    Many(Vec<String>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Names {
    /// The names.
    #[must_use]
    pub fn list(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// The kinds of chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChartKind {
    /// Points joined in order of x.
    Line,
    /// Bars side by side.
    Bar,
    /// Points.
    Scatter,
    /// Bars of how many values fall where.
    Histogram,
}
