// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Pulse: gives connections that are there already the keepalive that their service has now.
//!
//! Whoever reads the pin has it done, and gets the cookies of those that it was done to. A connection gets its keepalive
//! when it begins; this is for a keepalive that is set later. What the mail daemon has set itself is overruled.

use aya_ebpf::{
    bindings::{BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED},
    cty::c_void,
    helpers::bpf_get_socket_cookie,
};

use crate::{
    iterator::{Meta, TcpContext},
    keepalive,
    kernel::Socket,
    maps, records,
};

/// Looks at the socket of this call; there is none in the last one.
#[inline(always)]
pub fn run(ctx: *const TcpContext) {
    // SAFETY: the kernel hands the program a valid context.
    let (meta, sk) = unsafe { TcpContext::read(ctx) };
    if sk.is_null() {
        return;
    }
    let socket = Socket(sk.cast::<u8>().cast_const());
    // The kernel sends no probes in other states (`tcp_keepalive_timer`, net/ipv4/tcp_timer.c).
    if !matches!(socket.state(), BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT) || !socket.is_in_our_netns() {
        return;
    }
    if let Some(cookie) = set(socket, sk) {
        // SAFETY: that of this run.
        unsafe { Meta::write(meta, &cookie) };
    }
}

#[inline(always)]
fn set(socket: Socket, sk: *mut c_void) -> Option<u64> {
    // SAFETY: a full socket, of which the verifier knows the type.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    if !records::of(cookie)?.is_counted() {
        return None;
    }
    let service = maps::service_of(socket.local_port())?;
    // SAFETY: in an iterator `bpf_setsockopt` takes the socket.
    unsafe { keepalive::turn_on(sk, &service.policy.keepalive) };
    (service.policy.keepalive.idle_s != 0).then_some(cookie)
}
