// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What cannot be done is said in one sentence, and changes nothing.

use std::net::TcpStream;
use std::process::Command;

use crate::support::mail_daemon::Files;
use limiter_lab::command::Outcome;
use limiter_lab::command::run;
use limiter_lab::{Answer, Lab, Limiter, Sink, V4};

/// A limiter in force, with a connection that it counts and one that it refused.
struct InForce {
    // In the order in which they have to go.
    limiter: Limiter,
    _session: TcpStream,
    _sink: Sink,
    files: Files,
    lab: Lab,
}

impl InForce {
    fn new() -> Option<Self> {
        let lab = Lab::new(crate::BINARY)?;
        let sink = Sink::start(&lab, 25);
        let limiter = Limiter::start(&lab, 1, "reset");
        let session = lab.served(V4.source(), V4.port(25));
        assert_eq!(lab.answer(V4.source(), V4.port(25)), Answer::Reset);
        Some(Self { limiter, _session: session, _sink: sink, files: Files::new(), lab })
    }

    /// Requires that `attempt` fails with `code` and one sentence, in which each of `words` occurs (or one
    /// of the alternatives in it, separated by `|`), and that nothing has changed.
    #[track_caller]
    fn refuses(&self, code: i32, words: &[&str], attempt: Command) {
        let before = self.limiter.state();
        let said = format!("{attempt:?}");
        let outcome = Outcome::of(attempt);
        one_sentence(&said, &outcome, code, words);
        assert_eq!(self.limiter.state(), before, "{said} changed something");
        assert_eq!(self.lab.answer(V4.source(), V4.port(25)), Answer::Reset, "the limit is still in force");
    }

    /// `limiter run` once more for this instance. Its daemon must not run, or that is what it says.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.limiter.command(&["run", "--netns"]);
        command.arg(self.lab.host.path()).args(arguments);
        command
    }
}

#[track_caller]
fn one_sentence(said: &str, outcome: &Outcome, code: i32, words: &[&str]) {
    let message = &outcome.stderr;
    assert_eq!(outcome.code, Some(code), "{said}: {outcome:?}");
    assert_eq!(message.trim_end().lines().count(), 1, "{said}: one sentence, on one line: {message:?}");
    assert!(!message.contains("panicked"), "{said}: {message:?}");
    for alternatives in words {
        let found = alternatives.split('|').any(|word| message.contains(word));
        assert!(found, "{said}: the message should contain {alternatives:?}: {message:?}");
    }
}

/// `limiter set ARGUMENTS` is wrong usage.
fn bad_set(arguments: &[&str], words: &[&str]) {
    let Some(in_force) = InForce::new() else { return };
    let attempt = in_force.limiter.command(&[&["set"], arguments].concat());
    in_force.refuses(2, words, attempt);
}

