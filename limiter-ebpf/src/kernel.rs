//! What is read from the kernel's own structures.
//!
//! The offsets come from the running kernel's BTF; the loader sets them before the programs are
//! verified, so the verifier knows them as constants and checks each access against the type.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN, BPF_TCP_NEW_SYN_RECV, bpf_sock},
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
    },
    programs::SkBuffContext,
};

use crate::packet::Segment;

/// Offset of `snt_isn` in `struct tcp_request_sock`.
#[unsafe(no_mangle)]
static SNT_ISN: u32 = 0;
/// Offset of `skc_net` in `struct sock_common`.
#[unsafe(no_mangle)]
static SKC_NET: u32 = 0;
/// Offset of `net_cookie` in `struct net`.
#[unsafe(no_mangle)]
static NET_COOKIE: u32 = 0;
/// Cookie of the network namespace this instance protects.
#[unsafe(no_mangle)]
static NETNS: u64 = 0;

/// Reads a value the loader set.
#[inline(always)]
fn global<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid; volatile, because the compiler only sees the 0 of the source.
    unsafe { core::ptr::from_ref(value).read_volatile() }
}

/// Whether a namespace cookie is that of this instance.
#[inline(always)]
pub fn is_our_netns(cookie: u64) -> bool {
    cookie == global(&NETNS)
}

/// Whether the listener belongs to the namespace of this instance: a program on the cgroup root sees
/// the listeners of every container.
///
/// # Safety
///
/// `sk` is the socket of the context, and not null.
#[inline(always)]
pub unsafe fn listens_in_our_netns(sk: *mut bpf_sock) -> bool {
    // SAFETY: the helper takes any socket of a context and answers null for what is not TCP.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) };
    if tcp.is_null() {
        return false;
    }
    // SAFETY: a `tcp_sock` starts with its `sock_common`; the verifier checks type and offset against
    // BTF, and the kernel answers 0 for a pointer that has become invalid.
    let cookie = unsafe {
        let net: *const u8 =
            tcp.cast::<u8>().add(global(&SKC_NET) as usize).cast::<*const u8>().read_volatile();
        net.add(global(&NET_COOKIE) as usize).cast::<u64>().read_volatile()
    };
    is_our_netns(cookie)
}

/// What the kernel knows of the handshake an ACK claims to complete.
#[derive(PartialEq, Eq)]
pub enum Handshake {
    /// It has the request, and the ACK bears the number only the owner of the address was told.
    Completing,
    /// It has no request: the ACK may bear a SYN cookie, which only the kernel can check.
    Unknown,
    /// The ACK completes nothing: a wrong number, or the connection exists by now.
    Void,
}

/// Looks up the request the segment belongs to and compares its ACK number, as `tcp_check_req` will
/// (net/ipv4/tcp_minisocks.c). A forged ACK must not hold a place even for a moment (law 1).
#[inline(always)]
pub fn handshake(ctx: &SkBuffContext, segment: &mut Segment) -> Handshake {
    let (tuple, len) = segment.tuple();
    // SAFETY: the tuple is initialised and as long as said; the result is released below.
    let sk = unsafe { bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, len, BPF_F_CURRENT_NETNS as i64 as u64, 0) };
    if sk.is_null() {
        return Handshake::Void;
    }
    // SAFETY: `sk` is valid until released.
    let state = unsafe { (*sk).state };
    let mut found = Handshake::Void;
    if state == BPF_TCP_LISTEN {
        found = Handshake::Unknown;
    } else if state == BPF_TCP_NEW_SYN_RECV {
        // SAFETY: answers null for what is no request.
        let request = unsafe { bpf_skc_to_tcp_request_sock(sk.cast()) };
        if !request.is_null() {
            // SAFETY: the verifier checks type and offset against BTF.
            let isn =
                unsafe { request.cast::<u8>().add(global(&SNT_ISN) as usize).cast::<u32>().read_volatile() };
            if segment.ack == isn.wrapping_add(1) {
                found = Handshake::Completing;
            }
        }
    }
    // SAFETY: releases what the look-up took, once.
    unsafe { bpf_sk_release(sk.cast()) };
    found
}
