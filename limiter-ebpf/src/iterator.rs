// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What iterators have in common: the run they are part of, and the file that its reader reads.

use aya_ebpf::{bindings::seq_file, cty::c_void, helpers::generated::bpf_seq_write};

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
pub struct Meta {
    seq: *mut seq_file,
}

impl Meta {
    /// Hands `record` to the reader. When it does not fit, the kernel calls again for the same object.
    ///
    /// # Safety
    ///
    /// `meta` is that of the context of this run.
    #[inline(always)]
    pub unsafe fn write<T>(meta: *const Self, record: &T) {
        // SAFETY: by the contract above; the record is as long as said.
        unsafe { bpf_seq_write((*meta).seq, core::ptr::from_ref(record).cast(), size_of::<T>() as u32) };
    }
}

/// What the kernel hands over for each socket of TCP (`struct bpf_iter__tcp`, `net/ipv4/tcp_ipv4.c`).
#[repr(C)]
pub struct TcpContext {
    meta: *const Meta,
    socket: *mut c_void,
}

impl TcpContext {
    /// The run, and the socket; null in the last call.
    ///
    /// # Safety
    ///
    /// `ctx` is that of the program.
    #[inline(always)]
    pub unsafe fn read(ctx: *const Self) -> (*const Meta, *mut c_void) {
        // SAFETY: by the contract above. Volatile: see `address::of_lookup`.
        unsafe { ((&raw const (*ctx).meta).read_volatile(), (&raw const (*ctx).socket).read_volatile()) }
    }
}
