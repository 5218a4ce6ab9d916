// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How the greeter speaks TLS, and with which certificate.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::{
    NamedGroup, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::CertificateDer,
    server::{ClientHello, ProducesTickets, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    asker::{Asker, AskingKey},
    certificate::Public,
    names,
};

/// A certificate that clients are shown.
#[derive(Debug)]
pub struct Offered {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

/// A certificate as the process has it, of what is public of it.
pub fn offered(public: &Public, asker: &Asker) -> Arc<Offered> {
    let key = AskingKey {
        asker: asker.clone(),
        key: public.number,
        algorithm: public.algorithm.into(),
        schemes: public.schemes.iter().map(|&scheme| scheme.into()).collect(),
    };
    let chain = public.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    Arc::new(Offered { key: Arc::new(CertifiedKey::new(chain, Arc::new(key))), names: public.names.clone() })
}

/// What all handshakes have in common.
#[derive(Debug)]
pub struct Common {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

/// The groups of the key exchange.
const GROUPS: [NamedGroup; 2] = [NamedGroup::X25519, NamedGroup::secp256r1];

impl Common {
    /// Makes the keys of the tickets, which the library replaces every six hours.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn new() -> Result<Self> {
        let mut provider = ring::default_provider();
        provider.kx_groups.retain(|group| GROUPS.contains(&group.name()));
        let tickets = ring::Ticketer::new().context("cannot make keys for TLS session tickets")?;
        Ok(Self { provider: Arc::new(provider), tickets })
    }

    /// For these certificates: TLS 1.2 and 1.3, no certificates of clients, tickets. Whatever protocol a client asks
    /// for by ALPN, there is one at the port.
    pub fn server(&self, certificates: Vec<Arc<Offered>>) -> Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .context("the TLS library lacks what TLS 1.2 or 1.3 needs")?;
        let mut config =
            config.with_no_client_auth().with_cert_resolver(Arc::new(Certificates(certificates)));
        config.ticketer = Arc::clone(&self.tickets);
        // One is enough: a client that is refused comes back once.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// Chooses among certificates.
#[derive(Debug)]
struct Certificates(Vec<Arc<Offered>>);

impl ResolvesServerCert for Certificates {
    /// The first for the name that the client asks for, whose signatures it knows; else the first of these.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let knows = |certificate: &&Arc<Offered>| {
            certificate.key.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let is_named = |certificate: &&Arc<Offered>| {
            hello.server_name().is_some_and(|name| names::cover(&certificate.names, name))
        };
        let mut usable = self.0.iter().filter(knows);
        let chosen = usable.clone().find(is_named).or_else(|| usable.next())?;
        Some(Arc::clone(&chosen.key))
    }
}
