// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Medians, and how far the rounds lie apart.

use serde::Serialize;

/// What several rounds say of one figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of the values of all rounds; zeros without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else { return Self::default() };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, min, max }
    }

    /// Of the quotients of two contestants, each within a round: what else the machine did hit both.
    pub fn of_ratios(values: &[f64], of: &[f64]) -> Self {
        Self::of(values.iter().zip(of).filter(|(_, of)| **of > 0.0).map(|(value, of)| value / of))
    }

    /// Half the distance from the least to the most, in percent of the median.
    pub fn percent(&self) -> f64 {
        if self.median > 0.0 { (self.max - self.min) / 2.0 / self.median * 100.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_is_half_the_range() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert!((odd.percent() - 50.0).abs() < 1e-9);
        assert!((Spread::of([4.0, 1.0, 2.0, 3.0]).median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was twice as noisy for both.
        let ratios = Spread::of_ratios(&[90.0, 45.0], &[100.0, 50.0]);
        assert!((ratios.min - 0.9).abs() < 1e-9 && (ratios.max - 0.9).abs() < 1e-9);
    }
}
