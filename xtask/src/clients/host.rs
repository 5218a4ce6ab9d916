// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail host with its limiter, and the client host, which holds what it may.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
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
const PORTS: [u16; 7] = [25, 587, 465, 143, 993, 110, 995];

/// Its services, whose connections are limited together; each with the port where they are held.
const SERVICES: [(&str, u16); 5] =
    [("smtp", 25), ("submission", 587), ("submissions", 465), ("imap", 143), ("pop3", 110)];

/// Within this the other side of the wire answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the mail host calls itself.
const NAME: &str = "mx.example.net";

/// The file of its certificate.
const CERTIFICATE: &str = "certificate.pem";

/// A mail host, and a client that holds what it may there. In the order in which they end.
pub struct Full {
    _held: Vec<TcpStream>,
    _limiter: Daemon,
    _sinks: Vec<Sink>,
    _host: Namespace,
    files: TempDir,
}

impl Full {
    /// Has the client in this namespace hold what it may at a mail host of its own, whose limiter has a certificate or
    /// none; all names start with `name`.
    ///
    /// # Errors
    ///
    /// When a part of it cannot be made.
    pub fn new(
        client: &Namespace,
        name: &str,
        limiter: &Path,
        certificate: bool,
        config: &str,
    ) -> Result<Self> {
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
        let (ca, key) = make_certificate(files.path())?;
        let tls = if certificate {
            format!("[defaults.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", ca.display(), key.display())
        } else {
            String::new()
        };
        let text = format!(
            "hostname = \"{NAME}\"\n[ladder]\nreplies = \"none\"\n{config}\n{tls}{}",
            SERVICES.map(|(service, _)| format!("[service.{service}]\nmax_connections = {LIMIT}\n")).concat()
        );
        fs::write(&file, text)?;
        let arguments = ["--netns".as_ref(), netns.as_os_str(), "--config".as_ref(), file.as_os_str()];
        let launch = Command::new(limiter);
        let daemon = Daemon::start(limiter, launch, name, &arguments, files.path().join("log"))?;
        let mut held = Vec::new();
        for (_, port) in SERVICES {
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
            let ca = self.files.path().join(CERTIFICATE).display().to_string();
            let text = text.replace("{host}", &HOST.to_string()).replace("{dir}", &dir).replace("{ca}", &ca);
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
            // From the packages whose versions are told.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
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
        let code = output.status.code().filter(|_| !case.draws && !case.has_windows);
        Ok(Seen { client: case.client, port: case.port, way: case.way, lines, code })
    }
}

/// The files of a certificate for the mail host, which nobody but itself has signed, and of its key.
fn make_certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join("key.pem"));
    let config = folder.join("openssl.cnf");
    // A client trusts it for what it is, not as an authority. Some look for the address among the names.
    let text = format!(
        "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n[name]\nCN = {NAME}\n\
         [extensions]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:{NAME},DNS:{HOST},IP:{HOST}\n"
    );
    fs::write(&config, text)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl
        .args(["-days", "2", "-config"])
        .arg(config)
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key);
    let output = openssl.stdin(Stdio::null()).output().context("cannot start openssl")?;
    if !output.status.success() {
        bail!("openssl makes no certificate:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((certificate, key))
}
