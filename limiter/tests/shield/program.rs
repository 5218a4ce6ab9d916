// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A pinned XDP program, run on frames by the kernel.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use nix::libc;

use limiter_lab::xdp::bpf;

/// A program, and what it would not work without.
pub struct Program(pub OwnedFd, Option<OwnedFd>);

/// What it said of a frame.
pub struct Said {
    /// One of `enum xdp_action`.
    pub action: u32,
    /// How long it took, on average of all runs.
    pub ns: u32,
}

/// The beginning of `union bpf_attr` for `BPF_OBJ_GET`, include/uapi/linux/bpf.h.
#[repr(C)]
struct Get {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The same for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size: [u32; 2],
    ctx: [u64; 2],
}

impl Program {
    pub fn of(program: OwnedFd) -> Self {
        Self(program, None)
    }

    /// Keeps a map as long as itself: the kernel empties one that only programs hold, if it is of programs.
    pub fn keep(&mut self, map: OwnedFd) {
        self.1 = Some(map);
    }

    pub fn open(pin: &Path) -> Self {
        const OBJ_GET: libc::c_long = 7;
        let name = CString::new(pin.to_str().expect("plain")).expect("no zero");
        let fd = bpf(OBJ_GET, &mut Get { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 });
        assert!(fd >= 0, "{}: {}", pin.display(), std::io::Error::last_os_error());
        // SAFETY: the kernel has just made it for us.
        Self::of(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Has the kernel run it so often on a frame of at least 14 bytes, in the namespace of this thread.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Said {
        const PROG_TEST_RUN: libc::c_long = 10;
        let mut run = TestRun {
            prog_fd: self.0.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        assert_eq!(bpf(PROG_TEST_RUN, &mut run), 0, "{}", std::io::Error::last_os_error());
        Said { action: run.retval, ns: run.duration }
    }
}
