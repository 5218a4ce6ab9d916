// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A process is confined as the greeter's is, and tries what it may not. Each attempt has a process of its own, which is
//! this test again, as what confines it cannot be taken off.

use std::{
    env,
    ffi::CString,
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
};

use libc::{c_int, c_long};

use super::*;

/// Says to the process what to try.
const ATTEMPT: &str = "LIMITER_TEST_ATTEMPT";
/// What it ends with when nothing has stopped it.
const DONE: i32 = 41;
/// When it could not be confined, and when it was refused without being killed.
const NOT_CONFINED: i32 = 42;
const REFUSED: i32 = 43;

const UID: u32 = 65_534;

fn confinement() -> Confinement {
    // The process has one thread beside the one that tries.
    let parent = getppid().unwrap().as_raw_nonzero().get();
    Confinement { uid: UID, gid: UID, files: 64, parent }
}

/// Whether a test can be run: it takes root to give something up.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        limiter_lab::skip("not root");
    }
    is_root
}

/// Runs this test again as the process that tries, and says how it ended.
fn attempt(test: &str, what: &str) -> ExitStatus {
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ATTEMPT, what);
    again.output().unwrap().status
}

/// Ends the process: with `DONE` if the kernel has done it.
fn end(answer: c_long) -> ! {
    // SAFETY: plain numbers; the error's place is this thread's.
    unsafe { libc::_exit(if answer >= 0 { DONE } else { REFUSED }) }
}

/// Tries something.
fn try_it(what: &str, parent: c_int) -> c_long {
    let path = CString::new("/etc/passwd").unwrap();
    let shell = CString::new("/bin/true").unwrap();
    let arguments = [shell.as_ptr(), std::ptr::null()];
    let mut bytes = [0_u64; 32];
    let (room, length) = (bytes.as_mut_ptr(), size_of_val(&bytes));
    let nobody: c_int = -1;
    // SAFETY: each call has the memory that it reads and writes.
    unsafe {
        match what {
            "nothing" => 0,
            "allowed" => {
                let copy = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3);
                let map = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                if map == libc::MAP_FAILED { -1 } else { copy.into() }
            }
            "open" => libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY),
            "openat2" => libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), room, 24),
            "socket" => libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
            "netlink" => libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0),
            "connect" => libc::syscall(libc::SYS_connect, 0, room, 16),
            "bind" => libc::syscall(libc::SYS_bind, 0, room, 16),
            "listen" => libc::syscall(libc::SYS_listen, 0, 1),
            "exec" => libc::syscall(
                libc::SYS_execve,
                shell.as_ptr(),
                arguments.as_ptr(),
                std::ptr::null::<*const u8>(),
            ),
            "fork" => libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
            "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, parent, 0, 0),
            "read the daemon's memory" => {
                libc::syscall(libc::SYS_process_vm_readv, parent, room, 1, room, 1, 0)
            }
            "bpf" => libc::syscall(libc::SYS_bpf, 0, room, length),
            "kill" => libc::syscall(libc::SYS_kill, parent, libc::SIGTERM),
            "pidfd" => libc::syscall(libc::SYS_pidfd_open, parent, 0),
            "become root" => libc::syscall(libc::SYS_setresuid, 0, 0, 0),
            "take capabilities" => libc::syscall(libc::SYS_capset, room, room),
            "unshare" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
            "mount" => libc::syscall(libc::SYS_mount, path.as_ptr(), path.as_ptr(), path.as_ptr(), 0, 0),
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 1, room),
            "perf" => libc::syscall(libc::SYS_perf_event_open, room, 0, -1, nobody, 0),
            "another filter" => libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, room),
            "be dumped" => libc::prctl(libc::PR_SET_DUMPABLE, 1).into(),
            "outlive the daemon" => libc::prctl(libc::PR_SET_PDEATHSIG, 0).into(),
            "run memory" => {
                let prot = libc::PROT_READ | libc::PROT_EXEC;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::syscall(libc::SYS_mmap, 0, 4096, prot, flags, -1, 0)
            }
            "move routes" => {
                let mark = 1_u32;
                let at = std::ptr::from_ref(&mark);
                libc::syscall(libc::SYS_setsockopt, 0, libc::SOL_SOCKET, libc::SO_MARK, at, 4)
            }
            "signals to others" => libc::syscall(libc::SYS_fcntl, 0, libc::F_SETOWN, parent),
            "more files" => {
                libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, room, std::ptr::null::<u8>())
            }
            "look at a file" => libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path.as_ptr(), room, 0),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn whatever_an_intruder_would_do_is_refused_and_most_of_it_ends_the_process() {
    if let Ok(what) = env::var(ATTEMPT) {
        let confinement = confinement();
        if let Err(problem) = enter(confinement) {
            eprintln!("{problem:#}");
            // SAFETY: plain numbers.
            unsafe { libc::_exit(NOT_CONFINED) }
        }
        end(try_it(&what, confinement.parent));
    }
    if !is_root() {
        return;
    }
    let test = "sandbox::tests::whatever_an_intruder_would_do_is_refused_and_most_of_it_ends_the_process";
    for what in ["nothing", "allowed"] {
        assert_eq!(attempt(test, what).code(), Some(DONE), "{what}: the process is confined, and lives");
    }
    for what in [
        "open",
        "openat2",
        "socket",
        "netlink",
        "connect",
        "bind",
        "listen",
        "exec",
        "fork",
        "ptrace",
        "read the daemon's memory",
        "bpf",
        "kill",
        "pidfd",
        "become root",
        "take capabilities",
        "unshare",
        "mount",
        "io_uring",
        "perf",
    ] {
        assert_eq!(attempt(test, what).signal(), Some(libc::SIGSYS), "{what}");
    }
    for what in [
        "another filter",
        "be dumped",
        "outlive the daemon",
        "run memory",
        "move routes",
        "signals to others",
        "more files",
        "look at a file",
    ] {
        assert_eq!(attempt(test, what).code(), Some(REFUSED), "{what}");
    }
}

