// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The system call, for what aya 0.14 has no function for.

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

/// `struct { … } batch` of `union bpf_attr`, include/uapi/linux/bpf.h: what the commands take that are about
/// many entries of a map.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Batch {
    /// Where the kernel was, as it said last; 0 to begin.
    pub in_batch: u64,
    /// Where it says how far it came.
    pub out_batch: u64,
    pub keys: u64,
    pub values: u64,
    pub count: u32,
    pub map_fd: u32,
    pub elem_flags: u64,
    pub flags: u64,
}

/// bpf(2). What the kernel answers with, it writes into `attr`.
pub fn bpf<T: Pod>(command: libc::c_long, attr: &mut T) -> nix::Result<libc::c_int> {
    // SAFETY: `attr` is plain data of the layout the command takes, and as long as said; pointers in
    // it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).map(|value| value as libc::c_int)
}
