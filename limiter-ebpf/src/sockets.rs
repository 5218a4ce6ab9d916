// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Sockets: which of those are still there for which something is kept.
//!
//! A dead connection is in no table of the kernel, but the mark on its socket goes when the socket does, wherever
//! that is: in an accept queue, behind a descriptor, on its way to another process. Whoever reads the pin gets the
//! cookies of those that are marked.

use aya_ebpf::{cty::c_void, helpers::bpf_get_socket_cookie};

use crate::iterator::Meta;

/// What the kernel hands over for each mark (`struct bpf_iter__bpf_sk_storage_map`,
/// `net/core/bpf_sk_storage.c`).
#[repr(C)]
pub struct Context {
    meta: *const Meta,
    map: *mut c_void,
    socket: *mut c_void,
}

/// Looks at the mark of this call; there is none in the last one.
#[inline(always)]
pub fn run(ctx: *const Context) {
    // SAFETY: the kernel hands the program a valid context. Volatile: see `address::of_lookup`.
    let (meta, sk) =
        unsafe { ((&raw const (*ctx).meta).read_volatile(), (&raw const (*ctx).socket).read_volatile()) };
    if sk.is_null() {
        return;
    }
    // SAFETY: a socket of which the verifier knows the type, and the meta of this run.
    unsafe { Meta::write(meta, &bpf_get_socket_cookie(sk)) };
}
