// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who listens at mail ports ([`limiter_common::listening`]): counted when a socket begins to listen, and when it ends.
//!
//! Nothing about the limits rests on it. Where nobody is known to listen, a SYN goes on to the kernel's own look-up,
//! and whoever listens there all the same has the gate in front. What is wrong here the daemon corrects.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_SOCK_OPS_STATE_CB_FLAG},
    programs::SockOpsContext,
};
use limiter_common::{
    Addr,
    count::Word as _,
    listening::{self, Endpoint, Listener},
};

use crate::{
    kernel,
    map_ref::Find as _,
    maps::{self, LISTENING},
};

/// Who is known to listen at `local` and `port`, for what comes by this interface.
#[inline(always)]
pub fn listener(local: Addr, port: u32, ifindex: u32) -> Listener {
    listening::listener(&Endpoint::new(local, port as u16, ifindex), |endpoint| {
        LISTENING.find(endpoint).is_some_and(|count| count.get() != 0)
    })
}

/// A socket listens from now on, bound to `local`.
#[inline(always)]
pub fn begins(ctx: &SockOpsContext, local: Addr) {
    if !maps::is_of_a_service(ctx.local_port()) {
        return;
    }
    // What it accepts inherits the flag, and would get it in any case. Other programs may have asked for events of
    // their own: add to theirs.
    let _cannot_fail = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    let (first, second) = endpoints(ctx, local);
    add(&first);
    if let Some(second) = second {
        add(&second);
    }
}

/// A socket listens no more.
#[inline(always)]
pub fn ends(ctx: &SockOpsContext, local: Addr) {
    let (first, second) = endpoints(ctx, local);
    take(&first);
    if let Some(second) = second {
        take(&second);
    }
}

/// Where the listener of the event listens.
#[inline(always)]
fn endpoints(ctx: &SockOpsContext, local: Addr) -> (Endpoint, Option<Endpoint>) {
    // SAFETY: the context is valid for the whole run.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    let (ifindex, takes_both) = if sk.is_null() {
        (0, false)
    } else {
        // SAFETY: not null, and a listener is a full socket.
        unsafe { ((*sk).bound_dev_if, kernel::takes_both_families(sk)) }
    };
    let first = Endpoint::new(local, ctx.local_port() as u16, ifindex);
    (first, first.second(takes_both))
}

#[inline(always)]
fn add(endpoint: &Endpoint) {
    if LISTENING.insert(endpoint, 1, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another one listens there (SO_REUSEPORT), or there is no room.
    if let Some(count) = LISTENING.find(endpoint) {
        count.add(1);
    }
}

#[inline(always)]
fn take(endpoint: &Endpoint) {
    let Some(count) = LISTENING.find(endpoint) else { return };
    let count = count.shared();
    let seen = count.load();
    if seen > 1 {
        let _changed = count.compare_exchange(seen, seen - 1);
    } else {
        let _gone_already = LISTENING.remove(endpoint);
    }
}
