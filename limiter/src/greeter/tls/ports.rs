// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is said at which port.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::ServerConfig;

/// What is said at a port.
#[derive(Clone, Debug)]
pub enum Speaks {
    /// Plain text.
    Plain,
    /// An alert.
    Alert,
    /// The reason, inside TLS.
    Tls(Arc<ServerConfig>),
}

/// The ports where TLS starts at once. Clones share them: who knows the certificates [`set`](Self::set)s them.
#[derive(Clone, Debug, Default)]
pub struct Ports(Arc<RwLock<HashMap<u16, Speaks>>>);

impl Ports {
    /// What is said at `port`.
    pub fn at(&self, port: u16) -> Speaks {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&port).cloned().unwrap_or(Speaks::Plain)
    }

    /// Has other things said.
    pub fn set(&self, ports: HashMap<u16, Speaks>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ports;
    }
}
