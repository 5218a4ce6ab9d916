//! The shield: frames of who is denied or banned go nowhere, before the kernel spends anything on them.
//!
//! It judges what would begin a connection to a mail port, and of a banned source whatever belongs to no
//! connection that is there: those go on until they end. The limiter is complete without it, because
//! admission and gate refuse the same.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, BPF_TCP_NEW_SYN_RECV},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::XdpContext,
};
use limiter_common::{Key, Limits, Reason, Rung};

use crate::{
    atomic, clock,
    frame::Frame,
    maps::{self, Service},
    packet::{ACK, SYN, Tuple},
};

/// Whether the frame is to be dropped.
#[inline(always)]
pub fn drops(ctx: &XdpContext) -> bool {
    let Some(frame) = Frame::read(ctx) else { return false };
    let Some(service) = maps::service_of(frame.local_port()) else { return false };
    let Some(mut tuple) = frame.tuple() else { return false };
    let begins = frame.flags & (SYN | ACK) == SYN;
    let rung = maps::rung(&Key::narrow(service.id, service.policy, &tuple.remote()));
    // SAFETY: found in this run.
    let rung = rung.filter(|&rung| unsafe { (*rung).banned_until_ns } > clock::now_ns());
    if (!begins && rung.is_none()) || service.policy.observes() {
        return false;
    }
    let (remote, local) = (tuple.remote(), tuple.local());
    let limits = Limits::of(service.policy, &service.say(&remote, &local));
    let reason = if limits.denied {
        Reason::Denied
    } else if limits.bannable && rung.is_some() {
        Reason::Banned
    } else {
        return false;
    };
    // Neither what is forwarded nor what is there already is any business of the limiter.
    if !service.is_hosts_own(&local) || (!begins && belongs_to_a_connection(ctx, &mut tuple)) {
        return false;
    }
    count(&service, rung, begins, reason);
    true
}

/// Whether the kernel has a connection that the segment belongs to.
#[inline(always)]
fn belongs_to_a_connection(ctx: &XdpContext, tuple: &mut Tuple) -> bool {
    let (tuple, len) = tuple.for_lookup();
    // SAFETY: the tuple is initialised and as long as said; the result is released below.
    let sk =
        unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, len, i64::from(BPF_F_CURRENT_NETNS) as u64, 0) };
    if sk.is_null() {
        return false;
    }
    // SAFETY: `sk` is valid until released.
    let state = unsafe { (*sk).state };
    // SAFETY: releases what the look-up took, once.
    unsafe { bpf_sk_release(sk.cast()) };
    // A handshake is not a connection yet.
    !matches!(state, BPF_TCP_LISTEN | BPF_TCP_NEW_SYN_RECV)
}

/// Counts a frame that is dropped.
#[inline(always)]
fn count(service: &Service, rung: Option<*mut Rung>, begins: bool, reason: Reason) {
    maps::count(service.id, |counters| &mut counters.dropped);
    if begins {
        maps::count(service.id, |counters| &mut counters.refused[reason as usize]);
    }
    if let Some(rung) = rung {
        // SAFETY: found in this run.
        unsafe { atomic::add(&raw mut (*rung).dropped, 1) };
    }
}
