// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ladder: a refused source has completed a handshake with the greeter, which nobody can forge.

use aya_ebpf::programs::SockOpsContext;
use limiter_common::{
    Addr, Cause, Grounds, Key, Penalty, Reason,
    ladder::{self, PenaltyWords},
};

use crate::{
    clock,
    counts::{self, Present},
    grounds,
    map_ref::field,
    maps::{self, count},
    report, rooms,
};

/// Has the connection bear the grounds, packed, on which it was refused, pays for the reply, and bans a source that went on
/// for too long.
#[inline(always)]
pub fn climb(ctx: &SockOpsContext, service: &maps::Service, remote: &Addr, packed: u64) {
    grounds::bear(ctx, packed);
    let reason = Grounds::unpack(packed).reason;
    let source = Key::source(service.id, service.policy, service.scope(remote).source_prefix, remote);
    if !pay(service, &source, reason, reason.is_of_source()) {
        report::ladder_full(ctx, service.id);
    }
}

/// The same for a handshake whose grounds are lost, because another one has displaced them: it is judged as it stands at this
/// moment. If no limit is reached, its client is told nothing, and nothing is held against its source.
#[inline(always)]
pub fn climb_anew(ctx: &SockOpsContext, service: &maps::Service, remote: &Addr, local: &Addr) {
    let Present { source, count_keys, limits, entry } = Present::of(service, remote, local);
    let usage = counts::usage(&source, &count_keys, entry, limits.total != u32::MAX);
    let (reason, is_of_source) = match usage.over(&limits, clock::now_ns()) {
        Some(reason) => {
            let reason = reason.within(&count_keys);
            grounds::bear(ctx, grounds::of(reason, &usage, &limits, &count_keys));
            (reason, reason.is_of_source())
        }
        None => (Reason::Concurrency, false),
    };
    if !pay(service, &source, reason, is_of_source) {
        report::ladder_full(ctx, service.id);
    }
}

/// Notes that a source was refused once more, if it is remembered for having been told. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn record_refused(source: *const Key, reason: u32) -> u32 {
    let Some(source) = rooms::given(source) else { return 0 };
    if let Some(penalty) = maps::penalty(&source) {
        if reason < Penalty::REASONS {
            field!(penalty, refused[reason as usize]).count(1);
        }
        field!(penalty, refused_for).set(reason);
        field!(penalty, refused_ns).set(clock::now_ns());
    }
    0
}

/// The same for a refusal for `reason` that is, or is not, for a limit of the source's own; `false` if there is no room
/// to remember the source.
#[inline(always)]
pub fn pay(service: &maps::Service, source: &Key, reason: Reason, is_of_source: bool) -> bool {
    let Some(ladder) = service.ladder() else { return true };
    let Some(penalty) = rooms::penalty_or_new(source) else { return false };
    let now_ns = clock::now_ns();
    let words = PenaltyWords {
        replies_due: field!(penalty, replies_due_ns).shared(),
        ban_due: field!(penalty, ban_due_ns).shared(),
        banned_until: field!(penalty, banned_until_ns).shared(),
    };
    let bans = field!(penalty, bans).get();
    record_refused(&raw const *source, reason as u32);
    if let Some(bans) = ladder::climb(&words, ladder, bans, is_of_source, now_ns) {
        // Only the CPU that made the ban comes here.
        field!(penalty, banned_at_ns).set(now_ns);
        field!(penalty, bans).set(bans);
        field!(penalty, cause).set(Cause::Ladder as u32);
        count!(service.id, banned);
    }
    true
}
