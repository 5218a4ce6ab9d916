// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Release: the owner closes a socket, so what it held is given back.
//!
//! The kernel calls this when the last descriptor of a socket is closed, whatever has become of the connection
//! (`inet_release`, `net/ipv4/af_inet.c`, Linux 5.9), and before it takes the socket's lock: a reset may arrive on
//! another CPU at the same time ([`limiter_common::ending`]).

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_socket_cookie, programs::SockContext};
use limiter_common::ending;

use crate::{address, clock, ledger, records::ByCookie};

const IPPROTO_TCP: u32 = 6;

/// Called for every internet socket of the cgroup: leaves at once for those without a record.
#[inline(always)]
pub fn run(ctx: &SockContext) {
    // SAFETY: the context is valid for the whole run.
    if unsafe { (*ctx.sock).protocol } != IPPROTO_TCP {
        return;
    }
    // SAFETY: as above.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if let Some(kept) = ending::let_go(&ByCookie { cookie, remote: || address::peer(ctx) }) {
        ledger::give_back(ctx, &kept, clock::tick_s());
    }
}
