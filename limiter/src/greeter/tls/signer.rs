// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who signs handshakes: the daemon, which has the private keys. It signs nothing else, whoever asks.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{SignatureScheme, sign::SigningKey};
use serde::{Deserialize, Serialize};

use super::{bucket::Bucket, cpu};

/// Signatures a second, twice as many as there may be handshakes: whoever asks for more does something else.
const RATE: u32 = 400;
/// So many at once.
const BURST: u32 = 200;

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unsigned {
    /// The key is not in use any more, or never was.
    #[error("there is no such key")]
    Unknown,
    /// It is no part of a TLS handshake.
    #[error("this is no TLS handshake")]
    NoHandshake,
    /// The key does not sign in this way.
    #[error("the key has no such signature scheme")]
    Scheme,
    /// There were too many.
    #[error("too many signatures were asked for")]
    TooMany,
    /// The key could not.
    #[error("the key failed")]
    Failed,
    /// The daemon does not answer.
    #[error("the daemon does not answer")]
    Silent,
}

/// The bound that all keys of a process share.
#[derive(Clone, Debug)]
pub struct Bound(Arc<Mutex<Bucket>>);

impl Bound {
    /// A bound that nobody has used.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(RATE, BURST, Instant::now()))))
    }

    fn take(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    /// What takes longer than a millisecond of the CPU counts for as many as it has milliseconds.
    fn pay(&self, took: Duration) {
        let beyond = took.saturating_sub(Duration::from_millis(1));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pay(beyond);
    }
}

/// A private key.
pub struct PrivateKey {
    key: Arc<dyn SigningKey>,
    bound: Bound,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PrivateKey").finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// One whose signatures count for this bound.
    pub fn new(key: Arc<dyn SigningKey>, bound: Bound) -> Self {
        Self { key, bound }
    }

    /// The number of its algorithm (RFC 5246, 7.4.1.4.1), and those of the schemes that it signs in.
    pub fn public(&self) -> (u8, Vec<u16>) {
        let has = |scheme: &SignatureScheme| self.key.choose_scheme(&[*scheme]).is_some();
        (self.key.algorithm().into(), SCHEMES.into_iter().filter(has).map(Into::into).collect())
    }

    /// The signature of a handshake, and how much of the CPU it has taken.
    ///
    /// # Errors
    /// Why there is none.
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<(Vec<u8>, Duration), Unsigned> {
        if !is_handshake(message) {
            return Err(Unsigned::NoHandshake);
        }
        let signer = self.key.choose_scheme(&[scheme]).ok_or(Unsigned::Scheme)?;
        if !self.bound.take() {
            return Err(Unsigned::TooMany);
        }
        let before = cpu::used();
        let signature = signer.sign(message).map_err(|_| Unsigned::Failed);
        let took = cpu::used().saturating_sub(before);
        self.bound.pay(took);
        Ok((signature?, took))
    }
}

/// What the server of a TLS 1.3 handshake signs begins so (RFC 8446, 4.4.3); the hash of what was said follows.
const TLS13_CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const TLS13_PADDING: usize = 64;
/// The lengths of SHA-256 and SHA-384.
const HASHES: [usize; 2] = [32, 48];
/// What the server of a TLS 1.2 handshake signs begins with a random number of each side (RFC 8422, 5.4); its
/// parameters of the key exchange follow, and nothing else.
const TLS12_RANDOMS: usize = 64;
/// `named_curve`, in the parameters.
const NAMED_CURVE: u8 = 3;
/// The groups, and how long the point of each is.
const GROUPS: [(u16, u8); 2] = [(0x001d, 32), (0x0017, 65)];

/// Whether `message` is what the server of a TLS handshake signs.
fn is_handshake(message: &[u8]) -> bool {
    is_tls13(message) || is_tls12(message)
}

fn is_tls13(message: &[u8]) -> bool {
    let Some((padding, rest)) = message.split_at_checked(TLS13_PADDING) else { return false };
    let hash = rest.strip_prefix(TLS13_CONTEXT);
    padding.iter().all(|&byte| byte == b' ') && hash.is_some_and(|hash| HASHES.contains(&hash.len()))
}

fn is_tls12(message: &[u8]) -> bool {
    match message.get(TLS12_RANDOMS..) {
        Some([NAMED_CURVE, high, low, length, point @ ..]) => {
            let group = (u16::from_be_bytes([*high, *low]), *length);
            GROUPS.contains(&group) && point.len() == usize::from(*length)
        }
        _ => false,
    }
}

/// Every scheme that a key of the crypto provider may have.
const SCHEMES: [SignatureScheme; 9] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

#[cfg(test)]
mod tests {
    use rustls::{crypto::ring::sign::any_supported_type, pki_types::PrivateKeyDer};

    use super::*;

    fn key() -> PrivateKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        PrivateKey::new(any_supported_type(&der).unwrap(), Bound::new())
    }

    fn tls13() -> Vec<u8> {
        [&[b' '; TLS13_PADDING][..], TLS13_CONTEXT, &[7; 32]].concat()
    }

    #[test]
    fn handshakes_are_signed_and_nothing_else() {
        let key = key();
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let tls12 = [&[7; TLS12_RANDOMS][..], &[NAMED_CURVE, 0, 0x1d, 32], &[7; 32]].concat();
        for handshake in [tls13(), tls12] {
            assert!(key.sign(scheme, &handshake).is_ok());
            assert_eq!(key.sign(scheme, &handshake[1..]).unwrap_err(), Unsigned::NoHandshake);
            let longer = [&handshake[..], b"x"].concat();
            assert_eq!(key.sign(scheme, &longer).unwrap_err(), Unsigned::NoHandshake);
        }
        let as_client =
            [&[b' '; TLS13_PADDING][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        for other in [&as_client[..], b"", b"a certificate"] {
            assert_eq!(key.sign(scheme, other).unwrap_err(), Unsigned::NoHandshake);
        }
        assert_eq!(key.sign(SignatureScheme::ED25519, &tls13()).unwrap_err(), Unsigned::Scheme);
    }

    #[test]
    fn no_more_are_signed_than_the_bound() {
        let key = key();
        let signed =
            (0..BURST * 2).filter(|_| key.sign(SignatureScheme::ECDSA_NISTP256_SHA256, &tls13()).is_ok());
        // Those that come meanwhile count, too.
        assert!((BURST..BURST * 2).contains(&(signed.count() as u32)));
    }
}
