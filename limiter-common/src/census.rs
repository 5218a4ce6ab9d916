// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The census: what the kernel's own socket table says, one record a socket of a mail port.
//!
//! The kernel program of that name walks the table (`bpf_iter_tcp`), counts what nobody has counted
//! yet, and writes a record for everything that matters. Whoever reads its pin gets the records.

use bytemuck::{Pod, Zeroable};

use crate::CountKeys;

/// What a socket is to the limiter.
pub mod kind {
    /// It is counted in its count keys.
    pub const COUNTED: u32 = 0;
    /// It is counted, and in no table: its connection is dead, and its owner still holds the socket, or it is in
    /// an accept queue. The census itself never sees such.
    pub const DEAD: u32 = 1;
    /// It could not be counted: memory is short.
    pub const UNCOUNTED: u32 = 2;
    /// It was let go of already, with a record that could not be removed yet.
    pub const LET_GO: u32 = 3;
}

/// One socket.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct SocketRecord {
    /// The socket's cookie.
    pub cookie: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// What it is counted in, or would be.
    pub count_keys: CountKeys,
    /// Always 0.
    pub zero: u32,
}

const _: () = assert!(size_of::<SocketRecord>() == 64);