/// One test for each bad argument of `set`. Bad configurations are in `malformed`.
macro_rules! refused {
    ($($name:ident: $function:ident($($argument:expr),*);)*) => {
        $(#[test] fn $name() { $function($($argument),*); })*
    };
}

refused! {
    setting_an_unknown_service: bad_set(&["smpt", "max_connections=5"], &["smpt"]);
    setting_an_unknown_key: bad_set(&["smtp", "max_conections=5"], &["max_conections"]);
    setting_a_limit_of_zero: bad_set(&["smtp", "max_connections=0"], &["max_connections", "0"]);
    setting_a_negative_limit: bad_set(&["smtp", "max_connections=-1"], &["max_connections", "-1"]);
    setting_a_limit_in_words: bad_set(&["smtp", "max_connections=many"], &["max_connections", "many"]);
    setting_a_limit_beyond_the_largest: bad_set(&["smtp", "max_connections=1000001"], &["max_connections", "1000001"]);
    setting_a_limit_beyond_any_number: bad_set(&["smtp", "max_connections=99999999999999999999"], &["max_connections"]);
    setting_a_key_without_a_value: bad_set(&["smtp", "max_connections"], &["max_connections"]);
    setting_nothing: bad_set(&["smtp"], &["KEY=VALUE|key"]);
    setting_one_good_and_one_bad_key: bad_set(&["smtp", "max_connections=5", "colour=red"], &["colour"]);
}

#[test]
fn a_second_daemon_on_the_same_instance() {
    let Some(in_force) = InForce::new() else { return };
    in_force.refuses(1, &[&in_force.limiter.instance, "serves|runs|running"], in_force.run(&[]));
}

#[test]
fn a_network_namespace_that_is_not_there() {
    let Some(mut in_force) = InForce::new() else { return };
    in_force.limiter.kill();
    let attempt = in_force.limiter.command(&["run", "--netns", "/run/netns/no-such-namespace"]);
    in_force.refuses(1, &["no-such-namespace"], attempt);
}

#[test]
fn a_cgroup_that_is_no_cgroup_v2() {
    let Some(mut in_force) = InForce::new() else { return };
    in_force.limiter.kill();
    in_force.files.dir("plain");
    let path = in_force.files.path("plain");
    in_force.refuses(1, &["plain", "cgroup"], in_force.run(&["--cgroup", path.to_str().unwrap()]));
    in_force.refuses(1, &["/no/such/cgroup"], in_force.run(&["--cgroup", "/no/such/cgroup"]));
}

#[test]
fn a_machine_where_no_bpffs_can_be_mounted() {
    let Some(mut in_force) = InForce::new() else { return };
    in_force.limiter.kill();
    in_force.files.dir("cgroup");
    // In a mount namespace of its own, where /sys/fs/bpf is a file, and the cgroups are elsewhere.
    let script = r#"
        set -e
        mount -t cgroup2 none "$1/cgroup"
        mount -t tmpfs none /sys/fs
        touch /sys/fs/bpf
        exec "$2" --instance "$3" run --netns "$4" --cgroup "$1/cgroup"
    "#;
    let mut attempt = Command::new("unshare");
    attempt.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(in_force.files.path(""));
    attempt.args([crate::BINARY, &in_force.limiter.instance]).arg(in_force.lab.host.path());
    in_force.refuses(1, &["bpffs|/sys/fs/bpf"], attempt);
}

/// A command line of the limiter for someone who is not root.
fn as_nobody(files: &Files, arguments: &[&str]) -> Command {
    // The build's own directory may be closed to others. A process of its own makes the copy: what another
    // thread forks would inherit our open file, and a file open for writing is not executed (ETXTBSY).
    let binary = files.path("limiter");
    let mut install = Command::new("install");
    install.args(["--mode=755", crate::BINARY]).arg(&binary);
    run(install).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary).args(arguments);
    command
}

#[test]
fn anyone_but_root() {
    let Some(mut in_force) = InForce::new() else { return };
    let instance = in_force.limiter.instance.clone();
    let nobody =
        |arguments: &[&str]| as_nobody(&in_force.files, &[&["--instance", &instance], arguments].concat());
    let root = "root|privilege|permission|CAP_";
    in_force.refuses(1, &[root], nobody(&["set", "smtp", "max_connections=5"]));
    in_force.refuses(1, &[root], nobody(&["list"]));
    in_force.refuses(1, &[root], nobody(&["status"]));
    in_force.refuses(1, &[root], nobody(&["unload"]));
    let run = nobody(&["run"]);
    in_force.limiter.kill();
    in_force.refuses(1, &[root], run);
}

#[test]
fn addresses_instances_and_verbs_that_make_no_sense() {
    let Some(in_force) = InForce::new() else { return };
    let limiter = |arguments: &[&str]| in_force.limiter.command(arguments);
    in_force.refuses(2, &["192.0.2.256"], limiter(&["explain", "192.0.2.256"]));
    in_force.refuses(1, &["no-such-name.invalid"], limiter(&["explain", "no-such-name.invalid"]));
    in_force.refuses(2, &["refuse-all"], limiter(&["refuse-all"]));
    in_force.refuses(2, &["--jsom"], limiter(&["list", "--jsom"]));
    for name in ["", "..", "a/b", "../limiter"] {
        let mut attempt = Command::new(crate::BINARY);
        attempt.args(["--instance", name, "list"]);
        in_force.refuses(2, &["instance"], attempt);
    }
}

#[test]
fn an_instance_that_is_not_loaded() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = |arguments: &[&str]| {
        let mut command = Command::new(crate::BINARY);
        command.args(["--instance", &lab.name]).args(arguments);
        Outcome::of(command)
    };
    for verb in [&["list"] as &[&str], &["set", "smtp", "max_connections=5"], &["explain", "192.0.2.7"]] {
        one_sentence(&format!("limiter {verb:?}"), &limiter(verb), 1, &[&lab.name]);
    }
    assert_eq!(limiter(&["status"]).code, Some(3));
    assert_eq!(limiter(&["status", "--json"]).code, Some(3));
}
