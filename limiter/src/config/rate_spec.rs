// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A rate as people write it: `60/min`.

use std::fmt;

use limiter_common::Rate;

/// The units a rate can be given in, and their seconds.
const UNITS: [(&str, u32); 3] = [("s", 1), ("min", 60), ("h", 3600)];

/// So many handshakes in a second, a minute or an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSpec {
    /// How many, 1 to [`Rate::MAX_COUNT`].
    pub count: u32,
    /// In how many seconds: 1, 60 or 3,600.
    pub period_s: u32,
}

impl RateSpec {
    /// Reads `COUNT/UNIT`; `None` if it is not of that form, or the count out of range.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let count = count.trim();
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let count = count.parse().ok().filter(|count| (1..=Rate::MAX_COUNT).contains(count))?;
        let &(_, period_s) = UNITS.iter().find(|(known, _)| *known == unit.trim())?;
        Some(Self { count, period_s })
    }

    /// The rate of this spec, with bursts of `burst`.
    pub const fn rate(self, burst: u32) -> Rate {
        Rate::new(self.count, self.period_s, burst)
    }

    /// The rate of a rate, in the unit that suits it best; `None` without a limit.
    ///
    /// The kernel holds no unit. The one in which the burst is the whole number, as it is where none is
    /// said, is most likely the one that was meant.
    pub fn of(rate: &Rate) -> Option<Self> {
        let spec = |(_, period_s): (&str, u32)| {
            // Intervals are rounded down: another number than was given may mean the same interval.
            let count = (u64::from(period_s) * 1_000_000_000).checked_div(rate.interval_ns)?;
            let count = u32::try_from(count).ok().filter(|count| (1..=Rate::MAX_COUNT).contains(count))?;
            let spec = Self { count, period_s };
            (spec.rate(1).interval_ns == rate.interval_ns).then_some(spec)
        };
        let [second, minute, hour] = UNITS.map(spec);
        let order =
            if rate.interval_ns < 1_000_000_000 { [second, minute, hour] } else { [minute, hour, second] };
        let mut specs = order.into_iter().flatten();
        // One at once is asked of every spec, so it tells nothing.
        let whole = specs.clone().find(|spec| spec.count == rate.burst() && spec.count > 1);
        whole.or_else(|| specs.next())
    }
}

impl fmt::Display for RateSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, period_s)| *period_s == self.period_s).map_or("", |(unit, _)| unit);
        write!(out, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(count in 1..=Rate::MAX_COUNT, unit in 0usize..3, burst in 1u32..1000) {
            let spec = RateSpec { count, period_s: UNITS[unit].1 };
            prop_assert_eq!(RateSpec::parse(&spec.to_string()), Some(spec));
            // The unit may be another one, the rate is the same.
            let rate = spec.rate(burst);
            prop_assert_eq!(RateSpec::of(&rate).unwrap().rate(burst), rate);
        }
    }

    #[test]
    fn a_rate_without_a_burst_of_its_own_is_shown_as_it_was_said() {
        for text in ["10/s", "120/min", "600/min", "600/h", "3600/h", "7/min", "1000000/h"] {
            let spec = RateSpec::parse(text).unwrap();
            assert_eq!(RateSpec::of(&spec.rate(spec.count)), Some(spec));
        }
    }

    #[test]
    fn a_rate_is_shown_in_the_unit_that_suits_it() {
        for text in ["10/s", "60/min", "30/min", "100/min", "7/h", "1000000/s"] {
            assert_eq!(RateSpec::of(&RateSpec::parse(text).unwrap().rate(1)).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rate_is_none() {
        for text in [
            "",
            "/",
            "60",
            "60/",
            "/min",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "60/day",
            "1000001/s",
            "6 0/s",
            "60/MIN",
        ] {
            assert_eq!(RateSpec::parse(text), None, "{text}");
        }
    }
}
