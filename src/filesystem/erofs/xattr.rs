//! Extended attributes: those of one file behind its inode, those of several files in a shared area.
//!
//! ```text
//! behind an inode:  filter 4 │ shared count 1 │ 0 (7) │ shared ids, 4 each ... │ entries ...
//! entry:            name length 1 │ prefix 1 │ value size 2 │ name │ value │ zeros to a multiple of 4
//! ```
//!
//! A shared attribute is an entry in the shared area; its id is its offset there divided by 4.

use std::collections::BTreeMap;

use super::format::XATTR_HEADER;

/// Prefixes that an entry names by number. Linux has no others for EROFS; the two of ACLs are whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// The count of shared attributes of one file is one byte.
const SHARED_MAX: usize = 255;

/// An attribute that EROFS cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// The name starts with no known prefix.
    #[error("EROFS holds attributes of the namespaces user, trusted and security and POSIX ACLs only")]
    Namespace,
    /// The name has more than 255 bytes behind its prefix, or none.
    #[error("the name has to have 1 to 255 bytes behind its namespace")]
    Name,
    /// The value has more than 65535 bytes.
    #[error("the value is larger than 65535 bytes")]
    Value,
}

/// Number of the prefix of `name`, and the rest of the name.
fn split(name: &[u8]) -> Result<(u8, &[u8]), XattrError> {
    let acl = |prefix: &[u8]| prefix.starts_with(b"system.");
    for (number, prefix) in PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            return match (acl(prefix), rest.len()) {
                (true, 0) | (false, 1..=255) => Ok((number, rest)),
                (true, _) => Err(XattrError::Namespace),
                (false, _) => Err(XattrError::Name),
            };
        }
    }
    Err(XattrError::Namespace)
}

/// The full name of an attribute; `None` if the prefix number is unknown.
pub fn join(prefix: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let (_, text) = PREFIXES.iter().find(|(number, _)| *number == prefix)?;
    Some([text, rest].concat())
}

fn encode_entry(name: &[u8], value: &[u8]) -> Result<Vec<u8>, XattrError> {
    let (prefix, rest) = split(name)?;
    let size = u16::try_from(value.len()).map_err(|_| XattrError::Value)?;
    let mut entry = vec![rest.len() as u8, prefix];
    entry.extend_from_slice(&size.to_le_bytes());
    entry.extend_from_slice(rest);
    entry.extend_from_slice(value);
    entry.resize(entry.len().next_multiple_of(4), 0);
    Ok(entry)
}

type Attribute<'a> = (&'a [u8], &'a [u8]);

/// The shared area: attributes that several files have, each once.
#[derive(Debug, Default)]
pub struct SharedXattrs<'a> {
    ids: BTreeMap<Attribute<'a>, u32>,
    bytes: Vec<u8>,
}

impl<'a> SharedXattrs<'a> {
    /// Collects what at least two of `files` have.
    ///
    /// What EROFS cannot hold is left out: encoding the file that has it tells which one that is.
    pub fn collect(files: impl Iterator<Item = &'a BTreeMap<Vec<u8>, Vec<u8>>>) -> Self {
        let mut counts: BTreeMap<Attribute<'a>, usize> = BTreeMap::new();
        for (name, value) in files.flatten() {
            *counts.entry((name.as_slice(), value.as_slice())).or_default() += 1;
        }
        let mut shared = Self::default();
        for (name, value) in counts.into_iter().filter(|(_, count)| *count > 1).map(|(attribute, _)| attribute) {
            let Ok(entry) = encode_entry(name, value) else { continue };
            shared.ids.insert((name, value), (shared.bytes.len() / 4) as u32);
            shared.bytes.extend_from_slice(&entry);
        }
        shared
    }

    /// The area.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The attributes behind one inode; nothing for none. `first_id` is the id of the first byte of the area.
    pub fn encode(&self, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>, first_id: u32) -> Result<Vec<u8>, XattrError> {
        if xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        for (name, value) in xattrs {
            match self.ids.get(&(name.as_slice(), value.as_slice())) {
                Some(id) if ids.len() < SHARED_MAX => ids.push(first_id + id),
                _ => entries.extend_from_slice(&encode_entry(name, value)?),
            }
        }
        let mut bytes = vec![0; XATTR_HEADER];
        bytes[4] = ids.len() as u8;
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        bytes.extend_from_slice(&entries);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(list: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn an_attribute_of_two_files_is_stored_once() {
        let a = attributes(&[("security.selinux", "etc_t"), ("user.a", "1")]);
        let b = attributes(&[("security.selinux", "etc_t")]);
        let shared = SharedXattrs::collect([&a, &b].into_iter());
        assert_eq!(shared.bytes(), b"\x07\x06\x05\0selinuxetc_t");
        assert_eq!(shared.encode(&b, 10).unwrap(), b"\0\0\0\0\x01\0\0\0\0\0\0\0\x0a\0\0\0");
        assert_eq!(shared.encode(&a, 0).unwrap()[16..], *b"\x01\x01\x01\0a1\0\0");
        assert_eq!(shared.encode(&BTreeMap::new(), 0).unwrap(), b"");
    }

    #[test]
    fn refuses_what_linux_would_not_show() {
        let refuse = |name: &[u8], size: usize| encode_entry(name, &vec![0; size]).unwrap_err();
        assert_eq!(refuse(b"system.other", 1), XattrError::Namespace);
        assert_eq!(refuse(b"system.posix_acl_access.x", 1), XattrError::Namespace);
        assert_eq!(refuse(b"user.", 1), XattrError::Name);
        assert_eq!(refuse(&[&b"user."[..], &[b'n'; 256]].concat(), 1), XattrError::Name);
        assert_eq!(refuse(b"user.a", 65536), XattrError::Value);
    }

    #[test]
    fn names_come_back_from_their_prefix() {
        for name in
            [&b"user.a"[..], b"system.posix_acl_access", b"system.posix_acl_default", b"trusted.x", b"security.y"]
        {
            let (prefix, rest) = split(name).unwrap();
            assert_eq!(join(prefix, rest).unwrap(), name);
        }
        assert_eq!(join(5, b"x"), None);
    }
}
