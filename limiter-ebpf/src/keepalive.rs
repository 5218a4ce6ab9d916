// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Keepalive on counted connections, so that a peer that vanished ends by itself.

use aya_ebpf::{cty::c_void, helpers::generated::bpf_setsockopt};
use limiter_common::Keepalive;

const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const IPPROTO_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// Turns keepalive on, and bounds how long sent data may go unacknowledged by the same time: while
/// some is, the kernel repeats it and sends no probes (tcp(7), `TCP_USER_TIMEOUT`). The mail daemon may
/// set other values after it has accepted the connection.
///
/// # Safety
///
/// `sock` is what `bpf_setsockopt` takes in the program that runs: its context or its socket.
#[inline(always)]
pub unsafe fn turn_on(sock: *mut c_void, keepalive: &Keepalive) {
    if keepalive.idle_s == 0 {
        return;
    }
    let set = |level: i32, option: i32, value: i32| {
        let mut value = value;
        // SAFETY: by the contract above; the value is as long as said. An option the kernel refuses
        // is left as it was: the connection is none the worse.
        unsafe { bpf_setsockopt(sock, level, option, (&raw mut value).cast(), 4) };
    };
    set(IPPROTO_TCP, TCP_KEEPIDLE, i32::from(keepalive.idle_s));
    set(IPPROTO_TCP, TCP_KEEPINTVL, i32::from(keepalive.interval_s));
    set(IPPROTO_TCP, TCP_KEEPCNT, i32::from(keepalive.probes));
    set(IPPROTO_TCP, TCP_USER_TIMEOUT, keepalive.seconds() as i32 * 1000);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
}
