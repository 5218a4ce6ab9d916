// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The grounds of a refusal, on their way from the verdict to the client: see `limiter_common::grounds`.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_setsockopt, programs::SockOpsContext};
use limiter_common::{
    Count, CountKeys, Grounds, Limits, Reason, Usage,
    grounds::{self, Options, Refused},
    waiting::Flow,
};

use crate::{map_ref::field, maps};

const IPPROTO_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_NOTSENT_LOWAT: i32 = 25;

/// On what grounds somebody is refused for `reason` who is counted in `count_keys`; packed.
#[inline(always)]
pub fn of(reason: Reason, usage: &Usage, limits: &Limits, count_keys: &CountKeys) -> u64 {
    let (count, limit) = Grounds::reached(reason, usage, limits, count_keys.has_network());
    packed_grounds(reason as u32, count.0, limit)
}

/// The same of a waiter for which there was no place a moment ago, and now, perhaps, is `room`: then as many were held as
/// the limit allows.
#[inline(always)]
pub fn of_waiter(
    reason: Reason,
    usage: &Usage,
    limits: &Limits,
    count_keys: &CountKeys,
    has_room: bool,
) -> u64 {
    let (mut count, limit) = Grounds::reached(reason, usage, limits, count_keys.has_network());
    if has_room {
        count = Count(u64::from(limit));
    }
    packed_grounds(reason.within(count_keys) as u32, count.0, limit)
}

/// Verified by itself, and all numbers: there is no stack left for more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn packed_grounds(reason: u32, count: u64, limit: u32) -> u64 {
    Grounds::of(Reason::from_u8(reason as u8), (Count(count), limit)).pack()
}

/// Notes on what grounds, packed, a handshake is refused. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn note_grounds(flow: *const Flow, packed: u64) -> u32 {
    // SAFETY: null, or what the caller has borrowed for the call; see `rooms::given`.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    let Some(slot) = maps::refused(flow) else { return 0 };
    let word = field!(slot, word).shared();
    if !grounds::claim(word) {
        return 0;
    }
    let of = Refused::of(flow);
    field!(slot, remote).set(of.remote);
    field!(slot, local).set(of.local);
    field!(slot, local_port).set(of.local_port);
    grounds::publish(word, Refused::word(flow, packed));
    0
}

/// Takes what was noted of a handshake, packed, if it is still there.
#[inline(always)]
pub fn take(flow: &Flow) -> Option<u64> {
    let slot = maps::refused(flow)?;
    let word = field!(slot, word).shared();
    let of = Refused::of(flow);
    let is_its_own = || {
        field!(slot, remote).get() == of.remote
            && field!(slot, local).get() == of.local
            && field!(slot, local_port).get() == of.local_port
    };
    grounds::take(word, flow, is_its_own)
}

/// Has the connection of the event bear them, for whoever accepts it: the kernel holds the socket's lock until this
/// program has run (`inet_accept`, `net/ipv4/af_inet.c`).
#[inline(always)]
pub fn bear(ctx: &SockOpsContext, packed: u64) {
    let Options { notsent_lowat, keepidle_s } = Options::of(packed);
    let set = |option: i32, value: u32| {
        let mut value = value;
        // SAFETY: in a sock_ops program `bpf_setsockopt` takes the context; the value is as long as said. If the kernel
        // refuses one, the greeter finds nothing, and the client gets a reset.
        unsafe { bpf_setsockopt(ctx.as_ptr(), IPPROTO_TCP, option, (&raw mut value).cast(), 4) };
    };
    set(TCP_KEEPIDLE, keepidle_s);
    set(TCP_NOTSENT_LOWAT, notsent_lowat);
}
