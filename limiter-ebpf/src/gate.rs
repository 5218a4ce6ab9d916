// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The gate: the ACK that completes a handshake takes a place, or waits.
//!
//! It is judged before the kernel makes a connection of it. Without a place the packet is dropped: the
//! handshake stays in the kernel's SYN queue, and is recorded ([`mod@hold`]). When its turn comes, the daemon
//! has the client send the ACK again ([`mod@again`]); where there is none, the kernel does, by repeating its SYN-ACK
//! (after 1 s, 3 s, 7 s, …). The mail daemon sees nothing.
//!
//! What is rare is in programs of its own, in which the gate goes on ([`mod@stage`]).

pub mod again;
pub mod fast_open;
pub mod hold;
pub mod newcomer;
mod stage;

use aya_ebpf::{bindings::BPF_TCP_LISTEN, programs::SkBuffContext};
use limiter_common::{
    Action, CountKeys, Entry, Key, Limits, Reason, ServiceId,
    reservation::{Arrival, Outcome},
};

use crate::{
    attended,
    counts::{self, Counts},
    kernel::{self, Handshake},
    map_ref::{MapRef, field},
    maps::{self, Service, count},
    packet::{ACK, RST, SYN, Segment, Tuple},
    pending, rooms, waiters,
};

/// Whether the packet is to be dropped. Everything but the completing ACK of a mail connection
/// passes, and leaves within a few instructions.
#[inline(always)]
pub fn holds_back(ctx: &SkBuffContext) -> bool {
    // SAFETY: the kernel hands the program a valid context; `sk` is checked before it is used.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    // SAFETY: not null, and the state can be read from any socket.
    if sk.is_null() || unsafe { (*sk).state } != BPF_TCP_LISTEN {
        return false;
    }
    // SAFETY: as above.
    let listens_at = unsafe { (*sk).src_port };
    let Some(segment) = Segment::read(ctx) else {
        // Whatever port it is for: one that is asked for may lead to a listener at any (TPROXY).
        // SAFETY: `sk` is the context's socket, and not null.
        return unsafe { kernel::is_limited(sk) } && unreadable(listens_at);
    };
    let Some(service) = maps::service_of(segment.local_port()) else { return false };
    // SAFETY: `sk` is the context's socket, and not null.
    if !unsafe { kernel::is_limited(sk) } {
        return false;
    }
    // This CPU is done with the packet it reserved for, and no connection came of it.
    pending::cancel();
    // Where a service observes, the ledger makes the verdict, when there is a connection to make it on.
    !service.policy.observes() && judge(ctx, &service, &segment, listens_at)
}

/// Judges a packet for a listener of a mail port, by what it is.
#[inline(always)]
fn judge(ctx: &SkBuffContext, service: &Service, segment: &Segment, listens_at: u32) -> bool {
    let flags = segment.flags & (SYN | RST | ACK);
    let begins = flags == SYN;
    if begins
        && (pending::is_marked_drop(segment)
            || (listens_at != segment.local_port() && is_refused_in_silence(service, segment)))
    {
        return true;
    }
    if begins || flags & RST != 0 {
        if waiters::has_records(service.id) {
            again::may_end(service.id, segment);
        }
        return begins && takes_data_at_once(ctx) && {
            stage::go_on(ctx, stage::FAST_OPEN);
            held(service.id, None)
        };
    }
    // No handshake is completed without.
    flags & ACK != 0 && judge_ack(ctx, service, segment)
}

/// Whether a connection may begin with the SYN at this listener.
#[inline(always)]
fn takes_data_at_once(ctx: &SkBuffContext) -> bool {
    // SAFETY: the kernel hands the program a valid context.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    // SAFETY: the socket of the context, and not null.
    !sk.is_null() && unsafe { kernel::fast_open_queue(sk) } != 0
}

