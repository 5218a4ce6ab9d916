// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client in a loop, which comes back at once again and again; or one that opens connections and closes none.
//!
//! A loop: many short sessions, for each user. A leak: connections grow one by one while none ends, or each was left
//! behind a minute after it began and all began in even steps. Against it speaks that connections come seldom. Silence is
//! no sign of it: a client that is gone opens nothing, so only connections whose client answers count.

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};

/// One in five seconds: no mail program looks for mail so often, and each waits longer after a failure.
const LOOP_PER_MINUTE_MILLI: u64 = 12_000;
/// One a second, with nobody known: more than fifty people with two programs each bring about.
const LOOP_OF_ANYBODY_MILLI: u64 = 60_000;
/// In a loop nearly all sessions are short, in hundredths.
const MOSTLY_SHORT: u32 = 80;
/// More connections than before, while none ended: two more may be a second program that was started.
pub const GROWN: u32 = 3;
/// Left behind in even steps: fewer may be by chance.
pub const LEFT_BEHIND: u32 = 6;
/// The part of all connections that was left behind, in hundredths.
const MOSTLY_LEFT: u64 = 60;
/// The part of the user with most sessions, in hundredths, from which on they are one client's.
const MOSTLY_ONE: u32 = 67;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    match (a_loop(figures).or_else(|| a_leak(figures)), figures.churn) {
        (Some(found), _) => Judgement::Found(found),
        (None, Some(churn)) if figures.left_behind < LEFT_BEHIND && churn.grown < GROWN => {
            Judgement::Not(churn.words())
        }
        (None, _) => Judgement::Nothing,
    }
}

/// How sure it is, by who they are: one user, nobody known, or several.
fn by_users(figures: &Figures<'_>) -> Confidence {
    match figures.users {
        Some(users) if users.count == 1 => Confidence::High,
        Some(users) if users.percent_of_first() >= MOSTLY_ONE => Confidence::Medium,
        // Where it is not mail that is read, nobody's users are known.
        None if !figures.is_of_readers() => Confidence::Medium,
        _ => Confidence::Low,
    }
}

fn a_loop(figures: &Figures<'_>) -> Option<Finding> {
    let churn = figures.churn?;
    let short = churn.short_percent?;
    let is_fast = figures.per_minute_milli_of_user()? >= LOOP_PER_MINUTE_MILLI;
    // Mail that is delivered is no loop, however fast. What nobody sees may be mail.
    let Figures { sending, blind, seen, .. } = *figures;
    let carries_mail = !figures.is_of_readers() && seen > 0 && (sending + blind) * 2 >= seen;
    if short < MOSTLY_SHORT || !is_fast || carries_mail {
        return None;
    }
    let mut confidence = by_users(figures);
    if figures.users.is_none() && churn.per_minute_milli >= LOOP_OF_ANYBODY_MILLI {
        confidence = if figures.is_of_readers() { Confidence::Medium } else { Confidence::High };
    }
    // Each click in a webmail is a session; and a quarter of an hour says less than what was watched.
    let confidence = confidence.lower_if(figures.is_inside()).lower_if(!churn.watched);
    let text = format!("{} connections begin ({})", churn.words(), churn.seen());
    let mut evidence = vec![
        Fact::new("begun_per_minute_milli", churn.per_minute_milli, text),
        Fact::new("short_percent", short, format!("{short} % of them end within a minute")),
    ];
    evidence.extend(user(figures));
    let summary = format!("a program is in a loop, with {} connections that end at once", churn.words());
    let (source, service) = (super::source(figures), &figures.case.service);
    let slower = Remedy::limiter(
        format!("limit {source} --rate 6/min --service {service}"),
        "lets it in six times a minute, until the program is mended",
    );
    Some(finding(figures, confidence, summary, evidence, slower))
}

fn a_leak(figures: &Figures<'_>) -> Option<Finding> {
    // Of several users each may have started a program.
    if figures.users.is_some_and(|users| users.count > 1 && users.percent_of_first() < MOSTLY_ONE) {
        return None;
    }
    let grown = figures.churn.filter(|churn| churn.grown >= GROWN);
    let left = Some(figures.left_behind).filter(|left| {
        *left >= LEFT_BEHIND && u64::from(*left) * 100 >= u64::from(figures.connections) * MOSTLY_LEFT
    });
    let confidence = match (grown, left) {
        (Some(_), Some(_)) => by_users(figures),
        (Some(churn), None) => by_users(figures).lower_if(!churn.watched || figures.users.is_none()),
        (None, Some(_)) => by_users(figures).lower(),
        (None, None) => return None,
    };
    let mut evidence = Vec::new();
    if let Some(churn) = grown {
        let text = format!("{} more than before, and none ended ({})", churn.grown, churn.seen());
        evidence.push(Fact::new("grown", churn.grown, text));
    }
    if let Some(left) = left {
        let text = format!("{} were opened in even steps and not used since", figures.of_all(left));
        evidence.push(Fact::new("left_behind", left, text));
    }
    evidence.extend(user(figures));
    let summary = "a program opens connection after connection and closes none".to_owned();
    let (source, service) = (super::source(figures), &figures.case.service);
    let close = Remedy::limiter(
        format!("close {source} --service {service} --idle 30m"),
        "ends what nobody has used for 30 min; the program will open more",
    );
    Some(finding(figures, confidence, summary, evidence, close))
}

fn finding(
    figures: &Figures<'_>,
    confidence: Confidence,
    summary: String,
    evidence: Vec<Fact>,
    helps: Remedy,
) -> Finding {
    let list = format!("connections {} --service {}", super::source(figures), figures.case.service);
    Finding {
        cause: Cause::Looping,
        confidence,
        explains: figures.connections,
        summary,
        evidence,
        remedies: vec![helps, Remedy::limiter(list, "each connection, with its age and process")],
        for_user: vec![Paragraph::TooMany, Paragraph::Loop, Paragraph::CloseOthers, Paragraph::TellProvider],
    }
}

/// Who it is, where that is known.
fn user(figures: &Figures<'_>) -> Option<Fact> {
    let users = figures.users?;
    let text = format!("{} of {} sessions of {}", users.of_first, users.sessions, users.first);
    Some(Fact::new("sessions_of_first_user", users.of_first, text))
}
