//! Links: what aya 0.14 has no function for is asked of the kernel directly.

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};
use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

/// `BPF_OBJ_GET`, `BPF_LINK_UPDATE`, `BPF_LINK_DETACH` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const OBJ_GET: libc::c_long = 7;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// A pinned link.
pub struct PinnedLink(OwnedFd);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

impl PinnedLink {
    /// Opens the link pinned at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let attr = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
        let fd = bpf(OBJ_GET, &attr).with_context(|| format!("cannot open the link {}", path.display()))?;
        // SAFETY: a descriptor the kernel has just made for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Lets `program` take the place of the one attached, in one step: no packet sees neither or both.
    pub fn replace_program(&self, program: BorrowedFd<'_>) -> Result<()> {
        let attr = LinkUpdate {
            link_fd: self.0.as_raw_fd() as u32,
            new_prog_fd: program.as_raw_fd() as u32,
            flags: 0,
            old_prog_fd: 0,
        };
        bpf(LINK_UPDATE, &attr).map(|_| ()).context("cannot replace an attached program")
    }

    /// Detaches the program at once, whoever else holds the link open.
    pub fn detach(&self) -> Result<()> {
        let attr = LinkUpdate { link_fd: self.0.as_raw_fd() as u32, ..Zeroable::zeroed() };
        match bpf(LINK_DETACH, &attr) {
            // Its cgroup or network namespace is gone, and the attachment with it.
            Ok(_) | Err(Errno::ENOLINK) => Ok(()),
            Err(errno) => Err(errno).context("cannot detach a program"),
        }
    }
}

fn bpf<T: Pod>(command: libc::c_long, attr: &T) -> nix::Result<libc::c_int> {
    // SAFETY: `attr` is plain data of the layout the command takes, and as long as said; pointers in
    // it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    Errno::result(result).map(|value| value as libc::c_int)
}