/// Without seccomp, what is behind it holds as well.
#[test]
fn landlock_alone_refuses_files_and_connections() {
    if env::var_os(ATTEMPT).is_some() {
        set_no_new_privs(true).unwrap();
        let Ok(true) = restrict_files(&[], Scope::from_all(ABI_KNOWN)) else {
            // SAFETY: plain numbers.
            unsafe { libc::_exit(NOT_CONFINED) }
        };
        let is_refused = fs::File::open("/etc/passwd").is_err()
            && fs::read_dir("/").is_err()
            && fs::write("/tmp/limiter-test-landlock", "x").is_err()
            && Command::new("/bin/true").status().is_err()
            && std::net::TcpStream::connect("127.0.0.1:9")
                .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        // SAFETY: plain numbers.
        unsafe { libc::_exit(if is_refused { REFUSED } else { DONE }) }
    }
    // SAFETY: asks for the version, with no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version < 4 {
        return limiter_lab::skip("this kernel has no Landlock for TCP");
    }
    let test = "sandbox::tests::landlock_alone_refuses_files_and_connections";
    assert_eq!(attempt(test, "all").code(), Some(REFUSED));
}

#[test]
fn whoever_is_root_or_has_another_parent_is_not_confined_and_must_end() {
    if let Ok(what) = env::var(ATTEMPT) {
        let confinement = match what.as_str() {
            "as root" => Confinement { uid: 0, ..confinement() },
            "as root's group" => Confinement { gid: 0, ..confinement() },
            _ => Confinement { parent: 1 << 30, ..confinement() },
        };
        let said = format!("{:#}", enter(confinement).unwrap_err());
        let expected = if what == "orphaned" { "the daemon has ended" } else { "must not be root" };
        // SAFETY: plain numbers.
        unsafe { libc::_exit(if said.contains(expected) { REFUSED } else { DONE }) }
    }
    if !is_root() {
        return;
    }
    let test = "sandbox::tests::whoever_is_root_or_has_another_parent_is_not_confined_and_must_end";
    for what in ["as root", "as root's group", "orphaned"] {
        assert_eq!(attempt(test, what).code(), Some(REFUSED), "{what}");
    }
}

