//! Keys that are trusted, and which of their parts may sign at a moment.
//!
//! A key (RFC 9580 "certificate") is a primary key with user ids and subkeys, all bound together by signatures of the
//! primary key. The `pgp` crate checks the mathematics of one signature; what a key may do is decided here:
//!
//! - a binding counts if the primary key made it, over a strong hash, and not in the future;
//! - a key revoked by itself is revoked, whatever the reason and the date (a stolen key could be back-dated);
//! - a key expires when its newest binding says so, and with it everything it ever signed;
//! - a signing subkey must have signed back, or anybody could claim another's subkey;
//! - RSA of 2048 bits and more, Ed25519, Ed448, ECDSA over NIST curves; nothing else.
//!
//! Certifications by third parties are not looked at: whom to trust is said by naming the key.

use std::io::Cursor;

use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{Fingerprint, KeyDetails, KeyId, PublicParams, Tag};

use super::{OpenPgpError, Refusal, is_strong, seconds};

/// The keys that a repository's indexes may be signed with.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// A part of a key that may have made a signature.
pub(super) enum Signer<'a> {
    Primary(&'a SignedPublicKey),
    Subkey(&'a SignedPublicKey, &'a SignedPublicSubKey),
}

impl Keyring {
    /// Reads keys, armoured or binary, any number of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenPgpError> {
        const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
        let mut certificates = Vec::new();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(BEGIN) => {
                // A file may hold several armoured blocks one after the other; text between them is a comment.
                let starts: Vec<_> = text.match_indices(BEGIN).map(|(start, _)| start).collect();
                for (at, &start) in starts.iter().enumerate() {
                    let end = starts.get(at + 1).copied().unwrap_or(text.len());
                    read_keys(&text.as_bytes()[start..end], &mut certificates)?;
                }
            }
            _ => read_keys(bytes, &mut certificates)?,
        }
        if certificates.is_empty() {
            return Err(OpenPgpError::NoKeys);
        }
        Ok(Self { certificates })
    }

    /// All keys of both.
    pub fn join(mut self, other: &Self) -> Self {
        self.certificates.extend(other.certificates.iter().cloned());
        self
    }

    /// The fingerprints of the primary keys, in upper-case hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.certificates.iter().map(|key| format!("{:X}", key.fingerprint())).collect()
    }

    /// The parts that may have made `signature`, judged by the issuer it names.
    pub(super) fn signers<'a>(&'a self, signature: &'a Signature) -> impl Iterator<Item = Signer<'a>> {
        let all = self.certificates.iter().flat_map(|key| {
            let subkeys = key.public_subkeys.iter().map(move |subkey| Signer::Subkey(key, subkey));
            std::iter::once(Signer::Primary(key)).chain(subkeys)
        });
        all.filter(|signer| {
            let prints = signature.issuer_fingerprint();
            if prints.is_empty() {
                signature.issuer_key_id().contains(&&signer.key_id())
            } else {
                prints.contains(&&signer.fingerprint())
            }
        })
    }
}

fn read_keys(bytes: &[u8], into: &mut Vec<SignedPublicKey>) -> Result<(), OpenPgpError> {
    let unreadable = |source| OpenPgpError::Keyring { source: Box::new(source) };
    let (keys, _) = SignedPublicKey::from_reader_many_buf(Cursor::new(bytes)).map_err(unreadable)?;
    for key in keys {
        into.push(key.map_err(unreadable)?);
    }
    Ok(())
}

impl Signer<'_> {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Primary(key) => key.fingerprint(),
            Self::Subkey(_, subkey) => subkey.fingerprint(),
        }
    }

    fn key_id(&self) -> KeyId {
        match self {
            Self::Primary(key) => key.legacy_key_id(),
            Self::Subkey(_, subkey) => subkey.legacy_key_id(),
        }
    }

    pub(super) fn created(&self) -> u64 {
        match self {
            Self::Primary(key) => u64::from(key.created_at().as_secs()),
            Self::Subkey(_, subkey) => u64::from(subkey.created_at().as_secs()),
        }
    }

    /// Whether `signature` over `text` is this key's: mathematics only.
    pub(super) fn made(&self, signature: &Signature, text: &[u8]) -> bool {
        match self {
            Self::Primary(key) => signature.verify(*key, text).is_ok(),
            Self::Subkey(_, subkey) => signature.verify(*subkey, text).is_ok(),
        }
    }

    /// Whether this key may sign at `now`; the reason if it may not.
    pub(super) fn may_sign(&self, now: u64) -> Result<(), Refusal> {
        match self {
            Self::Primary(key) => {
                let bindings = primary_bindings(key, now)?;
                strong_key(key.public_params())?;
                let flags = bindings.iter().rev().find_map(|binding| flags(binding));
                if flags.is_some_and(|flags| !flags.sign()) { Err(Refusal::NotForSigning) } else { Ok(()) }
            }
            Self::Subkey(key, subkey) => {
                primary_bindings(key, now)?;
                subkey_may_sign(key, subkey, now)
            }
        }
    }
}

