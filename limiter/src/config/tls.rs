// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `tls` and `tls_ports`: with which certificates the greeter speaks, and at which ports TLS starts at once.

use std::path::PathBuf;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    certificate_files::{CertificateFiles, IMPLICIT_TLS, is_path},
    check::{self, Value},
    error::{Complaint, Located},
    fields::Section,
    reader::{Node, in_order, name, start, unknown},
};

/// The most certificates of one service.
pub const MAX_CERTIFICATES: usize = 64;

/// The `tls` of `section`.
pub fn read(value: &Node<'_>, section: Section<'_>) -> Result<Vec<CertificateFiles>, Located> {
    let given = Value::from(value.get_ref());
    match value.get_ref() {
        _ if check::is_none(&given) => Ok(Vec::new()),
        DeValue::Table(table) => Ok(vec![files(table, start(value), section)?]),
        DeValue::Array(tables) if tables.len() > MAX_CERTIFICATES => {
            Err(Complaint::TooManyCertificates(MAX_CERTIFICATES).at(start(value)))
        }
        DeValue::Array(tables) => tables
            .iter()
            .map(|table| match table.get_ref() {
                DeValue::Table(keys) => files(keys, start(table), section),
                other => Err(Complaint::NotTls(Value::from(other).shown()).at(start(table))),
            })
            .collect(),
        _ => Err(Complaint::NotTls(given.shown()).at(start(value))),
    }
}

fn files(table: &DeTable<'_>, at: usize, section: Section<'_>) -> Result<CertificateFiles, Located> {
    let (mut certificate, mut key) = (None, None);
    for (given, value) in in_order(table) {
        match name(given) {
            "certificate" => certificate = Some(path("certificate", value)?),
            "key" => key = Some(path("key", value)?),
            _ => return Err(unknown(given, Section::Tls(&section))),
        }
    }
    Ok(CertificateFiles {
        certificate: certificate.ok_or_else(|| Complaint::TlsWithout("certificate").at(at))?,
        key: key.ok_or_else(|| Complaint::TlsWithout("key").at(at))?,
    })
}

/// A path that means the same wherever the daemon runs.
fn path(key: &'static str, value: &Node<'_>) -> Result<PathBuf, Located> {
    let given = Value::from(value.get_ref());
    match given {
        Value::Text(text) if is_path(text) => Ok(PathBuf::from(text)),
        _ => Err(Complaint::NotAPath { key, given: given.shown() }.at(start(value))),
    }
}

/// The ports of a service where TLS starts at once.
pub fn ports(service: &str, ports: &[u16], given: Option<&[Spanned<u16>]>) -> Result<Vec<u16>, Located> {
    let Some(given) = given else {
        return Ok(ports.iter().copied().filter(|port| IMPLICIT_TLS.contains(port)).collect());
    };
    let mut tls_ports: Vec<u16> = Vec::new();
    for spanned in given {
        let port = *spanned.get_ref();
        let service = service.to_owned();
        if !ports.contains(&port) {
            return Err(Complaint::TlsPortElsewhere { port, service }.at(start(spanned)));
        }
        if tls_ports.contains(&port) {
            return Err(Complaint::TlsPortTwice(port, service).at(start(spanned)));
        }
        tls_ports.push(port);
    }
    tls_ports.sort_unstable();
    Ok(tls_ports)
}
