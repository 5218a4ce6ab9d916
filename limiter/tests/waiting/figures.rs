// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Figures in one line, for whoever runs the tests.

use std::time::Duration;

use crate::crowd::Record;
use limiter_lab::Answer;

/// Milliseconds.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The smallest of which `percent` out of a hundred are not above it; 0 of none.
pub fn percentile(of: &[Duration], percent: usize) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// What became of connections.
pub fn summary(records: &[Record]) -> String {
    let count = |is: &dyn Fn(&Record) -> bool| -> usize {
        records.iter().filter(|record| is(record)).map(|record| record.times).sum()
    };
    let (served, told) = (count(&Record::served), count(&Record::told));
    let reset = count(&|record| record.answer == Answer::Reset);
    let closed = count(&|record| record.answer == Answer::Closed);
    let silent = count(&|record| record.answer == Answer::Silence);
    let longest = records.iter().map(Record::silence).max().unwrap_or_default();
    format!(
        "{} calls: {served} served, {told} told, {reset} reset, {closed} closed, {silent} heard nothing; \
         the longest silence {}",
        count(&|_| true),
        ms(longest)
    )
}

/// A number that the environment may set, for longer runs than the suite has time for.
pub fn from_environment(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |said| said.parse().unwrap_or_else(|_| panic!("{name} is to be a number: {said}")))
}

#[test]
fn a_percentile_is_one_of_the_values() {
    let values: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
    assert_eq!(percentile(&values, 99), Duration::from_millis(198));
    assert_eq!(percentile(&values[..3], 99), Duration::from_millis(200));
    assert_eq!(percentile(&[], 99), Duration::ZERO);
}
