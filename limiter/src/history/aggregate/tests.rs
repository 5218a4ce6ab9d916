// SPDX-License-Identifier: GPL-2.0-only OR MIT

use super::*;
use crate::history::row::Durations;

const DAY: i64 = 1_795_824_000;

fn source(last: u8) -> IpNet {
    format!("192.0.2.{last}/32").parse().unwrap()
}

fn seen(last: u8, peak: u32, refused: u64) -> Quarter {
    let mut seen = Quarter::new(0, 1, "smtp", source(last));
    (seen.peak, seen.refused, seen.limit, seen.accepted) = (peak, refused, Some(10), 1);
    seen
}

fn shown(rows: &[Quarter]) -> Vec<(i64, u32, IpNet, u32, u64, u64)> {
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| (row.start_s, row.seconds, row.source, row.peak, row.accepted, row.refused))
        .collect();
    rows.sort();
    rows
}

#[test]
fn who_is_refused_or_near_the_limit_is_given_out_at_once_and_others_when_the_quarter_is_over() {
    let mut aggregator = Aggregator::default();
    let rows = aggregator.look(DAY + 60, vec![seen(1, 4, 0), seen(2, 5, 0), seen(3, 1, 1)]);
    assert_eq!(shown(&rows), [(DAY, 900, source(2), 5, 1, 0), (DAY, 900, source(3), 1, 1, 1)]);
    let rows = aggregator.look(DAY + 120, vec![seen(1, 3, 0)]);
    assert_eq!(shown(&rows), []);
    aggregator.look(DAY + 600, vec![]);
    let rows = aggregator.look(DAY + 900, vec![]);
    assert_eq!(shown(&rows), [], "the quarter that is just over is that in which this happened");
    let rows = aggregator.look(DAY + 960, vec![]);
    assert_eq!(shown(&rows), [(DAY, 3600, source(1), 4, 2, 0)]);
    assert_eq!(aggregator.finish(), []);
}

#[test]
fn what_was_seen_before_it_became_notable_is_in_the_quarter_too() {
    let mut aggregator = Aggregator::default();
    assert_eq!(aggregator.look(DAY + 60, vec![seen(1, 4, 0)]), []);
    let rows = aggregator.look(DAY + 120, vec![seen(1, 2, 3)]);
    assert_eq!(shown(&rows), [(DAY, 900, source(1), 4, 2, 3)]);
    let rows = aggregator.look(DAY + 180, vec![seen(1, 1, 0)]);
    assert_eq!(shown(&rows), [(DAY, 900, source(1), 1, 1, 0)], "only what is new");
    let rows = aggregator.look(DAY + 960, vec![seen(1, 1, 0)]);
    assert_eq!(shown(&rows), []);
    assert_eq!(shown(&aggregator.finish()), [(DAY, 3600, source(1), 1, 1, 0)], "it is an ordinary one now");
}

#[test]
fn the_end_of_the_daemon_gives_out_all() {
    let mut aggregator = Aggregator::default();
    aggregator.look(DAY + 60, vec![seen(1, 1, 0)]);
    assert_eq!(shown(&aggregator.finish()), [(DAY, 3600, source(1), 1, 1, 0)]);
    assert_eq!(aggregator.finish(), []);
}

#[test]
fn what_happened_after_the_clock_was_set_back_is_of_the_time_that_it_says() {
    let mut aggregator = Aggregator::default();
    aggregator.look(DAY + 7260, vec![seen(1, 3, 0)]);
    let rows = aggregator.look(DAY + 3660, vec![seen(1, 4, 0)]);
    assert_eq!(shown(&rows), [(DAY + 7200, 3600, source(1), 3, 1, 0)]);
    assert_eq!(shown(&aggregator.finish()), [(DAY + 3600, 3600, source(1), 4, 1, 0)]);
    // A look that comes hours after the last one says nothing of when it happened.
    aggregator.look(DAY + 90_000, vec![seen(1, 2, 0)]);
    assert_eq!(shown(&aggregator.finish()), [(DAY + 90_000, 3600, source(1), 2, 1, 0)]);
}

#[test]
fn users_are_counted_once_in_a_quarter_and_named_once() {
    let with = |names: &[&str]| {
        vec![Quarter { names: names.iter().map(|name| (*name).to_owned()).collect(), ..seen(1, 9, 0) }]
    };
    let mut aggregator = Aggregator::default();
    let [first] = &aggregator.look(DAY + 60, with(&["anna", "ben"]))[..] else { panic!() };
    assert_eq!((first.users, &first.names[..]), (Some(2), &["anna".to_owned(), "ben".to_owned()][..]));
    let [second] = &aggregator.look(DAY + 120, with(&["ben", "cleo"]))[..] else { panic!() };
    assert_eq!((second.users, &second.names[..]), (Some(3), &["cleo".to_owned()][..]));
    let [third] = &aggregator.look(DAY + 180, with(&[]))[..] else { panic!() };
    assert_eq!(third.users, None, "nobody was asked for");
}

#[test]
fn whoever_is_to_be_forgotten_is_in_nothing_that_comes() {
    let mut aggregator = Aggregator::default();
    aggregator.look(DAY + 60, vec![seen(1, 1, 0), seen(2, 1, 0)]);
    aggregator.forget(|one| *one == source(1));
    assert_eq!(shown(&aggregator.finish()), [(DAY, 3600, source(2), 1, 1, 0)]);
}

#[test]
fn durations_are_added_up_and_not_known_where_nobody_knows() {
    let ended = |durations| Quarter { durations, ..seen(1, 9, 0) };
    let one = Some(Durations { longer: 1, ..Durations::default() });
    let mut sum = ended(None);
    sum.add(&ended(None));
    assert_eq!(sum.durations, None);
    sum.add(&ended(one));
    sum.add(&ended(one));
    sum.add(&ended(None));
    assert_eq!(sum.durations, Some(Durations { longer: 2, ..Durations::default() }));
}
