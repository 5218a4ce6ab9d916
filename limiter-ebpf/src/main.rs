// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel programs on the path of a connection, one file a program:
//!
//! - [`mod@admission`] (`sk_lookup`): judges each SYN, refuses what is already over;
//! - [`mod@gate`] (`cgroup_skb`): makes the limit exact on the ACK that completes the handshake;
//! - [`mod@ledger`] (`sock_ops`): counts from establishment until the mail daemon lets go;
//! - [`mod@release`] (`cgroup/sock_release`): sees the mail daemon close a socket;
//! - [`mod@ladder`]: what a refused handshake that was completed costs its source;
//! - [`mod@shield`] (XDP): drops what is denied or banned before anything is spent on it;
//! - [`mod@census`] (`iter/tcp`): walks the kernel's socket table, counts what nobody has counted yet;
//! - [`mod@destroy`] (tracepoint `tcp_destroy_sock`): sees the kernel destroy a socket of which nobody lets go;
//! - [`mod@pulse`] (`iter/tcp`): gives connections the keepalive that their service has now;
//! - [`mod@maintenance`]: runs requests for the daemon, attached nowhere;
//! - [`mod@usher`]: the same for the records of those that wait ([`mod@waiters`]).
//!
//! What they decide is in `limiter-common`; they read a context, look up, decide, act.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros of aya make functions of their own beside the documented ones")]
#![expect(clippy::needless_pass_by_value, reason = "the macros of aya hand the context over by value")]
#![expect(internal_features, reason = "BPF atomics that return a value are only reachable as intrinsics")]
#![feature(core_intrinsics)]

mod address;
mod admission;
mod atomic;
mod attended;
mod census;
mod clock;
mod counts;
mod destroy;
mod events;
mod frame;
mod gate;
mod grounds;
mod iterator;
mod keepalive;
mod kernel;
mod ladder;
mod ledger;
mod listening;
mod maintenance;
mod map_ref;
mod maps;
mod packet;
mod pending;
mod pulse;
mod records;
mod release;
mod report;
mod rooms;
mod shield;
mod usher;
mod waiters;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{btf_tracepoint, cgroup_skb, cgroup_sock, sk_lookup, sock_ops, xdp},
    programs::{
        BtfTracePointContext, SkBuffContext, SkLookupContext, SockContext, SockOpsContext, XdpContext,
    },
};

/// Judges a SYN: on to its listener, to the greeter, or a reset.
#[sk_lookup]
pub fn admission(ctx: SkLookupContext) -> u32 {
    admission::run(&ctx)
}

/// Judges the ACK that completes a handshake: 1 lets it through, 0 drops it.
#[cgroup_skb]
pub fn gate(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::holds_back(&ctx))
}

/// Holds back a handshake for which the gate has found no place.
#[cgroup_skb]
pub fn hold(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::hold::run(&ctx))
}

/// Makes room for a source that the ledger does not know.
#[cgroup_skb]
pub fn make_room(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::newcomer::make_room(&ctx))
}

/// Judges the ACK of a source that the ledger did not know.
#[cgroup_skb]
pub fn newcomer(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::newcomer::run(&ctx))
}

/// Judges the next packet of one that was held back.
#[cgroup_skb]
pub fn again(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::again::run(&ctx))
}

/// Judges a SYN with which a connection may begin.
#[cgroup_skb]
pub fn fast_open(ctx: SkBuffContext) -> i32 {
    i32::from(!gate::fast_open::run(&ctx))
}

/// Counts. Always 1: another program on the hook may have set a reply, and 0 would take it away
/// (`tcp_call_bpf`, include/net/tcp.h).
#[sock_ops]
pub fn ledger(ctx: SockOpsContext) -> u32 {
    ledger::run(&ctx);
    1
}

/// Gives back what was let go of.
#[sock_ops]
pub fn ended(ctx: SockOpsContext) -> u32 {
    ledger::ended(&ctx);
    1
}

/// Charges who was told why.
#[sock_ops]
pub fn replied(ctx: SockOpsContext) -> u32 {
    ledger::replied(&ctx);
    1
}

/// The same for one that is judged anew.
#[sock_ops]
pub fn rejudged(ctx: SockOpsContext) -> u32 {
    ledger::rejudged(&ctx);
    1
}

/// Gives back what a socket held that its owner closes. Always 1: the kernel asks nobody whether it may.
#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    release::run(&ctx);
    1
}

/// Judges a frame: on, or nowhere.
#[xdp(frags)]
pub fn shield(ctx: XdpContext) -> u32 {
    if shield::drops(&ctx) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Looks at one socket of the table. 0 goes on to the next.
///
/// aya-ebpf has no macro for iterators: the section's name is what aya loads it by.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub extern "C" fn census(ctx: *const iterator::TcpContext) -> i32 {
    census::run(ctx);
    0
}

/// Gives one socket the keepalive of its service. 0 goes on to the next. The section's name as for the census.
#[unsafe(link_section = "iter/tcp")]
#[unsafe(no_mangle)]
pub extern "C" fn pulse(ctx: *const iterator::TcpContext) -> i32 {
    pulse::run(ctx);
    0
}

/// Gives back what is kept for a socket that the kernel destroys.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn destroy(ctx: BtfTracePointContext) -> i32 {
    destroy::run(&ctx);
    0
}

/// Runs the daemon's request.
#[cgroup_skb]
pub fn maintenance(_ctx: SkBuffContext) -> i32 {
    maintenance::run();
    1
}

/// Changes the record of one that waits.
#[cgroup_skb]
pub fn usher(_ctx: SkBuffContext) -> i32 {
    usher::run();
    1
}

/// A loop the verifier refuses: a panic that can be reached makes the program fail to load.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
