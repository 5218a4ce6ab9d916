// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! One user with several devices, or with a client that keeps many connections: many sessions of one user, which answer
//! and are mostly at rest.
//!
//! Against it speaks that several users share the sessions, or that their clients are gone.

use std::time::Duration;

use super::{
    super::{
        figures::{Figures, Users},
        finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
    },
    looping::{GROWN, LEFT_BEHIND},
};
use crate::spans::time;

/// Fewer sessions than this nobody calls many: one program alone keeps up to five.
const FEWEST: u32 = 4;
/// The part of the user with most sessions, in hundredths, from which on they are one user's.
const MOSTLY_ONE: u32 = 67;
/// Of the connections, in hundredths: so many at rest are kept, not used.
const MOSTLY_RESTING: u64 = 50;
/// The part that began together, in hundredths, that one program opens.
const MOSTLY_TOGETHER: u64 = 67;
/// Of the connections, in hundredths, those of which the user is known, if one speaks for all.
const MOSTLY_KNOWN: u64 = 75;
/// More connections a minute, in thousandths, are no sessions that are kept.
const SELDOM_MILLI: u64 = 6_000;
/// Of the service, in hundredths: who is inside and has so much is rather a webmail.
const MOST: u32 = 50;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let Figures { connections, judged, gone, silent, resting, burst, .. } = *figures;
    if !figures.is_of_readers() || connections < FEWEST {
        return Judgement::Nothing;
    }
    let is_part = |count: u32, least: u64| u64::from(count) * 100 >= u64::from(connections) * least;
    let ghosts = gone.saturating_add(silent);
    if judged > 0 && u64::from(ghosts) * 2 >= u64::from(judged) {
        return Judgement::Not(format!("{} clients are gone", figures.of_all(ghosts)));
    }
    let is_kept = is_part(resting, MOSTLY_RESTING);
    let (confidence, explains) = match figures.users {
        Some(users) if users.percent_of_first() < MOSTLY_ONE && users.count > 1 => {
            let Users { count, first, of_first, .. } = users;
            return Judgement::Not(format!("{count} users, and {first} has {of_first} sessions"));
        }
        Some(Users { of_first: 0..FEWEST, .. }) => return Judgement::Nothing,
        Some(users) => {
            let is_clear = users.count == 1 && is_kept && is_part(users.sessions, MOSTLY_KNOWN);
            (if is_clear { Confidence::High } else { Confidence::Medium }, users.of_first.min(connections))
        }
        // What began together and rests is of one program; or of many people, after a restart.
        None if burst.count >= FEWEST && is_part(burst.count, MOSTLY_TOGETHER) && is_kept => {
            (Confidence::Low, burst.count)
        }
        None => return Judgement::Nothing,
    };
    let is_restless = figures.churn.is_some_and(|churn| churn.per_minute_milli > SELDOM_MILLI);
    let is_leak =
        figures.left_behind >= LEFT_BEHIND || figures.churn.is_some_and(|churn| churn.grown >= GROWN);
    let is_webmail = figures.is_inside() && figures.share_of_service().is_some_and(|share| share >= MOST);
    let who = figures.users.map_or("one program", |users| users.first);
    let how = if is_kept { resting_for(figures) } else { "with several programs" };
    let list = format!("connections {} --service {}", super::source(figures), figures.case.service);
    let mut remedies: Vec<Remedy> = super::raise(figures).into_iter().collect();
    remedies.push(Remedy::limiter(list, "each session, and how long it is idle"));
    Judgement::Found(Finding {
        cause: Cause::OneUser,
        confidence: confidence.lower_if(is_restless || is_leak).lower_if(is_webmail),
        explains,
        summary: format!("{who} holds {} connections, {how}", figures.of_all(explains)),
        evidence: evidence(figures),
        remedies,
        for_user: vec![
            Paragraph::TooMany,
            Paragraph::CloseOthers,
            Paragraph::CachedConnections,
            Paragraph::Router,
            Paragraph::TellProvider,
        ],
    })
}

/// How long most of them have rested.
fn resting_for(figures: &Figures<'_>) -> &'static str {
    let rests = figures.case.sessions.iter().filter_map(|one| one.connection.tcp());
    let mut rests: Vec<u64> = rests.map(|tcp| tcp.received_ago.as_secs()).collect();
    rests.sort_unstable();
    match rests.get(rests.len() / 2) {
        Some(7200..) => "most of them unused for hours",
        Some(600..) => "most of them unused for minutes",
        _ => "most of them at rest",
    }
}

fn evidence(figures: &Figures<'_>) -> Vec<Fact> {
    let mut evidence = Vec::new();
    if let Some(users) = figures.users {
        let text = format!("{} sessions of {}", users.of_first, users.first);
        evidence.push(Fact::new("sessions_of_first_user", users.of_first, text));
        if let Some(others @ 1..) = users.count.checked_sub(1) {
            let text = if others == 1 { "1 other user".to_owned() } else { format!("{others} other users") };
            evidence.push(Fact::new("other_users", others, text));
        }
    }
    if figures.resting > 0 {
        let text = format!("{} used by no command for a minute or more", figures.of_all(figures.resting));
        evidence.push(Fact::new("resting", figures.resting, text));
    }
    if figures.burst.count >= FEWEST {
        let within = time(figures.burst.within.max(Duration::from_secs(1)));
        let text = format!("{} opened within {within}", figures.burst.count);
        evidence.push(Fact::new("opened_together", figures.burst.count, text));
    }
    if let Some(oldest) = figures.oldest {
        evidence.push(Fact::new("oldest_seconds", oldest.as_secs(), format!("the oldest {}", time(oldest))));
    }
    evidence
}
