//! Programs that do nothing, on the hooks of the limiter's: what the hooks themselves cost, below which
//! no limiter on them can get. `cargo xtask bench` measures it.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macros of aya make functions of their own beside the documented ones")]
#![expect(clippy::needless_pass_by_value, reason = "the macros of aya hand the context over by value")]

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB_FLAG, sk_action},
    macros::{cgroup_skb, sk_lookup, sock_ops},
    programs::{SkBuffContext, SkLookupContext, SockOpsContext},
};

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

/// A loop the verifier refuses: there is nothing to panic about.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
