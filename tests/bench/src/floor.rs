//! What a row must reach.

use std::fmt;

use crate::row::Measured;

/// A bound on the numbers of a row. Every bound includes its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Floor {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    OursAtMost(f64),
    BothAtMost { ours: f64, ratio: f64 },
}

impl Floor {
    /// Says whether the row keeps the bound. A row without a ratio keeps no bound on it.
    pub(crate) fn is_met_by(self, row: &Measured) -> bool {
        match self {
            Self::RatioAtLeast(bound) => row.ratio.is_some_and(|ratio| ratio >= bound),
            Self::RatioAtMost(bound) => row.ratio.is_some_and(|ratio| ratio <= bound),
            Self::OursAtMost(bound) => row.ours <= bound,
            Self::BothAtMost { ours, ratio } => {
                Self::OursAtMost(ours).is_met_by(row) && Self::RatioAtMost(ratio).is_met_by(row)
            }
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RatioAtLeast(bound) => write!(formatter, "ratio >= {bound:.2}"),
            Self::RatioAtMost(bound) => write!(formatter, "ratio <= {bound:.2}"),
            Self::OursAtMost(bound) => write!(formatter, "ours <= {bound:.0}"),
            Self::BothAtMost { ours, ratio } => {
                write!(formatter, "{}, {}", Self::OursAtMost(ours), Self::RatioAtMost(ratio))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(floor: Floor, ours: f64, ratio: Option<f64>, expect: bool) {
        let row = Measured { name: "row", unit: "unit", ours, reference: None, ratio };
        assert_eq!(floor.is_met_by(&row), expect, "{floor} of {row:?}");
    }

    #[test]
    fn bounds_include_their_value() {
        check(Floor::RatioAtLeast(0.7), 1.0, Some(0.7), true);
        check(Floor::RatioAtLeast(0.7), 1.0, Some(0.699), false);
        check(Floor::RatioAtMost(2.0), 1.0, Some(2.0), true);
        check(Floor::RatioAtMost(2.0), 1.0, Some(2.001), false);
        check(Floor::OursAtMost(60.0), 60.0, Some(9.0), true);
        check(Floor::OursAtMost(60.0), 60.1, None, false);
        check(Floor::BothAtMost { ours: 60.0, ratio: 1.5 }, 60.0, Some(1.5), true);
        check(Floor::BothAtMost { ours: 60.0, ratio: 1.5 }, 60.1, Some(1.5), false);
        check(Floor::BothAtMost { ours: 60.0, ratio: 1.5 }, 60.0, Some(1.501), false);
    }

    #[test]
    fn a_missing_ratio_keeps_no_bound() {
        check(Floor::RatioAtLeast(0.0), 1.0, None, false);
        check(Floor::RatioAtMost(9.0), 1.0, None, false);
        check(Floor::BothAtMost { ours: 9.0, ratio: 9.0 }, 1.0, None, false);
    }
}
