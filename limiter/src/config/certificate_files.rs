// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where a certificate is, and where it is used by default.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::check::NONE;

/// The ports where TLS starts at once if the file does not say otherwise (RFC 8314, 3; RFC 9051, 11.1).
pub const IMPLICIT_TLS: [u16; 3] = [465, 993, 995];

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateFiles {
    /// The certificate and its chain, in PEM form; absolute.
    pub certificate: PathBuf,
    /// Its private key, in PEM form; absolute.
    pub key: PathBuf,
}

impl fmt::Display for CertificateFiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [certificate, key] = [&self.certificate, &self.key].map(|path| quoted(path));
        write!(out, "{{ certificate = {certificate}, key = {key} }}")
    }
}

/// As the file writes it: no path has control characters.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

/// The certificates of a service as the file writes them.
pub fn shown(certificates: &[CertificateFiles]) -> String {
    match certificates {
        [] => format!("\"{NONE}\""),
        [one] => one.to_string(),
        several => {
            let several: Vec<String> = several.iter().map(CertificateFiles::to_string).collect();
            format!("[{}]", several.join(", "))
        }
    }
}

/// Whether it is absolute, and one line.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() < 4096 && !text.chars().any(char::is_control)
}
