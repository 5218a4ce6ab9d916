// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Those who wait go away, in every way a client can: the others get in, in the order in which they came.

use std::time::Duration;

use crate::crowd::{Caller, Crowd, Manner, Record};
use crate::figures::{ms, summary};
use crate::setup::{SMTP, Setup, TIDY, all_is_well, gently, nothing_is_left, slack};
use limiter_lab::link::Loss;
use limiter_lab::{Family, V4, V6, say};

const LIMIT: usize = 4;
const RTT: Duration = Duration::from_millis(20);
/// The one session that ends soon: after it, one place is free, and then another as soon as who got it has gone.
const SOON_OVER: Duration = Duration::from_secs(1);
/// The sessions that do not.
const LONG: Duration = Duration::from_secs(4);
/// A session of those that waited.
const SHORT: Duration = Duration::from_millis(300);
/// Into the wait.
const WHILE_WAITING: Duration = Duration::from_millis(500);
/// Who does not answer within this time loses its turn: two round trips, or this.
const TURN: Duration = Duration::from_millis(200);

/// Four are served, and behind them wait: one that goes in this manner, one that stays, and again.
fn line(family: Family, manner: Manner) -> Vec<Caller> {
    let (source, to) = (family.source(), family.port(SMTP));
    let caller = |manner, stay| Caller { source, to, manner, stay };
    let served = [SOON_OVER, LONG, LONG, LONG].map(|stay| caller(Manner::Stays, stay));
    let waiting = [manner, Manner::Stays, manner, Manner::Stays].map(|manner| caller(manner, SHORT));
    [served, waiting].concat()
}

/// What is wrong with how those of this source that stayed got in: each leaver before one may cost `turn`.
fn out_of_line(setup: &Setup, family: Family, records: &[Record], turn: Duration) -> Vec<String> {
    let mut complaints = Vec::new();
    let visits = setup.server.visits();
    let mut mine: Vec<&Record> =
        records.iter().filter(|record| record.local.ip() == family.source()).collect();
    mine.sort_by_key(|record| record.who);
    let mut last = None;
    for (nth, record) in [mine[5], mine[7]].into_iter().enumerate() {
        let place = visits.iter().position(|visit| visit.remote == record.local);
        if place.is_none() || place < last {
            complaints
                .push(format!("of the line, {} came as number {place:?}, after {last:?}", record.local));
        }
        last = place;
        let turns = nth as u32 + 1;
        // The handshake, a grant for each who waits, and the greeting.
        let allowed = SOON_OVER + SHORT * nth as u32 + turns * (turn + 2 * RTT) + 3 * RTT + slack();
        if record.silence() > allowed {
            complaints.push(format!(
                "{} got in after {}, not {}",
                record.local,
                ms(record.silence()),
                ms(allowed)
            ));
        }
    }
    complaints
}

/// Both families at the same time.
fn leave(manner: Manner, turn: Duration) {
    let _machine = gently();
    let Some(setup) = Setup::far(LIMIT as u32, "reply", RTT, Loss::NONE) else { return };
    let families = [V4, V6];
    let callers = families.map(|family| line(family, manner)).concat();
    let patience = setup.patience() + Duration::from_millis(500);
    let records = Crowd { callers, patience, again: None, link: setup.link.as_ref() }.call(&setup.lab);
    let mut complaints = Vec::new();
    for family in families {
        complaints.extend(out_of_line(&setup, family, &records, turn));
        complaints.extend(setup.excess(family.source()));
    }
    let summary = format!("{manner:?}: {}", summary(&records));
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn who_vanishes_while_it_waits_costs_the_next_one_a_turn_and_leaves_nothing() {
    leave(Manner::Vanishes(WHILE_WAITING), TURN.max(2 * RTT));
}

#[test]
fn who_never_answers_costs_the_next_one_a_turn_and_leaves_nothing() {
    leave(Manner::NeverAnswers, TURN.max(2 * RTT));
}

#[test]
fn who_closes_while_it_waits_costs_the_next_one_a_repeated_fin_at_most_and_leaves_nothing() {
    // Its kernel repeats the FIN after 200, 400 and 800 ms.
    leave(Manner::Closes(WHILE_WAITING), Duration::from_secs(1));
}

#[test]
fn who_resets_while_it_waits_costs_the_next_one_nothing_and_leaves_nothing() {
    leave(Manner::Resets(WHILE_WAITING), Duration::ZERO);
}

/// The network's own count is 0 then and may be forgotten, while the source's says that one waits.
#[test]
fn who_vanished_is_forgotten_as_one_that_waits_though_nobody_else_of_its_network_is_there() {
    let _machine = gently();
    let Some(setup) = Setup::far(1, "reply", RTT, Loss::NONE) else { return };
    setup.limiter.configure_all(
        "remember_seconds = 1\n[defaults]\nmax_connections = 1\nnetwork = { max_connections = 9 }\n",
    );
    setup.limiter.ok(&["reload"]);
    let callers =
        [V4, V6].map(|family| {
            let (source, to) = (family.source(), family.port(SMTP));
            [(Manner::Stays, SOON_OVER), (Manner::Vanishes(WHILE_WAITING), SHORT)]
                .map(|(manner, stay)| Caller { source, to, manner, stay })
        });
    let (callers, patience) = (callers.concat(), setup.patience() + Duration::from_millis(500));
    let records = Crowd { callers, patience, again: None, link: setup.link.as_ref() }.call(&setup.lab);
    say(&format!("alone in its network: {}", summary(&records)));
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
    let verified = setup.limiter.json(&["status", "--verify"]);
    assert_eq!(verified["verified"]["differences"], serde_json::json!([]), "{verified:#}");
}
