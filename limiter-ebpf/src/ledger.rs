// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ledger: a connection counts from establishment until the mail daemon lets go of it.

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, BPF_TCP_CLOSING, BPF_TCP_FIN_WAIT1, BPF_TCP_LAST_ACK,
        BPF_TCP_LISTEN,
    },
    cty::c_void,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    programs::SockOpsContext,
};
use limiter_common::{
    Addr, ConnectionRecord, CountKeys, DatedRecord, Ending, Entry, Kept, Limits, Rate, ending, rate, record,
    reservation::{self, Arrival, Outcome},
    waiting::Flow,
};

use crate::{
    address::{local, remote},
    clock,
    counts::{self, Counts},
    events, grounds, keepalive, kernel, ladder, listening,
    map_ref::{MapRef, field},
    maps::{self, GREETER_SOCKETS, LEDGER_STAGES, count},
    pending,
    records::{self, ByCookie},
    report, rooms,
};

/// Index of [`ended`] in [`LEDGER_STAGES`].
const ENDED: u32 = 0;
/// Index of [`replied`].
const REPLIED: u32 = 1;
/// Index of [`rejudged`].
const REJUDGED: u32 = 2;

/// Called for every event of every TCP socket: leaves at once for the ones that matter not.
#[inline(always)]
pub fn run(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ctx),
        BPF_SOCK_OPS_STATE_CB if is_an_end(ctx) => go_on(ctx, ENDED),
        BPF_SOCK_OPS_TCP_LISTEN_CB if is_in_our_netns(ctx) => listening::begins(ctx, local(ctx)),
        _ => {}
    }
}

/// Goes on in another program: all of it in one is more than the verifier of Linux 6.1 goes through. Returns only if it
/// is not there; then the reconciliation finds what was missed.
#[inline(always)]
fn go_on(ctx: &SockOpsContext, stage: u32) {
    // SAFETY: nothing here has a destructor.
    unsafe { LEDGER_STAGES.tail_call(ctx, stage) };
}

/// A handshake is complete: the reservation becomes a count, recorded under the socket's cookie.
#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some(found) = maps::service_of(ctx.local_port()) else { return };
    let maps::Service { id: service, policy, .. } = found;
    if !is_in_our_netns(ctx) {
        return;
    }
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: an established socket of the context.
    if unsafe { GREETER_SOCKETS.has(sk) } {
        return go_on(ctx, REPLIED);
    }
    let cookie = cookie(ctx);
    let record = match make(ctx, &found, sk, cookie) {
        Made::Recorded(record) => record,
        Made::Already | Made::Outgoing => return,
        Made::NoRoom => return report::ledger_full(ctx, service),
    };
    if !records::make(cookie, DatedRecord { record, since_s: clock::tick_s() }) {
        if record.is_counted() {
            let _was_counted = release_apart(&Kept::new(record, remote(ctx)), clock::tick_s());
        }
        return report::no_room(ctx, service);
    }
    // Other programs may have asked for events of their own: add to theirs.
    let _cannot_fail = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    if record.is_counted() {
        count!(service, accepted);
        if record.is_shared() {
            report::shares(ctx, service);
        }
        // SAFETY: in a sock_ops program `bpf_setsockopt` takes the context.
        unsafe { keepalive::turn_on(ctx.as_ptr(), &policy.keepalive) };
    }
}

/// What became of a new connection.
enum Made {
    /// This is its record: it is counted, or would have been refused.
    Recorded(ConnectionRecord),
    /// It has a record already: two generations of this program run for a moment when a daemon
    /// takes over.
    Already,
    /// A local process has made it, and the peer has begun at the same moment (RFC 9293, 3.5).
    Outgoing,
    /// There is no room to count it.
    NoRoom,
}

/// Counts the connection: by its reservation, or without one.
#[inline(always)]
fn make(ctx: &SockOpsContext, service: &maps::Service, sk: *mut c_void, cookie: u64) -> Made {
    let remote = remote(ctx);
    let remote_port = u32::from_be(ctx.remote_port());
    if let Some(count_keys) = pending::take(service.id, &remote, remote_port) {
        let Some(counts) = Counts::find(&count_keys) else { return Made::NoRoom };
        stamp_arrival(&counts, reservation::commit(&counts.words()), clock::tick_s());
        return Made::Recorded(ConnectionRecord::new(record::COUNTED, &count_keys));
    }
    if records::of(cookie).is_some() {
        return Made::Already;
    }
    // SAFETY: the socket of the context.
    if unsafe { kernel::has_chosen_its_port(sk) } {
        return Made::Outgoing;
    }
    let (scope, mut limits) = service.limits(&remote, &local(ctx));
    let mut count_keys = service.count_keys(scope, &remote);
    counts::make_entries(&raw mut count_keys);
    match count_without_reservation(service, &count_keys, &mut limits) {
        0 => Made::NoRoom,
        state => Made::Recorded(ConnectionRecord::new(state as u8, &count_keys)),
    }
}

