// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A program of somebody else on a hook of a cgroup, beside those of the limiter.
#![expect(clippy::expect_used, reason = "the test fails, and says where")]

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::libc;

use crate::xdp::{bpf, constant};

/// `BPF_CGROUP_SOCK_OPS` of `enum bpf_attach_type`, include/uapi/linux/bpf.h.
const SOCK_OPS: u32 = 3;

/// A `sock_ops` program that does nothing, attached as long as this lives.
pub struct Bystander {
    program: OwnedFd,
    cgroup: File,
}

/// The part of `union bpf_attr` to attach and to detach.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

impl Bystander {
    /// Loads and attaches it, beside whatever is there.
    pub fn on(cgroup: &Path) -> Self {
        const PROG_ATTACH: libc::c_long = 8;
        /// `BPF_PROG_TYPE_SOCK_OPS`.
        const TYPE: u32 = 13;
        /// `BPF_F_ALLOW_MULTI`.
        const BESIDE: u32 = 2;

        let this = Self { program: constant(TYPE, 1), cgroup: File::open(cgroup).expect("a cgroup") };
        let attached = bpf(PROG_ATTACH, &mut this.attach(BESIDE));
        assert!(attached >= 0, "it is attached: {}", std::io::Error::last_os_error());
        this
    }

    fn attach(&self, flags: u32) -> Attach {
        Attach {
            target_fd: self.cgroup.as_raw_fd() as u32,
            attach_bpf_fd: self.program.as_raw_fd() as u32,
            attach_type: SOCK_OPS,
            attach_flags: flags,
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        const PROG_DETACH: libc::c_long = 9;
        let _it_goes_with_the_cgroup = bpf(PROG_DETACH, &mut self.attach(0));
    }
}
