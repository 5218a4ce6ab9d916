// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A SYN for a listener that takes TCP Fast Open: the connection may begin with it, before any ACK could be judged.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};

use super::stage::held;
use crate::{
    counts::{self, Present},
    maps,
    packet::Segment,
};

/// Whether the SYN is to be dropped. Where admission has left the verdict to the gate, it is made here: over the limit a
/// SYN with data, or with a cookie, does not reach the kernel. Its client tries again without both, or hears
/// why when that one is complete. Which cookies are good only the kernel knows, so nothing is reserved.
#[inline(always)]
pub fn run(ctx: &SkBuffContext) -> bool {
    let Some(segment) = Segment::read(ctx) else { return true };
    let Some(service) = maps::service_of(segment.local_port()) else { return true };
    let Some(tuple) = segment.tuple() else { return true };
    let Present { source, count_keys, limits, entry } =
        Present::of(&service, &tuple.remote(), &tuple.local());
    counts::is_over(&source, &count_keys, &limits, entry)
        && may_begin_connection(ctx.skb.skb) != 0
        && held(service.id, &count_keys)
}

/// Whether the kernel may make a connection of the SYN: with a cookie, or with data where the host asks for no cookie
/// (`tcp_try_fastopen`, net/ipv4/tcp_fastopen.c). Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn may_begin_connection(skb: *mut __sk_buff) -> u32 {
    let ctx = SkBuffContext::new(skb);
    Segment::read(&ctx).is_some_and(|segment| segment.data != 0 || segment.asks_for_fast_open()).into()
}
