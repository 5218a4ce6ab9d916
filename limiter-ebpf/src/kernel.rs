// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is read from the kernel's own structures.
//!
//! The offsets come from the running kernel's BTF; the loader sets them before the programs are
//! verified, so the verifier knows them as constants and checks each access against the type.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, BPF_TCP_NEW_SYN_RECV, bpf_sock},
    cty::c_void,
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
    },
    programs::SkBuffContext,
};
use limiter_common::{Addr, Ending, Waiter, ending, kernel::Offsets};

use crate::{address, maps::GREETER_SOCKETS, packet::Tuple};

/// The root of the cgroup tree (`cgroup_setup_root`, kernel/cgroup/cgroup.c).
const ROOT_CGROUP: u64 = 1;
/// Levels of the cgroup tree walked before giving up: systemd's deepest are at 8 or so.
const MAX_CGROUP_DEPTH: usize = 16;
/// The owner has chosen the local port (`SOCK_BINDPORT_LOCK`, include/net/sock.h).
const BINDPORT_LOCK: u8 = 8;

/// Where the running kernel keeps what is read here.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    snt_isn: 0,
    rcv_isn: 0,
    ts_off: 0,
    snt_synack: 0,
    mss: 0,
    ts_recent: 0,
    skc_rcv_wnd: 0,
    request_options: 0,
    sk_max_ack_backlog: 0,
    sk_userlocks: 0,
    fast_open_max_qlen: 0,
    sk_shutdown: 0,
    sk_err: 0,
    skc_net: 0,
    skc_cookie: 0,
    skc_family: 0,
    skc_state: 0,
    skc_num: 0,
    skc_daddr: 0,
    skc_v6_daddr: 0,
    skc_ipv6only: 0,
    net_cookie: 0,
    sk_cgroup: 0,
    cgroup_kn: 0,
    cgroup_parent: 0,
    css_cgroup: 0,
    kn_id: 0,
};
/// Cookie of the network namespace this instance protects.
#[unsafe(no_mangle)]
static NETNS: u64 = 0;
/// Whether the kernel has `bpf_map_lookup_percpu_elem` (Linux 5.19). Where it has not, the verifier never comes to
/// where it is called.
#[unsafe(no_mangle)]
static LOOKS_UP_PER_CPU: u32 = 0;
/// Id of the cgroup this instance protects.
#[unsafe(no_mangle)]
static CGROUP: u64 = 0;

/// Reads a value the loader set.
#[inline(always)]
fn global<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid; volatile, because the compiler only sees the 0 of the source.
    unsafe { core::ptr::from_ref(value).read_volatile() }
}

/// Whether what another CPU has in a map can be looked up.
#[inline(always)]
pub fn looks_up_per_cpu() -> bool {
    global(&LOOKS_UP_PER_CPU) != 0
}

/// Whether a namespace cookie is that of this instance.
#[inline(always)]
pub fn is_our_netns(cookie: u64) -> bool {
    cookie == global(&NETNS)
}

/// Whether the listener is one of those that the limits are for: of the namespace of this instance, as a program on
/// the cgroup root sees the listeners of every container, and not the greeter's.
///
/// # Safety
///
/// `sk` is the socket of the context, and not null.
#[inline(always)]
pub unsafe fn is_limited(sk: *mut bpf_sock) -> bool {
    // SAFETY: the helper takes any socket of a context and answers null for what is not TCP.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return false;
    }
    // A `tcp_sock` starts with its `sock_common`.
    // SAFETY: a listener is a full socket.
    Socket(tcp.cast::<u8>().cast_const()).is_in_our_netns() && !unsafe { GREETER_SOCKETS.has(tcp.cast()) }
}

/// Whether the listener of the context takes IPv4, too, where it is bound to `::`.
///
/// # Safety
///
/// `sk` is the socket of the context, and not null.
#[inline(always)]
pub unsafe fn takes_both_families(sk: *mut bpf_sock) -> bool {
    // SAFETY: as in `is_limited`.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return false;
    }
    let bit = global(&OFFSETS.skc_ipv6only);
    // SAFETY: a `tcp_sock` starts with its `sock_common`.
    let byte: u8 = unsafe { Socket::at(tcp.cast::<u8>().cast_const(), bit / 8) };
    byte >> (bit % 8) & 1 == 0
}

