// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The causes, a file each: a function `judge` from the figures of a case to what they say of it.

pub mod checks_too_often;
pub mod full_around;
pub mod ghosts;
pub mod in_front;
pub mod limit_too_low;
pub mod looping;
pub mod many_users;
pub mod one_user;
pub mod overloaded;
pub mod sender;

use limiter_common::ServicePolicy;

use super::{figures::Figures, finding::Remedy};

/// A limit with room: a third above the most that it wanted so far, rounded up to the next five. None beyond the largest
/// limit there is.
pub fn roomier(figures: &Figures<'_>) -> Option<u32> {
    let case = figures.case;
    let peaks = case.history.get().into_iter().flatten().map(|period| period.peak);
    let now = figures.connections.saturating_add(case.waiting);
    let wanted = u64::from(peaks.max().unwrap_or(0).max(now).max(case.limit.unwrap_or(0)));
    let limit = (wanted + wanted.div_ceil(3).max(1)).next_multiple_of(5);
    u32::try_from(limit).ok().filter(|&limit| limit <= ServicePolicy::MAX_LIMIT)
}

/// The source as commands take it: an address, where it is one.
pub fn source(figures: &Figures<'_>) -> String {
    let source = figures.case.source;
    if source.prefix_len() == source.max_prefix_len() {
        source.addr().to_string()
    } else {
        source.to_string()
    }
}

/// More connections for this source at this service, where it is its own limit that refuses.
pub fn raise(figures: &Figures<'_>) -> Option<Remedy> {
    let case = figures.case;
    let limit = roomier(figures).filter(|_| case.limit.is_some())?;
    let words = format!("limit {} {limit} --service {}", source(figures), case.service);
    Some(Remedy::limiter(words, format!("up to {limit} connections, for this source alone")))
}
