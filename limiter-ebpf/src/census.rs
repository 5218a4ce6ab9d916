//! The census: one look at every socket of the kernel's table.
//!
//! It counts what nobody has counted yet (connections older than the limiter, or let through uncounted),
//! and writes a record of what it finds to whoever reads its pin. The kernel locks each full socket
//! while it is shown (`bpf_iter_tcp_seq_show`, `net/ipv4/tcp_ipv4.c`), so what is noted on it cannot
//! change meanwhile; the path of every other connection goes on.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_LISTEN,
        BPF_TCP_NEW_SYN_RECV, BPF_TCP_SYN_RECV, BPF_TCP_TIME_WAIT, seq_file,
    },
    cty::c_void,
    helpers::generated::{bpf_getsockopt, bpf_seq_write, bpf_setsockopt},
};
use limiter_common::{
    Claim, Note, ServicePolicy,
    census::{Record, kind},
    ledger::note,
};

use crate::{
    keepalive,
    kernel::Socket,
    ledger,
    maps::{self, NOTES},
};

const SOL_TCP: i32 = 6;
/// Sets and gets the events a socket reports (include/uapi/linux/bpf.h, Linux 6.12 and later).
const TCP_BPF_SOCK_OPS_CB_FLAGS: i32 = 1008;

/// What the kernel hands over for each socket (`struct bpf_iter__tcp`, `net/ipv4/tcp_ipv4.c`).
#[repr(C)]
pub struct Context {
    meta: *const Meta,
    socket: *mut c_void,
}

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
}

/// Looks at the socket of this call; there is none in the last one.
#[inline(always)]
pub fn run(ctx: *const Context) {
    // SAFETY: the kernel hands the program a valid context. Volatile: see `admission::addresses`.
    let (meta, sk) =
        unsafe { ((&raw const (*ctx).meta).read_volatile(), (&raw const (*ctx).socket).read_volatile()) };
    if sk.is_null() {
        return;
    }
    let socket = Socket(sk.cast::<u8>().cast_const());
    let Some(maps::Service { id: service, policy, .. }) = maps::service_of(socket.local_port()) else {
        return;
    };
    if !socket.is_in_our_netns() {
        return;
    }
    let mut record = Record { kind: kind::WAITING, claim: Claim::new(service, policy, &socket.remote()) };
    let shown = match socket.state() {
        BPF_TCP_NEW_SYN_RECV => true,
        BPF_TCP_LISTEN | BPF_TCP_TIME_WAIT => false,
        state => look(socket, state, sk, policy, &mut record),
    };
    if shown {
        // SAFETY: `seq` is that of this run, the record as long as said. When it does not fit, the
        // kernel shows the socket again in the next read; what was done to it stays done.
        unsafe { bpf_seq_write((*meta).seq, (&raw const record).cast(), size_of::<Record>() as u32) };
    }
}

/// Fills in what a full socket is to the limiter; `false` if it is nothing.
#[inline(always)]
fn look(socket: Socket, state: u32, sk: *mut c_void, policy: &ServicePolicy, record: &mut Record) -> bool {
    let holds = matches!(state, BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT);
    // SAFETY: a full socket, of which the verifier knows the type.
    let noted = unsafe { if holds { NOTES.get_or_create(sk) } else { NOTES.get(sk) } };
    let Some(noted) = noted else {
        record.kind = kind::UNCOUNTED;
        return holds && socket.is_in_our_cgroup();
    };
    // SAFETY: storage of this socket, which is locked.
    let noted = unsafe { &mut *noted };
    if noted.state == note::NONE {
        if !holds || !socket.is_in_our_cgroup() {
            return false;
        }
        if !count(sk, policy, &record.claim, noted) {
            record.kind = kind::UNCOUNTED;
            return true;
        }
    }
    record.claim = noted.claim;
    match noted.state {
        note::COUNTED => record.kind = kind::COUNTED,
        note::ADOPTED if holds || state == BPF_TCP_SYN_RECV => record.kind = kind::UNREPORTED,
        note::ADOPTED => {
            noted.state = note::RELEASED;
            ledger::release(&noted.claim);
            return false;
        }
        _ => return false,
    }
    true
}

/// Counts a connection that nobody has counted yet; `false` if it cannot be counted.
#[inline(always)]
fn count(sk: *mut c_void, policy: &ServicePolicy, claim: &Claim, noted: &mut Note) -> bool {
    if ledger::count(claim, policy).is_none() {
        return false;
    }
    maps::count(claim.service(), |counters| &mut counters.adopted);
    noted.claim = *claim;
    noted.state = if will_report(sk) { note::COUNTED } else { note::ADOPTED };
    // SAFETY: in an iterator `bpf_setsockopt` takes the socket.
    unsafe { keepalive::turn_on(sk, &policy.keepalive) };
    true
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