/// Counts a connection that has no reservation: where verdicts are only counted, or after a SYN cookie, TCP Fast Open,
/// or a policy that came between ACK and here. Returns its record's state, 0 if there is no room. A call of its own, so
/// that the verifier goes on in one way from here.
#[inline(never)]
fn count_without_reservation(service: &maps::Service, count_keys: &CountKeys, limits: &mut Limits) -> u32 {
    *limits = limits.within(count_keys);
    if service.policy.observes() {
        let state = observe(&raw const *count_keys, &raw mut *limits);
        if state != 0 {
            return state;
        }
    }
    if !count(count_keys, &limits.rate, clock::tick_s()) {
        return 0;
    }
    count!(service.id, unreserved);
    u32::from(record::COUNTED)
}

/// Counts a connection to a service that only observes, and the verdict on it by `limits`, which it changes; what is to be
/// recorded, or 0 where there is no verdict. Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn observe(count_keys: *const CountKeys, limits: *mut Limits) -> u32 {
    let Some(count_keys) = rooms::given(count_keys) else { return 0 };
    // SAFETY: null, or limits that the caller has borrowed for the call; see `rooms::given`.
    let Some(limits) = (unsafe { limits.as_mut() }) else { return 0 };
    let Some(counts) = Counts::find(&count_keys) else { return 0 };
    let now_ns = clock::now_ns();
    *limits = limits.above(&counts.beyond());
    let usage = counts::usage(&count_keys.source, &count_keys, Some(counts.source), limits.total != u32::MAX);
    let reason = match usage.over(limits, now_ns) {
        Some(reason) => reason,
        None => match reserve(&count_keys, &counts, limits, now_ns) {
            Outcome::Taken => return u32::from(record::COUNTED),
            Outcome::Full(reason) => reason,
            Outcome::Again => return 0,
        },
    };
    // It pays no rate: neither would it if it were refused.
    if !count(&count_keys, &Rate::default(), clock::tick_s()) {
        return 0;
    }
    counts.add_beyond(1);
    field!(counts.source, would_refuse).add(1);
    let reason = reason.within(&count_keys);
    count!(count_keys.service(), would_refuse[reason as usize]);
    u32::from(record::OBSERVED)
}

/// Counts a connection if there is room under its limits, as the gate and the ledger do together where
/// verdicts are carried out.
#[inline(always)]
fn reserve(count_keys: &CountKeys, counts: &Counts, limits: &Limits, now_ns: u64) -> Outcome {
    let outcome = counts.reserve(count_keys, limits, now_ns, Arrival::UNATTENDED);
    if outcome == Outcome::Taken {
        stamp_arrival(counts, reservation::commit(&counts.words()), clock::tick_s());
    }
    outcome
}

/// Counts a connection that holds no reservation, at `now_s` by [`clock`]; its handshake pays for the `rate` of what it is counted in all the same.
/// `false` when the entries that [`counts::make_entries`] was to make are not there, or being deleted.
#[inline(always)]
pub fn count(count_keys: &CountKeys, rate: &Rate, now_s: u32) -> bool {
    let Some(counts) = Counts::find(count_keys) else { return false };
    let words = counts.words();
    let Some(connections) = reservation::count(&words) else { return false };
    if !counts.belong_to(count_keys) {
        let _was_counted = reservation::release(&words);
        return false;
    }
    if rate.is_limited() {
        rate::charge(words.due, rate, clock::now_ns());
    }
    stamp_arrival(&counts, connections, now_s);
    true
}

/// Notes on the entries that a connection came, of now so many of its source.
#[inline(always)]
fn stamp_arrival(counts: &Counts, connections: u32, now_s: u32) {
    // They hold our connection.
    stamp_entry(counts.source, connections, now_s);
    if let Some(of_network) = counts.network {
        stamp_entry(of_network, field!(of_network, count).get().connections(), now_s);
    }
}

/// The same on one of them.
#[inline(always)]
fn stamp_entry(entry: MapRef<Entry>, connections: u32, now_s: u32) {
    field!(entry, accepted).add(1);
    // They may lose a race by one. None is above what it was at any time, so the second is no more often.
    let (recent, ever) = (field!(entry, recent_peak), field!(entry, peak));
    if recent.get() < connections {
        recent.set(connections);
        if ever.get() < connections {
            ever.set(connections);
        }
    }
    clock::seen(entry, now_s);
}

