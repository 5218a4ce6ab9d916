// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Clients as people use them: Python's mail libraries, and swaks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use limiter_lab::Lab;
use limiter_lab::command::Outcome;
use limiter_lab::lab::Family;

/// Sessions of Python's `smtplib`, `imaplib` and `poplib`, in one process.
pub struct Python {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    pub fn start(lab: &Lab) -> Self {
        let mut command = lab.client.command("python3");
        command.args(["-c", include_str!("mail_client.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Python is installed");
        let requests = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, requests, answers }
    }

    #[track_caller]
    fn request(&mut self, line: &str) -> Value {
        writeln!(self.requests, "{line}").expect("the client reads its requests");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the client answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {error} in {answer:?}"))
    }

    /// A session that has greeted, logged in and looked around: its number, or the exception the library
    /// raised.
    #[track_caller]
    pub fn open(&mut self, protocol: &str, source: IpAddr, host: IpAddr) -> Result<u64, String> {
        let answer = self.request(&format!("open {protocol} {source} {host}"));
        answer["id"].as_u64().ok_or_else(|| answer["error"].as_str().unwrap_or("no answer").to_owned())
    }

    /// Fails if the session no longer works.
    #[track_caller]
    pub fn use_session(&mut self, id: u64) {
        let answer = self.request(&format!("use {id}"));
        assert!(answer["said"].is_string(), "session {id} no longer works: {answer}");
    }

    /// Says goodbye as the protocol has it.
    #[track_caller]
    pub fn close(&mut self, id: u64) {
        let answer = self.request(&format!("close {id}"));
        assert!(answer["said"].is_string(), "session {id} does not close in peace: {answer}");
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a mail with swaks.
pub fn swaks(lab: &Lab, family: Family) -> Outcome {
    let mut command = lab.client.command("swaks");
    command.args(["--server", &family.host.to_string(), "--local-interface", &family.source().to_string()]);
    command.args([
        "--from",
        "someone@example.org",
        "--to",
        "someone@mx.example.net",
        "--helo",
        "client.example.org",
    ]);
    command.args(["--timeout", "20"]);
    Outcome::of(command)
}
