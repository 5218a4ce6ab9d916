// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How one source waits is no concern of the others.

use std::time::{Duration, Instant};

use crate::crowd::{Caller, Crowd};
use crate::figures::{ms, summary};
use crate::setup::{BACKLOG, SMTP, Setup, TIDY, all_is_well, gently, listed, nothing_is_left, slack};
use limiter_lab::link::Loss;
use limiter_lab::{SOON, V4, V6, answer, eventually, say};

const RTT: Duration = Duration::from_millis(20);
/// Long enough to look around, and shorter than the wait.
const STAY: Duration = Duration::from_secs(4);

#[test]
fn while_one_source_fills_its_waiting_room_others_are_served_at_once() {
    const LIMIT: usize = 3;
    let _machine = gently();
    let Some(setup) = Setup::far(LIMIT as u32, "reply", RTT, Loss::NONE) else { return };
    let families = [V4, V6];
    let crowd = Crowd {
        callers: families.map(|family| Caller::crowd(30, family.source(), family.port(SMTP), STAY)).concat(),
        patience: setup.patience(),
        again: None,
        link: setup.link.as_ref(),
    };
    let mut complaints = Vec::new();
    let records = std::thread::scope(|scope| {
        let busy = scope.spawn(|| crowd.call(&setup.lab));
        eventually("as many wait as may", SOON, || {
            let [connections, _, waiting] = listed(&setup.limiter);
            let full = connections == 2 * LIMIT as u64 && waiting >= 2 * LIMIT as u64;
            if full { Ok(()) } else { Err(format!("connections {connections}, waiting {waiting}")) }
        });
        let [.., waiting] = listed(&setup.limiter);
        if waiting > 2 * LIMIT as u64 {
            complaints.push(format!("{waiting} of two sources wait, with {LIMIT} places each"));
        }
        // The handshake, and the words.
        let at_once = 2 * RTT + slack();
        for (family, source) in
            families.iter().flat_map(|family| family.sources[1..].iter().map(move |s| (family, *s)))
        {
            let called = Instant::now();
            let (_, answer) = setup.lab.client.run(|| answer(source, family.port(SMTP), SOON));
            let took = called.elapsed();
            if !answer.is_service() || took > at_once {
                complaints.push(format!("{source} got {answer:?} after {}", ms(took)));
            }
        }
        busy.join().expect("the clients do not fail")
    });
    let summary = format!("neighbours: {}", summary(&records));
    say(&summary);
    complaints.extend(setup.silences(&records));
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn all_who_wait_fill_half_of_the_queue_at_most_and_the_newest_of_the_largest_source_makes_room() {
    const LIMIT: usize = 40;
    let _machine = gently();
    let Some(setup) = Setup::far(LIMIT as u32, "reply", RTT, Loss::NONE) else { return };
    let [large, small, late] = V4.sources;
    // One who is within its limit, and one who waits, for each place; ten who wait; five who wait.
    let calls = [(large, 2 * LIMIT), (small, LIMIT + 10), (late, LIMIT + 5)];
    let mut complaints = Vec::new();
    let mut before = 0;
    let records: Vec<_> = std::thread::scope(|scope| {
        let mut crowds = Vec::new();
        for (source, n) in calls {
            let crowd = Crowd {
                callers: Caller::crowd(n, source, V4.port(SMTP), STAY),
                patience: setup.patience(),
                again: None,
                link: setup.link.as_ref(),
            };
            let lab = &setup.lab;
            crowds.push(scope.spawn(move || crowd.call(lab)));
            before += LIMIT as u64;
            eventually("each source is served up to its limit", SOON, || {
                let [connections, ..] = listed(&setup.limiter);
                if connections == before { Ok(()) } else { Err(format!("{connections}, not {before}")) }
            });
            let [_, _, waiting] = listed(&setup.limiter);
            if waiting > BACKLOG as u64 / 2 {
                complaints.push(format!("after the handshakes of {source} {waiting} wait"));
            }
        }
        crowds.into_iter().flat_map(|crowd| crowd.join().expect("the clients do not fail")).collect()
    });
    complaints.extend(setup.silences(&records));
    for (source, n) in calls {
        let mine = records.iter().filter(|record| record.local.ip() == source);
        let told = mine.filter(|record| !record.served()).count();
        say(&format!("half the queue: {source}: {told} of {n} not served"));
        if source != large && told > 0 {
            complaints.push(format!("{told} of {source} were told, and {large} had more who waited"));
        }
        complaints.extend(setup.excess(source));
    }
    let summary = format!("half the queue: {}", summary(&records));
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}