/// Judges what may complete a handshake.
#[inline(always)]
fn judge_ack(ctx: &SkBuffContext, service: &Service, segment: &Segment) -> bool {
    let Some(mut tuple) = segment.tuple() else { return unreadable(segment.local_port()) };
    let handshake = kernel::handshake(ctx, &mut tuple, segment.ack);
    if handshake == Handshake::Void {
        return false;
    }
    if segment.flags & SYN != 0 {
        // Of one with data the kernel makes a connection that is not established, and that the ledger would see
        // only when it is, without a verdict (`tcp_check_req`, net/ipv4/tcp_minisocks.c, ignores the SYN). No
        // client has use for it.
        return handshake == Handshake::Completing && held(service.id, None);
    }
    let mut arrival = Arrival::NEW;
    if waiters::has_records(service.id) {
        if waiters::of(&tuple.flow()).is_some() {
            stage::go_on(ctx, stage::AGAIN);
            return held(service.id, None);
        }
        arrival.overtakes = attended::overtakes();
    }
    let (scope, limits) = service.limits(&tuple.remote(), &tuple.local());
    let count_keys = service.count_keys(scope, &tuple.remote());
    if handshake == Handshake::Unknown {
        judge_cookie(ctx, service, &count_keys, &limits)
    } else {
        complete(ctx, service, &tuple, &count_keys, &limits, arrival)
    }
}

/// A SYN cookie, perhaps: whoever sends any number gets here. So this only looks.
#[inline(always)]
fn judge_cookie(ctx: &SkBuffContext, service: &Service, count_keys: &CountKeys, limits: &Limits) -> bool {
    let entry = maps::entry(&count_keys.source);
    if entry.is_none() && rooms::is_full() {
        stage::go_on(ctx, stage::NEWCOMER);
    }
    counts::is_over(&count_keys.source, count_keys, limits, entry) && held(service.id, entry)
}

/// The handshake is complete: it takes a place, or goes on in another program to wait for one.
#[inline(always)]
fn complete(
    ctx: &SkBuffContext,
    service: &Service,
    tuple: &Tuple,
    count_keys: &CountKeys,
    limits: &Limits,
    arrival: Arrival,
) -> bool {
    if !limits.denied && !counts::is_banned(&count_keys.source, limits) {
        let Some(counts) = Counts::find(count_keys) else {
            pending::propose(count_keys);
            stage::go_on(ctx, stage::MAKE_ROOM);
            return held(service.id, None);
        };
        match pending::reserve(&counts, count_keys, limits, arrival, tuple.remote(), tuple.remote_port()) {
            Outcome::Taken => return false,
            Outcome::Full(_) => {}
            Outcome::Again => {
                count!(service.id, contended);
                return true;
            }
        }
    }
    stage::go_on(ctx, stage::HOLD);
    held(service.id, maps::entry(&count_keys.source))
}

/// Whether a SYN is one of who is denied or banned, which is told nothing. Where the listener is at another port than
/// the peer has asked for, admission has judged nothing: it is called with the listener's.
#[inline(always)]
fn is_refused_in_silence(service: &Service, syn: &Segment) -> bool {
    let Some(peer) = syn.tuple() else { return false };
    let (scope, action) = service.action(&peer.remote(), &peer.local());
    let source = Key::source(service.id, service.policy, scope.source_prefix, &peer.remote());
    let reason = match action {
        Action::Deny => Reason::Denied,
        Action::Limit if counts::bans(&source) => Reason::Banned,
        Action::Limit | Action::Allow => return false,
    };
    count!(service.id, refused[reason as usize]);
    true
}

/// Counts a packet with more extension headers than an honest peer has use for (RFC 8504, 5.3, lets a host
/// discard such), for a listener at `port`: to let through what cannot be judged would be a way around every limit.
/// Whether it is dropped.
#[inline(always)]
fn unreadable(port: u32) -> bool {
    let Some(service) = maps::service_of(port) else { return true };
    !service.policy.observes() && held(service.id, None)
}

/// Counts an ACK held back. Always true.
#[inline(always)]
fn held(service: ServiceId, entry: Option<MapRef<Entry>>) -> bool {
    count!(service, held);
    if let Some(entry) = entry {
        field!(entry, held).count(1);
    }
    true
}
