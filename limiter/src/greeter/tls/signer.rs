// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who signs handshakes. The TLS library knows no private key: it has an [`AskingKey`], which asks a [`Signer`] for
//! each signature. Today that is in the same process ([`Keys`]).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{self, SigningKey},
};

use super::bucket::Bucket;

/// Signatures a second, twice as many as there may be handshakes: whoever asks for more does something else.
const RATE: u32 = 400;
/// So many at once.
const BURST: u32 = 200;

/// Signs handshakes, and nothing else, no more often than its bound.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The signature of `message` by the key, in one of its schemes.
    ///
    /// # Errors
    /// Why there is none.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Refused>;
}

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
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
}

/// A private key of this process.
pub struct Keys {
    key: Arc<dyn SigningKey>,
    bound: Bound,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Signer for Keys {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Refused> {
        if !is_handshake(message) {
            return Err(Refused::NoHandshake);
        }
        let signer = self.key.choose_scheme(&[scheme]).ok_or(Refused::Scheme)?;
        if !self.bound.take() {
            return Err(Refused::TooMany);
        }
        signer.sign(message).map_err(|_| Refused::Failed)
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

/// A key as the TLS library has it: what is public of it, and whom to ask.
#[derive(Clone, Debug)]
pub struct AskingKey {
    signer: Arc<dyn Signer>,
    algorithm: SignatureAlgorithm,
    schemes: Vec<SignatureScheme>,
    public: Option<SubjectPublicKeyInfoDer<'static>>,
}

impl AskingKey {
    /// For a key of this process.
    pub fn new(key: Arc<dyn SigningKey>, bound: Bound) -> Self {
        let has = |scheme: &SignatureScheme| key.choose_scheme(&[*scheme]).is_some();
        Self {
            algorithm: key.algorithm(),
            schemes: SCHEMES.into_iter().filter(has).collect(),
            public: key.public_key().map(SubjectPublicKeyInfoDer::into_owned),
            signer: Arc::new(Keys { key, bound }),
        }
    }
}

impl SigningKey for AskingKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn sign::Signer>> {
        let scheme = *self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(Asking { signer: Arc::clone(&self.signer), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.public.clone()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

/// One signature that is asked for.
#[derive(Debug)]
struct Asking {
    signer: Arc<dyn Signer>,
    scheme: SignatureScheme,
}

impl sign::Signer for Asking {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.signer.sign(self.scheme, message).map_err(|why| Error::General(why.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::ring::sign::any_supported_type, pki_types::PrivateKeyDer};

    use super::*;

    fn key() -> AskingKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        AskingKey::new(any_supported_type(&der).unwrap(), Bound::new())
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
            assert!(key.signer.sign(scheme, &handshake).is_ok());
            assert_eq!(key.signer.sign(scheme, &handshake[1..]), Err(Refused::NoHandshake));
            let longer = [&handshake[..], b"x"].concat();
            assert_eq!(key.signer.sign(scheme, &longer), Err(Refused::NoHandshake));
        }
        let as_client =
            [&[b' '; TLS13_PADDING][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        for other in [&as_client[..], b"", b"a certificate"] {
            assert_eq!(key.signer.sign(scheme, other), Err(Refused::NoHandshake));
        }
        assert_eq!(key.signer.sign(SignatureScheme::ED25519, &tls13()), Err(Refused::Scheme));
    }

    #[test]
    fn no_more_are_signed_than_the_bound() {
        let key = key();
        let signed = (0..BURST * 2)
            .filter(|_| key.signer.sign(SignatureScheme::ECDSA_NISTP256_SHA256, &tls13()).is_ok());
        // Those that come meanwhile count, too.
        assert!((BURST..BURST * 2).contains(&(signed.count() as u32)));
    }
}
