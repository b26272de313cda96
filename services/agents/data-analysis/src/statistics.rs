//! Descriptive statistics on plain slices of finite numbers.
//!
//! * `std` is the sample standard deviation (divisor n − 1), undefined below two values.
//! * Quartiles interpolate linearly between the two nearest ranks (the method that R calls type 7 and NumPy and
//!   spreadsheets default to), so a median of an even count is the mean of the middle two.
//! * Correlation is Pearson's r over the rows where both columns have a value; undefined below two such rows or
//!   where a column does not vary.
//! * Sums are compensated (Neumaier), so that adding many small values to a large one loses nothing that matters.
//!
//! What is undefined, or too large for a double, is `None`: never NaN, which JSON cannot say.

use serde::{Deserialize, Serialize};

/// The usual figures of a numeric column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: usize,
    /// Their sum.
    pub sum: Option<f64>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Half are not above it.
    pub median: Option<f64>,
    /// Sample standard deviation.
    pub std: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// First quartile.
    pub q1: Option<f64>,
    /// Third quartile.
    pub q3: Option<f64>,
}

/// Summarizes `values`.
#[must_use]
pub fn summarize(values: &[f64]) -> Summary {
    let sorted = sorted(values);
    Summary {
        count: values.len(),
        sum: sum(values),
        mean: mean(values),
        median: quantile(&sorted, 0.5),
        std: standard_deviation(values),
        min: sorted.first().copied(),
        max: sorted.last().copied(),
        q1: quantile(&sorted, 0.25),
        q3: quantile(&sorted, 0.75),
    }
}

/// The values in ascending order.
#[must_use]
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The compensated sum; 0 of nothing.
#[must_use]
pub fn sum(values: &[f64]) -> Option<f64> {
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    for &value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() {
            (sum - next) + value
        } else {
            (value - next) + sum
        };
        sum = next;
    }
    finite(sum + lost)
}

/// The arithmetic mean, within the smallest and the largest value.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    let (low, high) = rest.iter().fold((*first, *first), |(low, high), &value| {
        (low.min(value), high.max(value))
    });
    #[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
    let mean = sum(values)? / values.len() as f64;
    Some(mean.clamp(low, high)) // rounding may step outside by one unit in the last place
}

/// The sample standard deviation.
#[must_use]
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: Vec<f64> = values.iter().map(|value| (value - mean).powi(2)).collect();
    #[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
    finite((sum(&squares)? / (values.len() - 1) as f64).sqrt())
}

/// The `fraction` quantile (0 to 1) of values in ascending order.
#[must_use]
pub fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
    let rank = last as f64 * fraction.clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rank is within 0 and last"
    )]
    let below = rank.floor() as usize;
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).unwrap_or(&low);
    let weight = rank.fract();
    Some((low * (1.0 - weight) + high * weight).clamp(low, high))
}

/// Pearson's correlation of the pairs.
#[must_use]
pub fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 2 {
        return None;
    }
    let (xs, ys): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (xs, ys) = (deviations(&xs)?, deviations(&ys)?);
    let products: Vec<f64> = xs.iter().zip(&ys).map(|(x, y)| x * y).collect();
    let norm =
        |values: &[f64]| sum(&values.iter().map(|value| value * value).collect::<Vec<_>>()).map(f64::sqrt);
    let scale = norm(&xs)? * norm(&ys)?;
    if scale <= 0.0 {
        return None;
    }
    finite(sum(&products)? / scale).map(|r| r.clamp(-1.0, 1.0))
}

/// Deviations from the mean, scaled so that the largest is 1: squares then neither overflow nor vanish.
fn deviations(values: &[f64]) -> Option<Vec<f64>> {
    let largest = values
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let mean = mean(values)?;
    let deviations: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let scale = deviations
        .iter()
        .fold(0.0_f64, |scale, value| scale.max(value.abs()));
    // A constant column may deviate from its rounded mean by rounding only.
    if !scale.is_finite() || scale <= largest * 4.0 * f64::EPSILON {
        return None;
    }
    Some(deviations.iter().map(|value| value / scale).collect())
}

/// How outliers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutlierMethod {
    /// Beyond the quartiles by `threshold` × the interquartile range (Tukey's fences).
    Iqr,
    /// Further than `threshold` sample standard deviations from the mean.
    Zscore,
}

impl OutlierMethod {
    /// The customary threshold.
    #[must_use]
    pub fn default_threshold(self) -> f64 {
        match self {
            Self::Iqr => 1.5,
            Self::Zscore => 3.0,
        }
    }
}

