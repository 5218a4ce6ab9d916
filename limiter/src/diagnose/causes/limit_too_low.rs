// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limit itself is too low for what honest sources do here: a good part of all sources is at it, or it is below what
//! one program keeps.
//!
//! Against it speaks that few of many sources are at their limit.

use limiter_common::Protocol;

use super::{
    super::{
        figures::Figures,
        finding::{Cause, Confidence, Fact, Finding, Judgement, Paragraph, Remedy},
    },
    overloaded::NOT_GREETED,
};

/// Fewer sources say nothing about a limit.
const FEWEST_SOURCES: u32 = 10;
/// So many at their limit may be by chance.
const FEWEST_AT_LIMIT: u32 = 3;
/// One in twenty, in hundredths, is more than the few that misbehave anywhere.
const PART: u64 = 5;
/// One in ten, in hundredths, with [`CLEARLY_AT_LIMIT`] of them, is clear.
const LARGE_PART: u64 = 10;
/// See [`LARGE_PART`].
const CLEARLY_AT_LIMIT: u32 = 5;
/// Thunderbird alone keeps up to five IMAP connections of an account; with a phone beside it a user has more.
const OF_ONE_PROGRAM: u32 = 5;
/// What a user with one program and a phone gets by with.
const ENOUGH: u32 = 10;

/// What the figures say of it.
pub fn judge(figures: &Figures<'_>) -> Judgement {
    let case = figures.case;
    let (Some(limit), true) = (case.limit, figures.is_at_its_limit()) else { return Judgement::Nothing };
    let (sources, at_limit) = (case.whole.sources, case.whole.sources_at_limit.min(case.whole.sources));
    let is_part = |least: u64| u64::from(at_limit) * 100 >= u64::from(sources) * least;
    let by_share = (sources >= FEWEST_SOURCES && at_limit >= FEWEST_AT_LIMIT && is_part(PART)).then(|| {
        let is_clear = at_limit >= CLEARLY_AT_LIMIT && is_part(LARGE_PART);
        if is_clear { Confidence::High } else { Confidence::Medium }
    });
    let is_tiny = case.protocol == Protocol::Imap && limit <= OF_ONE_PROGRAM;
    let of_sources = format!("{at_limit} of {sources} sources are at their limit");
    let confidence = match by_share {
        // Where the server is slow, everybody is at the limit.
        Some(confidence) => confidence.lower_if(case.server.not_greeted >= NOT_GREETED),
        None if is_tiny => Confidence::Low,
        None if sources >= FEWEST_SOURCES => return Judgement::Not(of_sources),
        None => return Judgement::Nothing,
    };
    let mut evidence = Vec::new();
    if by_share.is_some() {
        evidence.push(Fact::new("sources_at_limit", at_limit, of_sources));
    }
    if is_tiny {
        let text = format!("one program may keep {OF_ONE_PROGRAM} connections, and the limit is {limit}");
        evidence.push(Fact::new("limit", limit, text));
    }
    let service = &case.service;
    let list = format!("list --service {service}");
    let mut remedies = vec![Remedy::limiter(list, "who is at the limit")];
    if let Some(more) = super::roomier(figures) {
        let words = format!("set {service} max_connections={}", more.max(ENOUGH));
        remedies.push(Remedy::limiter(words, "for each source of the service"));
    }
    Judgement::Found(Finding {
        cause: Cause::LimitTooLow,
        confidence,
        explains: figures.connections,
        summary: format!("the limit of {limit} is low for what sources do here"),
        evidence,
        remedies,
        for_user: vec![Paragraph::NotYou, Paragraph::CachedConnections, Paragraph::TellProvider],
    })
}
