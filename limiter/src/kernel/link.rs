// SPDX-License-Identifier: GPL-2.0-only OR MIT
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

use super::bpf::bpf;

/// `BPF_OBJ_PIN` and the others of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
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

/// For a network device.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`, `include/uapi/linux/if_link.h`.
const XDP_GENERIC: u32 = 1 << 1;
const XDP_NATIVE: u32 = 1 << 2;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `BPF_LINK_TYPE_NETNS` of `enum bpf_link_type`.
const TYPE_NETNS: u32 = 5;

/// The beginning of `struct bpf_link_info`: of a cgroup's link, a network namespace's or a device's.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    /// Id of the cgroup; or the namespace's inode number, and then the type of the attachment; or the
    /// device's number.
    target: [u32; 2],
    attach_type: u32,
    end: u32,
}

impl PinnedLink {
    /// Opens the link pinned at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
        let fd =
            bpf(OBJ_GET, &mut attr).with_context(|| format!("cannot open the link {}", path.display()))?;
        // SAFETY: a descriptor the kernel has just made for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches an XDP program to a network device of the namespace this thread is in, and pins the link.
    pub fn attach_to_device(
        program: BorrowedFd<'_>,
        device: u32,
        native: bool,
        path: &Path,
    ) -> nix::Result<Self> {
        let mut attr = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: device,
            attach_type: ATTACH_XDP,
            flags: if native { XDP_NATIVE } else { XDP_GENERIC },
        };
        Self::create(&mut attr, path)
    }

    /// Makes a link and pins it.
    fn create<T: Pod>(attr: &mut T, path: &Path) -> nix::Result<Self> {
        let fd = bpf(LINK_CREATE, attr)?;
        // SAFETY: a descriptor the kernel has just made for us.
        let link = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let mut attr = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: fd as u32, file_flags: 0 };
        bpf(OBJ_PIN, &mut attr)?;
        Ok(link)
    }

    /// Whether the program is attached: its cgroup or network namespace may be gone, or someone has
    /// detached it.
    pub fn is_attached(&self) -> Result<bool> {
        // `bpf_cgroup_link_fill_link_info`, `bpf_netns_link_fill_info`: 0 when it is attached to nothing.
        let LinkInfo { kind, target: [first, second], .. } = self.info()?;
        Ok(first != 0 || (kind != TYPE_NETNS && second != 0))
    }

    /// Id of the program that it holds on a network device; none if the device is gone, has become another
    /// namespace's under another number, or someone has detached it.
    pub fn program_on(&self, device: u32) -> Result<Option<u32>> {
        // `bpf_xdp_link_fill_link_info`: 0 when it is attached to nothing.
        let info = self.info()?;
        Ok((info.target[0] == device).then_some(info.prog_id))
    }

    /// Id of the program that it holds.
    pub fn program_id(&self) -> Result<u32> {
        Ok(self.info()?.prog_id)
    }

    fn info(&self) -> Result<LinkInfo> {
        let mut info = LinkInfo::zeroed();
        let mut attr = ObjGetInfo {
            bpf_fd: self.0.as_raw_fd() as u32,
            info_len: size_of::<LinkInfo>() as u32,
            info: (&raw mut info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut attr).context("cannot query a link")?;
        Ok(info)
    }

    /// Lets `program` take the place of the one attached, in one step: no packet sees neither or both.
    pub fn replace_program(&self, program: BorrowedFd<'_>) -> Result<()> {
        let mut attr = LinkUpdate {
            link_fd: self.0.as_raw_fd() as u32,
            new_prog_fd: program.as_raw_fd() as u32,
            flags: 0,
            old_prog_fd: 0,
        };
        bpf(LINK_UPDATE, &mut attr).map(|_| ()).context("cannot replace an attached program")
    }

    /// Detaches the program at once, whoever else holds the link open.
    pub fn detach(&self) -> Result<()> {
        let mut attr = LinkUpdate { link_fd: self.0.as_raw_fd() as u32, ..Zeroable::zeroed() };
        match bpf(LINK_DETACH, &mut attr) {
            // Its cgroup, network namespace or device is gone, and the attachment with it.
            Ok(_) | Err(Errno::ENOLINK) => Ok(()),
            Err(errno) => Err(errno).context("cannot detach a program"),
        }
    }
}