/// How many connections the listener of the context lets the kernel keep for it; 0 where that is not known.
///
/// # Safety
///
/// `sk` is the socket of the context, and not null.
#[inline(always)]
pub unsafe fn backlog(sk: *mut bpf_sock) -> u32 {
    // SAFETY: as in `is_limited`.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return 0;
    }
    // SAFETY: a `tcp_sock` starts with its `sock`.
    unsafe { Socket::member(tcp.cast::<u8>().cast_const(), &OFFSETS.sk_max_ack_backlog) }
}

/// How many connections may be in the queue for TCP Fast Open of the context's listener; 0 where it takes none (`tcp_try_fastopen`,
/// `net/ipv4/tcp_fastopen.c`).
///
/// # Safety
///
/// `sk` is the socket of the context, and not null.
#[inline(always)]
pub unsafe fn fast_open_queue(sk: *mut bpf_sock) -> u32 {
    // SAFETY: as in `is_limited`.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return 0;
    }
    // SAFETY: a `tcp_sock`.
    unsafe { Socket::member(tcp.cast::<u8>().cast_const(), &OFFSETS.fast_open_max_qlen) }
}

/// What it means that a connection leaves the states in which both sides talk, or is `closed` altogether.
///
/// # Safety
///
/// `sk` is the full socket of the context, locked.
#[inline(always)]
pub unsafe fn ending(sk: *mut c_void, closed: bool) -> Ending {
    match Socket(sk.cast::<u8>().cast_const()).full() {
        Some(full) => Ending::of(closed, full.shutdown(), full.has_error()),
        None => Ending::LetGo,
    }
}

/// Whether a connection is one that a local process made from a port it had chosen. It came from no listener, then:
/// what the kernel makes of a handshake has not inherited the choice (`sk_clone`, net/core/sock.c).
///
/// # Safety
///
/// `sk` is the full socket of the context.
#[inline(always)]
pub unsafe fn has_chosen_its_port(sk: *mut c_void) -> bool {
    Socket(sk.cast::<u8>().cast_const()).full().is_some_and(Full::has_chosen_its_port)
}

/// A socket of the kernel, of which the first members are read (`struct sock_common`).
#[derive(Clone, Copy)]
pub struct Socket(pub *const u8);

impl Socket {
    /// Reads a member, or one of what a member points to.
    ///
    /// # Safety
    ///
    /// `from` is a kernel pointer the verifier knows the type of: it checks offset and size against
    /// BTF, and the kernel answers 0 for a pointer that has become invalid.
    #[inline(always)]
    unsafe fn member<T: Copy>(from: *const u8, offset: &u32) -> T {
        // SAFETY: by the contract above.
        unsafe { Self::at(from, global(offset)) }
    }

    /// The same, at an offset that was read already.
    ///
    /// # Safety
    ///
    /// As for [`Self::member`].
    #[inline(always)]
    unsafe fn at<T: Copy>(from: *const u8, offset: u32) -> T {
        // SAFETY: by the contract above.
        unsafe { from.add(offset as usize).cast::<T>().read_volatile() }
    }

    /// One of the kernel's TCP states.
    #[inline(always)]
    pub fn state(self) -> u32 {
        // SAFETY: a `sock_common`.
        u32::from(unsafe { Self::member::<u8>(self.0, &OFFSETS.skc_state) })
    }

    /// The local port.
    #[inline(always)]
    pub fn local_port(self) -> u32 {
        // SAFETY: a `sock_common`.
        u32::from(unsafe { Self::member::<u16>(self.0, &OFFSETS.skc_num) })
    }

    /// The same as a full socket; `None` if it is none.
    #[inline(always)]
    fn full(self) -> Option<Full> {
        // SAFETY: the helper takes any socket and answers null for what is not a full TCP one.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) };
        if tcp.is_null() { None } else { Some(Full(tcp.cast())) }
    }

    /// Whether both directions are shut. Only for a full socket.
    #[inline(always)]
    pub fn is_shut(self) -> bool {
        self.full().is_some_and(|full| ending::is_shut(full.shutdown()))
    }

