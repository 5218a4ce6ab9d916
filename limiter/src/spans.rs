// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Lengths of time, as people say them.

use std::time::Duration;

/// Seconds that have passed, as people say them.
pub fn ago(seconds: u32) -> String {
    if seconds == 0 { "now".to_owned() } else { format!("{} ago", time(Duration::from_secs(seconds.into()))) }
}

/// A time as people say it: rounded up to what matters of it, two units at most.
pub fn time(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    if time < Duration::from_secs(1) {
        return if time.is_zero() { "0 s".to_owned() } else { "1 s".to_owned() };
    }
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    // The unit that fits, with the one below it while the number is small; below ten minutes, hours, … only.
    let (index, &(unit, name)) = match UNITS.iter().enumerate().find(|(_, (unit, _))| seconds >= *unit) {
        Some(found) => found,
        None => (UNITS.len() - 1, &UNITS[UNITS.len() - 1]),
    };
    let smaller = UNITS.get(index + 1).filter(|_| seconds / unit < 10);
    let Some(&(below, below_name)) = smaller else {
        return format!("{} {name}", seconds.div_ceil(unit));
    };
    let parts = seconds.div_ceil(below);
    let (whole, rest) = (parts / (unit / below), parts % (unit / below));
    if rest == 0 { format!("{whole} {name}") } else { format!("{whole} {name} {rest} {below_name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_the_units_that_fit() {
        let said = [0, 1, 59, 60, 119, 600, 3599, 3600, 7200, 86_399, 172_800, 2_592_000]
            .map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(
            said,
            [
                "0 s",
                "1 s",
                "59 s",
                "1 min",
                "1 min 59 s",
                "10 min",
                "60 min",
                "1 h",
                "2 h",
                "24 h",
                "2 d",
                "30 d"
            ]
        );
        assert_eq!(time(Duration::from_millis(9977)), "10 s");
        assert_eq!(time(Duration::from_millis(3)), "1 s");
        assert_eq!([ago(0), ago(90)], ["now", "1 min 30 s ago"]);
    }
}
