// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail host with its limiter, and the client host, which holds what it may.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use limiter_lab::{Answer, Namespace, Sink, answer, daemon::Daemon, lab::WIRE};
use tempfile::TempDir;

use super::{
    case::{Case, Seen},
    screen,
};
use crate::senders::setting::{CLIENT, HOST};

/// What the client may hold.
const LIMIT: usize = 8;

/// Where it connects to.
const PORTS: [u16; 4] = [25, 587, 143, 110];

/// Within this the other side of the wire answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// A mail host, and a client that holds what it may there. In the order in which they end.
pub struct Full {
    _held: Vec<TcpStream>,
    _limiter: Daemon,
    _sinks: Vec<Sink>,
    _host: Namespace,
    files: TempDir,
}

impl Full {
    /// Has the client in this namespace hold what it may at a mail host of its own; all names start with `name`.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made.
    pub fn new(client: &Namespace, name: &str, limiter: &Path, config: &str) -> Result<Self> {
        let host = Namespace::new(format!("{name}-host"))?;
        client.veth_to(&host, WIRE)?;
        client.connect(WIRE, CLIENT.into(), HOST.into())?;
        host.connect(WIRE, HOST.into(), CLIENT.into())?;
        let listen = |port| -> Result<Sink> {
            let listener = host.run(|| TcpListener::bind((HOST, port)));
            Ok(Sink::serve(listener.with_context(|| format!("cannot listen on port {port}"))?))
        };
        let sinks = PORTS.into_iter().map(listen).collect::<Result<_>>()?;
        let files = tempfile::tempdir().context("cannot make a directory for files")?;
        let (file, netns) = (files.path().join("limiter.toml"), host.path());
        let text = format!(
            "hostname = \"mx.example.net\"\n[ladder]\nreplies = \"none\"\n{config}\n{}",
            ["smtp", "submission", "imap", "pop3"]
                .map(|service| format!("[service.{service}]\nmax_connections = {LIMIT}\n"))
                .concat()
        );
        fs::write(&file, text)?;
        let arguments = ["--netns".as_ref(), netns.as_os_str(), "--config".as_ref(), file.as_os_str()];
        let launch = Command::new(limiter);
        let daemon = Daemon::start(limiter, launch, name, &arguments, files.path().join("log"))?;
        let mut held = Vec::new();
        for port in PORTS {
            let to = SocketAddr::new(HOST.into(), port);
            for _ in 0..LIMIT {
                match client.run(|| answer(CLIENT.into(), to, PATIENCE)) {
                    (Some(connection), Answer::Line(_)) => held.push(connection),
                    (_, answer) => bail!("{to} is not served: {answer:?}"),
                }
            }
        }
        Ok(Self { _held: held, _limiter: daemon, _sinks: sinks, _host: host, files })
    }

    /// What the user of a client sees.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn see(&self, client: &Namespace, case: &Case) -> Result<Seen> {
        let folder = tempfile::tempdir_in(self.files.path())?;
        let filled = |text: &str| {
            let dir = folder.path().display().to_string();
            let text = text.replace("{host}", &HOST.to_string()).replace("{dir}", &dir);
            text.replace("{port}", &case.port.to_string())
        };
        for (name, text) in &case.files {
            fs::write(folder.path().join(name), filled(text))?;
            // Some do not read a file with a password that others can read.
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(folder.path().join(name), private)?;
        }
        let line = filled(&case.line);
        let mut command = client.command("timeout");
        command.arg("60");
        if case.draws {
            command.args(["script", "-qec", &line, "/dev/null"]);
        } else {
            command.args(["sh", "-c", &line]);
        }
        command
            .env("HOME", folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .current_dir(folder.path());
        let output =
            command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", case.client))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let said = if case.draws { screen::lines(&said) } else { said.into_owned() };
        let here = folder.path().display().to_string();
        let lines = case.kept(&said.replace(&here, "~"));
        let code = output.status.code().filter(|_| !case.draws);
        Ok(Seen { client: case.client, port: case.port, way: case.way, lines, code })
    }
}
