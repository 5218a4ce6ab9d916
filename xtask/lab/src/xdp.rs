// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! XDP programs of two instructions.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the test fails, and says where")]

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

use crate::Namespace;
use crate::command::run;

/// `XDP_PASS` of `enum xdp_action`, include/uapi/linux/bpf.h.
pub const PASS: u32 = 2;

/// A program that says the same of every frame, pinned as long as this lives.
pub struct Constant {
    /// Where it is pinned.
    pub pin: PathBuf,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The same for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// bpf(2), with an `attr` of the layout that the command takes, which points to what outlives the call.
pub fn bpf<T>(command: libc::c_long, attr: &mut T) -> i64 {
    // SAFETY: by the contract above, and `attr` is as long as said.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) }
}

/// Loads a program of this type (`enum bpf_prog_type`) that returns the same whatever happens.
pub fn constant(prog_type: u32, result: u32) -> OwnedFd {
    const PROG_LOAD: libc::c_long = 5;

    // r0 = result; exit
    let program: [u64; 2] = [0xb7 | u64::from(result) << 32, 0x95];
    let mut load = Load {
        prog_type,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    let fd = bpf(PROG_LOAD, &mut load);
    assert!(fd >= 0, "the kernel takes it: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

impl Constant {
    /// Loads and pins one; `action` is of `enum xdp_action`.
    pub fn new(action: u32) -> Self {
        const OBJ_PIN: libc::c_long = 6;
        const XDP: u32 = 6;
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let fd = constant(XDP, action);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pin = PathBuf::from(format!("/sys/fs/bpf/lx-{}-{number}", std::process::id()));
        let name = CString::new(pin.to_str().expect("plain")).expect("no zero");
        let pinned = bpf(
            OBJ_PIN,
            &mut Pin { pathname: name.as_ptr() as u64, bpf_fd: fd.as_raw_fd() as u32, file_flags: 0 },
        );
        assert!(pinned >= 0, "it is pinned: {}", std::io::Error::last_os_error());
        Self { pin }
    }

    /// Attaches it as others do, without a link.
    pub fn attach(&self, netns: &Namespace, device: &str) {
        let mut command = netns.command("bpftool");
        command.args(["net", "attach", "xdp", "pinned"]).arg(&self.pin).args(["dev", device]);
        run(command).unwrap();
    }
}

impl Drop for Constant {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pin);
    }
}
