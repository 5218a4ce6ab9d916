// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The programs that the gate goes on in, and what they have in common. Each has a stack of its own, and is verified by
//! itself; it gets the packet and nothing else, and reads it again.

use aya_ebpf::programs::SkBuffContext;
use limiter_common::{CountKeys, Key, ServiceId};

use crate::{
    kernel::{self, Handshake},
    map_ref::field,
    maps::{self, STAGES, Service, count},
    packet::{Segment, Tuple},
    rooms,
};

/// Index of [`mod@super::hold`] in [`STAGES`].
pub const HOLD: u32 = 0;
/// Index of [`mod@super::again`].
pub const AGAIN: u32 = 1;
/// Index of [`super::newcomer::make_room`].
pub const MAKE_ROOM: u32 = 2;
/// Index of [`mod@super::newcomer`].
pub const NEWCOMER: u32 = 3;
/// Index of [`mod@super::fast_open`].
pub const FAST_OPEN: u32 = 4;

/// Goes on in another program. Returns only if it is not there: then the packet is to be dropped, and the kernel asks for
/// it again.
#[inline(always)]
pub fn go_on(ctx: &SkBuffContext, stage: u32) {
    // SAFETY: nothing here has a destructor.
    unsafe { STAGES.tail_call(ctx, stage) };
}

/// A packet for a listener of a mail port, as such a program reads it.
pub struct Packet {
    /// The service of the port.
    pub service: Service,
    /// The segment.
    pub segment: Segment,
    /// Its addresses and ports.
    pub tuple: Tuple,
    /// The handshake that it belongs to.
    pub handshake: Handshake,
}

impl Packet {
    /// Reads it; `None` if it is none such any more.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        let segment = Segment::read(ctx)?;
        let service = maps::service_of(segment.local_port())?;
        let mut tuple = segment.tuple()?;
        let handshake = kernel::handshake(ctx, &mut tuple, segment.ack);
        Some(Self { service, segment, tuple, handshake })
    }
}

/// Counts an ACK held back. Always true.
#[inline(always)]
pub fn held(service: ServiceId, count_keys: &CountKeys) -> bool {
    count!(service, held);
    count_held(&raw const count_keys.source);
    true
}

/// The same for the entry of its source, if there is one. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_held(key: *const Key) -> u32 {
    let Some(key) = rooms::given(key) else { return 0 };
    if let Some(entry) = maps::entry(&key) {
        field!(entry, held).count(1);
    }
    0
}
