//! UUIDs, and how each one in an image is derived: from a seed and a purpose, never drawn at random.
//!
//! Flows in: a [`Seed`] (what an image *is*: its name, version, architecture). Flows out: [`Uuid`]s and salts that are
//! the same for the same image on every machine and differ between any two images or purposes.
//!
//! The derivation is systemd-repart's (`src/repart/repart.c`): HMAC-SHA256 with the seed as key over the purpose; the
//! first 16 bytes, marked as version 4 of RFC 9562, are a UUID, all 32 bytes are a salt. The two exceptions are the
//! UUIDs of verified partitions, which are halves of the root hash ([`crate::verity::RootHash`]).

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A UUID (RFC 9562): 16 bytes in the order of its text.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

/// A text that is not `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a UUID is 8-4-4-4-12 lower-case hexadecimal digits, found {found:?}")]
pub struct ParseUuidError {
    /// What was found instead.
    pub found: String,
}

impl Uuid {
    /// All zeros: "none" in a partition table.
    pub const NIL: Self = Self([0; 16]);

    /// A UUID whose bytes are known.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A UUID written as the number that its digits make; for constants.
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// The 16 bytes, in the order of the text.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As it stands in a GUID partition table (UEFI 2.10, appendix A): the first three fields are little-endian.
    pub const fn to_guid_bytes(self) -> [u8; 16] {
        let b = self.0;
        [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
    }

    /// The inverse of [`Uuid::to_guid_bytes`].
    pub const fn from_guid_bytes(bytes: [u8; 16]) -> Self {
        Self(Self(bytes).to_guid_bytes())
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseUuidError { found: text.chars().take(80).collect() };
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let value = u128::from_str_radix(&digits, 16).map_err(|_| refuse())?;
        let uuid = Self::from_u128(value);
        if uuid.to_string() == text { Ok(uuid) } else { Err(refuse()) }
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What all identifiers of one image are derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of what `parts` name together, such as name, version and architecture. Parts are kept apart: `["ab",
    /// "c"]` and `["a", "bc"]` give different seeds.
    pub fn new(parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// 32 bytes for `purpose`.
    pub fn bytes(&self, purpose: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose);
        mac.finalize().into_bytes().into()
    }

    /// The UUID for `purpose`, marked as version 4.
    pub fn uuid(&self, purpose: &[u8]) -> Uuid {
        let mut bytes: [u8; 16] = std::array::from_fn(|i| self.bytes(purpose)[i]);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_on_disk_has_its_first_three_fields_turned_around() {
        let esp: Uuid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
        let disk = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(esp.to_guid_bytes(), disk);
        assert_eq!(Uuid::from_guid_bytes(disk), esp);
    }

    #[test]
    fn accepts_only_the_canonical_text() {
        for text in ["", "c12a7328f81f11d2ba4b00a0c93ec93b", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "+12a7328-f81f"] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn derived_uuids_are_version_4_and_differ_by_seed_and_purpose() {
        let seed = Seed::new(&["minimal", "1", "amd64"]);
        let uuid = seed.uuid(b"disk-uuid");
        assert_eq!(uuid, seed.uuid(b"disk-uuid"));
        assert_eq!(uuid.as_bytes()[6] >> 4, 4);
        assert_eq!(uuid.as_bytes()[8] >> 6, 2);
        assert_ne!(uuid, seed.uuid(b"verity-uuid"));
        assert_ne!(uuid, Seed::new(&["minimal", "11", "md64"]).uuid(b"disk-uuid"));
    }

    #[test]
    fn derives_as_hmac_sha256_of_rfc_4231_does() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let expected: [u8; 4] = [0x5b, 0xdc, 0xc1, 0x46];
        assert_eq!(mac.finalize().into_bytes()[..4], expected);
    }
}