/// The bindings of the primary key that count, the newest last; or why the key is of no use.
fn primary_bindings(key: &SignedPublicKey, now: u64) -> Result<Vec<&Signature>, Refusal> {
    let primary = &key.primary_key;
    strong_key(primary.public_params())?;
    let details = &key.details;
    if details.revocation_signatures.iter().any(|signature| signature.verify_key(primary).is_ok()) {
        return Err(Refusal::Revoked);
    }
    let counts = |signature: &Signature| is_strong(signature.hash_alg()) && is_past(signature, now);
    let mut bindings: Vec<&Signature> = Vec::new();
    for user in &details.users {
        let own = |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let own: Vec<&Signature> = user.signatures.iter().filter(own).collect();
        // A revoked user id binds nothing; the key may have others.
        if own.iter().all(|signature| signature.typ() != Some(SignatureType::CertRevocation)) {
            bindings.extend(own.into_iter().filter(|signature| counts(signature)));
        }
    }
    let direct = details.direct_signatures.iter().filter(|one| counts(one) && one.verify_key(primary).is_ok());
    bindings.extend(direct);
    if bindings.is_empty() {
        return Err(Refusal::NotBound);
    }
    bindings.sort_by_key(|signature| seconds(signature.created()));
    let created = u64::from(primary.created_at().as_secs());
    if created > now {
        return Err(Refusal::FromTheFuture { created });
    }
    // The newest binding that speaks of expiry decides: a direct signature may be newer and be about something else.
    match bindings.iter().rev().find_map(|signature| expiry(signature, created)) {
        Some(expired) if expired <= now => Err(Refusal::KeyExpired { expired }),
        _ => Ok(bindings),
    }
}

fn subkey_may_sign(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<(), Refusal> {
    let primary = &key.primary_key;
    strong_key(subkey.public_params())?;
    let mut newest: Option<&Signature> = None;
    for signature in &subkey.signatures {
        if signature.verify_subkey_binding(primary, &subkey.key).is_err() {
            continue;
        }
        match signature.typ() {
            Some(SignatureType::SubkeyRevocation) => return Err(Refusal::Revoked),
            Some(SignatureType::SubkeyBinding)
                if is_strong(signature.hash_alg())
                    && is_past(signature, now)
                    && newest.is_none_or(|other| seconds(other.created()) <= seconds(signature.created())) =>
            {
                newest = Some(signature);
            }
            _ => {}
        }
    }
    let binding = newest.ok_or(Refusal::NotBound)?;
    if !flags(binding).is_some_and(|flags| flags.sign()) {
        return Err(Refusal::NotForSigning);
    }
    let back = binding.embedded_signature().filter(|back| is_strong(back.hash_alg()));
    if back.is_none_or(|back| back.verify_primary_key_binding(&subkey.key, primary).is_err()) {
        return Err(Refusal::NotBound);
    }
    let created = u64::from(subkey.created_at().as_secs());
    match expiry(binding, created) {
        Some(expired) if expired <= now => Err(Refusal::KeyExpired { expired }),
        _ if created > now => Err(Refusal::FromTheFuture { created }),
        _ => Ok(()),
    }
}

fn is_past(signature: &Signature, now: u64) -> bool {
    seconds(signature.created()).is_some_and(|created| created <= now)
}

/// When a key made at `created` expires by this binding; zero in a signature means never.
fn expiry(signature: &Signature, created: u64) -> Option<u64> {
    let after = signature.key_expiration_time().map(|duration| u64::from(duration.as_secs()))?;
    (after != 0).then_some(created + after)
}

/// What the binding allows; `None` if it does not say.
fn flags(signature: &Signature) -> Option<pgp::packet::KeyFlags> {
    let says = |packet: &pgp::packet::Subpacket| matches!(packet.data, pgp::packet::SubpacketData::KeyFlags(_));
    signature.config()?.hashed_subpackets().any(says).then(|| signature.key_flags())
}

fn strong_key(parameters: &PublicParams) -> Result<(), Refusal> {
    match parameters {
        // An MPI is two bytes of length and then the number: modulus and exponent of a 2048-bit key are over 260.
        PublicParams::RSA(rsa) if rsa.write_len() > 2 + 256 + 2 => Ok(()),
        PublicParams::Ed25519(_) | PublicParams::EdDSALegacy(_) | PublicParams::Ed448(_) => Ok(()),
        PublicParams::ECDSA(curve) if curve.is_supported() => Ok(()),
        _ => Err(Refusal::WeakKey),
    }
}
