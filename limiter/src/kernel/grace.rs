// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Waiting until every run of a kernel program that is under way has ended.
//!
//! The kernel does so whenever a map is put into a map of maps: when bpf(2) returns, no program that has begun before
//! still runs (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c; since Linux 5.0). membarrier(2) waits for the same, a
//! grace period of RCU, but not on kernels with `nohz_full`, and many a seccomp filter refuses it; bpf(2) is there
//! wherever the limiter is.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use bytemuck::{Pod, Zeroable};

use super::{bpf::bpf, bulk, privilege};

/// `BPF_MAP_CREATE` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const MAP_CREATE: libc::c_long = 0;
/// `BPF_MAP_TYPE_ARRAY` and `BPF_MAP_TYPE_ARRAY_OF_MAPS` of `enum bpf_map_type`.
const ARRAY: u32 = 2;
const ARRAY_OF_MAPS: u32 = 12;

/// The part of `union bpf_attr` for a map that needs no more.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// A way to wait that is known to work.
pub struct Grace {
    /// Has one place, for a map.
    outer: OwnedFd,
    /// What is put there.
    inner: OwnedFd,
}

impl Grace {
    /// Finds out that waiting works, by waiting once. To be called before anything is changed.
    ///
    /// # Errors
    /// When this process may make no maps, or the kernel is short of memory.
    pub fn prepare() -> Result<Self> {
        let array = MapCreate { key_size: 4, max_entries: 1, ..MapCreate::default() };
        let inner = create(MapCreate { map_type: ARRAY, value_size: 8, ..array })?;
        let inner_map_fd = inner.as_raw_fd() as u32;
        let outer = create(MapCreate { map_type: ARRAY_OF_MAPS, value_size: 4, inner_map_fd, ..array })?;
        let grace = Self { outer, inner };
        grace.wait()?;
        Ok(grace)
    }

    /// Returns when no program runs any more that runs now.
    pub fn wait(&self) -> Result<()> {
        let value = self.inner.as_raw_fd() as u32;
        bulk::update(self.outer.as_raw_fd(), &0_u32, &value).context("cannot wait for the current verdicts")
    }
}

fn create(mut attr: MapCreate) -> Result<OwnedFd> {
    let fd = bpf(MAP_CREATE, &mut attr)
        .map_err(|errno| privilege::explain(&errno.into(), "the map that waits for the current verdicts"))?;
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
