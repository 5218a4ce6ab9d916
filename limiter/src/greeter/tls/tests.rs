// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter where TLS starts at once, with real handshakes. Certificates are files, as the daemon has them.

mod certificates;
mod handshakes;

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
    greeter::{Bounds, Health, Settings, Snapshot, Totals},
};

const NAME: &str = "mail.example.org";

/// A directory with certificates, and who keeps them.
pub struct Host {
    dir: tempfile::TempDir,
    settings: Settings,
    keeper: Keeper,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let (totals, report) = (Totals::new().unwrap(), dir.path().join("report"));
        let keeper = Keeper::new(settings.clone(), totals, Health::default(), report);
        Self { dir, settings, keeper }
    }

    /// What is said at a port.
    fn speaks(&self, port: u16) -> &'static str {
        let said = self.settings.get();
        match said.tls.iter().find(|(ports, _)| ports.contains(&port)) {
            None => "plain text",
            Some((_, certificates)) if certificates.is_empty() => "an alert",
            Some(_) => "TLS",
        }
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
        let settings = self.settings.clone();
        let prepare = |port| drop(self.round(port, files, SystemTime::now()));
        start_with(Some(SMTP), Some(GROUNDS), settings, prepare, bounds)
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
