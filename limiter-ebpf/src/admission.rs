// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Admission: each SYN for a mail port, judged by what its source holds already.
//!
//! It never reserves: a SYN proves nothing about its source (law 1).

use aya_ebpf::{
    bindings::{bpf_sk_lookup, sk_action},
    programs::SkLookupContext,
};
use limiter_common::{Addr, Rate, Response, Verdict, listening::Listener, verdict, waiting::Flow};

use crate::{
    address, attended, clock,
    counts::{self, Present},
    grounds, ladder, listening,
    map_ref::field,
    maps::{self, GREETER, count},
    pending, waiters,
};

const IPPROTO_TCP: u32 = 6;
/// `BPF_SK_LOOKUP_F_REPLACE`: the refusal stands, whatever another program selected before.
const REPLACE: u64 = 1;

/// `SK_PASS` or `SK_DROP`; the latter is answered by a reset (`tcp_v4_rcv`, `net/ipv4/tcp_ipv4.c`).
#[inline(always)]
pub fn run(ctx: &SkLookupContext) -> u32 {
    // SAFETY: the kernel hands the program a valid context for the whole run.
    let lookup = unsafe { &*ctx.lookup };
    if lookup.protocol != IPPROTO_TCP {
        return sk_action::SK_PASS;
    }
    let Some(service) = maps::service_of(lookup.local_port) else {
        return sk_action::SK_PASS;
    };
    let (remote, local) = address::of_lookup(lookup);
    let flow = flow(lookup, remote, local);
    if waiters::has_records(service.id) && waiters::of(&flow).is_some() {
        // Of a handshake that was held back and that the kernel knows no more: the gate knows it.
        return sk_action::SK_PASS;
    }
    let policy = service.policy;
    if policy.observes() {
        // The ledger makes the verdict, when there is a connection to make it on.
        return sk_action::SK_PASS;
    }
    let Present { source, count_keys, limits, entry } = Present::of(&service, &remote, &local);
    let usage = counts::usage(&source, &count_keys, entry, policy.max_total != 0);
    let replies = service.ladder().map_or_else(Rate::default, |ladder| ladder.replies);

    // Where nothing is a matter of time, the clock is not asked.
    let now_ns = if limits.rate.is_limited() || usage.is_on_the_ladder() { clock::now_ns() } else { 0 };

    let verdict = verdict::judge(policy, &limits, &usage, &replies, now_ns);
    let Verdict::Refuse(reason, response) = verdict else {
        return sk_action::SK_PASS;
    };
    // Early: from here on nothing else of what the verdict rests on is needed.
    let reason = reason.within(&count_keys);
    let grounds = grounds::of(reason, &usage, &limits, &count_keys);
    // Somebody else's program may have chosen a socket that listens elsewhere.
    // SAFETY: valid for the whole run; only compared.
    let is_chosen =
        !unsafe { (&raw const lookup.__bindgen_anon_1.__bindgen_anon_1.sk).read_volatile() }.is_null();
    let listener = if is_chosen {
        Listener::Anywhere
    } else {
        listening::listener(local, lookup.local_port, lookup.ingress_ifindex)
    };
    if listener == Listener::Nobody {
        // Closed, as far as is known: the kernel's own look-up decides, and has a listener the gate in front.
        return sk_action::SK_PASS;
    }
    // The greeter is on no interface, so its answer may take another way, or none (VRF, policy routing). The gate has
    // the client answered as its listener would. What gets no answer can be refused here.
    if listener == Listener::OnInterface && response != Response::Drop {
        return sk_action::SK_PASS;
    }
    count!(service.id, refused[reason as usize]);
    if let Some(entry) = entry {
        field!(entry, refused).add(1);
    }
    if response != Response::Reply {
        ladder::record_refused(&raw const source, reason as u32);
    }
    if response == Response::Drop {
        // On to the listener, in front of which the gate takes it away.
        pending::mark_drop(remote, u32::from(u16::from_be(lookup.remote_port)), lookup.local_port);
        return sk_action::SK_PASS;
    }
    if response == Response::Reply
        && attended::daemon_answers()
        && GREETER.redirect_sk_lookup(ctx, 0, REPLACE).is_ok()
    {
        grounds::note_grounds(&raw const flow, grounds);
        return sk_action::SK_PASS;
    }
    sk_action::SK_DROP
}

/// The key of a record.
#[inline(always)]
fn flow(lookup: &bpf_sk_lookup, remote: Addr, local: Addr) -> Flow {
    Flow {
        remote,
        local,
        remote_port: u16::from_be(lookup.remote_port),
        local_port: lookup.local_port as u16,
        zero: 0,
    }
}
