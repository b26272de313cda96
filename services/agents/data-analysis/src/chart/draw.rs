//! From a [`Plan`] to SVG text.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::{Axis, ChartKind, Error, Plan, Series, index_of};

/// Colours that people with any kind of colour vision tell apart (Okabe and Ito).
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(100, 100, 100),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The plan as SVG text.
///
/// # Errors
/// When the drawing library fails.
pub fn svg(plan: &Plan) -> Result<String, Error> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, plan.size).into_drawing_area();
    draw(&area, plan).map_err(Error::Drawing)?;
    drop(area);
    Ok(text)
}

fn draw(area: &Area<'_>, plan: &Plan) -> Result<(), String> {
    area.fill(&WHITE).map_err(said)?;
    let (x, y) = ranges(plan);
    let mut chart = ChartBuilder::on(area)
        .caption(&plan.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)
        .map_err(said)?;
    let span = x.1 - x.0;
    let x_labels = (plan.size.0 as usize / 90).clamp(2, 12);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_labels(if let Axis::Labels(labels) = &plan.axis {
            labels.len().min(24)
        } else {
            x_labels
        })
        .x_label_formatter(&|value| x_text(&plan.axis, *value, span))
        .y_label_formatter(&|value| number_text(*value))
        .x_desc(&plan.x_label)
        .y_desc(&plan.y_label)
        .label_style(("sans-serif", 12))
        .draw()
        .map_err(said)?;
    for (index, series) in plan.series.iter().enumerate() {
        add(&mut chart, plan, series, index).map_err(said)?;
    }
    if plan.series.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 12))
            .draw()
            .map_err(said)?;
    }
    area.present().map_err(said)
}

fn add<'b>(
    chart: &mut Chart<'_, 'b>,
    plan: &Plan,
    series: &Series,
    index: usize,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>> {
    let color = PALETTE.get(index % PALETTE.len()).copied().unwrap_or(BLACK);
    let points = series.points.iter().copied();
    let drawn = match plan.kind {
        ChartKind::Line => chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?,
        ChartKind::Scatter => {
            chart.draw_series(points.map(|point| Circle::new(point, 3, color.mix(0.7).filled())))?
        }
        ChartKind::Bar | ChartKind::Histogram => {
            #[expect(clippy::cast_precision_loss, reason = "there are at most a dozen series")]
            let (count, place) = (plan.series.len() as f64, index as f64);
            let width = plan.bar_width / count;
            let bars = points.map(|(x, y)| {
                let left = x - plan.bar_width / 2.0 + width * place;
                Rectangle::new([(left, 0.0), (left + width, y)], color.filled())
            });
            chart.draw_series(bars)?
        }
    };
    drawn
        .label(&series.name)
        .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled()));
    Ok(())
}

/// The ranges of both axes: all points with some air; bars stand on zero.
fn ranges(plan: &Plan) -> ((f64, f64), (f64, f64)) {
    let points = || plan.series.iter().flat_map(|series| &series.points);
    let bars = matches!(plan.kind, ChartKind::Bar | ChartKind::Histogram);
    let half = plan.bar_width / 2.0;
    let x = match (&plan.axis, plan.kind) {
        #[expect(clippy::cast_precision_loss, reason = "there are few labels")]
        (Axis::Labels(labels), _) => (-0.5, labels.len() as f64 - 0.5),
        (_, ChartKind::Histogram) => {
            let (low, high) = extent(points().map(|point| point.0));
            (low - half, high + half)
        }
        _ => aired(extent(points().map(|point| point.0)), 0.02),
    };
    let (low, high) = extent(points().map(|point| point.1));
    let y = if bars {
        let (low, high) = aired((low.min(0.0), high.max(0.0)), 0.05);
        // No air below bars that all stand up, nor above those that all hang down.
        (
            if points().all(|point| point.1 >= 0.0) {
                0.0
            } else {
                low
            },
            high,
        )
    } else {
        aired((low, high), 0.05)
    };
    (x, y)
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// A range with air at both ends, and wide enough that an axis can label it.
fn aired((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let least = low.abs().max(high.abs()) * 1e-9;
    if high - low <= least.max(f64::MIN_POSITIVE) {
        let air = (low.abs() * 0.1).max(1.0);
        return (low - air, high + air);
    }
    let air = (high - low) * share;
    (low - air, high + air)
}

fn x_text(axis: &Axis, value: f64, span: f64) -> String {
    match axis {
        Axis::Numbers => number_text(value),
        Axis::Dates => date_text(value, span),
        Axis::Labels(labels) => {
            let on_a_label = (value - value.round()).abs() < 1e-6 && value > -0.5;
            on_a_label
                .then(|| labels.get(index_of(value)).cloned())
                .flatten()
                .unwrap_or_default()
        }
    }
}

fn date_text(days: f64, span: f64) -> String {
    const DAYS_WITH_TIME: f64 = 4.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates; jiff refuses what is out of range"
    )]
    let milliseconds = (days * 86_400_000.0).round() as i64;
    let format = if span < DAYS_WITH_TIME {
        "%m-%d %H:%M"
    } else {
        "%Y-%m-%d"
    };
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| String::new(), |time| time.strftime(format).to_string())
}

/// A number with at most six significant digits.
fn number_text(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 1e-12 {
        return "0".to_owned();
    }
    if !(1e-4..1e7).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 9"
    )]
    let decimals = (5.0 - magnitude.log10().floor()).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dates_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (20.0, "20"),
            (-0.25, "-0.25"),
            (1234.5, "1234.5"),
        ] {
            assert_eq!(number_text(value), text);
        }
        assert_eq!(number_text(1e9), "1.00e9");
        assert_eq!(date_text(16_130.0, 30.0), "2014-03-01");
        assert_eq!(date_text(16_130.5, 1.0), "03-01 12:00");
    }
}
