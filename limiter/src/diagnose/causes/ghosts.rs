// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sessions whose clients are gone: what is sent to them is not answered, or nothing has come from them for longer than any
//! client that is there is silent.
//!
//! Against it speaks that all clients answer.

use std::time::Duration;

use super::super::{
    figures::{Figures, SILENT, is_ghost},
    finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
};

/// One may be on its way out at any moment.
const FEWEST: u32 = 2;
/// A smaller part of the connections, in hundredths, is not why a source is at its limit.
const LEAST: u64 = 25;
/// From half on, in hundredths, it is what fills the limit.
const HALF: u64 = 50;
/// A minute, in which silences are named.
const MINUTE: u64 = 60;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let Figures { gone, silent, connections, judged, .. } = *figures;
    if judged == 0 || connections == 0 {
        return Judgement::Nothing;
    }
    let ghosts = gone.saturating_add(silent);
    let is_part = |count: u32, least: u64| u64::from(count) * 100 >= u64::from(connections) * least;
    if ghosts < FEWEST || !is_part(ghosts, LEAST) {
        let is_most_known = u64::from(judged) * 2 >= u64::from(connections);
        let not = || Judgement::Not(format!("{ghosts} of {connections} silent"));
        return if is_most_known { not() } else { Judgement::Nothing };
    }
    let confidence = if is_part(gone, HALF) {
        Confidence::High
    } else if is_part(ghosts, HALF) {
        Confidence::Medium
    } else {
        Confidence::Low
    };
    let mut evidence = Vec::new();
    if gone > 0 {
        let text = format!("{} have a client that does not answer any more", figures.of_all(gone));
        evidence.push(Fact::new("gone", gone, text));
    }
    if silent > 0 {
        let minutes = SILENT.as_secs() / MINUTE;
        let text = format!("{} without a sign of the client for {minutes} min", figures.of_all(silent));
        evidence.push(Fact::new("silent", silent, text));
    }
    let service = &figures.case.service;
    let mut remedies = Vec::new();
    if let Some(minutes) = minutes_of_silence(figures) {
        let words = format!("close {} --service {service} --silent {minutes}m", super::source(figures));
        remedies.push(Remedy::limiter(words, "ends these sessions and no others of it"));
    }
    let words = format!("set {service} keepalive=10m");
    remedies.push(Remedy::limiter(words, "new sessions whose clients are gone end within 10 min"));
    Judgement::Found(Finding {
        cause: Cause::Ghosts,
        confidence,
        explains: ghosts.min(connections),
        summary: format!("{} connections belong to clients that are gone", figures.of_all(ghosts)),
        evidence,
        remedies,
        for_user: vec![Paragraph::TooMany, Paragraph::Ghosts, Paragraph::Router, Paragraph::TellProvider],
    })
}

/// A time of silence, in whole minutes, that these clients have reached and no client that is there has; none where none
/// tells them apart. Of a dead connection no silence is known, and the mail daemon alone can end it.
fn minutes_of_silence(figures: &Figures<'_>) -> Option<u64> {
    let silences = figures.case.sessions.iter().filter_map(|one| {
        let silent = one.connection.silent()?;
        Some((silent, is_ghost(one)))
    });
    let (mut of_ghosts, mut of_others) = (None::<Duration>, Duration::ZERO);
    for (silent, is_ghost) in silences {
        if is_ghost {
            of_ghosts = Some(of_ghosts.map_or(silent, |least| least.min(silent)));
        } else {
            of_others = of_others.max(silent);
        }
    }
    let minutes = of_ghosts?.min(SILENT).as_secs() / MINUTE;
    (minutes > 0 && Duration::from_secs(minutes * MINUTE) > of_others).then_some(minutes)
}