/// The bounds outside of which a value is an outlier; `None` when there are too few values or they do not vary.
#[must_use]
pub fn fences(values: &[f64], method: OutlierMethod, threshold: f64) -> Option<(f64, f64)> {
    let (low, high, spread) = match method {
        OutlierMethod::Iqr => {
            let sorted = sorted(values);
            let (q1, q3) = (quantile(&sorted, 0.25)?, quantile(&sorted, 0.75)?);
            (q1, q3, q3 - q1)
        }
        OutlierMethod::Zscore => {
            let mean = mean(values)?;
            (mean, mean, standard_deviation(values)?)
        }
    };
    if method == OutlierMethod::Zscore && spread <= 0.0 {
        return None;
    }
    Some((
        finite(low - threshold * spread)?,
        finite(high + threshold * spread)?,
    ))
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(actual: Option<f64>, expected: f64) {
        let actual = actual.unwrap();
        assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
    }

    #[test]
    fn figures_agree_with_a_pencil() {
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared deviations sum to 32, so the sample variance is 32 / 7.
        let summary = summarize(&[9.0, 2.0, 4.0, 4.0, 5.0, 4.0, 5.0, 7.0]);
        assert_eq!(summary.count, 8);
        near(summary.sum, 40.0);
        near(summary.mean, 5.0);
        near(summary.std, (32.0_f64 / 7.0).sqrt());
        near(summary.median, 4.5);
        near(summary.q1, 4.0);
        near(summary.q3, 5.5);
        assert_eq!((summary.min, summary.max), (Some(2.0), Some(9.0)));
    }

    #[test]
    fn quartiles_interpolate() {
        // Ranks 0.75 and 2.25 of 1, 2, 3, 4.
        let summary = summarize(&[1.0, 2.0, 3.0, 4.0]);
        near(summary.q1, 1.75);
        near(summary.q3, 3.25);
    }

    #[test]
    fn what_is_undefined_is_none() {
        let none = summarize(&[]);
        assert_eq!(
            (none.count, none.mean, none.median, none.std),
            (0, None, None, None)
        );
        let one = summarize(&[3.0]);
        assert_eq!((one.mean, one.median, one.std), (Some(3.0), Some(3.0), None));
        assert_eq!(summarize(&[f64::MAX, f64::MAX]).sum, None);
        assert_eq!(correlation(&[(1.0, 2.0)]), None);
        assert_eq!(correlation(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(correlation(&[(0.1, 2.0), (0.1, 3.0), (0.1, 4.0)]), None);
    }

    #[test]
    fn correlation_agrees_with_a_pencil() {
        near(correlation(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]), 1.0);
        near(correlation(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]), -1.0);
        // x: −1.5, −0.5, 0.5, 1.5; y: −1, 1, −1, 1 → Σxy = 2, Σx² = 5, Σy² = 4.
        near(
            correlation(&[(1.0, 1.0), (2.0, 3.0), (3.0, 1.0), (4.0, 3.0)]),
            2.0 / 20.0_f64.sqrt(),
        );
    }

    #[test]
    fn fences_agree_with_a_pencil() {
        let values = [1.0, 2.0, 3.0, 4.0, 100.0]; // quartiles 2 and 4
        assert_eq!(fences(&values, OutlierMethod::Iqr, 1.5), Some((-1.0, 7.0)));
        let (low, high) = fences(&[1.0, 3.0], OutlierMethod::Zscore, 2.0).unwrap(); // mean 2, std √2
        near(Some(low), 2.0 - 2.0 * 2.0_f64.sqrt());
        near(Some(high), 2.0 + 2.0 * 2.0_f64.sqrt());
        assert_eq!(fences(&[5.0, 5.0, 5.0], OutlierMethod::Zscore, 3.0), None);
    }

    proptest! {
        #[test]
        fn every_middle_lies_between_the_ends(values in proptest::collection::vec(-1e300..1e300f64, 1..60)) {
            let summary = summarize(&values);
            let (min, max) = (summary.min.unwrap(), summary.max.unwrap());
            for middle in [summary.median, summary.q1, summary.q3, summary.mean].into_iter().flatten() {
                prop_assert!(min <= middle && middle <= max);
            }
            prop_assert!(summary.q1 <= summary.median && summary.median <= summary.q3);
            prop_assert!(summary.std.is_none_or(|std| std >= 0.0));
        }

        #[test]
        fn correlation_is_within_one_and_symmetric(pairs in proptest::collection::vec((-1e9..1e9f64, -1e9..1e9f64), 0..60)) {
            if let Some(r) = correlation(&pairs) {
                prop_assert!((-1.0..=1.0).contains(&r));
                let swapped: Vec<_> = pairs.iter().map(|&(x, y)| (y, x)).collect();
                prop_assert!((correlation(&swapped).unwrap() - r).abs() < 1e-9);
            }
        }

        #[test]
        fn moving_and_scaling_change_the_figures_alike(
            values in proptest::collection::vec(-1e6..1e6f64, 2..40), shift in -1e6..1e6f64,
        ) {
            let moved: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let (before, after) = (summarize(&values), summarize(&moved));
            prop_assert!((after.mean.unwrap() - before.mean.unwrap() - shift).abs() < 1e-6);
            prop_assert!((after.std.unwrap() - before.std.unwrap()).abs() < 1e-6);
        }
    }
}
