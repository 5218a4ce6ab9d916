// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Socket options of TCP that nix has no names for: those a socket in repair takes
//! (include/uapi/linux/tcp.h).

use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

/// `struct tcp_repair_opt`: a TCP option, by its kind, as both sides have agreed on it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    pub kind: u32,
    pub value: u32,
}

/// `struct tcp_repair_window`, in bytes where it is no number of a byte.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// The number of the segment that has told the other side's window last.
    pub snd_wl1: u32,
    pub snd_wnd: u32,
    pub max_window: u32,
    pub rcv_wnd: u32,
    /// The number up to which the other side knows what we have got.
    pub rcv_wup: u32,
}

sockopt_impl!(
    /// Which queue [`Sequence`] is of.
    Queue,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR_QUEUE,
    u32
);
sockopt_impl!(
    /// The number of the next byte of a queue.
    Sequence,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_QUEUE_SEQ,
    u32
);
sockopt_impl!(
    /// One TCP option.
    Options,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR_OPTIONS,
    Agreed
);
sockopt_impl!(
    /// Both windows.
    Window,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR_WINDOW,
    Windows
);
sockopt_impl!(
    /// The timestamp that a segment would bear now, in milliseconds, but for its lowest bit since Linux 6.7:
    /// it tells whether the unit is microseconds. May be read of any TCP socket, and set in repair.
    Timestamp,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_TIMESTAMP,
    u32
);
