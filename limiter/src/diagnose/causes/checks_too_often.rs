// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client that logs in too often to look for new mail: many short sessions, at a regular interval.
//!
//! Against it speaks that sessions last, or come seldom for each user.

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};
use crate::spans::time;

/// More often than every two minutes for each user: programs look every five to thirty by default.
const OFTEN_MILLI: u64 = 500;
/// From one in five seconds on it is a loop, not a habit.
const LOOP_MILLI: u64 = 12_000;
/// Sessions of a look for mail are short, nearly all, in hundredths.
const MOSTLY_SHORT: u32 = 80;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let (Some(churn), Some(of_user)) = (figures.churn, figures.per_minute_milli_of_user()) else {
        return Judgement::Nothing;
    };
    if !figures.is_of_readers() || of_user >= LOOP_MILLI {
        return Judgement::Nothing;
    }
    if of_user < OFTEN_MILLI {
        return Judgement::Not(churn.words());
    }
    let Some(short) = churn.short_percent else { return Judgement::Nothing };
    if short < MOSTLY_SHORT {
        return Judgement::Not(format!("{short} % of the sessions end within a minute"));
    }
    let confidence = match (churn.every, figures.users.map(|users| users.count)) {
        (Some(_), Some(1)) => Confidence::High,
        // Even steps are those of one program, whoever uses it.
        (Some(_), _) | (None, Some(1)) => Confidence::Medium,
        (None, Some(_)) => Confidence::Low,
        // Several programs of several users may be behind it.
        (None, None) => return Judgement::Nothing,
    };
    // Each click in a webmail is a session.
    let confidence = confidence.lower_if(figures.is_inside());
    let text = format!("{} sessions begin ({})", churn.words(), churn.seen());
    let mut evidence = vec![
        Fact::new("begun_per_minute_milli", churn.per_minute_milli, text),
        Fact::new("short_percent", short, format!("{short} % of them end within a minute")),
    ];
    if let Some(every) = churn.every {
        evidence.push(Fact::new("every_seconds", every.as_secs(), format!("one every {}", time(every))));
    }
    if let Some(users) = figures.users {
        let who = match users.count {
            1 => format!("one user ({})", users.first),
            count => format!("{count} users"),
        };
        evidence.push(Fact::new("users", users.count, who));
    }
    let often = churn
        .every
        .map_or_else(|| format!("{} times", churn.words()), |every| format!("every {}", time(every)));
    let service = &figures.case.service;
    let (source, mut remedies) = (super::source(figures), Vec::new());
    if figures.is_held_by_rate() {
        let words = format!("limit {source} --rate none --service {service}");
        remedies.push(Remedy::limiter(words, "no rate for this source; better it looks less often"));
    }
    let words = format!("connections {source} --service {service}");
    remedies.push(Remedy::limiter(words, "each session, with its age"));
    Judgement::Found(Finding {
        cause: Cause::ChecksTooOften,
        confidence,
        explains: figures.connections,
        summary: format!("a program logs in {often} to look for mail"),
        evidence,
        remedies,
        for_user: vec![Paragraph::TooMany, Paragraph::CheckLessOften, Paragraph::TellProvider],
    })
}
