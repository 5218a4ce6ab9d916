// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter where TLS starts at once, with real handshakes. Certificates are files, as the daemon has them.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use super::{
    super::tests::{GROUNDS, LINE, PATIENCE, Running, SMTP, connect, eventually, start_with},
    *,
};
use crate::{
    config::{self, Config},
    greeter::{Bounds, Snapshot, Totals},
};

const NAME: &str = "mail.example.org";

/// A directory with certificates, and who keeps them.
pub struct Host {
    dir: tempfile::TempDir,
    ports: Ports,
    keeper: Keeper,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::default();
        let keeper = Keeper::new(ports.clone(), Totals::default(), dir.path().join("report")).unwrap();
        Self { dir, ports, keeper }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for these names in `FILE.pem`, and its key in `FILE.key`.
    fn certificate(&self, file: &str, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        self.write(file, &parameters(names), &key);
    }

    fn write(&self, file: &str, parameters: &CertificateParams, key: &KeyPair) {
        let certificate = parameters.self_signed(key).unwrap();
        self.file(&format!("{file}.pem"), &certificate.pem());
        self.file(&format!("{file}.key"), &key.serialize_pem());
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The keeper looks at the certificates of these files; at `port` TLS starts at once.
    fn round(&mut self, port: u16, files: &[&str], now: SystemTime) -> Report {
        self.round_of(&[("x", port, files)], now)
    }

    /// The same for these services.
    fn round_of(&mut self, services: &[(&str, u16, &[&str])], now: SystemTime) -> Report {
        let path = |file: &str, end: &str| self.path(&format!("{file}.{end}")).display().to_string();
        let pair = |file: &&str| {
            format!("{{ certificate = '{}', key = '{}' }}", path(file, "pem"), path(file, "key"))
        };
        let service = |(name, port, files): &(&str, u16, &[&str])| {
            let tls: Vec<String> = files.iter().map(pair).collect();
            let (ports, tls) = (format!("ports = [{port}]\ntls_ports = [{port}]"), tls.join(", "));
            format!("[service.{name}]\nprotocol = 'smtp'\n{ports}\ntls = [{tls}]\n")
        };
        let text: String = services.iter().map(service).collect();
        let Config { services, .. } = config::parse(&text, "x").unwrap();
        self.keeper.round(&services, now);
        Report::read(&self.path("report")).unwrap().unwrap()
    }

    /// A greeter with these certificates.
    fn greeter(&mut self, files: &[&str], bounds: Bounds) -> Running {
        start_with(
            Some(SMTP),
            Some(GROUNDS),
            |port| {
                self.round(port, files, SystemTime::now());
                self.ports.clone()
            },
            bounds,
        )
    }

    fn client(&self, file: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path(&format!("{file}.pem"))).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // As a browser would: nobody speaks that here.
        config.alpn_protocols = vec![b"imap".to_vec(), b"h2".to_vec()];
        Arc::new(config)
    }

    /// What a client hears that trusts only this certificate, and asks for this name.
    fn hears(&self, greeter: &Running, file: &str, name: &str) -> Result<String, String> {
        let config = self.client(file, &[&TLS13, &TLS12]);
        // A reset may come before its connect(2) has returned.
        let stream = TcpStream::connect(("127.0.0.1", greeter.port)).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(stream, &config, name).map(|(text, _)| text)
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).unwrap()
}

/// What a client hears to the end, which has to be a clean one, and how the handshake went.
fn ask(
    mut stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<(String, (ProtocolVersion, HandshakeKind)), String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut text = String::new();
    // Without the server's close_notify this is an error.
    rustls::Stream::new(&mut connection, &mut stream)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok((text, (connection.protocol_version().unwrap(), connection.handshake_kind().unwrap())))
}