/// A handshake with the greeter is complete: what it costs its source.
#[inline(always)]
pub fn replied(ctx: &SockOpsContext) {
    let Some(service) = maps::service_of(ctx.local_port()) else { return };
    count!(service.id, replied);
    let flow = Flow {
        remote: remote(ctx),
        local: local(ctx),
        remote_port: u32::from_be(ctx.remote_port()) as u16,
        local_port: ctx.local_port() as u16,
        zero: 0,
    };
    match grounds::take(&flow) {
        Some(packed) => ladder::climb(ctx, &service, &flow.remote, packed),
        None => go_on(ctx, REJUDGED),
    }
}

/// The same where it is not known any more on what grounds it was refused.
#[inline(always)]
pub fn rejudged(ctx: &SockOpsContext) {
    let Some(service) = maps::service_of(ctx.local_port()) else { return };
    ladder::climb_anew(ctx, &service, &remote(ctx), &local(ctx));
}

/// Whether a socket has come to a state in which it may have been let go.
#[inline(always)]
fn is_an_end(ctx: &SockOpsContext) -> bool {
    matches!(ctx.arg(1), BPF_TCP_FIN_WAIT1 | BPF_TCP_CLOSING | BPF_TCP_LAST_ACK | BPF_TCP_CLOSE)
}

/// A counted socket changed its state: given back, once, when the mail daemon has let go of it. When its peer is
/// gone, the record is kept until the daemon has noticed (`release`), or there is no socket any more (`destroy`).
#[inline(always)]
pub fn ended(ctx: &SockOpsContext) {
    let state = ctx.arg(1);
    if ctx.arg(0) == BPF_TCP_LISTEN {
        if is_in_our_netns(ctx) {
            listening::ends(ctx, local(ctx));
        }
        return;
    }
    let recorded = ByCookie { cookie: cookie(ctx), remote: || remote(ctx) };
    let Some(DatedRecord { record, since_s }) = records::dated(recorded.cookie) else { return };
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: the socket of the context, locked while it changes its state.
    let given_back = match unsafe { kernel::ending(sk, state == BPF_TCP_CLOSE) } {
        Ending::GoesOn => return,
        Ending::Dead if record.is_counted() => {
            let kept = Kept { since_s, ..Kept::new(record, remote(ctx)) };
            let given_back = ending::outlive(&recorded, || records::keep(recorded.cookie, &kept));
            if given_back.is_some() {
                report::no_room(ctx, record.service());
            }
            given_back
        }
        Ending::Dead | Ending::LetGo => ending::let_go(&recorded),
    };
    if let Some(kept) = given_back {
        give_back(ctx, &kept, clock::tick_s());
    }
}

/// Gives back, at `now_s` by [`clock`], what a connection held that is not any more, or is not recorded any more.
#[inline(always)]
pub fn give_back<C: EbpfContext>(ctx: &C, kept: &Kept, now_s: u32) {
    if kept.record.is_counted() && !release(kept, now_s) {
        report::drift(ctx, kept.record.service());
    }
}

/// The same as [`release`] where that is seldom, or there is little stack.
#[inline(always)]
pub fn release_apart(kept: &Kept, now_s: u32) -> bool {
    let [first, second] = kept.remote.halves();
    release_recorded(kept.record.word(), first, second, now_s) != 0
}

/// Releases what a record in a word says, of a peer whose address is given in halves; 0 for `false`. Verified by itself.
/// Numbers alone: of a record in a register older verifiers (6.1) do not know that a byte of it is one, and there is no
/// stack left to put it on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn release_recorded(record: u32, first: u64, second: u64, now_s: u32) -> u32 {
    let kept = Kept::new(ConnectionRecord::of_word(record), Addr::of_halves([first, second]));
    release(&kept, now_s).into()
}

/// Gives back what a connection held, at `now_s` by [`clock`]; `false` if a count did not know of it.
#[inline(always)]
fn release(kept: &Kept, now_s: u32) -> bool {
    let (count_keys, is_beyond) = (&kept.count_keys(), kept.record.is_beyond());
    // They hold our connection, so they have not been collected.
    let Some(counts) = Counts::find(count_keys) else { return false };
    if is_beyond {
        counts.add_beyond(u32::MAX);
    }
    clock::seen(counts.source, now_s);
    if let Some(of_network) = counts.network {
        clock::seen(of_network, now_s);
    }
    let was_counted = reservation::release(&counts.words());
    events::freed(count_keys, &counts);
    counts::let_go(count_keys, &counts);
    was_counted
}

/// Whether the event is of the network namespace that this instance protects.
#[inline(always)]
fn is_in_our_netns(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    kernel::is_our_netns(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) })
}

/// The socket of the event, if it is a full one.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut c_void> {
    // SAFETY: the context is valid for the whole run.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() { None } else { Some(sk.cast()) }
}

/// The cookie of the event's socket: 64 bits that no other socket has as long as the host is up.
#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context is valid for the whole run.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
