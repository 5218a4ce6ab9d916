// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Refused clients where TLS starts at once: the clients that people use, and what they read.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use limiter_lab::client::{first_line, knock};
use limiter_lab::command::Outcome;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::{Answer, Family, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

/// The ports where TLS starts at once, with the classes of Python that connect to them.
const PORTS: [(u16, &str); 3] =
    [(465, "smtplib.SMTP_SSL"), (993, "imaplib.IMAP4_SSL"), (995, "poplib.POP3_SSL")];

/// Certificates as an administrator has them: in files that only root can read.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new certificate for the mail host, in `NAME/fullchain.pem` and `NAME/privkey.pem`.
    fn issue(&self, name: &str) {
        let names = [HOSTNAME.to_owned(), V4.host.to_string(), V6.host.to_string()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        fs::create_dir_all(self.path(name)).unwrap();
        self.write(&format!("{name}/fullchain.pem"), &certificate.pem());
        self.write(&format!("{name}/privkey.pem"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The key of the configuration that names these files.
    fn tls(&self, name: &str) -> String {
        let [certificate, key] =
            ["fullchain.pem", "privkey.pem"].map(|file| self.path(name).join(file).display().to_string());
        format!("tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n")
    }
}

/// One connection to each service, everybody is told at once, and as often as they ask.
fn config(tls: &str) -> String {
    format!("[defaults]\nmax_connections = 1\nwait = \"0s\"\n{tls}[ladder]\nreplies = \"none\"\n")
}

/// What Python's library raises for one more client of this family, which trusts only this certificate.
fn python(lab: &Lab, class: &str, family: Family, port: u16, trusted: &Path) -> String {
    let (module, _) = class.split_once('.').unwrap();
    let script = format!(
        "import {module}, ssl\n\
         context = ssl.create_default_context(cafile='{}')\n\
         try:\n    {class}('{}', {port}, {}=context, timeout=20)\n    print('it was let in')\n\
         except Exception as error:\n    print(repr(error))\n",
        trusted.display(),
        family.host,
        if module == "imaplib" { "ssl_context" } else { "context" },
    );
    let mut command = lab.client.command("python3");
    command.args(["-c", &script]);
    Outcome::of(command).stdout.trim_end().to_owned()
}

/// What `openssl s_client` prints, with these arguments.
fn openssl(lab: &Lab, family: Family, port: u16, arguments: &[&str]) -> String {
    let mut command = lab.client.command("openssl");
    command.args(["s_client", "-connect", &family.port(port).to_string()]).args(arguments);
    command.stdin(Stdio::null());
    let Outcome { stdout, stderr, .. } = Outcome::of(command);
    format!("{stdout}{stderr}")
}

/// As the library of each protocol reports it.
fn exception(port: u16, source: IpAddr) -> String {
    match port {
        465 => format!("SMTPConnectError(421, b'4.7.0 {HOSTNAME} {}')", Limiter::smtp_words(1, source)),
        993 => format!("error(b'* BYE [UNAVAILABLE] {}')", Limiter::words(1, source)),
        _ => format!("error_proto(b'-ERR [SYS/TEMP] {}')", Limiter::words(1, source)),
    }
}

/// The warnings of `limiter status`.
fn warnings(limiter: &Limiter) -> Vec<String> {
    let status = limiter.json(&["status"]);
    status["warnings"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn smtps_imaps_and_pop3s_clients_read_the_refusal_inside_tls_and_the_mail_daemon_never_hears_of_it() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    certificates.issue("live");
    let trusted = certificates.path("live/fullchain.pem");
    let sinks = PORTS.map(|(port, _)| Sink::start(&lab, port));
    let limiter = Limiter::start_with(&lab, &config(&certificates.tls("live")));
    let mut told = 0;
    for family in [V4, V6] {
        let source = family.source();
        for ((port, class), sink) in PORTS.into_iter().zip(&sinks) {
            let served = lab.served(source, family.port(port));
            assert_eq!(python(&lab, class, family, port, &trusted), exception(port, source), "port {port}");
            for version in ["-tls1_2", "-tls1_3"] {
                let trusted = trusted.to_str().unwrap();
                let arguments = [version, "-quiet", "-verify_return_error", "-CAfile", trusted];
                let said = openssl(&lab, family, port, &arguments);
                let words =
                    if port == 465 { Limiter::smtp_words(1, source) } else { Limiter::words(1, source) };
                assert!(said.contains(&words), "{version} to port {port}: {said}");
            }
            told += 3;
            assert_eq!(sink.tally(source).ever, 1, "the mail daemon has seen nobody else");
            drop(served);
            sockets::settled(&lab.host, &limiter, port);
        }
    }
    eventually("status counts them", SOON, || {
        same("inside TLS", &limiter.json(&["status"])["greeter"]["greeted_by_tls"], &told.into())
    });
    assert_eq!(warnings(&limiter), [""; 0]);
    let said = limiter.ok(&["status"]);
    assert!(said.contains(&format!("{told} refused clients got a reason")), "{said}");
}

#[test]
fn without_a_certificate_clients_print_at_once_that_the_server_denied_access() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    certificates.issue("other");
    let _sinks = PORTS.map(|(port, _)| Sink::start(&lab, port));
    let limiter = Limiter::start_with(&lab, &config(""));
    let mut alerts = 0;
    for family in [V4, V6] {
        for (port, class) in PORTS {
            let served = lab.served(family.source(), family.port(port));
            let raised = python(&lab, class, family, port, &certificates.path("other/fullchain.pem"));
            assert!(raised.contains("TLSV1_ALERT_ACCESS_DENIED"), "port {port}: {raised}");
            for version in ["-tls1_2", "-tls1_3"] {
                let said = openssl(&lab, family, port, &[version]);
                assert!(said.contains("tlsv1 alert access denied"), "{version} to port {port}: {said}");
            }
            alerts += 3;
            drop(served);
            sockets::settled(&lab.host, &limiter, port);
        }
    }
    eventually("status counts them", SOON, || {
        same("alerts", &limiter.json(&["status"])["greeter"]["alerts"], &alerts.into())
    });
    assert_eq!(warnings(&limiter), [""; 0], "nobody has asked for a certificate");
}

/// TLS 1.1 and older have ended (RFC 8996).
#[test]
fn a_client_of_an_older_tls_is_told_so() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    certificates.issue("live");
    let _sink = Sink::start(&lab, 993);
    let _limiter = Limiter::start_with(&lab, &config(&certificates.tls("live")));
    let _served = lab.served(V4.source(), V4.port(993));
    for version in ["-tls1", "-tls1_1"] {
        let said = openssl(&lab, V4, 993, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(said.contains("tlsv1 alert protocol version"), "{version}: {said}");
    }
}

#[test]
fn other_ports_speak_tls_where_the_configuration_says_so_and_none_where_it_says_none() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    certificates.issue("live");
    let trusted = certificates.path("live/fullchain.pem");
    let _sinks = [4650, 993].map(|port| Sink::start(&lab, port));
    let text = format!(
        "{}[service.submissions]\nports = [465, 4650]\ntls_ports = [4650]\n[service.imap]\ntls_ports = []\n",
        config(&certificates.tls("live"))
    );
    let limiter = Limiter::start_with(&lab, &text);
    let source = V4.source();
    let _served = [4650, 993].map(|port| lab.served(source, V4.port(port)));
    assert_eq!(python(&lab, "smtplib.SMTP_SSL", V4, 4650, &trusted), exception(465, source));
    let bye = format!("* BYE [UNAVAILABLE] {}", Limiter::words(1, source));
    assert_eq!(lab.answer(source, V4.port(993)), Answer::Line(bye));
    // A reload says what changes, and it does within a second.
    limiter.configure(&text.replace("tls_ports = [4650]", "tls_ports = [465]"));
    let said = limiter.ok(&["reload"]);
    assert!(said.contains("tls_ports"), "{said}");
    eventually("the port speaks plain text", SOON, || {
        // Before, it would wait for a hello.
        let client = lab.dial(source, V4.port(4650)).map_err(|error| error.to_string())?;
        let answer = first_line(&client, Duration::from_millis(200));
        same("answer", &answer, &Answer::Line(Limiter::smtp_reply(1, source)))
    });
}

#[test]
fn a_renewed_certificate_is_in_use_within_seconds_and_a_bad_one_is_a_warning_with_the_old_one_in_use() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    for name in ["1", "2"] {
        certificates.issue(name);
    }
    symlink("1", certificates.path("live")).unwrap();
    let _sink = Sink::start(&lab, 993);
    let limiter = Limiter::start_with(&lab, &config(&certificates.tls("live")));
    let _served = lab.served(V4.source(), V4.port(993));
    let hears = |name: &str| {
        python(&lab, "imaplib.IMAP4_SSL", V4, 993, &certificates.path(&format!("{name}/fullchain.pem")))
    };
    let refusal = exception(993, V4.source());
    assert_eq!(hears("1"), refusal);
    // As a tool for ACME renews: the link leads elsewhere.
    symlink("2", certificates.path("next")).unwrap();
    fs::rename(certificates.path("next"), certificates.path("live")).unwrap();
    eventually("the new one is in use", SOON, || same("heard", &hears("2"), &refusal));
    assert!(hears("1").contains("CERTIFICATE_VERIFY_FAILED"));

    fs::copy(certificates.path("2/privkey.pem"), certificates.path("good")).unwrap();
    for (bad, words) in [
        ("", "is empty"),
        ("no key", "contains no private key"),
        (
            &fs::read_to_string(certificates.path("1/privkey.pem")).unwrap(),
            "does not belong to the certificate",
        ),
    ] {
        certificates.write("2/privkey.pem", bad);
        eventually("status warns", SOON, || {
            let warnings = warnings(&limiter);
            let is_said = matches!(&warnings[..], [warning] if warning.contains(words) && warning.contains("stays in use"));
            if is_said { Ok(()) } else { Err(format!("{warnings:?}")) }
        });
        assert_eq!(hears("2"), refusal, "the old one is in use");
        assert!(limiter.log().contains(words), "{}", limiter.log());
        certificates.write("2/privkey.pem", &fs::read_to_string(certificates.path("good")).unwrap());
        eventually("all is well", SOON, || same("warnings", &warnings(&limiter), &Vec::new()));
    }
    fs::set_permissions(certificates.path("2/privkey.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    eventually("status names the mode of a key that anyone can read", SOON, || {
        let warnings = warnings(&limiter);
        let is_said = warnings.iter().any(|warning| warning.contains("the private key has mode 0644"));
        if is_said { Ok(()) } else { Err(format!("{warnings:?}")) }
    });
    assert_eq!(hears("2"), refusal, "and it is in use");
}

/// What is wrong with a certificate is no reason to leave the limits out.
#[test]
fn a_certificate_that_is_not_there_is_a_warning_and_the_limits_hold() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    let _sink = Sink::start(&lab, 993);
    let limiter = Limiter::start_with(&lab, &config(&certificates.tls("live")));
    let _served = lab.served(V4.source(), V4.port(993));
    let warnings = warnings(&limiter);
    assert!(
        matches!(&warnings[..], [warning] if warning.contains("live/fullchain.pem does not exist")),
        "{warnings:?}"
    );
    let said = openssl(&lab, V4, 993, &[]);
    assert!(said.contains("tlsv1 alert access denied"), "{said}");
    // It comes later, as the first one of a new host does.
    certificates.issue("live");
    let trusted = certificates.path("live/fullchain.pem");
    eventually("it is in use", SOON, || {
        let refusal = exception(993, V4.source());
        same("heard", &python(&lab, "imaplib.IMAP4_SSL", V4, 993, &trusted), &refusal)
    });
}

/// A client without a place waits, has said hello meanwhile, and is told why by a socket that the daemon makes for it.
#[test]
fn who_has_waited_is_told_inside_tls() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let certificates = Certificates::new();
    certificates.issue("live");
    let _sink = Sink::start(&lab, 993);
    let text = config(&certificates.tls("live")).replace("\"0s\"", "\"1s\"");
    let limiter = Limiter::start_with(&lab, &text);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("live/fullchain.pem")).unwrap()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap();
    let tls = Arc::new(tls.with_root_certificates(roots).with_no_client_auth());
    for family in [V4, V6] {
        let (source, imaps) = (family.source(), family.port(993));
        lab.deafen(source);
        let clients: Vec<TcpStream> = (0..2).map(|_| lab.client.run(|| knock(source, imaps))).collect();
        eventually("the SYNs are there", SOON, || {
            same("half open", &sockets::half_open(&lab.host, 993).len(), &2)
        });
        lab.undeafen(source);
        // Who is served hears the mail daemon, which speaks no TLS here: that is not the one that waits.
        let is_served =
            |client: &TcpStream| matches!(first_line(client, Duration::from_millis(100)), Answer::Line(_));
        sockets::agree(&lab.host, &limiter, ("imap", 993), source, 1);
        let (served, mut waiting): (Vec<_>, Vec<_>) = clients.into_iter().partition(is_served);
        assert_eq!((served.len(), waiting.len()), (1, 1));
        let mut client = waiting.remove(0);
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        let name = ServerName::try_from(HOSTNAME).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&tls), name).unwrap();
        let mut text = String::new();
        rustls::Stream::new(&mut connection, &mut client).read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("* BYE [UNAVAILABLE] {}\r\n", Limiter::words(1, source)));
        drop(served);
        sockets::settled(&lab.host, &limiter, 993);
    }
}
