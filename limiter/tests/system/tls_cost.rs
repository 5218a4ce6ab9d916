// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a refusal inside TLS costs, beside Dovecot's own, in one run and by turns: processor time for each client, with an
//! ECDSA and with an RSA key.
//!
//! At port 993 the limiter refuses, at 1993, which it does not protect, the same Dovecot does: its
//! `mail_max_userip_connections` is one connection, too. A few clients, which shows that both say what they should; as many
//! as `LIMITER_REPLIES` says show the figures (`cargo xtask replies`). Nothing depends on these.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::dovecot;
use limiter_lab::cgroup::{self, Cgroup};
use limiter_lab::command::Outcome;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::{Lab, Limiter, SOON, V4, V6, eventually, let_time_pass, say};

/// Of each kind, in a suite.
const CLIENTS: u32 = 30;
/// Turns.
const ROUNDS: u32 = 5;
/// Between two clients: the budget of handshakes is 200 a second.
const PAUSE: Duration = Duration::from_millis(8);

/// Where Dovecot refuses by itself.
const UNPROTECTED: u16 = 1993;
const IMAPS: u16 = 993;

/// Keys, as `openssl req` makes them.
const KEYS: [(&str, &[&str]); 2] = [
    ("ECDSA P-256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("RSA-2048", &["-newkey", "rsa:2048"]),
];

type Session = StreamOwned<ClientConnection, TcpStream>;

/// A certificate of the mail host for itself, in files of `dir`.
fn issue(dir: &Path, key: &[&str]) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "7", "-subj", "/CN=mx.example.net"]);
    openssl.args([
        "-addext",
        &format!("subjectAltName=DNS:{HOSTNAME}"),
        "-addext",
        "basicConstraints=CA:FALSE",
    ]);
    openssl.args(key).arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("certificate.pem"));
    let made = Outcome::of(openssl);
    assert_eq!(made.code, Some(0), "{made:?}");
}

/// A client that trusts it, and makes a whole handshake each time.
fn client(dir: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("certificate.pem")).unwrap()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap();
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.resumption = Resumption::disabled();
    Arc::new(tls)
}

/// The session of a client, in the calling thread's network namespace.
fn connect(tls: &Arc<ClientConfig>, to: SocketAddr) -> Session {
    let stream = TcpStream::connect_timeout(&to, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let name = ServerName::try_from(HOSTNAME).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(tls), name).unwrap(), stream)
}

/// Reads until what was read is `whole`, or the connection ends.
fn read_until(session: &mut Session, whole: impl Fn(&str) -> bool) -> String {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&heard);
        if whole(&text) {
            return text.into_owned();
        }
        match session.read(&mut buffer) {
            Ok(0) => return text.into_owned(),
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return text.into_owned(),
            Err(error) => panic!("after {text:?}: {error}"),
        }
    }
}

/// Logs in; what is said to that: the line with the command's tag, and those before it, of which there may be none.
fn log_in(session: &mut Session) -> String {
    let greeting = read_until(session, |text| text.ends_with("\r\n"));
    assert!(greeting.starts_with("* OK"), "{greeting}");
    session.write_all(b"a LOGIN anna secret\r\n").unwrap();
    let is_answered = |text: &str| text.lines().any(|line| line.starts_with("a ")) && text.ends_with("\r\n");
    read_until(session, is_answered)
}

/// Refused by the limiter.
fn refused_by_limiter(tls: &Arc<ClientConfig>, to: SocketAddr) {
    let mut session = connect(tls, to);
    let said = read_until(&mut session, |_| false);
    assert!(said.starts_with("* BYE [UNAVAILABLE]") && said.contains("oo many connections"), "{said}");
}

/// Refused by Dovecot.
fn refused_by_dovecot(tls: &Arc<ClientConfig>, to: SocketAddr) {
    let said = log_in(&mut connect(tls, to));
    assert!(said.contains("Maximum number of connections"), "{said}");
}

/// Moves a process, and all of its threads, to a cgroup.
fn enter(group: &Cgroup, pid: u64) {
    cgroup::enter(group.path(), &pid.to_string()).unwrap();
}

/// The processor time of Dovecot's login processes, in microseconds.
fn login_us(group: &Cgroup) -> u64 {
    let pids = fs::read_to_string(group.path().join("cgroup.procs")).unwrap();
    let is_login = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "imap-login")
    };
    let ns = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    pids.lines().filter(is_login).map(ns).sum::<u64>() / 1000
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_refusal_inside_tls_is_told_by_the_limiter_and_by_dovecot_and_both_are_measured() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let clients = std::env::var("LIMITER_REPLIES").map_or(CLIENTS, |set| set.parse::<u32>().unwrap() / 50);
    let each = clients.div_ceil(ROUNDS);
    for (key, arguments) in KEYS {
        let dir = tempfile::tempdir().unwrap();
        issue(dir.path(), arguments);
        let shown = |file: &str| dir.path().join(file).display().to_string();
        let (certificate, private) = (shown("certificate.pem"), shown("key.pem"));
        let ours = Cgroup::new(&format!("{}-ours", lab.host.name())).unwrap();
        let theirs = Cgroup::new(&format!("{}-theirs", lab.host.name())).unwrap();
        let limiter = Limiter::start_with(
            &lab,
            &format!(
                "[defaults]\nmax_connections = 1\nwait = \"0s\"\ntls = {{ certificate = \"{certificate}\", key = \
                 \"{private}\" }}\n[ladder]\nreplies = \"none\"\n"
            ),
        );
        let greeter = || limiter.json(&["status"])["greeter"]["pid"].as_u64().filter(|pid| *pid != 0);
        eventually("there is a greeter", SOON, || greeter().map(|_| ()).ok_or("not yet".to_owned()));
        enter(&ours, limiter.pid().unwrap().into());
        enter(&ours, greeter().unwrap());
        let _dovecot = dovecot::start_with_tls(&lab, &theirs, dir.path(), [IMAPS, UNPROTECTED]);
        let tls = client(dir.path());
        let mut spent: [Vec<f64>; 3] = Default::default();
        lab.client.run(|| {
            let held = [V4, V6].map(|family| {
                let mut session = connect(&tls, family.port(IMAPS));
                let said = log_in(&mut session);
                assert!(said.contains("a OK"), "{said}");
                session
            });
            for round in 0..ROUNDS {
                let family = if round % 2 == 0 { V4 } else { V6 };
                let turn = |group: &Cgroup, refused: fn(&Arc<ClientConfig>, SocketAddr), port| {
                    let (all, login) = (group.cpu_us().unwrap(), login_us(group));
                    for _ in 0..each {
                        refused(&tls, family.port(port));
                        let_time_pass(PAUSE, "the budget of handshakes");
                    }
                    [group.cpu_us().unwrap() - all, login_us(group) - login]
                        .map(|us| f64::from(u32::try_from(us).unwrap()) / f64::from(each))
                };
                let [us, _] = turn(&ours, refused_by_limiter, IMAPS);
                let [all, login] = turn(&theirs, refused_by_dovecot, UNPROTECTED);
                for (values, us) in spent.iter_mut().zip([us, all, login]) {
                    values.push(us);
                }
            }
            drop(held);
        });
        let [ours_us, dovecot_us, login_us] = spent.map(median);
        say(&format!(
            "{key}, {clients} clients each, CPU of a refusal inside TLS (median of {ROUNDS} turns): limiter {ours_us:.0} us \
             (daemon and greeter), Dovecot {dovecot_us:.0} us, of which its login process {login_us:.0} us"
        ));
        drop(limiter);
    }
}
