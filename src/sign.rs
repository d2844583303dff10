//! Key pairs in files, and signatures by them: Ed25519 (RFC 8032).
//!
//! Flows in: texts of key files, bytes to sign or to verify. Flows out: keys, signatures, texts of key files.
//!
//! | file | form |
//! |---|---|
//! | secret key | PEM `PRIVATE KEY`: PKCS#8 version 1 (RFC 5958, RFC 8410), as `openssl genpkey -algorithm ed25519` writes it |
//! | public keys | PEM `PUBLIC KEY`: SubjectPublicKeyInfo (RFC 8410), as `openssl pkey -pubout` writes it; several may follow one another |
//!
//! Invariants: a secret key is shown by nothing (no `Debug`, no error). Signatures are verified strictly: of one
//! message and key nobody can make a second valid one from the first.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::digest::Digest;

/// A file of public keys is no larger than this: hundreds of keys.
pub const KEY_FILE_MAX: u64 = 64 << 10;

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// What signs.
pub struct SecretKey(SigningKey);

/// What verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// The short name of a public key: the first 16 bytes of the SHA-256 of its 32 bytes, as 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// A signature; as text in base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A text that is no key, or no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No secret key.
    #[error("not an Ed25519 secret key in PEM (BEGIN PRIVATE KEY), without a pass phrase")]
    Secret,
    /// No public key.
    #[error("not an Ed25519 public key in PEM (BEGIN PUBLIC KEY)")]
    Public,
    /// A secret key where a public one belongs.
    #[error("this is the secret key: list the public one, and show this one to nobody")]
    SecretForPublic,
    /// No signature.
    #[error("not a signature: 64 bytes in base64")]
    Signature,
}

impl SecretKey {
    /// The key of 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&bytes))
    }

    /// Reads the text of a key file.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(text).map(Self).map_err(|_| KeyError::Secret)
    }

    /// The text of a key file.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        // Version 1, without the public key: what OpenSSL reads.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).map(|text| text.to_string()).map_err(|_| KeyError::Secret)
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs all of `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl PublicKey {
    /// Reads the text of a file of public keys: at least one.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, KeyError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::SecretForPublic);
        }
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find(PEM_BEGIN) {
            let end = rest[begin..].find(PEM_END).ok_or(KeyError::Public)? + begin + PEM_END.len();
            let key = VerifyingKey::from_public_key_pem(&rest[begin..end]).map_err(|_| KeyError::Public)?;
            keys.push(Self(key));
            rest = &rest[end..];
        }
        if keys.is_empty() { Err(KeyError::Public) } else { Ok(keys) }
    }

    /// The text of a key file.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| KeyError::Public)
    }

    /// Its short name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(self.0.as_bytes()).to_string()[..32].to_owned())
    }

    /// Whether the holder of the secret key signed exactly this message.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = BASE64.decode(text).map_err(|_| KeyError::Signature)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_random([seed; 32])
    }

    #[test]
    fn a_signature_is_of_one_message_by_one_key() {
        let signature = key(1).sign(b"message");
        assert!(key(1).public().verifies(b"message", &signature));
        assert!(!key(2).public().verifies(b"message", &signature));
        assert!(!key(1).public().verifies(b"Message", &signature));
        let read: Signature = signature.to_string().parse().unwrap();
        assert!(key(1).public().verifies(b"message", &read));
        assert!("".parse::<Signature>().is_err() && "AAAA".parse::<Signature>().is_err());
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signs_as_the_specification_says() {
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
        };
        let secret = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signature = SecretKey::from_random(secret.try_into().unwrap()).sign(&[0x72]);
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(signature.0.to_vec(), bytes(expected));
    }

    #[test]
    fn key_files_are_read_back() {
        let read = SecretKey::from_pem(&key(3).to_pem().unwrap()).unwrap();
        assert_eq!(read.public(), key(3).public());
        let both = key(3).public().to_pem().unwrap() + "a word\n" + &key(4).public().to_pem().unwrap();
        assert_eq!(PublicKey::from_pem(&both).unwrap(), [key(3).public(), key(4).public()]);
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_secret_one_is_not_listed() {
        for text in ["", "ssh-ed25519 AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA", "-----BEGIN é"] {
            assert_eq!(PublicKey::from_pem(text), Err(KeyError::Public), "{text}");
            assert!(SecretKey::from_pem(text).is_err());
        }
        assert_eq!(PublicKey::from_pem(&key(1).to_pem().unwrap()), Err(KeyError::SecretForPublic));
    }
}
