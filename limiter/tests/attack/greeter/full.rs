// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail host at which many sources hold all the connections that they may.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use super::crowd::Call;
use crate::lab::{AttackLab, HOST_HARDWARE};
use limiter_lab::lab::WIRE;
use limiter_lab::limiter::HOSTNAME;
use limiter_lab::link::{Link, Loss};
use limiter_lab::{Family, Limiter, SOON, Sink, V4, V6, answer, eventually, same};

/// Where clients are refused in plain text: by SMTP, IMAP and POP3.
pub const PLAIN: [u16; 3] = [25, 143, 110];
/// Where they are refused inside TLS.
pub const TLS: [u16; 3] = [465, 993, 995];
/// One port of each service: there each source holds what it may.
const HELD: [u16; 4] = [25, 465, 143, 110];

/// The clients' networks. Each address is a source of its own, and so is each /64.
const NETWORKS: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/48"];

/// The smallest packets that a link has to carry: of IPv4 in practice, of IPv6 by RFC 8200, 5.
const NARROW: [u32; 2] = [576, 1280];

/// The `n`th source, by turns of either family.
pub fn source(n: u16) -> IpAddr {
    if n.is_multiple_of(2) {
        Ipv4Addr::new(198, 51, 100, 100 + (n / 2) as u8).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0x100, n, 0, 0, 0, 7).into()
    }
}

/// The family of an address.
pub fn family(source: IpAddr) -> Family {
    if source.is_ipv4() { V4 } else { V6 }
}

/// What depends on the others goes first.
pub struct Full {
    pub limiter: Limiter,
    _held: Vec<TcpStream>,
    _sinks: Vec<Sink>,
    links: Vec<Link>,
    pub lab: AttackLab,
    pub tls: Arc<ClientConfig>,
    /// Of the certificate and its key.
    _files: TempDir,
}

impl Full {
    /// The first `sources` hold what they may. `None` without the privileges it takes.
    pub fn new(sources: u16) -> Option<Self> {
        let lab = AttackLab::new()?;
        for network in NETWORKS {
            lab.take_network(network);
        }
        // Known for good: from an address that is on no interface nobody can ask where a neighbour is.
        let hardware = HOST_HARDWARE.map(|byte| format!("{byte:02x}")).join(":");
        lab.client.ip(&["neigh", "replace", &V6.host.to_string(), "lladdr", &hardware, "dev", WIRE]).unwrap();
        // As most hosts have it.
        lab.host.sysctl("ipv4/tcp_syncookies", "1").unwrap();
        lab.host.sysctl("core/somaxconn", "4096").unwrap();
        lab.host.sysctl("ipv4/tcp_max_syn_backlog", "4096").unwrap();
        // Whoever is told closes last: the kernel remembers each of them for a minute.
        lab.host.sysctl("ipv4/tcp_max_tw_buckets", "1000000").unwrap();
        lab.client.sysctl("ipv4/ip_local_port_range", "1024 65535").unwrap();
        let sinks = PLAIN.iter().chain(&TLS).map(|port| Sink::start(&lab, *port)).collect();
        let files = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let names = [HOSTNAME.to_owned(), V4.host.to_string(), V6.host.to_string()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let [public, private] = [("fullchain.pem", certificate.pem()), ("privkey.pem", key.serialize_pem())]
            .map(|(name, text)| {
                let path = files.path().join(name);
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                path.display().to_string()
            });
        let limiter = Limiter::start_with(
            &lab,
            &format!(
                "[defaults]\nmax_connections = 1\nwait = \"0s\"\n\
                 tls = {{ certificate = \"{public}\", key = \"{private}\" }}\n[ladder]\nreplies = \"none\"\n"
            ),
        );
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
        // Every handshake is a whole one.
        tls.resumption = Resumption::disabled();
        let held = lab.client.run(|| {
            let each = (0..sources).flat_map(|n| HELD.map(|port| (source(n), port)));
            each.map(|(source, port)| {
                let (stream, answer) = answer(source, family(source).port(port), SOON);
                assert!(answer.is_service(), "{source} at port {port}: {answer:?}");
                stream.expect("it is served")
            })
            .collect()
        });
        Some(Self {
            limiter,
            _held: held,
            _sinks: sinks,
            links: Vec::new(),
            lab,
            tls: Arc::new(tls),
            _files: files,
        })
    }

    /// From now on both hosts reach each other over links with small packets only, which lose some of them.
    pub fn over_narrow_links(&mut self, rtt: Duration, percent: u64) {
        for (number, mtu) in NARROW.into_iter().enumerate() {
            let (device, v6) = (format!("narrow{number}"), number == 1);
            let loss = Loss { percent, seed: 1 + number as u64 };
            let link = Link::between(&self.lab.client, &self.lab.host, &device, rtt, loss).unwrap();
            let family = if v6 { V6 } else { V4 };
            // In two steps: below 1280 there is no IPv6 that could be told anything.
            let up = format!(
                "link set {device} addrgenmode none\nlink set {device} mtu {mtu} txqueuelen 20000 up\n"
            );
            let mut at_client = up.clone();
            let _ = writeln!(at_client, "route replace {} dev {device} src {}", family.host, family.source());
            self.lab.client.ip_batch(&at_client).unwrap();
            let mut at_host = up;
            let _ = writeln!(at_host, "route replace {} dev {device} src {}", NETWORKS[number], family.host);
            self.lab.host.ip_batch(&at_host).unwrap();
            self.links.push(link);
        }
    }

    /// How many segments the links have lost.
    pub fn lost(&self) -> usize {
        self.links.iter().map(|link| link.lost().len()).sum()
    }

    /// A call of a refused client, and the line that it has to read.
    pub fn call(source: IpAddr, port: u16, says_first: bool) -> Call {
        let (first, line): (&[u8], _) = match port {
            25 | 465 => (b"EHLO client.example.net\r\n", Limiter::smtp_reply(1, source)),
            143 | 993 => (b"a LOGIN u p\r\n", format!("* BYE [UNAVAILABLE] {}", Limiter::words(1, source))),
            _ => (b"CAPA\r\n", format!("-ERR [SYS/TEMP] {}", Limiter::words(1, source))),
        };
        Call {
            from: SocketAddr::new(source, 0),
            to: family(source).port(port),
            first: if says_first { first } else { b"" },
            line: format!("{line}\r\n"),
        }
    }

    /// What the greeter has counted; it is shown once a second.
    pub fn counted(&self, counter: &str) -> u64 {
        self.limiter.json(&["status"])["greeter"][counter].as_u64().unwrap_or_default()
    }

    /// Waits until the greeter has counted so many.
    #[track_caller]
    pub fn counts(&self, counter: &str, number: u64) {
        eventually("the greeter's counts", SOON, || same(counter, &self.counted(counter), &number));
    }
}
