// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the daemon is told of those that wait.

use limiter_common::{
    CountKeys, ServiceId,
    waiting::{Event, Flow, event},
};

use crate::{
    counts::{self, Counts},
    maps::EVENTS,
};

/// Tells the daemon. Where there is no room for more, it finds out when it next looks through the records.
#[inline(always)]
pub fn tell(kind: u32, service: ServiceId, flow: &Flow) {
    if let Some(mut event) = EVENTS.reserve(0) {
        event.write(Event { kind, service: u32::from(service.0), flow: *flow });
        event.submit(0);
    }
}

/// A place of `count_keys` came free: tells the daemon if somebody waits for it.
#[inline(always)]
pub fn freed(count_keys: &CountKeys, counts: &Counts) {
    if counts::is_waited_for(&counts.words()) {
        tell(event::FREED, count_keys.service(), &Flow { remote: count_keys.source.addr, ..Flow::default() });
    }
}
