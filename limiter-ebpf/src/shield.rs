// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The shield: frames of who is denied or banned go nowhere, before the kernel spends anything on them.
//!
//! It judges what would begin a connection to a mail port, and nothing else: whether another segment belongs to a
//! connection, which goes on until it ends, cannot be told here for all of them. The firewall has not translated it yet
//! (REDIRECT, DNAT), and it may be for a socket that is bound to a bridge above this interface. The limiter is
//! complete without the shield, because admission and gate refuse the same.

use core::mem::MaybeUninit;

use aya_ebpf::programs::XdpContext;
use limiter_common::{Action, CachedDrop, Key, Penalty, Reason, ServiceId, Syn, drop_cache::Dropped};

use crate::{
    clock,
    frame::Frame,
    map_ref::{MapRef, field},
    maps::{self, Service},
};

/// Whether the frame is to be dropped.
#[inline(always)]
pub fn drops(ctx: &XdpContext) -> bool {
    // Each is read in its own way and then looked at in the same one: that way the compiler knows where everything is.
    if let Some(frame) = Frame::plain_v4(ctx) {
        look(&frame)
    } else if let Some(frame) = Frame::plain_v6(ctx) {
        look(&frame)
    } else {
        let mut frame = MaybeUninit::uninit();
        // SAFETY: written to where the answer is true.
        read_other(ctx, &mut frame) && look(unsafe { frame.assume_init_ref() })
    }
}

/// Reads a frame that is not plain; `false` if it cannot be read. A function of its own, as [`judge`] is: what is left for
/// nearly all frames stays small. It does not call [`judge`], below which there is no stack left for more than two on
/// older verifiers (6.1).
#[inline(never)]
fn read_other(ctx: &XdpContext, frame: &mut MaybeUninit<Frame>) -> bool {
    let Some(read) = Frame::read(ctx) else { return false };
    frame.write(read);
    true
}

/// What begins nothing and what is of no service passes, and what repeats itself is dropped, at once.
#[inline(always)]
fn look(frame: &Frame) -> bool {
    frame.begins() && (repeats(&frame.syn()) || (maps::is_of_a_service(frame.local_port()) && judge(frame)))
}

/// Whether a SYN is one that this CPU has dropped a moment ago.
#[inline(always)]
fn repeats(syn: &Syn) -> bool {
    let Some(cached) = maps::cached_drop(syn) else { return false };
    // SAFETY: only the shield writes it, and one XDP program does not interrupt another; written below, and not before.
    let seen = unsafe { cached.of_this_cpu() };
    if !seen.holds(syn, maps::change(), clock::ticks()) {
        return false;
    }
    let (service, reason) = (ServiceId(seen.service), Reason::of_shield(seen.reason));
    field!(cached, uncounted).count(1);
    maps::count_drop(service, reason);
    true
}

/// The verdict on a SYN for a port of a service.
#[inline(never)]
fn judge(frame: &Frame) -> bool {
    let change = maps::change();
    let Some(service) = maps::service_of(frame.local_port()) else { return false };
    let prefix = service.scope(&frame.remote).source_prefix;
    let penalty = maps::penalty(&Key::source(service.id, service.policy, prefix, &frame.remote));
    let (ban, left_ns) = banned(penalty);
    // The time says whether there is a ban, so that the compiler keeps no flag beside the pointer: see `MapRef`.
    let Some(reason) = refuses(&service, frame, left_ns != u64::MAX) else { return false };
    // What is forwarded is no business of the limiter.
    if !service.is_local(&frame.local) {
        return false;
    }
    maps::count_drop(service.id, reason);
    let mut banned_at_ns = 0;
    if let Some(ban) = ban {
        field!(ban, dropped).add(1);
        banned_at_ns = field!(ban, banned_at_ns).get();
    }
    let dropped = Dropped { service: service.id.0, reason, banned_at_ns, left_ns };
    remember(&frame.syn(), &dropped, change, ban);
    true
}

/// Remembers that a SYN was dropped, of whose source `ban` is.
#[inline(always)]
fn remember(syn: &Syn, dropped: &Dropped, change: u64, ban: Option<MapRef<Penalty>>) {
    let Some(cached) = maps::cached_drop(syn) else { return };
    if field!(cached, uncounted).get() != 0 {
        count_drops(cached, syn, ban);
    }
    if let Some(new) = CachedDrop::new(syn, dropped, change, clock::ticks()) {
        cached.fill(new);
    }
}

/// Where a source stands, if it is banned, and for how long it will be.
#[inline(always)]
fn banned(penalty: Option<MapRef<Penalty>>) -> (Option<MapRef<Penalty>>, u64) {
    let Some(penalty) = penalty else { return (None, u64::MAX) };
    let until_ns = field!(penalty, banned_until_ns).get();
    if until_ns == 0 {
        return (None, u64::MAX);
    }
    match until_ns.saturating_sub(clock::now_ns()) {
        0 => (None, u64::MAX),
        left_ns => (Some(penalty), left_ns),
    }
}

/// Why a source may begin nothing at a service, if it may not.
#[inline(always)]
fn refuses(service: &Service, frame: &Frame, is_banned: bool) -> Option<Reason> {
    if service.policy.observes() {
        return None;
    }
    let (_, action) = service.action(&frame.remote, &frame.local);
    if action == Action::Deny {
        Some(Reason::Denied)
    } else if action != Action::Allow && is_banned {
        Some(Reason::Banned)
    } else {
        None
    }
}

/// Notes drops where their source stands: `penalty` if they are of `syn`, too.
#[inline(always)]
fn count_drops(cached: MapRef<CachedDrop>, syn: &Syn, penalty: Option<MapRef<Penalty>>) {
    let uncounted = field!(cached, uncounted).get();
    field!(cached, uncounted).set(0);
    // SAFETY: as in `repeats`; written above, and not until the end.
    let seen = unsafe { cached.of_this_cpu() };
    let penalty = if seen.is_of(syn) { penalty } else { maps::penalty_of(seen) };
    if let Some(penalty) = penalty
        && field!(penalty, banned_at_ns).get() == seen.banned_at_ns
    {
        field!(penalty, dropped).add(uncounted.into());
    }
}
