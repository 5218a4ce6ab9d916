// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Writes many entries of a map a system call: with one call each, 100,000 rules take most of the second in
//! which they have to be in force.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use aya::maps::MapData;
use bytemuck::{Pod, Zeroable};

use super::bpf::{Batch, bpf};

/// Commands of `enum bpf_cmd`, include/uapi/linux/bpf.h.
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const UPDATE_BATCH: libc::c_long = 26;
const DELETE_BATCH: libc::c_long = 27;

/// The part of `union bpf_attr` for one element.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct One {
    map_fd: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes each of these keys have its value.
pub fn insert<K: Pod, V: Pod>(map: &MapData, keys: &[K], values: &[V]) -> nix::Result<()> {
    let at = |index: usize| (keys.get(index).map_or(0, address), values.get(index).map_or(0, address));
    change(map, keys.len().min(values.len()), at, UPDATE_BATCH, UPDATE)
}

/// Removes each of these keys, which have to be there.
pub fn remove<K: Pod>(map: &MapData, keys: &[K]) -> nix::Result<()> {
    change(map, keys.len(), |index| (keys.get(index).map_or(0, address), 0), DELETE_BATCH, DELETE)
}

/// Makes one key have a value.
pub fn update<K: Pod, V: Pod>(map_fd: RawFd, key: &K, value: &V) -> nix::Result<()> {
    let mut one = One { map_fd: map_fd as u32, zero: 0, key: address(key), value: address(value), flags: 0 };
    bpf(UPDATE, &mut one).map(drop)
}

fn address<T>(thing: &T) -> u64 {
    std::ptr::from_ref(thing) as u64
}

/// `at` is where the key and the value of an entry are; those of the next one are right behind.
fn change(
    map: &MapData,
    len: usize,
    at: impl Fn(usize) -> (u64, u64),
    many: libc::c_long,
    one: libc::c_long,
) -> nix::Result<()> {
    let map_fd = map.fd().as_fd().as_raw_fd() as u32;
    let (keys, values) = at(0);
    let mut batch = Batch { keys, values, count: len as u32, map_fd, ..Batch::zeroed() };
    if len == 0 || bpf(many, &mut batch).is_ok() {
        return Ok(());
    }
    // Kernels that know no batches for this kind of map refuse the whole; others say how far they came. What
    // is wrong with an entry shows when it comes alone.
    let done = if batch.count as usize == len { 0 } else { batch.count as usize };
    (done..len).try_for_each(|index| {
        let (key, value) = at(index);
        bpf(one, &mut One { map_fd, zero: 0, key, value, flags: 0 }).map(drop)
    })
}
