// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A certificate and its key: read from two files, and checked as a whole before anything uses them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::fcntl::OFlag;
use rustls::{
    Error,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_cert::{
    Certificate,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use serde::{Deserialize, Serialize};

use super::signer::{Bound, PrivateKey};
use crate::{config::CertificateFiles, trust};

/// The largest file that is read: room for a chain of ten certificates and more, and no more than each client that
/// does not read may fill memory with.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A certificate that can be used.
#[derive(Debug)]
pub struct Usable {
    /// No other of this daemon has it.
    pub number: u64,
    chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKey,
    /// The names that it is for; may begin with `*.`.
    pub names: Vec<String>,
    /// When it ends.
    pub expires: SystemTime,
}

/// Ports, and the certificates that are used there.
pub type Set = (Vec<u16>, Vec<Arc<Usable>>);

/// What the greeter's process knows of a certificate: what any client may know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Public {
    /// [`Usable::number`].
    pub number: u64,
    /// The certificate itself, and those that lead to a known one.
    pub chain: Vec<Vec<u8>>,
    /// [`Usable::names`].
    pub names: Vec<String>,
    /// [`PrivateKey::public`].
    pub algorithm: u8,
    /// The same.
    pub schemes: Vec<u16>,
}

/// Numbers for certificates.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Why a certificate cannot be used: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A file that is not there.
    #[error("{0} does not exist; correct the path, or create the file")]
    Missing(String),
    /// A file that cannot be read.
    #[error("cannot read {0} ({1}); make it readable for root")]
    Unreadable(String, String),
    /// Something else than a file.
    #[error("{0} is not a file; give the path of a PEM file")]
    NotAFile(String),
    /// An empty file.
    #[error("{0} is empty; write the PEM file again")]
    Empty(String),
    /// A large file.
    #[error(
        "{0} is larger than 64 KiB, so it is not a PEM file of a certificate or key; give the path of the right file"
    )]
    TooLarge(String),
    /// No certificate in the file.
    #[error("{0} contains no certificate that can be read; give the certificate and its chain in PEM form")]
    NoCertificate(String),
    /// No key in the file.
    #[error("{0} contains no private key that can be read; give the key in PEM form, without a passphrase")]
    NoKey(String),
    /// A certificate that the TLS library does not take.
    #[error("the certificate in {0} is X.509 version 1 or malformed; issue a version 3 certificate")]
    Malformed(String),
    /// A key that is not supported.
    #[error(
        "the key in {0} has a type that limiter does not support; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits"
    )]
    KeyType(String),
    /// A key of another certificate.
    #[error(
        "the key in {key} does not belong to the certificate in {certificate}; give the files of one pair"
    )]
    OtherKey {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
    },
    /// A certificate that has ended.
    #[error("the certificate in {0} expired on {1}; renew it")]
    Expired(String, String),
    /// A certificate that has not begun.
    #[error("the certificate in {0} is not valid before {1}; check the clock of this host")]
    NotYetValid(String, String),
}

/// What tells one state of a file from another. A symbolic link is followed, so one that leads elsewhere is another
/// state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file at `path`, or why there is none, by the system's number.
    pub fn of(path: &Path) -> Result<Self, Option<i32>> {
        let about = std::fs::metadata(path).map_err(|error| error.raw_os_error())?;
        Ok(Self {
            dev: about.dev(),
            ino: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

/// Reads and checks a certificate and its key.
///
/// # Errors
/// The first thing that is wrong.
pub fn load(files: &CertificateFiles, bound: &Bound, now: SystemTime) -> Result<Usable, Unusable> {
    let [certificate, key] = [&files.certificate, &files.key].map(|path| path.display().to_string());
    let pem = read(&files.certificate)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    let first = chain.first().and_then(|first| Certificate::from_der(first).ok());
    let first = first.ok_or_else(|| Unusable::NoCertificate(certificate.clone()))?;
    let pem = read(&files.key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| Unusable::NoKey(key.clone()))?;
    let private = any_supported_type(&private).map_err(|_| Unusable::KeyType(key.clone()))?;
    let certified = CertifiedKey::new(chain, Arc::clone(&private));
    certified.keys_match().map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            Unusable::OtherKey { certificate: certificate.clone(), key: key.clone() }
        }
        // It reads the certificate for that, and more strictly than is done here.
        _ => Unusable::Malformed(certificate.clone()),
    })?;
    let validity = first.tbs_certificate().validity();
    let [begins, expires] =
        [validity.not_before, validity.not_after].map(|time| UNIX_EPOCH + time.to_unix_duration());
    if now < begins {
        return Err(Unusable::NotYetValid(certificate, date(begins)));
    }
    if now > expires {
        return Err(Unusable::Expired(certificate, date(expires)));
    }
    let names = names(&first);
    let key = PrivateKey::new(private, bound.clone());
    Ok(Usable { number: NUMBERS.fetch_add(1, Relaxed), chain: certified.cert, key, names, expires })
}

