//! Sockets: which of those are still there for which something is kept.
//!
//! A dead connection is in no table of the kernel, but the mark on its socket goes when the socket does, wherever
//! that is: in an accept queue, behind a descriptor, on its way to another process. Whoever reads the pin gets the
//! cookies of those that are marked.

use aya_ebpf::{
    bindings::seq_file,
    cty::c_void,
    helpers::{bpf_get_socket_cookie, generated::bpf_seq_write},
};

/// What the kernel hands over for each mark (`struct bpf_iter__bpf_sk_storage_map`,
/// `net/core/bpf_sk_storage.c`).
#[repr(C)]
pub struct Context {
    meta: *const Meta,
    map: *mut c_void,
    socket: *mut c_void,
}

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
}

/// Looks at the mark of this call; there is none in the last one.
#[inline(always)]
pub fn run(ctx: *const Context) {
    // SAFETY: the kernel hands the program a valid context. Volatile: see `admission::addresses`.
    let (meta, sk) =
        unsafe { ((&raw const (*ctx).meta).read_volatile(), (&raw const (*ctx).socket).read_volatile()) };
    if sk.is_null() {
        return;
    }
    // SAFETY: a socket of which the verifier knows the type, then the run's own file and a word.
    unsafe {
        let cookie = bpf_get_socket_cookie(sk);
        bpf_seq_write((*meta).seq, (&raw const cookie).cast(), size_of::<u64>() as u32);
    }
}