    /// Whether it came from a listener. Only for a connection. What came from one has the listener's backlog
    /// (`sk_clone`, net/core/sock.c, copies it), and has not chosen its port; what a local process made has none, whether
    /// the port is its choice or the kernel's (`net.ipv4.ip_local_port_range` may contain that of a service). A listener
    /// with backlog 0, in front of which handshakes have no room to wait, is not recognised.
    #[inline(always)]
    pub fn is_from_a_listener(self) -> bool {
        self.full().is_some_and(|full| full.backlog() != 0 && !full.has_chosen_its_port())
    }

    /// The peer's address, in the limiter's form.
    #[inline(always)]
    pub fn remote(self) -> Addr {
        // SAFETY: a `sock_common`.
        let family: u16 = unsafe { Self::member(self.0, &OFFSETS.skc_family) };
        // SAFETY: as above.
        let v4 = || Addr::from_v4_word(unsafe { Self::member(self.0, &OFFSETS.skc_daddr) });
        let v6 = || {
            let first = global(&OFFSETS.skc_v6_daddr);
            // SAFETY: as above, whose IPv6 address is four words.
            let word = |index: u32| unsafe { Self::at(self.0, first + index * 4) };
            Addr([word(0), word(1), word(2), word(3)])
        };
        address::of_family(family.into(), v4, v6)
    }

    /// Its cookie; 0 where nobody has asked for one.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        // SAFETY: a `sock_common`.
        unsafe { Self::member(self.0, &OFFSETS.skc_cookie) }
    }

    /// Whether it belongs to the namespace of this instance.
    #[inline(always)]
    pub fn is_in_our_netns(self) -> bool {
        // SAFETY: a `sock_common`, then the `net` it points to.
        is_our_netns(unsafe {
            let net = Self::member::<*const u8>(self.0, &OFFSETS.skc_net);
            Self::member(net, &OFFSETS.net_cookie)
        })
    }

    /// Whether it belongs to the cgroup of this instance, or to one below. Only for a full socket.
    #[inline(always)]
    pub fn is_in_our_cgroup(self) -> bool {
        let ours = global(&CGROUP);
        if ours == ROOT_CGROUP {
            return true;
        }
        // SAFETY: the helper takes any socket and answers null for what is not a full TCP one.
        let tcp: *const u8 = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast();
        if tcp.is_null() {
            return false;
        }
        // SAFETY: a `sock`, then the cgroups up to the root.
        unsafe {
            let mut cgroup: *const u8 = Self::member(tcp, &OFFSETS.sk_cgroup);
            for _ in 0..MAX_CGROUP_DEPTH {
                if cgroup.is_null() {
                    return false;
                }
                let node: *const u8 = Self::member(cgroup, &OFFSETS.cgroup_kn);
                if Self::member::<u64>(node, &OFFSETS.kn_id) == ours {
                    return true;
                }
                let parent: *const u8 = Self::member(cgroup, &OFFSETS.cgroup_parent);
                if parent.is_null() {
                    return false;
                }
                cgroup = Self::member(parent, &OFFSETS.css_cgroup);
            }
        }
        false
    }
}

/// A full socket (`struct sock`, of a `struct tcp_sock`).
#[derive(Clone, Copy)]
struct Full(*const u8);

impl Full {
    /// The directions that are shut.
    #[inline(always)]
    fn shutdown(self) -> u8 {
        // SAFETY: a `sock`.
        unsafe { Socket::member(self.0, &OFFSETS.sk_shutdown) }
    }

    /// How many connections the kernel keeps for its owner to accept, or those of the listener it came from.
    #[inline(always)]
    fn backlog(self) -> u32 {
        // SAFETY: as above.
        unsafe { Socket::member(self.0, &OFFSETS.sk_max_ack_backlog) }
    }

    /// See [`has_chosen_its_port`].
    #[inline(always)]
    fn has_chosen_its_port(self) -> bool {
        let bit = global(&OFFSETS.sk_userlocks);
        // SAFETY: as above.
        let byte: u8 = unsafe { Socket::at(self.0, bit / 8) };
        byte >> (bit % 8) & BINDPORT_LOCK != 0
    }

