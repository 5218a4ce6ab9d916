// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Thirty handshakes of one source at once, from near and from far.

use std::time::Duration;

use crate::crowd::{Caller, Crowd, End, Record};
use crate::figures::summary;
use crate::setup::{SMTP, Setup, TIDY, all_is_well, gently, nothing_is_left};
use limiter_lab::link::Loss;
use limiter_lab::{Answer, V4, V6, say};

const LIMIT: usize = 3;
const CLIENTS: usize = 30;
const STAY: Duration = Duration::from_secs(1);

/// What is wrong with how those who were not served were told.
fn rude(records: &[Record], response: &str) -> Vec<String> {
    let as_it_should_be = |record: &Record| match record.answer {
        // A source that insists gets resets, even where others get words.
        Answer::Reset | Answer::Silence => true,
        Answer::Line(_) if record.told() => response == "reply" && record.end == Some(End::Fin),
        _ => record.served(),
    };
    let rude = records.iter().filter(|record| !as_it_should_be(record));
    rude.map(|record| format!("{} heard {:?}, then {:?}", record.local, record.answer, record.end)).collect()
}

/// A burst over IPv4 and one over IPv6 at the same time.
fn burst(rtt_ms: u64, response: &str, loss: Loss) {
    let _machine = gently();
    let rtt = Duration::from_millis(rtt_ms);
    let Some(setup) = Setup::far(LIMIT as u32, response, rtt, loss) else { return };
    let families = [V4, V6];
    let callers =
        families.map(|family| Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY)).concat();
    // With a repetition or two on top where segments are lost.
    let patience =
        setup.patience() + Duration::from_millis(500) + Duration::from_secs(3 * loss.percent.min(2));
    let link = setup.link.as_ref();
    let records = Crowd { callers, patience, again: None, link }.call(&setup.lab);

    let mut complaints = setup.silences(&records);
    let sources = families.map(|family| family.source());
    complaints.extend(sources.iter().filter_map(|source| setup.excess(*source)));
    for source in sources {
        let of_it = |record: &&Record| record.local.ip() == source && record.served();
        let served = records.iter().filter(of_it).count();
        if served <= LIMIT {
            complaints.push(format!("{served} of {source} were served: nobody who waited got in"));
        }
    }
    // Where segments are lost the grant may be, too: then how long places stay free is only to be seen.
    let mut slow = Vec::new();
    let places = setup.places(&sources, &records, &mut slow);
    if loss.percent == 0 {
        complaints.extend(slow);
        complaints.extend(rude(&records, response));
    }
    let summary = format!(
        "burst, {response}, rtt {rtt_ms} ms, loss {} % ({} segments): {}; {places}",
        loss.percent,
        link.map_or(0, |link| link.lost().len()),
        summary(&records),
    );
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn of_thirty_at_once_from_next_door_nobody_waits_in_silence() {
    burst(1, "reply", Loss::NONE);
}

#[test]
fn of_thirty_at_once_from_the_same_country_nobody_waits_in_silence() {
    burst(20, "reply", Loss::NONE);
}

#[test]
fn of_thirty_at_once_from_another_continent_nobody_waits_in_silence() {
    burst(100, "reply", Loss::NONE);
}

#[test]
fn of_thirty_at_once_from_the_end_of_the_world_nobody_waits_in_silence() {
    burst(300, "reply", Loss::NONE);
}

#[test]
fn of_thirty_at_once_over_a_line_that_loses_segments_nobody_waits_longer_than_these_cost() {
    burst(20, "reply", Loss { percent: 1, seed: 1 });
}

#[test]
fn of_thirty_at_once_over_a_long_line_that_loses_segments_nobody_waits_longer_than_these_cost() {
    burst(100, "reply", Loss { percent: 1, seed: 2 });
}

#[test]
fn of_thirty_at_once_where_refusals_are_resets_nobody_waits_in_silence_either() {
    burst(20, "reset", Loss::NONE);
}
