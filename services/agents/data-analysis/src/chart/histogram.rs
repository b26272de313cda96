//! How often which values occur.

use super::{
    Axis, ChartKind, Error, MAX_BINS, MAX_LABEL, MAX_TITLE, MAX_VALUE, Plan, Request, Series, index_of,
    shorten,
};
use crate::statistics;
use crate::table::Table;

/// What a request for a histogram means.
pub(super) fn plan(table: &Table, request: &Request) -> Result<Plan, Error> {
    if !request.y.list().is_empty() || request.series.is_some() {
        let what = "is not for histograms: name the column to count in 'x'".to_owned();
        return Err(Error::Parameter { field: "y", what });
    }
    let x = table.numeric(&request.x)?;
    let values = x.numbers();
    if values.iter().any(|value| value.abs() > MAX_VALUE) {
        return Err(Error::OutOfRange(x.name.clone()));
    }
    let bins = request.bins.unwrap_or_else(|| usual_bins(values.len()));
    if !(1..=MAX_BINS).contains(&bins) {
        let what = format!("is {bins}; it must lie within 1 and {MAX_BINS}");
        return Err(Error::Parameter { field: "bins", what });
    }
    let (points, bar_width) = binned(&values, bins).ok_or(Error::Nothing)?;
    let title = request
        .title
        .clone()
        .unwrap_or_else(|| format!("Distribution of {}", x.name));
    Ok(Plan {
        kind: ChartKind::Histogram,
        title: shorten(&title, MAX_TITLE),
        x_label: shorten(&x.name, MAX_LABEL),
        y_label: "count".to_owned(),
        axis: Axis::Numbers,
        series: vec![Series {
            name: shorten(&x.name, MAX_LABEL),
            points,
        }],
        bar_width,
        size: (request.width, request.height),
        skipped: x.cells.len() - values.len(),
    })
}

/// Sturges' rule, between 5 and 50.
fn usual_bins(values: usize) -> usize {
    (values.max(1).ilog2() as usize + 1).clamp(5, 50)
}

/// The centre and count of each bin, and the bins' width.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of bins and rows are far below 2^53"
)]
fn binned(values: &[f64], bins: usize) -> Option<(Vec<(f64, f64)>, f64)> {
    let sorted = statistics::sorted(values);
    let (low, high) = (*sorted.first()?, *sorted.last()?);
    let least = low.abs().max(high.abs()).max(1.0) * 1e-9; // a narrower range cannot be told apart on an axis
    let (low, width) = if high - low > least {
        (low, (high - low) / bins as f64)
    } else {
        (low - 0.5, 1.0 / bins as f64)
    };
    let mut counts = vec![0_u32; bins];
    for value in values {
        let bin = index_of(((value - low) / width).floor()).min(bins - 1);
        if let Some(count) = counts.get_mut(bin) {
            *count += 1;
        }
    }
    let points = counts
        .iter()
        .enumerate()
        .map(|(bin, &count)| (low + width * (bin as f64 + 0.5), f64::from(count)));
    Some((points.collect(), width))
}
