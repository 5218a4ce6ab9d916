// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs that do nothing, on the hooks of the limiter's: what the hooks themselves cost, below which
//! no limiter on them can get; and one that drops the frames of one source, below which no shield can. `cargo xtask
//! bench` measures them.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros of aya make functions of their own beside the documented ones")]
#![expect(clippy::needless_pass_by_value, reason = "the macros of aya hand the context over by value")]

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB_FLAG, sk_action, xdp_action},
    macros::{cgroup_skb, sk_lookup, sock_ops, xdp},
    programs::{SkBuffContext, SkLookupContext, SockOpsContext, XdpContext},
};

/// Who is dropped, an IPv4 address as two halves in the order of memory. The loader sets it before the program is
/// verified, so it is a constant there.
#[unsafe(no_mangle)]
static DROPPED: [u16; 2] = [0; 2];

/// In the place of admission.
#[sk_lookup]
pub fn admission(_ctx: SkLookupContext) -> u32 {
    sk_action::SK_PASS
}

/// In the place of the gate.
#[cgroup_skb]
pub fn gate(_ctx: SkBuffContext) -> i32 {
    1
}

/// In the place of the ledger: it asks to be called when a connection changes its state, as that one does.
#[sock_ops]
pub fn ledger(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        let _cannot_fail = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    }
    1
}

/// In the place of the shield: one comparison, and all others pass.
#[xdp(frags)]
pub fn shield(ctx: XdpContext) -> u32 {
    /// Of the source's address in an IPv4 packet, behind an Ethernet header.
    const SOURCE: usize = 14 + 12;
    let source = ctx.data() + SOURCE;
    if source + size_of::<[u16; 2]>() > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: within the frame, as the verifier checks; aligned to 2 bytes, as packets are. The global is initialised.
    let (source, dropped) =
        unsafe { ((source as *const [u16; 2]).read(), (&raw const DROPPED).read_volatile()) };
    if source == dropped { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// A loop the verifier refuses: there is nothing to panic about.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