/// What a mail daemon's own program could do that was taken over by what it reads.
fn try_as_tool(what: &str, file: &str, parent: c_int) -> c_long {
    let path = |path: &str| CString::new(path).unwrap();
    let open = |name: &str, flags: c_int| {
        let name = path(name);
        // SAFETY: the name ends with a zero.
        unsafe { libc::open(name.as_ptr(), flags) }.into()
    };
    // SAFETY: plain numbers, and names that end with a zero.
    unsafe {
        match what {
            "read what it needs" => open(file, libc::O_RDONLY),
            "read a library" => open("/usr/bin/env", libc::O_RDONLY),
            "discard" => open("/dev/null", libc::O_WRONLY),
            "ask by a socket" => libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).into(),
            "become a program" => {
                let name = path("/bin/true");
                let arguments = [name.as_ptr(), std::ptr::null()];
                libc::execv(name.as_ptr(), arguments.as_ptr()).into()
            }
            "end others" | "end the parent" => libc::kill(parent, 0).into(),
            "read a secret" => open("/etc/shadow", libc::O_RDONLY),
            "read a list of rules" => open("/etc/hosts", libc::O_RDONLY),
            "write what it reads" => open(file, libc::O_WRONLY),
            "write a program" => open("/usr/bin/env", libc::O_WRONLY),
            "read memory" => open(&format!("/proc/{parent}/mem"), libc::O_RDONLY),
            "call out" => libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into(),
            "listen to the network" => libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0).into(),
            "start a process" => libc::fork().into(),
            "trace" => libc::ptrace(libc::PTRACE_ATTACH, parent, 0, 0),
            "load a program" => libc::syscall(libc::SYS_bpf, 0, 0, 0),
            "mount" => libc::mount(
                path("x").as_ptr(),
                path("/").as_ptr(),
                path("tmpfs").as_ptr(),
                0,
                std::ptr::null(),
            )
            .into(),
            "be another user" => libc::syscall(libc::SYS_setuid, 1),
            "let others in" => libc::chmod(path(file).as_ptr(), 0o777).into(),
            "see the root's sockets" => libc::access(path("/run").as_ptr(), libc::F_OK).into(),
            "own a file" => libc::chown(path(file).as_ptr(), 1, 1).into(),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_program_that_is_asked_reads_its_files_and_does_nothing_else() {
    const FILE: &str = "LIMITER_TEST_FILE";
    if let Ok(what) = env::var(ATTEMPT) {
        let parent = getppid().unwrap().as_raw_nonzero().get();
        let file = env::var(FILE).unwrap();
        let sockets = Vec::new();
        let tool =
            Tool { reads: vec![file.clone().into()], sockets, may_signal: what == "end others", parent };
        match enter_for_tool(&tool) {
            Ok(Confined { landlock: true }) => {}
            // SAFETY: plain numbers.
            _ => unsafe { libc::_exit(NOT_CONFINED) },
        }
        end(try_as_tool(&what, &file, parent));
    }
    if !is_root() {
        return;
    }
    // SAFETY: asks for the version, with no memory.
    if unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) } < 1 {
        return limiter_lab::skip("this kernel has no Landlock");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let attempt = |what: &str| {
        let mut again = Command::new(env::current_exe().unwrap());
        let test = "sandbox::tests::a_program_that_is_asked_reads_its_files_and_does_nothing_else";
        again.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        again.env(ATTEMPT, what).env(FILE, file.path());
        again.output().unwrap().status.code()
    };
    for what in ["read what it needs", "read a library", "discard", "ask by a socket", "end others"] {
        assert_eq!(attempt(what), Some(DONE), "{what}");
    }
    assert_eq!(attempt("become a program"), Some(0));
    for what in [
        "end the parent",
        "read a secret",
        "read a list of rules",
        "write what it reads",
        "write a program",
        "read memory",
        "call out",
        "listen to the network",
        "start a process",
        "trace",
        "load a program",
        "mount",
        "be another user",
        "own a file",
        "let others in",
        "see the root's sockets",
    ] {
        assert_eq!(attempt(what), Some(REFUSED), "{what}");
    }
}
