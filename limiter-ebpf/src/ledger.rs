//! The ledger: a connection counts from establishment until the mail daemon lets go of it.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT1, BPF_TCP_LAST_ACK,
    },
    cty::c_void,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockOpsContext,
};
use limiter_common::{Addr, Claim, Entry, Key, ServiceId, ServicePolicy, ledger::note, places};

use crate::{
    atomic::{self, Shared},
    kernel,
    maps::{self, NOTES},
    pending, report,
};

const AF_INET: u32 = 2;

/// Called for every event of every TCP socket: leaves at once for the ones that matter not.
#[inline(always)]
pub fn run(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ctx),
        BPF_SOCK_OPS_STATE_CB => state_changed(ctx),
        _ => {}
    }
}

/// A handshake is complete: the reservation becomes a count, noted on the socket.
#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some((service, policy)) = maps::service_of(ctx.local_port()) else { return };
    // SAFETY: the context is valid for the whole run.
    if !kernel::is_our_netns(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }) {
        return;
    }
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: an established socket of the context.
    let Some(noted) = (unsafe { NOTES.get_or_create(sk) }) else {
        return report::no_note(ctx, service);
    };
    // SAFETY: storage of this socket, which is locked while its events are reported.
    let noted = unsafe { &mut *noted };
    match noted.state {
        note::NONE => {}
        note::GREETER => return maps::count(service, |counters| &mut counters.replied),
        // Two generations of this program run for a moment when a daemon takes over.
        _ => return,
    }
    let Some(claim) = claim(ctx, service, policy) else {
        return report::ledger_full(ctx, service);
    };
    noted.state = note::COUNTED;
    noted.claim = claim;
    maps::count(service, |counters| &mut counters.accepted);
    // Other programs may have asked for events of their own: add to theirs.
    let _cannot_fail = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

/// Counts the connection: by its reservation, or without one. `None` if it cannot be counted.
#[inline(always)]
fn claim(ctx: &SockOpsContext, service: ServiceId, policy: &ServicePolicy) -> Option<Claim> {
    let remote = remote(ctx);
    let remote_port = u32::from_be(ctx.remote_port());
    let (claim, entry, connections) = if let Some(claim) = pending::take(&remote, remote_port) {
        let entry = maps::entry(&claim.key)?;
        // SAFETY: found in this run.
        (claim, entry, places::commit(unsafe { Shared::places(entry) }))
    } else {
        // A SYN cookie, TCP Fast Open, or a policy that came between ACK and here.
        let key = Key::narrow(service, policy, &remote);
        let entry = maps::entry_or_new(&key)?;
        // SAFETY: found in this run.
        let connections = places::count(unsafe { Shared::places(entry) })?;
        maps::count(service, |counters| &mut counters.unreserved);
        (Claim { key }, entry, connections)
    };
    // SAFETY: found in this run, and holding our connection. `peak` may lose a race by one.
    unsafe {
        atomic::add(&raw mut (*entry).accepted, 1);
        if (*entry).peak < connections {
            (*entry).peak = connections;
        }
        seen(entry);
    }
    Some(claim)
}

/// A counted socket changed its state: given back, once, when the mail daemon has let go of it
/// (its FIN goes out), or when the connection died.
#[inline(always)]
fn state_changed(ctx: &SockOpsContext) {
    if !matches!(ctx.arg(1), BPF_TCP_FIN_WAIT1 | BPF_TCP_LAST_ACK | BPF_TCP_CLOSE) {
        return;
    }
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: a full socket of the context.
    let Some(noted) = (unsafe { NOTES.get(sk) }) else { return };
    // SAFETY: storage of this socket, which is locked while its events are reported.
    let noted = unsafe { &mut *noted };
    if noted.state != note::COUNTED {
        return;
    }
    noted.state = note::RELEASED;
    let service = ServiceId(noted.claim.key.service);
    let released = maps::entry(&noted.claim.key).is_some_and(|entry| {
        // SAFETY: found in this run, and holding our connection.
        unsafe {
            seen(entry);
            places::release(Shared::places(entry))
        }
    });
    if !released {
        report::drift(ctx, service);
    }
}

/// Notes the time on an entry.
///
/// # Safety
///
/// `entry` was found in this run.
#[inline(always)]
unsafe fn seen(entry: *mut Entry) {
    // SAFETY: by the contract above; the clock is always there.
    unsafe { (*entry).last_seen_s = (bpf_ktime_get_boot_ns() / 1_000_000_000) as u32 };
}

/// The socket of the event, if it is a full one.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut c_void> {
    // SAFETY: the context is valid for the whole run.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk.cast()) }
}

/// The peer in the limiter's form: an IPv4 peer of a dual-stack listener comes as `::ffff:a.b.c.d`.
#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Addr {
    let ops = ctx.ops;
    // SAFETY: the context is valid for the whole run. Both are read, volatile, and one chosen: the
    // optimiser would choose where to read instead, and the verifier refuses computed offsets.
    let (v4, v6) = unsafe {
        let word = |index: usize| (&raw const (*ops).remote_ip6[index]).read_volatile();
        ((&raw const (*ops).remote_ip4).read_volatile(), [word(0), word(1), word(2), word(3)])
    };
    if ctx.family() == AF_INET { Addr::from_v4_word(v4) } else { Addr(v6) }
}
