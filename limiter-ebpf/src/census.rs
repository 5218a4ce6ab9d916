// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The census: one look at every socket of the kernel's table.
//!
//! It counts what nobody has counted yet (connections older than the limiter, or let through uncounted),
//! and writes a record of what it finds to whoever reads its pin. The kernel locks each full socket
//! while it is shown (`bpf_iter_tcp_seq_show`, `net/ipv4/tcp_ipv4.c`), so its record cannot
//! change meanwhile; the path of every other connection goes on.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT1,
        BPF_TCP_FIN_WAIT2, BPF_TCP_LISTEN, BPF_TCP_NEW_SYN_RECV, BPF_TCP_TIME_WAIT,
    },
    cty::c_void,
    helpers::{
        bpf_get_socket_cookie,
        generated::{bpf_getsockopt, bpf_setsockopt},
    },
};
use limiter_common::{
    Addr, ConnectionRecord, DatedRecord, Kept,
    census::{SocketRecord, kind},
    record,
};

use crate::{
    clock, counts,
    iterator::{Meta, TcpContext},
    keepalive,
    kernel::Socket,
    ledger,
    maps::{self, GREETER_SOCKETS, count},
    records,
};

const SOL_TCP: i32 = 6;
/// Sets and gets the events a socket reports (include/uapi/linux/bpf.h, Linux 6.12 and later).
const TCP_BPF_SOCK_OPS_CB_FLAGS: i32 = 1008;

/// Looks at the socket of this call; there is none in the last one.
#[inline(always)]
pub fn run(ctx: *const TcpContext) {
    // SAFETY: the kernel hands the program a valid context.
    let (meta, sk) = unsafe { TcpContext::read(ctx) };
    if sk.is_null() {
        return;
    }
    let socket = Socket(sk.cast::<u8>().cast_const());
    if !socket.is_in_our_netns() {
        return;
    }
    let record = match socket.state() {
        BPF_TCP_NEW_SYN_RECV | BPF_TCP_TIME_WAIT => None,
        BPF_TCP_LISTEN => {
            if maps::is_of_a_service(socket.local_port()) {
                // Its end is noticed at once: see `listening`.
                let _where_the_kernel_can = will_report(sk);
            }
            None
        }
        state => look(socket, state, sk),
    };
    if let Some(record) = record {
        // When it does not fit, and the kernel shows the socket again, what was done to it stays done.
        // SAFETY: that of this run.
        unsafe { Meta::write(meta, &record) };
    }
}

/// What a full socket is to the limiter, if anything. Its record holds whatever its port is now.
#[inline(always)]
fn look(socket: Socket, state: u32, sk: *mut c_void) -> Option<SocketRecord> {
    // SAFETY: a full socket, of which the verifier knows the type.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let remote = socket.remote();
    let shut = socket.is_shut();
    let Some(record) = records::of(cookie) else {
        let talks =
            matches!(state, BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT | BPF_TCP_FIN_WAIT1 | BPF_TCP_FIN_WAIT2);
        return if talks && !shut { count(socket, sk, cookie, &remote) } else { None };
    };
    if record.state == record::ADOPTED && shut {
        // What others report. A close is seen by the release.
        if let Some(kept) = records::take_kept(cookie) {
            let _was_counted = ledger::release_apart(&kept, clock::now_s());
        }
        return None;
    }
    let kind = if record.is_counted() { kind::COUNTED } else { kind::LET_GO };
    Some(SocketRecord { cookie, kind, count_keys: record.count_keys(&remote), zero: 0 })
}

/// Counts a connection without a record, if it is one of ours.
#[inline(always)]
fn count(socket: Socket, sk: *mut c_void, cookie: u64, remote: &Addr) -> Option<SocketRecord> {
    let service = maps::service_of(socket.local_port())?;
    // SAFETY: a full socket, of which the verifier knows the type.
    if !socket.is_from_a_listener() || !socket.is_in_our_cgroup() || unsafe { GREETER_SOCKETS.has(sk) } {
        return None;
    }
    let (scope, limits) = service.limits_of(remote, false);
    let mut record = SocketRecord {
        cookie,
        kind: kind::UNCOUNTED,
        count_keys: service.count_keys(scope, remote),
        zero: 0,
    };
    counts::make_entries(&raw mut record.count_keys);
    if !ledger::count(&record.count_keys, &limits.rate.within(&record.count_keys), clock::now_s()) {
        return Some(record);
    }
    let reports = will_report(sk);
    let state = if reports { record::COUNTED } else { record::ADOPTED };
    let new = ConnectionRecord::new(state, &record.count_keys);
    let recorded = if reports {
        records::make(cookie, DatedRecord { record: new, since_s: 0 })
    } else {
        records::keep(cookie, &Kept::new(new, *remote))
    };
    if !recorded {
        let _was_counted = ledger::release_apart(&Kept::new(new, *remote), clock::now_s());
        return Some(record);
    }
    count!(service.id, adopted);
    if record.count_keys.source.is_shared() {
        count!(service.id, shared);
    }
    // SAFETY: in an iterator `bpf_setsockopt` takes the socket.
    unsafe { keepalive::turn_on(sk, &service.policy.keepalive) };
    record.kind = kind::COUNTED;
    Some(record)
}

/// Asks the socket to report its changes of state; `false` where the kernel cannot.
#[inline(always)]
fn will_report(sk: *mut c_void) -> bool {
    let mut before = 0_i32;
    // SAFETY: a full socket, locked; the values are as long as said.
    unsafe {
        if bpf_getsockopt(sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, (&raw mut before).cast(), 4) != 0 {
            return false;
        }
        // Other programs may have asked for events of their own: add to theirs.
        let mut flags = before | BPF_SOCK_OPS_STATE_CB_FLAG as i32;
        bpf_setsockopt(sk, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, (&raw mut flags).cast(), 4) == 0
    }
}
