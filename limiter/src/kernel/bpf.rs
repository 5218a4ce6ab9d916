//! The system call, for what aya 0.14 has no function for.

use bytemuck::Pod;
use nix::errno::Errno;

/// bpf(2). What the kernel answers with, it writes into `attr`.
pub fn bpf<T: Pod>(command: libc::c_long, attr: &mut T) -> nix::Result<libc::c_int> {
    // SAFETY: `attr` is plain data of the layout the command takes, and as long as said; pointers in
    // it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).map(|value| value as libc::c_int)
}
