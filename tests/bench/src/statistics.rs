//! The little arithmetic that stands between what was measured and what is printed.

use anyhow::{Result, ensure};

/// Gives the middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Result<f64> {
    let sorted = sorted(values)?;
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        return Ok(sorted[middle]);
    }
    Ok(f64::midpoint(sorted[middle - 1], sorted[middle]))
}

/// Gives the smallest value that at least `percent` of the values do not exceed (nearest rank).
pub(crate) fn percentile(values: &[f64], percent: usize) -> Result<f64> {
    ensure!((1..=100).contains(&percent), "there is no percentile {percent}");
    let sorted = sorted(values)?;
    let rank = (sorted.len() * percent).div_ceil(100);
    Ok(sorted[rank - 1])
}

/// Divides, unless that means nothing.
pub(crate) fn ratio(numerator: f64, denominator: f64) -> Result<f64> {
    let ratio = numerator / denominator;
    let means_something = ratio.is_finite() && ratio >= 0.0 && denominator > 0.0;
    ensure!(means_something, "{numerator} over {denominator} is no ratio");
    Ok(ratio)
}

fn sorted(values: &[f64]) -> Result<Vec<f64>> {
    ensure!(!values.is_empty(), "nothing was measured");
    ensure!(values.iter().all(|value| value.is_finite()), "a figure is not a number");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        let check = |values: &[f64], expect| assert_eq!(median(values).expect("some"), expect);
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0], 2.5);
        check(&[10.0, 9.0, 1.0, 2.0, 8.0], 8.0);
    }

    #[test]
    fn percentile_is_a_measured_value() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let check = |values: &[f64], percent, expect| {
            assert_eq!(percentile(values, percent).expect("some"), expect);
        };
        check(&hundred, 50, 50.0);
        check(&hundred, 99, 99.0);
        check(&hundred, 100, 100.0);
        check(&hundred, 1, 1.0);
        check(&[7.0, 5.0], 50, 5.0);
        check(&[7.0, 5.0], 99, 7.0);
        check(&[7.0], 50, 7.0);
    }

    #[test]
    fn nothing_has_no_middle() {
        assert!(median(&[]).is_err());
        assert!(median(&[1.0, f64::NAN]).is_err());
        assert!(percentile(&[], 50).is_err());
        assert!(percentile(&[1.0], 0).is_err());
        assert!(percentile(&[1.0], 101).is_err());
    }

    #[test]
    fn a_ratio_needs_a_denominator() {
        assert_eq!(ratio(1.0, 4.0).expect("is one"), 0.25);
        assert_eq!(ratio(0.0, 4.0).expect("is one"), 0.0);
        for (numerator, denominator) in
            [(1.0, 0.0), (0.0, 0.0), (1.0, f64::NAN), (-1.0, 2.0), (1.0, -2.0)]
        {
            assert!(ratio(numerator, denominator).is_err(), "{numerator} over {denominator}");
        }
    }
}
