// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter import` as it is typed, and with the real Postfix and Dovecot where they are installed. It
//! needs no root, and nothing in the kernel.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(path)
}

fn limiter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limiter"));
    command.arg("import").args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Whether it is on the PATH, or where root's programs are.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file())
}

/// Whether it is installed, with a word to whoever ran the tests where it is not.
fn has(program: &str) -> bool {
    let installed = is_installed(program);
    if !installed {
        limiter_lab::skip(&format!("{program} is not installed"));
    }
    installed
}

/// What is said of the services, without comments; and without prefixes, which Postfix has since 3.8.
fn keys(toml: &str) -> Vec<&str> {
    let is_key = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.contains("_prefix = ");
    toml.lines().filter(is_key).collect()
}

#[test]
fn the_real_postfix_gives_what_its_saved_output_gives() {
    if !has("postconf") {
        return;
    }
    for name in ["default", "mx", "submission", "postscreen"] {
        let output =
            limiter(&["--postfix"]).env("MAIL_CONFIG", fixture(&format!("postfix/{name}"))).output().unwrap();
        let (toml, errors) = said(&output);
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{name}");
        let expected = fs::read_to_string(fixture(&format!("postfix/{name}/expected.toml"))).unwrap();
        assert_eq!(keys(&toml), keys(&expected), "{name}");
    }
}

#[test]
fn the_real_dovecot_gives_what_its_saved_output_gives() {
    if !has("doveconf") {
        return;
    }
    for name in ["performance", "plain", "proxies"] {
        let file = fixture(&format!("dovecot/{name}/dovecot.conf"));
        let output = limiter(&["--dovecot"]).env("CONFIG_FILE", file).output().unwrap();
        let (toml, errors) = said(&output);
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{name}");
        let expected = fs::read_to_string(fixture(&format!("dovecot/{name}/expected.toml"))).unwrap();
        assert_eq!(keys(&toml), keys(&expected), "{name}");
    }
}

#[test]
fn the_real_dovecot_gives_the_same_by_what_differs_from_its_defaults() {
    if !has("doveconf") {
        return;
    }
    for name in ["performance", "plain", "proxies"] {
        let file = fixture(&format!("dovecot/{name}/dovecot.conf"));
        let changed = Command::new("doveconf").arg("-n").arg("-c").arg(&file).stdout(Stdio::piped()).spawn();
        let mut changed = changed.unwrap();
        let mut command = limiter(&["--dovecot=-"]);
        let output = command.stdin(changed.stdout.take().unwrap()).output().unwrap();
        assert!(changed.wait().unwrap().success(), "{name}");
        let (toml, errors) = said(&output);
        assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{name}");
        let expected = fs::read_to_string(fixture(&format!("dovecot/{name}/expected.toml"))).unwrap();
        assert_eq!(keys(&toml), keys(&expected), "{name}");
    }
}

#[test]
fn a_text_that_is_cut_is_one_sentence_and_the_others_are_printed() {
    let exim = format!("--exim={}", fixture("exim/default/output.txt").display());
    let mut command = limiter(&["--dovecot=-", &exim]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"ssl = no\n}\n}\nprotocols = imap pop3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let (toml, errors) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        errors,
        "limiter: cannot import Dovecot: standard input: the text seems incomplete: line 2 closes a block that no line opens; save the complete output of `doveconf`.\n"
    );
    assert!(toml.contains("[service.smtp]") && !toml.contains("[service.imap]"), "{toml}");
    assert!(toml.contains("# cannot import Dovecot: "), "{toml}");
}

#[test]
fn saved_output_comes_from_files_and_from_standard_input() {
    let exim = fixture("exim/default/output.txt");
    let dovecot = format!("--dovecot={}", fixture("dovecot/default/changed.txt").display());
    let mut command = limiter(&["--exim=-", &dovecot]);
    let output = command.stdin(File::open(exim).unwrap()).output().unwrap();
    let (toml, errors) = said(&output);
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""));
    assert!(toml.starts_with("# limiter: imported from Exim 4.96 and Dovecot 2.3.19.1 by"), "{toml}");
    assert!(toml.contains("\n[service.smtp]\n") && toml.contains("\n[service.imap]\n"), "{toml}");
}

#[test]
fn one_that_is_not_installed_is_one_sentence_and_nothing_found_is_a_failure() {
    if is_installed("exim") || is_installed("exim4") {
        return limiter_lab::skip("Exim is installed");
    }
    let output = limiter(&["--exim"]).output().unwrap();
    let (toml, errors) = said(&output);
    assert_eq!((output.status.code(), toml.as_str()), (Some(1), ""));
    assert_eq!(
        errors,
        "limiter: Exim is not installed: exim and exim4 not found.\nlimiter: found no limits of a mail daemon; give the saved output of its program, see `limiter help import`\n"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_one_sentence() {
    let wrong = fixture("exim/default/output.txt");
    for (argument, says) in [
        ("--postfix=/nonexistent".to_owned(), "cannot read /nonexistent: No such file"),
        (
            format!("--postfix={}", wrong.display()),
            "give the output of `postconf -x; postconf -M; postconf -P -x`",
        ),
        (format!("--dovecot={}", wrong.parent().unwrap().display()), "Is a directory"),
    ] {
        let output = limiter(&[&argument]).output().unwrap();
        let (toml, errors) = said(&output);
        assert_eq!((output.status.code(), toml.as_str()), (Some(1), ""), "{argument}");
        assert!(errors.lines().next().unwrap().contains(says), "{errors}");
    }
}

#[test]
fn one_daemon_alone_has_standard_input() {
    let output = limiter(&["--postfix=-", "--exim=-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        said(&output).1,
        "limiter: standard input can hold the settings of one daemon only; give the others as files\n"
    );
}

#[test]
fn a_daemon_whose_program_fails_is_one_sentence_and_the_others_are_printed() {
    if !has("postconf") {
        return;
    }
    let exim = format!("--exim={}", fixture("exim/default/output.txt").display());
    let mut command = limiter(&["--postfix", &exim]);
    let output = command.env("MAIL_CONFIG", fixture("exim/default")).output().unwrap();
    let (toml, errors) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("limiter: cannot import Postfix: "), "{errors}");
    assert!(errors.contains("main.cf: No such file or directory"), "{errors}");
    assert!(toml.contains("# cannot import Postfix: ") && toml.contains("[service.smtp]"), "{toml}");
}
