// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Reads a whole hash map, many entries a system call: with two calls an entry, as aya does it, a million
//! sources take the daemon most of a second each time it looks through them.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use bytemuck::Pod;
use nix::errno::Errno;

use super::bpf::{Batch, bpf};

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const LOOKUP_BATCH: libc::c_long = 24;
/// Entries asked for at once, to begin with.
const AT_ONCE: usize = 4096;

/// Shows each entry of a hash map to `see`: those that are there all the time once, those that come and go
/// meanwhile perhaps.
pub fn walk<K: Pod, V: Pod>(map: &MapData, see: impl FnMut(K, V)) -> Result<()> {
    // The kernel's mark of where it was: a bucket's number (`__htab_map_lookup_and_delete_batch`,
    // kernel/bpf/hashtab.c).
    by_mark::<K, V, u32>(map, see)
}

/// The same of a trie, or an array.
pub fn walk_by_key<K: Pod, V: Pod>(map: &MapData, see: impl FnMut(K, V)) -> Result<()> {
    // There the mark is the last key (`generic_map_lookup_batch`, kernel/bpf/syscall.c).
    by_mark::<K, V, K>(map, see)
}

fn by_mark<K: Pod, V: Pod, M: Pod>(map: &MapData, mut see: impl FnMut(K, V)) -> Result<()> {
    let (mut keys, mut values) = (vec![K::zeroed(); AT_ONCE], vec![V::zeroed(); AT_ONCE]);
    let (mut from, mut to) = (None, M::zeroed());
    loop {
        let mut attr = Batch {
            in_batch: from.as_ref().map_or(0, |from: &M| std::ptr::from_ref(from) as u64),
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len() as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let is_last = match bpf(LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(Errno::ENOENT) => true,
            // More in one bucket.
            Err(Errno::ENOSPC) => {
                keys.resize(keys.len() * 2, K::zeroed());
                values.resize(values.len() * 2, V::zeroed());
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("cannot read a map"),
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            see(*key, *value);
        }
        if is_last {
            return Ok(());
        }
        from = Some(to);
    }
}
