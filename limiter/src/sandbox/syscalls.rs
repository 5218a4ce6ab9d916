// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The system calls that confined processes may make.
//!
//! The greeter's: what it needs is allowed. What only an intruder would do ends the process at once, and the daemon's log says so. For
//! everything else the kernel is as if it did not have it: another version of a library may try that, and can do without.
//!
//! What a mail daemon's own program needs is the daemon's affair, and changes with it: of that one some are refused.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Allowed, whatever the arguments: they concern descriptors and memory that the process has.
const ALLOWED: &[c_long] = &[
    // Clients and the daemon.
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    // What happens.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_create1,
    // The file with the settings.
    libc::SYS_pread64,
    libc::SYS_fstat,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    // Memory, and the end.
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
];

/// What only an intruder does.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_bpf,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_setuid,
    libc::SYS_setresuid,
    libc::SYS_setgid,
    libc::SYS_setresgid,
    libc::SYS_capset,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allows the process, from now on, these and no others.
pub fn restrict() -> Result<()> {
    let mut rules: Rules = ALLOWED.iter().map(|&syscall| (syscall, Vec::new())).collect();
    for (syscall, conditions) in [
        // A descriptor that is copied, and what it is; not who gets its signals.
        (
            libc::SYS_fcntl,
            vec![
                vec![is(1, libc::F_GETFD)?],
                vec![is(1, libc::F_GETFL)?],
                vec![is(1, libc::F_DUPFD_CLOEXEC)?],
                vec![is(1, libc::F_GET_SEALS)?],
            ],
        ),
        // Nothing but what makes a reset of a close.
        (libc::SYS_setsockopt, vec![vec![is(1, libc::SOL_SOCKET)?, is(2, libc::SO_LINGER)?]]),
        // Memory, but none that can be run.
        (libc::SYS_mmap, vec![vec![lacks(2, libc::PROT_EXEC)?]]),
        (libc::SYS_mprotect, vec![vec![lacks(2, libc::PROT_EXEC)?]]),
    ] {
        rules.insert(syscall, conditions.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?);
    }
    let fatal: Rules = FATAL.iter().map(|&syscall| (syscall, Vec::new())).collect();
    // The stricter of two answers is the one that holds. The second also takes away what it takes to put in another.
    apply(fatal, SeccompAction::Allow, SeccompAction::KillProcess)?;
    apply(rules, SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow)
}

/// What a program that prints what its daemon says has no business with.
const NOT_FOR_TOOLS: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_clone,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_bpf,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_open_by_handle_at,
    // An owner may, without any right and whatever Landlock says.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
];

/// `fchmodat2`, since Linux 6.6.
const FCHMODAT2: c_long = 452;

/// Refuses the process, and the program it becomes, these from now on; sockets but those of this host; and signals to
/// others, unless it `may_signal`.
pub fn restrict_tool(may_signal: bool) -> Result<()> {
    let refused = NOT_FOR_TOOLS.iter().chain(&[FCHMODAT2]);
    let mut rules: Rules = refused.map(|&syscall| (syscall, Vec::new())).collect();
    let is_not_unix =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![is_not_unix])?]);
    // The limits of others.
    let is_another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![is_another])?]);
    if !may_signal {
        for syscall in [libc::SYS_kill, libc::SYS_tkill, libc::SYS_pidfd_send_signal] {
            rules.insert(syscall, Vec::new());
        }
    }
    // Its arguments are in memory, where no filter looks: as if the kernel had only the older one.
    let newer: Rules = [(libc::SYS_clone3, Vec::new())].into();
    apply(newer, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    apply(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

fn apply(rules: Rules, otherwise: SeccompAction, listed: SeccompAction) -> Result<()> {
    let architecture = std::env::consts::ARCH.try_into().context("not for this processor")?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, listed, architecture)?.try_into()?;
    Ok(apply_filter(&program)?)
}

/// The so-many-th argument is this.
fn is(argument: u8, value: c_int) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64)
}

/// The so-many-th argument has none of these bits.
fn lacks(argument: u8, bits: c_int) -> Result<SeccompCondition, seccompiler::BackendError> {
    let masked = SeccompCmpOp::MaskedEq(bits as u64);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, 0)
}
