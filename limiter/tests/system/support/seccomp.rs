// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! System calls of a child that fail: always (what a seccomp filter forbids), or one of them, the so-many-th.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use limiter_lab::command::Outcome;

/// Where the child has its listener, above all that it opens by itself.
const LISTENER: libc::c_int = 250;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Has every call of `syscalls` fail with `errno` in the child, from its start.
pub fn refuse(command: &mut Command, syscalls: &[libc::c_long], errno: Errno) {
    let program = filter(syscalls, libc::SECCOMP_RET_ERRNO | errno as u32);
    // SAFETY: one system call, with memory that was allocated before.
    unsafe { command.pre_exec(move || install(&program, 0).map(drop)) };
}

/// The same of one system call with one first argument.
pub fn refuse_with(command: &mut Command, syscall: libc::c_long, argument: u32, errno: Errno) {
    let program = vec![
        step(LOAD, NUMBER, 0, 0),
        step(EQUAL, syscall as u32, 0, 3),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(EQUAL, argument, 0, 1),
        step(ANSWER, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    // SAFETY: one system call, with memory that was allocated before.
    unsafe { command.pre_exec(move || install(&program, 0).map(drop)) };
}

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// An instruction; where it compares, so many of those behind it are left out.
const fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// What is done about `syscalls`; all others are allowed, and so is what is written to stderr.
fn filter(syscalls: &[libc::c_long], action: u32) -> Vec<libc::sock_filter> {
    let mut program = vec![
        step(LOAD, NUMBER, 0, 0),
        step(EQUAL, libc::SYS_write as u32, 0, 3),
        step(LOAD, FIRST_ARGUMENT, 0, 0),
        step(EQUAL, libc::STDERR_FILENO as u32, syscalls.len() as u8 + 1, 0),
        step(LOAD, NUMBER, 0, 0),
    ];
    for (index, &syscall) in syscalls.iter().enumerate() {
        program.push(step(EQUAL, syscall as u32, (syscalls.len() - index) as u8, 0));
    }
    program.push(step(ANSWER, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(step(ANSWER, action, 0, 0));
    program
}

/// Puts the filter in force for this process and all it becomes.
fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call, which does not change it.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// One step of a child: a system call that may fail.
pub type Step = (libc::c_long, String);

/// A child whose calls of some system calls are counted, and one of which fails.
pub struct Supervised {
    pub child: Child,
    supervisor: JoinHandle<()>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Supervised {
    /// Starts `command`. Of its calls of `syscalls`, in all its threads, the one that `fails` chooses answers `errno`.
    pub fn start(
        mut command: Command,
        syscalls: &[libc::c_long],
        errno: Errno,
        mut fails: impl FnMut(usize, &Step, u32) -> bool + Send + 'static,
    ) -> Self {
        // Cargo's, for libraries that the command does not need: the dynamic linker looks for others in each part of it.
        command.env_remove("LD_LIBRARY_PATH");
        let program = filter(syscalls, libc::SECCOMP_RET_USER_NOTIF);
        let listen = move || {
            // SAFETY: plain numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let listener = install(&program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
            // Not closed on exec: it is fetched when exec is done.
            // SAFETY: plain numbers.
            Errno::result(unsafe { libc::dup2(listener as libc::c_int, LISTENER) })?;
            Ok(())
        };
        // SAFETY: three system calls, with memory that was allocated before.
        unsafe { command.pre_exec(listen) };
        let child = command.stdin(Stdio::null()).spawn().expect("the command can be started");
        let listener = fetch(child.id(), LISTENER);
        let steps = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&steps);
        let supervisor = std::thread::spawn(move || {
            while let Some(call) = next_call(&listener) {
                let step = (libc::c_long::from(call.data.nr), describe(&call));
                let mut seen = seen.lock().unwrap();
                let error = if fails(seen.len(), &step, call.pid) { -(errno as i32) } else { 0 };
                seen.push(step);
                let flags = if error == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
                let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
                // SAFETY: the answer is as the kernel takes it. A thread that has been killed meanwhile has none.
                unsafe {
                    libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer)
                };
            }
        });
        Self { child, supervisor, steps }
    }

    /// The steps so far.
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap().clone()
    }

    /// Waits for its end: what it gave, and its steps.
    pub fn wait(self) -> (Outcome, Vec<Step>) {
        let output = self.child.wait_with_output().expect("a child of ours");
        self.supervisor.join().expect("the supervisor ends with the child");
        let outcome = Outcome::from(output);
        let steps = self.steps.lock().unwrap().clone();
        (outcome, steps)
    }
}

/// The descriptor `fd` of another process.
fn fetch(pid: u32, fd: libc::c_int) -> OwnedFd {
    // SAFETY: plain numbers; both results are descriptors that nobody else owns.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(process >= 0, "pidfd_open: {}", io::Error::last_os_error());
        let process = OwnedFd::from_raw_fd(process as libc::c_int);
        let found = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0);
        assert!(found >= 0, "pidfd_getfd: {}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(found as libc::c_int)
    }
}

/// The next call that waits for its answer; `None` when there is nobody left.
fn next_call(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled.expect("a descriptor of ours"),
        };
        if !waiting[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
            return None;
        }
        // SAFETY: plain data, as the kernel wants it: zero.
        let mut call: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: the kernel writes one call.
        let answer =
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
        match Errno::result(answer) {
            Ok(_) => return Some(call),
            // Whoever called was killed meanwhile.
            Err(Errno::ENOENT | Errno::EINTR) => {}
            Err(errno) => panic!("cannot take a call: {errno}"),
        }
    }
}

/// What is done, as far as it can be told: the command of bpf(2), and the kind of its map; a path.
fn describe(call: &libc::seccomp_notif) -> String {
    let [first, second, ..] = call.data.args;
    match libc::c_long::from(call.data.nr) {
        libc::SYS_bpf => {
            // Of `enum bpf_cmd`: where in the attributes the map's descriptor is.
            let at = match first {
                1..=4 => 0,
                24..=27 => 36,
                _ => return format!("bpf {first}"),
            };
            let fd = u32::from_ne_bytes(peek(call.pid, second + at));
            let about =
                std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", call.pid)).unwrap_or_default();
            let of = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim();
            let (kind, key, value) = (of("map_type:"), of("key_size:"), of("value_size:"));
            format!("bpf {first} on a map of type {kind}, {key} to {value} bytes")
        }
        libc::SYS_openat
        | libc::SYS_unlinkat
        | libc::SYS_mkdirat
        | libc::SYS_newfstatat
        | libc::SYS_statx => path(call.pid, second),
        libc::SYS_unlink | libc::SYS_mkdir | libc::SYS_rename | libc::SYS_rmdir => path(call.pid, first),
        _ => format!("{first:#x}"),
    }
}

/// Four bytes of another process's memory.
fn peek(pid: u32, at: u64) -> [u8; 4] {
    let mut bytes = [0; 4];
    read(pid, at, &mut bytes);
    bytes
}

/// A path in it.
fn path(pid: u32, at: u64) -> String {
    let mut bytes = [0; 64];
    // It may be at the end of what can be read.
    let len =
        if read(pid, at, &mut bytes) { bytes.iter().position(|&byte| byte == 0).unwrap_or(64) } else { 0 };
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn read(pid: u32, at: u64, to: &mut [u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"));
    memory.is_ok_and(|memory| memory.read_at(to, at).is_ok_and(|len| len > 0))
}
