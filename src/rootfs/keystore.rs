//! Java keystores that are the same whenever they are made.
//!
//! In: a keystore of the type JKS, as `keytool` and Debian's `ca-certificates-java` write it. Out: the same with one date
//! for all entries, and the digest that belongs to that. `sun.security.provider.JavaKeyStore` of OpenJDK is what the
//! format is specified by:
//!
//! ```text
//! u32 0xfeedfeed, u32 version (1, 2), u32 entries            numbers are big-endian, a text has a u16 length
//! entry: u32 2, text alias, u64 milliseconds, certificate                 (a certificate that is trusted)
//!        u32 1, text alias, u64 milliseconds, u32 length, key, u32 count, certificates
//! certificate: text type (version 2 only), u32 length, bytes
//! SHA-1 of: password in UTF-16, "Mighty Aphrodite", everything above
//! ```
//!
//! Invariant: a keystore that is not understood to its last byte, or has another password than everybody's
//! (`changeit`), is left alone.

use sha1::{Digest as _, Sha1};

const MAGIC: u32 = 0xfeed_feed;
const KEY: u32 = 1;
const TRUSTED: u32 = 2;
const DIGEST_SIZE: usize = 20;
/// What OpenJDK and Debian ship: it keeps no secret, but makes the digest.
const PASSWORD: &str = "changeit";
/// OpenJDK's salt.
const SALT: &[u8] = b"Mighty Aphrodite";

/// The keystore with every entry dated `seconds` after 1970; `None` if `bytes` are none, or not one with that password.
pub(super) fn with_date(bytes: &[u8], seconds: i64) -> Option<Vec<u8>> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST_SIZE>()?;
    if digest_of(body) != *digest {
        return None;
    }
    let date = seconds.checked_mul(1000)?.to_be_bytes();
    let mut dated = body.to_vec();
    for offset in dates(body)? {
        dated[offset..offset + date.len()].copy_from_slice(&date);
    }
    let digest = digest_of(&dated);
    dated.extend_from_slice(&digest);
    Some(dated)
}

fn digest_of(body: &[u8]) -> [u8; DIGEST_SIZE] {
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    Sha1::new().chain_update(password).chain_update(SALT).chain_update(body).finalize().into()
}

/// Where the entries' dates stand.
fn dates(body: &[u8]) -> Option<Vec<usize>> {
    let mut reader = Reader { all: body, rest: body };
    let (magic, version, count) = (reader.number()?, reader.number()?, reader.number()?);
    if magic != MAGIC || !matches!(version, 1 | 2) {
        return None;
    }
    let mut dates = Vec::new();
    for _ in 0..count {
        let tag = reader.number()?;
        reader.text()?;
        dates.push(reader.offset());
        reader.skip(size_of::<u64>())?;
        match tag {
            TRUSTED => reader.certificate(version)?,
            KEY => {
                reader.bytes()?;
                for _ in 0..reader.number()? {
                    reader.certificate(version)?;
                }
            }
            _ => return None,
        }
    }
    reader.rest.is_empty().then_some(dates)
}

struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl Reader<'_> {
    fn offset(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn text(&mut self) -> Option<()> {
        let (length, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        self.skip(usize::from(u16::from_be_bytes(*length)))
    }

    fn bytes(&mut self) -> Option<()> {
        let length = self.number()?;
        self.skip(usize::try_from(length).ok()?)
    }

    fn certificate(&mut self, version: u32) -> Option<()> {
        if version == 2 {
            self.text()?;
        }
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and a key with two certificates, as `keytool` would write them.
    fn keystore(dates: [u64; 2]) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
        let bytes = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let number = |number: u32| number.to_be_bytes().to_vec();
        let certificate = [text("X.509"), bytes(b"certificate")].concat();
        let trusted = [number(2), text("debian:a.pem"), dates[0].to_be_bytes().to_vec(), certificate.clone()].concat();
        let key = [number(1), text("own"), dates[1].to_be_bytes().to_vec(), bytes(b"key"), number(2)].concat();
        let body = [number(MAGIC), number(2), number(2), trusted, key, certificate.clone(), certificate].concat();
        signed(body)
    }

    fn signed(mut body: Vec<u8>) -> Vec<u8> {
        let digest = digest_of(&body);
        body.extend_from_slice(&digest);
        body
    }

    #[test]
    fn two_keystores_that_differ_in_dates_become_one() {
        let once = with_date(&keystore([1, 2]), 7).unwrap();
        assert_eq!(once, with_date(&keystore([3, 4]), 7).unwrap());
        assert_eq!(once, keystore([7000, 7000]));
    }

    #[test]
    fn a_keystore_with_another_password_is_left_alone() {
        let mut other = keystore([1, 2]);
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(with_date(&other, 7), None);
    }

    #[test]
    fn what_is_not_understood_to_the_last_byte_is_left_alone() {
        let whole = keystore([1, 2]);
        let body = &whole[..whole.len() - DIGEST_SIZE];
        for length in 0..body.len() {
            assert_eq!(with_date(&signed(body[..length].to_vec()), 7), None, "{length} bytes");
        }
        assert_eq!(with_date(&signed([body, b"more"].concat()), 7), None);
        let with_number = |offset: usize, number: u32| {
            let mut changed = body.to_vec();
            changed[offset..offset + 4].copy_from_slice(&number.to_be_bytes());
            signed(changed)
        };
        for (offset, number) in [(0, 0xcafe_babe), (4, 3), (8, u32::MAX), (12, 9)] {
            assert_eq!(with_date(&with_number(offset, number), 7), None, "{number} at {offset}");
        }
        assert_eq!(with_date(b"", 7), None);
    }

    #[test]
    fn a_date_that_has_no_number_of_milliseconds_changes_nothing() {
        assert_eq!(with_date(&keystore([1, 2]), i64::MAX), None);
    }
}
