// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A SYN for a listener that takes TCP Fast Open: the connection may begin with it, before any ACK could be judged.

use aya_ebpf::programs::SkBuffContext;

use super::stage::held;
use crate::{
    counts::{self, Present},
    maps,
    packet::Segment,
};

/// Whether the SYN is to be dropped. Where admission has left the verdict to the gate, it is made here: over the limit a
/// SYN with data does not reach the kernel. Its client tries again without, or hears why when that one is complete. Which
/// cookies are good only the kernel knows, so nothing is reserved.
#[inline(always)]
pub fn run(ctx: &SkBuffContext) -> bool {
    let Some(segment) = Segment::read(ctx) else { return true };
    let Some(service) = maps::service_of(segment.local_port()) else { return true };
    let Some(tuple) = segment.tuple() else { return true };
    if segment.data == 0 {
        return false;
    }
    let Present { source, count_keys, limits, entry } =
        Present::of(&service, &tuple.remote(), &tuple.local());
    counts::is_over(&source, &count_keys, &limits, entry) && held(service.id, &count_keys)
}
