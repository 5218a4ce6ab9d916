// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! When it makes sense to come again.

use std::{fmt, time::Duration};

/// When it makes sense to come again, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this time the rate allows the next connection.
    In(Duration),
    /// Nobody knows: when somebody has closed a connection.
    Later,
}

impl Retry {
    /// None has a longer text.
    pub const LONGEST: Self = Self::In(Duration::from_secs(119));

    /// The longest time that is told. The next connection of the slowest rate is due in an hour.
    const MAX: Duration = Duration::from_secs(30 * 86_400);
}

/// Never less than it is: who comes a second early is refused again.
impl fmt::Display for Retry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = match self {
            Self::In(time) if *time <= Self::MAX => time,
            _ => return out.write_str("later"),
        };
        let seconds = (time.as_secs() + u64::from(time.subsec_nanos() != 0)).max(1);
        let (unit, name) = match seconds {
            0..=119 => (1, "second"),
            120..=7_199 => (60, "minute"),
            7_200..=172_799 => (3_600, "hour"),
            _ => (86_400, "day"),
        };
        let number = seconds.div_ceil(unit);
        write!(out, "in {number} {name}{}", if number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_told_in_the_unit_that_people_use_and_never_too_short() {
        let told = |ms| Retry::In(Duration::from_millis(ms)).to_string();
        for (ms, expected) in [
            (0, "in 1 second"),
            (1_001, "in 2 seconds"),
            (119_000, "in 119 seconds"),
            (119_001, "in 2 minutes"),
            (600_000, "in 10 minutes"),
            (601_000, "in 11 minutes"),
            (86_400_000, "in 24 hours"),
            (30 * 86_400_000, "in 30 days"),
            (31 * 86_400_000, "later"),
        ] {
            assert_eq!(told(ms), expected, "{ms} ms");
        }
        assert_eq!(Retry::Later.to_string(), "later");
    }

    proptest! {
        #[test]
        fn none_is_longer_than_the_longest(ms: u64) {
            for ms in [ms, ms % 3_600_000, ms % 86_400_000_000] {
                let told = Retry::In(Duration::from_millis(ms)).to_string();
                prop_assert!(told.len() <= Retry::LONGEST.to_string().len(), "{}", told);
            }
        }
    }
}
