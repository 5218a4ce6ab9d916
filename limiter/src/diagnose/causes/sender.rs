// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A sender that delivers over many connections at once: another mail server with a long queue, or a program that submits
//! many messages at a time. Its connections carry messages.
//!
//! Against it speaks that they carry none. A client that comes and goes without mail is in a loop: that is another cause.

use super::super::{
    figures::Figures,
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};

/// Fewer are any sender's.
const FEWEST: u32 = 4;
/// Of the connections that are known, in hundredths: so many carry a message.
const MOSTLY_MAIL: u64 = 50;
/// A part that is not enough to be sure, and too much for a loop.
const SOME_MAIL: u64 = 25;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let Figures { connections, judged, sending, .. } = *figures;
    if figures.is_of_readers() || connections < FEWEST || judged == 0 {
        return Judgement::Nothing;
    }
    let is_part = |least: u64| u64::from(sending) * 100 >= u64::from(judged) * least;
    let text = format!("{sending} of {judged} carry a message");
    if !is_part(SOME_MAIL) {
        return Judgement::Not(text);
    }
    // A queue that empties: connections come, and end.
    let comes_and_goes = figures.churn.is_some_and(|churn| churn.begun > 0 && churn.short_percent.is_some());
    let confidence = match (is_part(MOSTLY_MAIL), comes_and_goes) {
        (true, true) => Confidence::High,
        (true, false) => Confidence::Medium,
        (false, _) => Confidence::Low,
    };
    let mut evidence = vec![Fact::new("sending", sending, text)];
    if let Some(churn) = figures.churn {
        let text = format!("{} connections begin ({})", churn.words(), churn.seen());
        evidence.push(Fact::new("begun_per_minute_milli", churn.per_minute_milli, text));
    }
    let is_host = figures.is_of_hosts();
    let who = if is_host { "another mail server delivers" } else { "a program submits mail" };
    let mut remedies: Vec<Remedy> = super::raise(figures).into_iter().collect();
    let wait = format!("set {} wait=10s", figures.case.service);
    remedies.push(Remedy::limiter(wait, "over the limit it waits 10 s for a place before it is refused"));
    let helps = if is_host { Paragraph::Submission } else { Paragraph::Loop };
    Judgement::Found(Finding {
        cause: Cause::Sender,
        confidence,
        explains: sending.min(connections),
        summary: format!("{who} over {connections} connections at once"),
        evidence,
        remedies,
        for_user: vec![Paragraph::TooMany, helps, Paragraph::TellProvider],
    })
}
