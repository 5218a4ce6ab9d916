// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where TLS starts at once, and the certificate there: what all daemons have in common.

use super::model::{Daemon, Service, Sourced};
use crate::config::{self, CertificateFiles};

/// The files of a certificate as the daemon names them; one that is not absolute, or that only the daemon can compute,
/// is left out. Nothing is said where the service has no port for it.
pub fn certificate(
    daemon: &mut Daemon,
    service: &Service,
    (certificate, key): (&str, &str),
    source: &str,
) -> Option<Sourced<CertificateFiles>> {
    if certificate.is_empty() || !service.has_tls() {
        return None;
    }
    if !config::is_certificate_path(certificate) || !config::is_certificate_path(key) {
        let why =
            "import cannot tell the files of certificate and key: add tls = { certificate = …, key = … }";
        daemon.leave_out(source, why);
        return None;
    }
    let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
    Some(Sourced::new(files, format!("{}: {source}", daemon.name)))
}

impl Service {
    /// The ports where TLS starts at once, if nothing is said of them.
    pub fn default_tls_ports(&self) -> Vec<u16> {
        self.ports.value.iter().copied().filter(|port| config::IMPLICIT_TLS.contains(port)).collect()
    }

    /// Those where it does, as far as they are still the service's.
    pub fn tls_ports(&self) -> Vec<u16> {
        let Some(said) = &self.tls_ports else { return self.default_tls_ports() };
        self.ports.value.iter().copied().filter(|port| said.value.contains(port)).collect()
    }

    /// Whether there is one.
    pub fn has_tls(&self) -> bool {
        !self.tls_ports().is_empty()
    }
}