/// A time as people write it.
pub fn date(time: SystemTime) -> String {
    let shown = humantime::format_rfc3339_seconds(time).to_string();
    shown.replace('T', " ").replace('Z', " UTC")
}

/// The DNS names that a certificate is for.
fn names(certificate: &Certificate) -> Vec<String> {
    let extension = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = extension else { return Vec::new() };
    let dns = |name: GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    };
    names.into_iter().filter_map(dns).collect()
}

/// Reads a PEM file. No pipe is waited for, and no device read.
fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let name = path.display().to_string();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing(name.clone()),
        _ => Unusable::Unreadable(name.clone(), error.to_string()),
    };
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Unusable::NotAFile(name));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 {
        0 => Err(Unusable::Empty(name)),
        length if length > MAX_FILE_BYTES => Err(Unusable::TooLarge(name)),
        _ => Ok(bytes),
    }
}

/// Who may read the key and who may write to either file, besides root.
fn warnings(files: &CertificateFiles) -> Vec<String> {
    let mut warnings: Vec<String> = open_to_others(&files.key).into_iter().collect();
    let is_key_open = !warnings.is_empty();
    let mut paths: Vec<&PathBuf> = vec![&files.certificate, &files.key];
    paths.dedup();
    for path in paths {
        if let Ok((_, Some(distrust))) = trust::look(path) {
            // Who owns the key, or may write to it, is said already, with what to do.
            if is_key_open && distrust.is_file && *path == files.key {
                continue;
            }
            warnings.push(format!("{}: {distrust}", path.display()));
        }
    }
    warnings
}

/// What is wrong if others than root may read a key or write to it.
fn open_to_others(path: &Path) -> Option<String> {
    let about = std::fs::metadata(path).ok()?;
    let (owner, group, mode) = (about.uid(), about.gid(), about.mode() & 0o7777);
    let path = path.display();
    let whose = match (owner, mode & 0o007, mode & 0o070) {
        (0, 0, 0) => return None,
        (0, 0, _) => format!(", so group {group} can use it"),
        (0, ..) => ", so every user can use it".to_owned(),
        (owner, 0, 0) => format!(" and belongs to user {owner}"),
        (owner, ..) => format!(" and belongs to user {owner}, so others can use it"),
    };
    let chown = if owner == 0 { String::new() } else { format!("chown root {path}") };
    let chmod = match mode & 0o077 {
        0 => String::new(),
        _ => format!("chmod 600 {path}"),
    };
    let and = if chown.is_empty() || chmod.is_empty() { "" } else { " && " };
    Some(format!(
        "{path}: the private key has mode {mode:04o}{whose}; only root needs it: run `{chown}{and}{chmod}`"
    ))
}

/// How long before a certificate ends that is said, if nobody has renewed it.
const SOON: Duration = Duration::from_secs(3 * 24 * 3600);

impl Usable {
    /// What is public of it.
    pub fn public(&self) -> Public {
        let (algorithm, schemes) = self.key.public();
        let chain = self.chain.iter().map(|certificate| certificate.to_vec()).collect();
        Public { number: self.number, chain, names: self.names.clone(), algorithm, schemes }
    }

    /// What is to be said of it at this time, a sentence each. Modes and owners are looked at anew: they may change
    /// where the files do not, as those of a directory.
    pub fn warnings(&self, files: &CertificateFiles, now: SystemTime) -> Vec<String> {
        let mut warnings = warnings(files);
        let (path, expires) = (files.certificate.display(), date(self.expires));
        if now > self.expires {
            warnings.push(format!(
                "the certificate in {path} expired on {expires} and is still in use, so clients reject it; renew it"
            ));
        } else if self.expires.duration_since(now).is_ok_and(|left| left < SOON) {
            warnings.push(format!("the certificate in {path} expires on {expires}; renew it"));
        }
        warnings
    }
}
