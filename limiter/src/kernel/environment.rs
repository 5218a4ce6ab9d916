// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the limiter needs of the system it runs on, each with a sentence on what to do when it is
//! missing.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        statfs::{CGROUP2_SUPER_MAGIC, FsType, fstatfs, statfs},
    },
};
use rustix::fs::{major, minor};

use super::{mounts, release::Release};

const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`: the PID namespace that was there first.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// `SO_NETNS_COOKIE`, include/uapi/asm-generic/socket.h, since 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// The number of the root of the cgroup tree (`cgroup_setup_root`, kernel/cgroup/cgroup.c).
const ROOT_CGROUP: u64 = 1;

/// Checks what every command that touches the kernel needs: privileges and a BPF file system.
pub fn check() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "limiter needs root to load and read its kernel programs: run it with sudo"
    );
    ensure!(
        has_bpffs(),
        "{BPFFS} is not a BPF file system: mount it with `mount -t bpf bpf {BPFFS}` (inside `ip netns exec` it is \
         hidden: use --netns instead)"
    );
    Ok(())
}

/// Whether there is a BPF file system where the limits are pinned.
pub fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type().0 as u32 == BPF_FS_MAGIC)
}

/// What is wrong with the BPF file system here, for limits that are to outlive the daemon; none if nothing is known to
/// be. Each mount is a file system of its own, and what is pinned there goes with the last mount namespace that has it.
pub fn pins_warning() -> Option<&'static str> {
    let here = fs::metadata(BPFFS).ok()?.dev();
    // Of a container: the first process that it knows is its own.
    let is_contained =
        fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() != FIRST_PID_NAMESPACE);
    // What the first process has there may not be looked at, but it may be asked what it is.
    let of_first = mounts::read("/proc/1/mountinfo");
    let here = format!("{}:{}", major(here), minor(here));
    let is_apart = of_first.is_ok_and(|text| device_at(&text, BPFFS) != Some(&here));
    (is_contained || is_apart).then_some(
        "/sys/fs/bpf may not be the host's (in a container, or after `unshare --mount`): the limits then end \
         with this mount namespace, and only commands inside it find them; to keep them, mount the host's \
         /sys/fs/bpf here",
    )
}

/// What is wrong with this kernel for exact limits; none if nothing is known to be.
pub fn real_time_warning() -> Option<&'static str> {
    let is_real_time = fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1");
    let release = Release::running();
    let config = fs::read_to_string(format!("/boot/config-{release}")).ok();
    interrupts_packets(is_real_time, &release, config.as_deref()).then_some(
        "this real-time kernel (PREEMPT_RT) may handle two packets on one CPU at a time, so a limit may be \
         exceeded, or a place lost: use another kernel, or one built with PREEMPT_RT_NEEDS_BH_LOCK",
    )
}

/// What is wrong with the network namespace this thread is in; none if nothing is known to be.
pub fn network_warning() -> Option<&'static str> {
    let interfaces = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    is_lonely(&interfaces).then_some(
        "the protected network namespace has no interface except lo, so no outside client can connect: protect \
         the namespace of the mail daemon with --netns, or remove PrivateNetwork= from limiter's unit",
    )
}

/// Whether there is but the loopback interface (`/proc/net/dev`, two lines of which are a header).
fn is_lonely(interfaces: &str) -> bool {
    interfaces.lines().skip(2).all(|line| line.trim_start().starts_with("lo:"))
}

/// Whether a softirq may be interrupted by another on its CPU: with `PREEMPT_RT`, from Linux 6.18 on, where the kernel
/// was built without the lock that keeps them apart (`kernel/softirq.c`). `config` is how it was built, if that is
/// known.
fn interrupts_packets(is_real_time: bool, release: &Release, config: Option<&str>) -> bool {
    let has_lock =
        config.is_some_and(|config| config.lines().any(|line| line == "CONFIG_PREEMPT_RT_NEEDS_BH_LOCK=y"));
    is_real_time && release.is_at_least((6, 18)) && !has_lock
}

/// Enters a network namespace, named by a path such as `/run/netns/NAME` or `/proc/PID/ns/net`. Must
/// happen while the process has one thread.
pub fn enter_netns(path: &Path) -> Result<()> {
    let file =
        File::open(path).with_context(|| format!("cannot open the network namespace {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EINVAL => anyhow::anyhow!(
            "{} is not a network namespace: give a path such as /run/netns/NAME or /proc/PID/ns/net",
            path.display()
        ),
        other => anyhow::Error::new(other).context(format!("cannot enter {}", path.display())),
    })
}

/// The network namespace this process is in, as the kernel programs see it.
pub fn netns_cookie() -> Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .context("cannot open a socket")?;
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    Errno::result(result)
        .context("this kernel has no network namespace cookies: Linux 5.15 or later is needed")?;
    Ok(cookie)
}

/// The cgroup whose sockets are limited.
pub struct Cgroup {
    /// Open directory of the cgroup.
    pub dir: OwnedFd,
    /// Its id, which is its inode number (`cgroup_id`, include/linux/cgroup.h).
    pub id: u64,
}

impl Cgroup {
    /// The cgroup at `path`, or the root of the cgroup v2 tree: the root sees every socket.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let dir = match path {
            Some(path) => open_cgroup(path)?,
            None => match tree()? {
                Some(root) => open_cgroup(&root)?,
                None => detached_root()?,
            },
        };
        let id = File::from(dir.try_clone()?).metadata()?.ino();
        Ok(Self { dir, id })
    }
}

/// What is wrong with the cgroup that is taken for the root of the tree, where none was named: in a cgroup namespace, as
/// containers have it, it is that of the container. None if nothing is known to be.
pub fn cgroup_warning(path: Option<&Path>) -> Result<Option<&'static str>> {
    let is_part = path.is_none() && Cgroup::open(None)?.id != ROOT_CGROUP;
    Ok(is_part.then_some(
        "limiter runs in a cgroup namespace (in a container), so only sockets of the container's own cgroup are \
         limited: for those of the host, run it in the host's (`docker run --cgroupns host`, or `nsenter --cgroup \
         --target 1`)",
    ))
}

/// Where the root of the cgroup v2 tree is mounted, if it is.
pub fn tree() -> Result<Option<PathBuf>> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let text = mounts::read(MOUNTS).with_context(|| format!("cannot read {MOUNTS}"))?;
    Ok(cgroup_root(&text).map(PathBuf::from))
}

fn open_cgroup(path: &Path) -> Result<OwnedFd> {
    let dir = File::open(path).with_context(|| format!("cannot open the cgroup {}", path.display()))?;
    let kind = fstatfs(dir.as_fd())?.filesystem_type();
    ensure!(
        kind == FsType(CGROUP2_SUPER_MAGIC.0),
        "{} is not in a cgroup v2 tree: give a directory in one, or omit --cgroup",
        path.display()
    );
    Ok(dir.into())
}

/// Where the root of the cgroup v2 tree is mounted: `/sys/fs/cgroup`, `/sys/fs/cgroup/unified`, or
/// elsewhere. A mount whose root is not `/` shows a container's part only, so it comes last.
fn cgroup_root(mountinfo: &str) -> Option<&str> {
    let trees = mounts::all(mountinfo).filter(|mount| mount.kind == "cgroup2");
    trees.min_by_key(|mount| mount.root != "/").map(|mount| mount.at)
}

/// The device of what is mounted at a path: of the last, which hides those below it.
fn device_at<'a>(mountinfo: &'a str, path: &str) -> Option<&'a str> {
    mounts::all(mountinfo).rev().find(|mount| mount.at == path).map(|mount| mount.device)
}

/// The root of the cgroup v2 tree on a system that has it mounted nowhere: a mount of our own that
/// appears in no directory (fsopen(2), fsmount(2)).
fn detached_root() -> Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let missing = "this system has no cgroup v2 tree and cannot mount one: boot with cgroup v2 enabled";
    let call = |result: libc::c_long| Errno::result(result).context(missing);
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: the name is a C string; the results are descriptors that nobody else owns.
    let fs = unsafe {
        let fd = call(libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), 1))?;
        OwnedFd::from_raw_fd(fd as libc::c_int)
    };
    // SAFETY: this command takes no key, no value and no auxiliary number.
    call(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) })?;
    // SAFETY: as for fsopen.
    let mount = unsafe {
        let fd = call(libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, 0))?;
        OwnedFd::from_raw_fd(fd as libc::c_int)
    };
    if fstatfs(mount.as_fd())?.filesystem_type() != FsType(CGROUP2_SUPER_MAGIC.0) {
        bail!(missing);
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_time_kernel_without_the_lock_of_softirqs_is_warned_of() {
        let lock = "CONFIG_PREEMPT_RT=y\nCONFIG_PREEMPT_RT_NEEDS_BH_LOCK=y\n";
        let no_lock = "CONFIG_PREEMPT_RT=y\n# CONFIG_PREEMPT_RT_NEEDS_BH_LOCK is not set\n";
        assert!(interrupts_packets(true, &"6.18.0-rt3".into(), Some(no_lock)));
        assert!(interrupts_packets(true, &"7.3.4+deb14-rt-amd64".into(), None), "who cannot tell is warned");
        assert!(!interrupts_packets(true, &"6.18.0-rt3".into(), Some(lock)));
        assert!(!interrupts_packets(true, &"6.12.117+deb13-rt-amd64".into(), None), "it always has the lock");
        assert!(!interrupts_packets(true, &"6.1.0-56-rt-amd64".into(), Some(no_lock)));
        assert!(!interrupts_packets(false, &"7.3.4+deb14-amd64".into(), None));
    }

    #[test]
    fn a_network_namespace_with_nothing_but_lo_is_noticed() {
        let header = "Inter-|   Receive\n face |bytes\n";
        assert!(is_lonely(&format!("{header}    lo:       0       0\n")));
        assert!(!is_lonely(&format!("{header}    lo:       0       0\n  eth0: 1 2\n")));
    }

    #[test]
    fn the_cgroup_tree_is_found_wherever_it_is_mounted() {
        let pure = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup_root(pure), Some("/sys/fs/cgroup"));
        let v1 = "33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        let hybrid = "42 32 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(cgroup_root(&format!("{v1}\n{hybrid}\n")), Some("/sys/fs/cgroup/unified"));
        assert_eq!((cgroup_root(v1), cgroup_root("")), (None, None));
    }

    #[test]
    fn of_what_is_mounted_at_a_place_the_last_counts() {
        let mounts = "46 23 0:40 / /sys/fs/bpf rw - bpf bpf rw\n71 46 0:39 / /sys/fs/bpf rw - bpf bpf rw\n\
                      72 23 0:41 / /sys/fs/bpf/x rw - bpf bpf rw\n";
        assert_eq!(device_at(mounts, "/sys/fs/bpf"), Some("0:39"));
        assert_eq!(device_at(mounts, "/sys/fs"), None);
    }

    #[test]
    fn the_whole_tree_is_preferred_to_a_part_of_it() {
        let mounts = "50 24 0:27 /docker/abc /part rw - cgroup2 cgroup2 rw\n31 24 0:27 / /whole rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_root(mounts), Some("/whole"));
    }
}
