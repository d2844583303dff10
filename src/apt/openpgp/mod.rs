//! OpenPGP signatures of archive indexes.
//!
//! Flows in: a clearsigned text (`InRelease`), the keys that are trusted, the current time. Flows out: the text, if at
//! least one of its signatures is good; nothing else of the input is ever used.
//!
//! Policy, beyond what RFC 9580 demands: SHA-256 and stronger only; no signature from the future (ten minutes of clock
//! difference are forgiven) and none that has expired; no critical subpacket that is not understood; keys as
//! [`Keyring`] has it. Signatures by unknown keys do not count. A signature that names a trusted key and does not
//! verify is fatal, even beside a good one: somebody has touched the text.

mod cleartext;
mod keyring;

use std::fmt;
use std::io::Cursor;

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::Timestamp;

pub use keyring::Keyring;

/// How far ahead of ours the signer's clock may be.
const CLOCK_TOLERANCE_SECONDS: u64 = 600;

/// Why a text is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OpenPgpError {
    /// Not a clearsigned text.
    #[error("not a clearsigned text: {why}")]
    Malformed {
        /// What is wrong.
        why: &'static str,
    },
    /// It ends too early.
    #[error("the clearsigned text is truncated")]
    Truncated,
    /// The signature block cannot be read.
    #[error("cannot read the signatures")]
    Signatures {
        /// From the parser.
        source: Box<pgp::errors::Error>,
    },
    /// The keys cannot be read.
    #[error("cannot read the keys")]
    Keyring {
        /// From the parser.
        source: Box<pgp::errors::Error>,
    },
    /// A keyring without keys.
    #[error("no OpenPGP public key found")]
    NoKeys,
    /// A trusted key is named, and the signature is not its.
    #[error("bad signature: key {key} did not sign this text")]
    BadSignature {
        /// The fingerprint.
        key: String,
    },
    /// No signature is good.
    #[error("no good signature: {}", list(.refused))]
    NoGoodSignature {
        /// Each signature's key and why it does not count.
        refused: Vec<(String, Refusal)>,
    },
}

impl PartialEq for OpenPgpError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Why one signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not among the trusted keys.
    #[error("the key is not trusted for this repository")]
    UnknownKey,
    /// Revoked by its owner.
    #[error("the key is revoked")]
    Revoked,
    /// Too old.
    #[error("the key expired on {}", date(*.expired))]
    KeyExpired {
        /// Unix seconds.
        expired: u64,
    },
    /// Nothing that ties the key to its owner counts.
    #[error("no valid self-signature over a strong hash binds the key")]
    NotBound,
    /// The owner did not make it for signing.
    #[error("the key is not meant for signing")]
    NotForSigning,
    /// Weak or unknown algorithm, or too short.
    #[error("the key is too weak")]
    WeakKey,
    /// SHA-1, MD5 and the like.
    #[error("the signature uses the weak hash {hash}")]
    WeakHash {
        /// Its name.
        hash: String,
    },
    /// Not a signature of a text, or without a date, or of an unknown version.
    #[error("it is not a signature of a text")]
    WrongKind,
    /// Made after now.
    #[error("it is dated {}, in the future: check the clock", date(*.created))]
    FromTheFuture {
        /// Unix seconds.
        created: u64,
    },
    /// Limited by its maker, and over.
    #[error("the signature expired on {}", date(*.expired))]
    SignatureExpired {
        /// Unix seconds.
        expired: u64,
    },
    /// It demands something that we do not understand.
    #[error("it has a critical part that is not understood")]
    CriticalSubpacket,
}

fn list(refused: &[(String, Refusal)]) -> String {
    if refused.is_empty() {
        return "the text carries none".to_owned();
    }
    refused.iter().map(|(key, why)| format!("key {key}: {why}")).collect::<Vec<_>>().join("; ")
}

pub(super) fn date(seconds: u64) -> impl fmt::Display {
    i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).unwrap_or_default()
}

/// A text that was signed by a trusted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedText {
    /// The text: lines ended by `\n`, no blanks at their ends.
    pub text: String,
    /// The fingerprint of the (sub)key that made the first good signature.
    pub signer: String,
    /// When it was made, in Unix seconds.
    pub signed: u64,
}

