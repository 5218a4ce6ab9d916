// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The gate: the ACK that completes a handshake takes a place, or waits.
//!
//! It is judged before the kernel makes a connection of it. Without a place the packet is dropped: the
//! handshake stays in the kernel's SYN queue, and is recorded ([`waiters`]). When its turn comes, the daemon
//! has the client send the ACK again; where there is none, the kernel does, by repeating its SYN-ACK (after
//! 1 s, 3 s, 7 s, …). The mail daemon sees nothing.

use aya_ebpf::{bindings::BPF_TCP_LISTEN, programs::SkBuffContext};
use limiter_common::{
    Action, CountKeys, Entry, Key, Reason, ServiceId,
    reservation::{self, Arrival, Outcome},
};

use crate::{
    attended, clock,
    counts::{self, Counts},
    kernel::{self, Handshake},
    maps::{self, Service},
    packet::{ACK, RST, SYN, Segment},
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
    let port = segment.local_port();
    let Some(service) = maps::service_of(port) else { return false };
    // SAFETY: `sk` is the context's socket, and not null.
    if !unsafe { kernel::is_limited(sk) } {
        return false;
    }
    // This CPU is done with the packet it reserved for, and no connection came of it.
    pending::cancel();
    if service.policy.observes() {
        // The ledger makes the verdict, when there is a connection to make it on.
        return false;
    }

    let flags = segment.flags & (SYN | RST | ACK);
    if flags == SYN {
        return pending::is_marked_drop(&segment)
            || (listens_at != port && is_refused_in_silence(&service, &segment));
    }
    if flags & RST != 0 {
        if waiters::has_records(service.id) {
            waiters::reset(service.id, &segment);
        }
        return false;
    }
    // No handshake is completed without.
    if flags & ACK == 0 {
        return false;
    }
    let Some(mut tuple) = segment.tuple() else { return unreadable(port) };
    let handshake = kernel::handshake(ctx, &mut tuple, segment.ack);
    if handshake == Handshake::Void {
        return false;
    }
    if flags & SYN != 0 {
        // Of one with data the kernel makes a connection that is not established, and that the ledger would see
        // only when it is, without a verdict (`tcp_check_req`, net/ipv4/tcp_minisocks.c, ignores the SYN). No
        // client has use for it.
        return handshake == Handshake::Completing && held(service.id, None);
    }
    let remote = tuple.remote();
    let mut arrival = Arrival::NEW;
    if waiters::has_records(service.id) {
        if waiters::of(&tuple.flow()).is_some() {
            waiters::go_on(ctx, waiters::AGAIN);
            return held(service.id, None);
        }
        arrival.overtakes = attended::overtakes();
    }
    let (scope, limits) = service.limits(&remote, &tuple.local());
    let count_keys = CountKeys::new(service.id, service.policy, scope, &remote);
    if handshake == Handshake::Unknown {
        // A SYN cookie, perhaps: whoever sends any number gets here.
        let entry = maps::entry(&count_keys.source);
        if entry.is_none() && rooms::is_full() {
            waiters::go_on(ctx, waiters::NEW);
        }
        return counts::is_over(&count_keys.source, &count_keys, &limits, entry) && held(service.id, entry);
    }
    if !limits.denied && !counts::is_banned(&count_keys.source, &limits) {
        let now_ns = if limits.rate.is_limited() { clock::now_ns() } else { 0 };
        let Some(counts) = Counts::find(&count_keys) else {
            pending::propose(&count_keys);
            waiters::go_on(ctx, waiters::MAKE_ROOM);
            return held(service.id, None);
        };
        let words = counts.words();
        match reservation::reserve(&words, &limits, now_ns, arrival) {
            Outcome::Taken if counts.belong_to(&count_keys) => {
                pending::set(remote, tuple.remote_port(), count_keys, limits.rate.interval_ns);
                return false;
            }
            Outcome::Full(_) => {}
            outcome => {
                if outcome == Outcome::Taken {
                    reservation::cancel(&words, limits.rate.interval_ns);
                }
                maps::count(service.id, |counters| &mut counters.contended);
                return true;
            }
        }
    }
    waiters::go_on(ctx, waiters::HOLD);
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
    maps::count(service.id, |counters| &mut counters.refused[reason as usize]);
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
fn held(service: ServiceId, entry: Option<*mut Entry>) -> bool {
    maps::count(service, |counters| &mut counters.held);
    if let Some(entry) = entry {
        // SAFETY: found in this run. A plain add: a statistic that may lose one between two CPUs.
        unsafe { (*entry).held = (*entry).held.wrapping_add(1) };
    }
    true
}