const DENIED: &str = "received fatal alert: AccessDenied";

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_said_inside_tls_in_either_version_and_family() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let mut said = 0;
    for version in [&TLS12, &TLS13] {
        for (address, line) in
            [("127.0.0.1", LINE.to_owned()), ("::1", LINE.replace("127.0.0.1", "IPv6:::1"))]
        {
            let config = host.client("a", &[version]);
            let (text, (spoken, _)) = ask(connect(address, greeter.port), &config, NAME).unwrap();
            assert_eq!((text, spoken), (line, version.version));
            said += 1;
            greeter.counts(Snapshot { greeted: said, greeted_by_tls: said, ..Snapshot::default() });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_brings_a_ticket_and_costs_no_signature() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    for version in [&TLS12, &TLS13] {
        let config = host.client("a", &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (text, (_, how)) = ask(connect("127.0.0.1", greeter.port), &config, NAME).unwrap();
            assert_eq!((text.as_str(), how), (LINE, kind), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_the_client_gets_an_alert_and_a_clean_end() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&[], Bounds::default());
    assert_eq!(host.hears(&greeter, "a", NAME), Err(DENIED.to_owned()));
    greeter.counts(Snapshot { alerts: 1, ..Snapshot::default() });
    // Who says nothing hears it as well, and so does who says much before it listens.
    let silent = connect("127.0.0.1", greeter.port);
    let mut loud = connect("127.0.0.1", greeter.port);
    loud.write_all(&[b'x'; 2000]).unwrap();
    for mut client in [silent, loud] {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, REFUSED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let mut host = Host::new();
    for (file, names) in
        [("a", &["a.example.org"][..]), ("b", &["b.example.org", "*.example.net"]), ("c", &[NAME])]
    {
        host.certificate(file, names);
    }
    let greeter = host.greeter(&["a", "b", "c"], Bounds::default());
    for (file, name) in [
        ("a", "a.example.org"),
        ("b", "b.example.org"),
        ("b", "imap.example.net"),
        ("b", "IMAP.Example.NET"),
        ("c", NAME),
    ] {
        assert_eq!(host.hears(&greeter, file, name).as_deref(), Ok(LINE), "{name}");
    }
    // For another name, and for none at all, it is the first: a client that insists on names says so itself.
    for other in ["other.example.org", "127.0.0.1"] {
        let error = host.hears(&greeter, "a", other).unwrap_err();
        assert!(error.contains("not valid for"), "{other}: {error}");
    }
    let error = host.hears(&greeter, "c", "a.b.example.net").unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_is_answered_and_let_go() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..Bounds::default() });
    for said in [
        &b"EHLO client.example.org\r\n"[..],
        b"a LOGIN anna secret\r\n",
        &[0; 300],
        &[22, 3, 1, 0xff, 0xff, 1],
    ] {
        let mut client = TcpStream::connect(("127.0.0.1", greeter.port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(said).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        let end = client.read_to_end(&mut bytes);
        // An alert where it can be told that this is no TLS.
        assert!(end.is_err() || bytes.is_empty() || bytes[0] == 21, "{bytes:?}");
        drop(client);
        eventually("the one seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_says_hello_gets_an_alert_in_time_and_gives_its_seat_back() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshake_time: Duration::from_millis(300), ..Bounds::default() };
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..bounds });
    let begun = Instant::now();
    let mut silent = connect("127.0.0.1", greeter.port);
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, REFUSED);
    assert!(begun.elapsed() >= bounds.handshake_time, "{:?}", begun.elapsed());
    greeter.counts(Snapshot { failed_handshakes: 1, ..Snapshot::default() });
    eventually("its seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
}

/// A client that has the only seat: the one before may have it for a moment more, and then this one is reset.
fn seated(greeter: &Running) -> TcpStream {
    let mut seated = None;
    eventually("it has the seat", || {
        let Ok(client) = TcpStream::connect(("127.0.0.1", greeter.port)) else { return false };
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let waits = client.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        seated = waits.then_some(client);
        waits
    });
    seated.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_hello_and_nothing_more_or_drips_or_floods_is_let_go_in_time() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshake_time: Duration::from_millis(500), ..Bounds::default() };
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..bounds });
    let hello = || {
        let name = ServerName::try_from(NAME.to_owned()).unwrap();
        let mut connection = ClientConnection::new(host.client("a", &[&TLS13]), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    };
    let is_free =
        || eventually("its seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
    // Never reads.
    let mut deaf = seated(&greeter);
    deaf.write_all(&hello()).unwrap();
    is_free();
    // Says one byte after the other.
    let mut slow = seated(&greeter);
    for byte in hello() {
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::yield_now();
    }
    is_free();
    // Says a megabyte of what begins like a hello.
    let mut flood = seated(&greeter);
    let record = [&[22, 3, 1, 0x40, 0, 1, 0x00, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
    while flood.write_all(&record).is_ok() {}
    is_free();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_before_it_listens_hears_the_reason() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let name = ServerName::try_from(NAME.to_owned()).unwrap();
    let mut connection = ClientConnection::new(host.client("a", &[&TLS13]), name).unwrap();
    let mut stream = connect("127.0.0.1", greeter.port);
    connection.writer().write_all(b"EHLO client.example.org\r\n").unwrap();
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut stream).unwrap();
    }
    let mut text = String::new();
    rustls::Stream::new(&mut connection, &mut stream).read_to_string(&mut text).unwrap();
    assert_eq!(text, LINE);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_budget_the_client_gets_an_alert_and_a_moment_later_the_reason() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshakes_per_second: 5, handshakes_at_once: 1, ..Bounds::default() };
    let greeter = host.greeter(&["a"], bounds);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE));
    assert_eq!(host.hears(&greeter, "a", NAME), Err(DENIED.to_owned()));
    greeter.counts(Snapshot { greeted: 1, greeted_by_tls: 1, over_budget: 1, ..Snapshot::default() });
    eventually("there is budget", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_never_has_all_handshakes() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter =
        host.greeter(&["a"], Bounds { handshakes: 4, handshakes_per_source: 2, ..Bounds::default() });
    let _silent: Vec<TcpStream> = (0..2).map(|_| connect("127.0.0.1", greeter.port)).collect();
    eventually("its handshakes go on", || host.hears(&greeter, "a", NAME) == Err(DENIED.to_owned()));
    let config = host.client("a", &[&TLS13]);
    assert!(ask(connect("::1", greeter.port), &config, NAME).is_ok(), "another source has its reply");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_told_to_stop_it_waits_for_no_handshake_longer_than_for_others() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds =
        Bounds { time: Duration::from_millis(200), handshake_time: 4 * PATIENCE, ..Bounds::default() };
    let Running { port, stop, serve, .. } = host.greeter(&["a"], bounds);
    let mut silent = connect("127.0.0.1", port);
    // Who comes later is told, so this one was accepted.
    let config = host.client("a", &[&TLS13]);
    assert!(ask(connect("127.0.0.1", port), &config, NAME).is_ok());
    stop.send(true).unwrap();
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, REFUSED);
    drop(silent);
    tokio::time::timeout(PATIENCE, serve).await.unwrap().unwrap().unwrap();
}