/// Verifies a clearsigned text at the time `now` (Unix seconds).
pub fn verify_cleartext(bytes: &[u8], keyring: &Keyring, now: u64) -> Result<SignedText, OpenPgpError> {
    let parts = cleartext::split(bytes)?;
    let unreadable = |source| OpenPgpError::Signatures { source: Box::new(source) };
    let armoured = Cursor::new(parts.signatures.as_bytes());
    let (signatures, _) = DetachedSignature::from_armor_many_buf(armoured).map_err(unreadable)?;
    let mut good = None;
    let mut refused = Vec::new();
    for signature in signatures {
        let signature = signature.map_err(unreadable)?.signature;
        match check(&signature, &parts.text, keyring, now)? {
            Ok(signer) => {
                good.get_or_insert((signer, seconds(signature.created()).unwrap_or(0)));
            }
            Err(refusal) => refused.push((issuer(&signature), refusal)),
        }
    }
    let (signer, signed) = good.ok_or(OpenPgpError::NoGoodSignature { refused })?;
    let mut text = parts.text;
    text.push('\n');
    Ok(SignedText { text, signer, signed })
}

/// The signer's fingerprint; inside, why the signature does not count; outside, that it is forged.
fn check(
    signature: &Signature,
    text: &str,
    keyring: &Keyring,
    now: u64,
) -> Result<Result<String, Refusal>, OpenPgpError> {
    let policy = signature_policy(signature, now);
    let mut signers = keyring.signers(signature).peekable();
    if signers.peek().is_none() {
        return Ok(Err(Refusal::UnknownKey));
    }
    // A hash that is weak or unknown is not worth computing.
    if let Err(why @ (Refusal::WeakHash { .. } | Refusal::WrongKind)) = policy {
        return Ok(Err(why));
    }
    let mut refusal = Refusal::UnknownKey;
    for signer in signers {
        let fingerprint = format!("{:X}", signer.fingerprint());
        if !signer.made(signature, text.as_bytes()) {
            return Err(OpenPgpError::BadSignature { key: fingerprint });
        }
        let created = seconds(signature.created()).unwrap_or(0);
        match signer.may_sign(now) {
            Ok(()) if created < signer.created() => refusal = Refusal::WrongKind,
            Ok(()) => return Ok(policy.map(|()| fingerprint)),
            Err(why) => refusal = why,
        }
    }
    Ok(Err(refusal))
}

/// What holds for a signature whoever made it.
fn signature_policy(signature: &Signature, now: u64) -> Result<(), Refusal> {
    let hash = signature.hash_alg();
    if !is_strong(hash) {
        let hash = hash.map_or_else(|| "of an unknown kind".to_owned(), |hash| hash.to_string());
        return Err(Refusal::WeakHash { hash });
    }
    let (Some(SignatureType::Text), Some(created)) = (signature.typ(), seconds(signature.created())) else {
        return Err(Refusal::WrongKind);
    };
    if created > now + CLOCK_TOLERANCE_SECONDS {
        return Err(Refusal::FromTheFuture { created });
    }
    let lifetime = signature.signature_expiration_time().map_or(0, |duration| u64::from(duration.as_secs()));
    if lifetime != 0 && created + lifetime <= now {
        return Err(Refusal::SignatureExpired { expired: created + lifetime });
    }
    let unknown = |data: &SubpacketData| {
        matches!(data, SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_))
    };
    let mut packets = signature.config().into_iter().flat_map(|config| config.hashed_subpackets());
    if packets.any(|packet| packet.is_critical && unknown(&packet.data)) {
        return Err(Refusal::CriticalSubpacket);
    }
    Ok(())
}

fn issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("{fingerprint:X}");
    }
    signature.issuer_key_id().first().map_or_else(|| "(unnamed)".to_owned(), |id| id.to_string().to_uppercase())
}

fn is_strong(hash: Option<HashAlgorithm>) -> bool {
    matches!(
        hash,
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}

fn seconds(timestamp: Option<Timestamp>) -> Option<u64> {
    timestamp.map(|timestamp| u64::from(timestamp.as_secs()))
}