    /// Whether there is an error for the owner.
    #[inline(always)]
    fn has_error(self) -> bool {
        // SAFETY: as above.
        unsafe { Socket::member::<u32>(self.0, &OFFSETS.sk_err) != 0 }
    }
}

/// What the kernel knows of the handshake an ACK claims to complete.
#[derive(PartialEq, Eq)]
pub enum Handshake {
    /// It has the request, and the ACK bears the number only the owner of the address was told.
    Completing,
    /// It has no request, or one for another number: the ACK may bear a SYN cookie, which only the kernel can check,
    /// and does, in the same run.
    Unknown,
    /// The connection exists by now.
    Void,
}

/// Looks up the socket that a segment belongs to, and releases it when `look` has seen it; `None` if there is none.
#[inline(always)]
pub fn look_up<R>(
    ctx: &impl EbpfContext,
    tuple: &mut Tuple,
    look: impl FnOnce(*const bpf_sock) -> R,
) -> Option<R> {
    let (tuple, len) = tuple.for_lookup();
    // SAFETY: the tuple is initialised and as long as said; the result is released below.
    let sk =
        unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, len, i64::from(BPF_F_CURRENT_NETNS) as u64, 0) };
    if sk.is_null() {
        return None;
    }
    let seen = look(sk);
    // SAFETY: releases what the look-up took, once.
    unsafe { bpf_sk_release(sk.cast()) };
    Some(seen)
}

/// The same as a request; null if it is none.
#[inline(always)]
fn request(sk: *const bpf_sock) -> *const u8 {
    // SAFETY: the helper takes any socket, and answers null for what is no request.
    unsafe { bpf_skc_to_tcp_request_sock(sk.cast_mut().cast()) }.cast()
}

/// Looks up the request that an ACK belongs to and compares its number, as `tcp_check_req` will
/// (`net/ipv4/tcp_minisocks.c`). A forged ACK must not hold a place even for a moment (law 1).
#[inline(always)]
pub fn handshake(ctx: &SkBuffContext, tuple: &mut Tuple, ack: u32) -> Handshake {
    let found = look_up(ctx, tuple, |sk| {
        // SAFETY: valid until released.
        let state = unsafe { (*sk).state };
        if !matches!(state, BPF_TCP_LISTEN | BPF_TCP_NEW_SYN_RECV) {
            return Handshake::Void;
        }
        if state == BPF_TCP_NEW_SYN_RECV {
            let request = request(sk);
            // SAFETY: the verifier checks type and offset against BTF.
            let isn = |request| unsafe { Socket::member::<u32>(request, &OFFSETS.snt_isn) };
            if !request.is_null() && ack == isn(request).wrapping_add(1) {
                return Handshake::Completing;
            }
        }
        Handshake::Unknown
    });
    found.unwrap_or(Handshake::Unknown)
}

/// Notes in `waiter` what the kernel knows of the request that an ACK belongs to, at `now_ns` of
/// `CLOCK_MONOTONIC`; `false` if it has none.
#[inline(always)]
pub fn describe(ctx: &SkBuffContext, tuple: &mut Tuple, waiter: &mut Waiter, now_ns: u64) -> bool {
    let found = look_up(ctx, tuple, |sk| {
        let request = request(sk);
        if request.is_null() {
            return false;
        }
        // SAFETY: the verifier checks types and offsets against BTF.
        unsafe {
            waiter.snt_isn = Socket::member(request, &OFFSETS.snt_isn);
            waiter.rcv_isn = Socket::member(request, &OFFSETS.rcv_isn);
            waiter.ts_off = Socket::member(request, &OFFSETS.ts_off);
            waiter.ts_recent = Socket::member(request, &OFFSETS.ts_recent);
            waiter.rcv_wnd = Socket::member(request, &OFFSETS.skc_rcv_wnd);
            waiter.options = Socket::member(request, &OFFSETS.request_options);
            waiter.mss = Socket::member(request, &OFFSETS.mss);
            let sent_us: u64 = Socket::member(request, &OFFSETS.snt_synack);
            waiter.rtt_us = (now_ns / 1000).wrapping_sub(sent_us) as u32;
        }
        true
    });
    found.unwrap_or(false)
}