/// Rounds of the keeper: a change is read once it has been seen twice, so that nobody reads half of one.
fn renewed(host: &mut Host, port: u16, files: &[&str]) -> Report {
    host.round(port, files, SystemTime::now());
    host.round(port, files, SystemTime::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_one_that_cannot_be_used_leaves_the_old_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let port = greeter.port;
    fs::copy(host.path("a.pem"), host.path("old.pem")).unwrap();
    let stays = |host: &Host| assert_eq!(host.hears(&greeter, "old", NAME).as_deref(), Ok(LINE));
    let large = "x".repeat(10 << 20);
    for (file, text, words) in [
        ("a.pem", "", "DIR/a.pem is empty; write the PEM file again"),
        (
            "a.pem",
            large.as_str(),
            "DIR/a.pem is larger than 64 KiB, so it is not a PEM file of a certificate or key; give the path of the right file",
        ),
        (
            "a.pem",
            "no certificate",
            "DIR/a.pem contains no certificate that can be read; give the certificate and its chain in PEM form",
        ),
        ("a.key", "", "DIR/a.key is empty; write the PEM file again"),
        (
            "a.key",
            "no key",
            "DIR/a.key contains no private key that can be read; give the key in PEM form, without a passphrase",
        ),
    ] {
        let before = fs::read_to_string(host.path(file)).unwrap();
        host.file(file, text);
        let dir = host.dir.path().display().to_string();
        let report = renewed(&mut host, port, &["a"]);
        let [said] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
        let expected = words.replace("DIR", &dir);
        assert!(
            said.starts_with(&format!("x: {expected}; the certificate from before, which expires on ")),
            "{said}"
        );
        assert!(said.ends_with("stays in use"), "{said}");
        stays(&host);
        host.file(file, &before);
        assert_eq!(renewed(&mut host, port, &["a"]).warnings, [""; 0]);
    }
    // The new certificate comes before its key, as with many tools.
    host.certificate("b", &[NAME]);
    fs::rename(host.path("b.pem"), host.path("a.pem")).unwrap();
    let report = renewed(&mut host, port, &["a"]);
    assert!(
        report.warnings[0].contains("a.key does not belong to the certificate in"),
        "{:?}",
        report.warnings
    );
    stays(&host);
    fs::rename(host.path("b.key"), host.path("a.key")).unwrap();
    assert_eq!(renewed(&mut host, port, &["a"]).warnings, [""; 0]);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE), "the new one is in use");
    assert!(host.hears(&greeter, "old", NAME).is_err(), "the old one is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_that_leads_to_another_certificate_is_followed() {
    let mut host = Host::new();
    for version in ["1", "2"] {
        fs::create_dir(host.path(version)).unwrap();
        host.certificate(&format!("{version}/a"), &[NAME]);
    }
    symlink("1", host.path("live")).unwrap();
    let greeter = host.greeter(&["live/a"], Bounds::default());
    assert_eq!(host.hears(&greeter, "1/a", NAME).as_deref(), Ok(LINE));
    symlink("2", host.path("next")).unwrap();
    fs::rename(host.path("next"), host.path("live")).unwrap();
    assert_eq!(renewed(&mut host, greeter.port, &["live/a"]).warnings, [""; 0]);
    assert_eq!(host.hears(&greeter, "2/a", NAME).as_deref(), Ok(LINE));
    assert!(host.hears(&greeter, "1/a", NAME).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_used_only_while_it_is_valid() {
    let mut host = Host::new();
    let day = |year| SystemTime::from(date_time_ymd(year, 6, 1));
    let mut parameters = parameters(&[NAME]);
    (parameters.not_before, parameters.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(2031, 1, 1));
    host.write("a", &parameters, &KeyPair::generate().unwrap());
    let early = host.round(2465, &["a"], day(2029));
    let words = "is not valid before 2030-01-01 00:00:00 UTC; check the clock of this host; until then, its refused \
                 clients get a TLS alert instead of a reason";
    assert!(early.warnings[0].ends_with(words), "{:?}", early.warnings);
    assert!(matches!(host.ports.at(2465), Speaks::Alert));
    // Nobody touches the file.
    let report = host.round(2465, &["a"], day(2030));
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(report.certificates[0].expires.as_deref(), Some("2031-01-01 00:00:00 UTC"));
    assert_eq!(report.certificates[0].names, [NAME]);
    assert!(matches!(host.ports.at(2465), Speaks::Tls(_)));
    let soon = host.round(2465, &["a"], SystemTime::from(date_time_ymd(2030, 12, 30)));
    assert!(
        soon.warnings[0].ends_with("expires on 2031-01-01 00:00:00 UTC; renew it"),
        "{:?}",
        soon.warnings
    );
    let late = host.round(2465, &["a"], day(2031));
    assert!(
        late.warnings[0].contains("expired on 2031-01-01 00:00:00 UTC and is still in use"),
        "{:?}",
        late.warnings
    );
    assert!(matches!(host.ports.at(2465), Speaks::Tls(_)), "its clients would be told nothing else");
    let mut another = Host::new();
    another.write("a", &parameters, &KeyPair::generate().unwrap());
    let expired = another.round(2465, &["a"], day(2031));
    assert!(
        expired.warnings[0].contains("expired on 2031-01-01 00:00:00 UTC; renew it"),
        "{:?}",
        expired.warnings
    );
    assert!(matches!(another.ports.at(2465), Speaks::Alert), "none is used that was never valid here");
}

#[test]
fn a_key_that_others_can_read_is_used_with_a_warning_of_its_mode() {
    if !nix::unistd::geteuid().is_root() {
        return limiter_lab::skip("a key belongs to root");
    }
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let key = host.path("a.key");
    let said = |host: &mut Host| renewed(host, 2465, &["a"]).warnings;
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let path = key.display();
        let expected = format!(
            "{path}: the private key has mode {mode:04o}, but only root may read it; run `chmod 600 {path}`"
        );
        assert_eq!(said(&mut host), [expected]);
        assert!(matches!(host.ports.at(2465), Speaks::Tls(_)));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    assert_eq!(said(&mut host), [""; 0]);
    std::os::unix::fs::chown(&key, Some(65_534), None).unwrap();
    let warnings = said(&mut host);
    assert!(warnings[0].contains("the private key belongs to user 65534 (mode 0400)"), "{warnings:?}");
}

#[test]
fn a_warning_of_who_else_has_a_say_comes_and_goes_with_the_modes_on_the_way_to_the_files() {
    if !nix::unistd::geteuid().is_root() {
        return limiter_lab::skip("a key belongs to root");
    }
    let mut host = Host::new();
    fs::create_dir(host.path("live")).unwrap();
    host.certificate("live/a", &[NAME]);
    let said = |host: &mut Host| host.round(2465, &["live/a"], SystemTime::now()).warnings;
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (dir, key) = (host.path("live"), host.path("live/a.key"));
    for _ in 0..2 {
        assert_eq!(said(&mut host), [""; 0]);
        // The files stay as they are.
        chmod(&dir, 0o777);
        let warnings = said(&mut host);
        assert_eq!(warnings.len(), 2, "one of each file: {warnings:?}");
        for warning in warnings {
            assert!(warning.contains(&format!("run `chmod o-w {}`", dir.display())), "{warning}");
        }
        chmod(&dir, 0o755);
        assert_eq!(said(&mut host), [""; 0]);
        chmod(&key, 0o644);
        let warnings = said(&mut host);
        assert!(warnings[0].contains("the private key has mode 0644"), "{warnings:?}");
        chmod(&key, 0o600);
    }
}

#[test]
fn what_is_no_file_is_neither_waited_for_nor_read() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let said = |host: &mut Host| renewed(host, 2465, &["a"]).warnings.remove(0);
    let replace = |host: &Host, make: &dyn Fn(&Path)| {
        let path = host.path("a.key");
        fs::remove_file(&path).unwrap();
        make(&path);
    };
    replace(&host, &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap());
    assert!(said(&mut host).contains("a.key is not a file; give the path of a PEM file"));
    replace(&host, &|path| symlink("/dev/zero", path).unwrap());
    assert!(said(&mut host).contains("a.key is not a file"));
    replace(&host, &|path| symlink("nowhere", path).unwrap());
    assert!(said(&mut host).contains("a.key does not exist; correct the path, or create the file"));
    replace(&host, &|path| symlink("a.key", path).unwrap());
    assert!(said(&mut host).contains("cannot read"));
    fs::remove_file(host.path("a.key")).unwrap();
    fs::create_dir(host.path("a.key")).unwrap();
    assert!(said(&mut host).contains("a.key is not a file"));
}

#[test]
fn when_the_configuration_names_a_certificate_that_cannot_be_used_the_one_before_stays_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    assert_eq!(host.round(2465, &["a"], SystemTime::now()).warnings, [""; 0]);
    let report = host.round(2465, &["b"], SystemTime::now());
    assert!(report.warnings[0].contains("b.pem does not exist"), "{:?}", report.warnings);
    assert!(matches!(host.ports.at(2465), Speaks::Tls(_)));
    assert!(matches!(host.ports.at(993), Speaks::Alert), "imap has no certificate");
    assert!(matches!(host.ports.at(143), Speaks::Plain));
    host.round(2465, &[], SystemTime::now());
    assert!(matches!(host.ports.at(2465), Speaks::Alert), "the configuration names none");
}

