// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is said at which port.

use std::{collections::HashMap, sync::Arc};

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

/// The ports where TLS starts at once.
#[derive(Clone, Debug, Default)]
pub struct Ports(HashMap<u16, Speaks>);

impl Ports {
    /// These.
    pub const fn new(ports: HashMap<u16, Speaks>) -> Self {
        Self(ports)
    }

    /// What is said at `port`.
    pub fn at(&self, port: u16) -> Speaks {
        self.0.get(&port).cloned().unwrap_or(Speaks::Plain)
    }
}
