// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Addresses of sockets in the limiter's form. Contexts and the kernel have one as one word or as four, and the family
//! says which of them count: chosen here, and nowhere else. Those of packets are read by [`mod@crate::packet`].

use aya_ebpf::{
    bindings::bpf_sk_lookup,
    programs::{SockContext, SockOpsContext},
};
use limiter_common::Addr;

/// The family of an IPv4 address; every other one that gets here is IPv6.
const AF_INET: u32 = 2;

/// What is read in one of two ways, by the family.
#[inline(always)]
pub fn of_family<R>(family: u32, v4: impl FnOnce() -> R, v6: impl FnOnce() -> R) -> R {
    if family == AF_INET { v4() } else { v6() }
}

/// An address of a context, for either family. All words are read, volatile, before one family is chosen: the optimiser
/// would choose where to read instead, and the verifier refuses offsets that are computed.
macro_rules! either {
    ($context:expr, $v4:ident, $v6:ident) => {{
        let context = $context;
        // SAFETY: the kernel hands the program a valid context for the whole run.
        unsafe {
            let word = |index: usize| (&raw const (*context).$v6[index]).read_volatile();
            let v4 = (&raw const (*context).$v4).read_volatile();
            (Addr::from_v4_word(v4), Addr([word(0), word(1), word(2), word(3)]))
        }
    }};
}

/// Remote and local address of a packet that looks for its socket.
#[inline(always)]
pub fn of_lookup(lookup: &bpf_sk_lookup) -> (Addr, Addr) {
    let remote = either!(&raw const *lookup, remote_ip4, remote_ip6);
    let local = either!(&raw const *lookup, local_ip4, local_ip6);
    of_family(lookup.family, || (remote.0, local.0), || (remote.1, local.1))
}

/// The peer of an event's socket. One of IPv4 at a dual-stack listener comes as `::ffff:a.b.c.d`.
#[inline(always)]
pub fn remote(ctx: &SockOpsContext) -> Addr {
    let (v4, v6) = either!(ctx.ops, remote_ip4, remote_ip6);
    of_family(ctx.family(), || v4, || v6)
}

/// The address that the peer of an event's socket has connected to.
#[inline(always)]
pub fn local(ctx: &SockOpsContext) -> Addr {
    let (v4, v6) = either!(ctx.ops, local_ip4, local_ip6);
    of_family(ctx.family(), || v4, || v6)
}

/// The peer of a socket.
#[inline(always)]
pub fn peer(ctx: &SockContext) -> Addr {
    let (v4, v6) = either!(ctx.sock, dst_ip4, dst_ip6);
    // SAFETY: as in `either`.
    of_family(unsafe { (*ctx.sock).family }, || v4, || v6)
}