#[test]
fn status_has_the_certificates_in_the_order_of_the_configuration_with_their_names() {
    let mut host = Host::new();
    let many = ["a.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org"];
    for (file, names) in [("c", &["mx.example.net"][..]), ("a", &many), ("b", &many[..2])] {
        host.certificate(file, names);
    }
    let report =
        host.round_of(&[("x", 2465, &["c", "a", "missing"]), ("y", 2466, &["b", "c"])], SystemTime::now());
    let path = |file: &str| host.path(&format!("{file}.pem")).display().to_string();
    let lines = [
        format!("certificate for x, y (mx.example.net): {}, expires on ", path("c")),
        format!(
            "certificate for x (a.example.org, b.example.org, c.example.org and 2 more): {}, expires on ",
            path("a")
        ),
        format!("certificate for x: {}, not in use", path("missing")),
        format!("certificate for y (a.example.org, b.example.org): {}, expires on ", path("b")),
    ];
    assert_eq!(report.certificates.len(), lines.len());
    for (certificate, line) in report.certificates.iter().zip(lines) {
        assert!(certificate.to_string().starts_with(&line), "{certificate}, not {line}");
    }
}

#[test]
fn a_warning_of_a_certificate_for_several_services_speaks_of_all_of_them() {
    let mut host = Host::new();
    let missing = &["missing"][..];
    let said = |host: &mut Host, services: &[(&str, u16, &[&str])]| {
        host.round_of(services, SystemTime::now()).warnings.remove(0)
    };
    let one = said(&mut host, &[("x", 2465, missing)]);
    assert!(
        one.starts_with("x: ")
            && one.ends_with("; until then, its refused clients get a TLS alert instead of a reason"),
        "{one}"
    );
    let two = said(&mut host, &[("x", 2465, missing), ("y", 2466, missing)]);
    assert!(
        two.starts_with("x, y: ")
            && two.ends_with("; until then, their refused clients get a TLS alert instead of a reason"),
        "{two}"
    );
    host.certificate("a", &[NAME]);
    let both = &["a", "missing"][..];
    let one = said(&mut host, &[("x", 2465, both)]);
    assert!(one.ends_with("; the other certificates of the service stay in use"), "{one}");
    let two = said(&mut host, &[("x", 2465, both), ("y", 2466, both)]);
    assert!(two.ends_with("; the other certificates of the services stay in use"), "{two}");
}

fn openssl(arguments: &[&str], files: &[(&str, PathBuf)]) {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments);
    for (argument, path) in files {
        openssl.arg(argument).arg(path);
    }
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_certificate_that_is_not_of_version_3_is_named_as_such_and_its_key_is_not_blamed() {
    let mut host = Host::new();
    let key = KeyPair::generate().unwrap();
    let mut der = parameters(&[NAME]).self_signed(&key).unwrap().der().to_vec();
    let version_3 = [0xa0, 3, 2, 1, 2];
    let at = der.windows(version_3.len()).position(|bytes| bytes == version_3).unwrap();
    der[at + version_3.len() - 1] = 0;
    fs::write(host.path("a.der"), der).unwrap();
    openssl(&["x509", "-inform", "DER"], &[("-in", host.path("a.der")), ("-out", host.path("a.pem"))]);
    host.file("a.key", &key.serialize_pem());
    let warnings = host.round(2465, &["a"], SystemTime::now()).warnings;
    let words = "a.pem is X.509 version 1 or malformed; issue a version 3 certificate; until then, ";
    assert!(warnings[0].contains(words), "{warnings:?}");
    assert!(!warnings[0].contains("a.key"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_configuration_no_longer_names_is_shown_and_renewed_while_it_stays_in_use() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let port = greeter.port;
    let path = host.path("a.pem").display().to_string();
    let missing = host.path("b.pem").display().to_string();
    let mut parameters = parameters(&[NAME]);
    for year in [2040, 2041] {
        parameters.not_after = date_time_ymd(year, 1, 1);
        host.write("a", &parameters, &KeyPair::generate().unwrap());
        renewed(&mut host, port, &["b"]);
        let report = host.round(port, &["b"], SystemTime::now());
        let kept = format!(
            "{path}, which the configuration no longer names, stays in use; it expires on {year}-01-01 00:00:00 UTC"
        );
        let expected = [
            format!(
                "x: {missing} does not exist; correct the path, or create the file; until then, the certificate from before stays in use"
            ),
            format!("x: the certificate in {kept}"),
        ];
        assert_eq!(report.warnings, expected);
        let lines: Vec<String> = report.certificates.iter().map(ToString::to_string).collect();
        let kept = format!("certificate for x ({NAME}): {path}, expires on {year}-01-01 00:00:00 UTC");
        assert_eq!(lines, [format!("certificate for x: {missing}, not in use"), kept]);
        assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE), "the renewed one is in use");
    }
    // Its own end is said as well.
    let late = host.round(port, &["b"], SystemTime::from(date_time_ymd(2042, 1, 1)));
    assert!(late.warnings[2].contains("expired on 2041-01-01 00:00:00 UTC and is still in use"), "{late:?}");
    // Nobody needs its files any more: what was read stays.
    fs::remove_file(host.path("a.key")).unwrap();
    assert_eq!(renewed(&mut host, port, &["b"]).warnings.len(), 2);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE));
    host.certificate("b", &[NAME]);
    let report = renewed(&mut host, port, &["b"]);
    assert_eq!((report.warnings.len(), report.certificates.len()), (0, 1), "{report:?}");
    assert_eq!(host.hears(&greeter, "b", NAME).as_deref(), Ok(LINE), "the one that is named is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_keys_sign_from_2048_to_4096_bits_as_the_warning_of_others_says() {
    let mut host = Host::new();
    for (bits, signs) in [("1024", false), ("2048", true), ("4096", true), ("4608", false)] {
        let [certificate, key] = ["pem", "key"].map(|end| host.path(&format!("{bits}.{end}")));
        let (new, name) = (format!("rsa:{bits}"), format!("subjectAltName=DNS:{NAME}"));
        openssl(
            // No authority, so that the client trusts it as it is.
            &[
                &["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=limiter", "-newkey", &new][..],
                &["-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE"],
            ]
            .concat(),
            &[("-out", certificate), ("-keyout", key)],
        );
        if signs {
            let greeter = host.greeter(&[bits], Bounds::default());
            assert_eq!(host.hears(&greeter, bits, NAME).as_deref(), Ok(LINE), "{bits}");
        } else {
            let warnings = host.round(2465, &[bits], SystemTime::now()).warnings;
            let words = "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits; ";
            assert!(warnings[0].contains(words), "{bits}: {warnings:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_that_is_named_signs() {
    let mut host = Host::new();
    for (file, algorithm) in [
        ("p256", &rcgen::PKCS_ECDSA_P256_SHA256),
        ("p384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("ed25519", &rcgen::PKCS_ED25519),
    ] {
        host.write(file, &parameters(&[NAME]), &KeyPair::generate_for(algorithm).unwrap());
        let greeter = host.greeter(&[file], Bounds::default());
        assert_eq!(host.hears(&greeter, file, NAME).as_deref(), Ok(LINE), "{file}");
    }
}
