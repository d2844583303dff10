//! The files of a tree as lines of a manifest, and the first line in which two lists differ.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::path_to_text;
use crate::digest::Digest;
use crate::tree::{Kind, NodeId, Tree, show};

/// One name in the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// `file`, `directory`, `symlink`, `character device`, `block device`, `fifo` or `socket`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The lower twelve bits of `st_mode`, as four octal digits.
    pub mode: String,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Last change, in seconds since 1970-01-01 00:00 UTC.
    pub mtime: i64,
    /// Nanoseconds of the last change, if not 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtime_nanoseconds: u32,
    /// Of a file: its size in bytes, holes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of a file: SHA-256 of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub sha256: Option<Digest>,
    /// Of a symlink: where it points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of a device: major and minor number, with a colon between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Of a further name of the same file: its first name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_link_to: Option<String>,
    /// Extended attributes, values in base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// The package it belongs to by the package database in the image: its position in `packages`, from 0. Left out
    /// where that is none, or more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<u32>,
    /// The step of the build that last wrote it; left out where it is as its package ships it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Step>,
}

/// A step of a build that writes files. What it reads decides what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// dpkg and the packages' scripts, while packages are configured.
    Configure,
    /// What no image keeps is taken out.
    Normalise,
    /// The recipe's host name, locale, time zone; the image's name and version.
    Settings,
    /// The recipe's users and groups.
    Accounts,
    /// What belongs to the way in which a machine keeps state.
    State,
    /// The recipe's files, directories and symlinks.
    Files,
    /// The recipe's units.
    Units,
}

impl File {
    /// The same without what only the builder knows: `package` and `by`.
    pub fn bare(&self) -> Self {
        Self { package: None, by: None, ..self.clone() }
    }

    /// What the image's bytes say of it.
    fn facts(&self) -> impl PartialEq {
        let times = (self.mtime, self.mtime_nanoseconds);
        let metadata = (&self.path, &self.kind, &self.mode, self.uid, self.gid, times, &self.xattrs);
        (metadata, self.size, self.sha256, &self.target, &self.device, &self.hard_link_to)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", show(.path))]
pub struct FileError {
    /// Which.
    pub path: Vec<u8>,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The lines of `tree`. Files whose digest is not known are read, on all cores.
pub fn files(tree: &Tree) -> Result<Vec<File>, FileError> {
    let mut first_names: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut names = Vec::new();
    for (path, id) in tree.walk() {
        let first = *first_names.entry(id).or_insert(names.len());
        names.push((path, id, first));
    }
    let first_of = |index: usize| names[index].2 == index;
    // One file at a time to a thread: sizes differ by orders of magnitude.
    let digests: Vec<Option<Digest>> = (0..names.len())
        .into_par_iter()
        .with_max_len(1)
        .map(|index| match &tree.node(names[index].1).kind {
            Kind::File(content) if first_of(index) => {
                let refuse = |source| FileError { path: names[index].0.clone(), source };
                content.digest().map(Some).map_err(refuse)
            }
            _ => Ok(None),
        })
        .collect::<Result<_, _>>()?;
    let line = |index: usize| {
        let (path, id, first) = &names[index];
        let link = (*first != index).then(|| absolute(&names[*first].0));
        line(tree, path, *id, digests[*first], link)
    };
    Ok((0..names.len()).map(line).collect())
}

fn absolute(path: &[u8]) -> String {
    format!("/{}", path_to_text(path))
}

fn line(tree: &Tree, path: &[u8], id: NodeId, sha256: Option<Digest>, hard_link_to: Option<String>) -> File {
    let node = tree.node(id);
    let metadata = &node.metadata;
    let encode = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        (path_to_text(name), base64::engine::general_purpose::STANDARD.encode(value))
    };
    let device = match &node.kind {
        Kind::CharacterDevice(device) | Kind::BlockDevice(device) => Some(format!("{}:{}", device.major, device.minor)),
        _ => None,
    };
    File {
        path: absolute(path),
        kind: node.kind.word().to_owned(),
        mode: format!("{:04o}", metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime.seconds,
        mtime_nanoseconds: metadata.mtime.nanoseconds,
        size: if let Kind::File(content) = &node.kind { Some(content.size()) } else { None },
        sha256,
        target: if let Kind::Symlink(target) = &node.kind { Some(path_to_text(target)) } else { None },
        device,
        hard_link_to,
        xattrs: metadata.xattrs.iter().map(encode).collect(),
        package: None,
        by: None,
    }
}

/// The first difference: the number of the line, its path, and what differs. `None` if the lists are equal but for
/// `package` and `by`, which no bytes say.
pub fn compare(said: &[File], found: &[File]) -> Option<(usize, String, &'static str)> {
    let index = said.iter().zip(found).take_while(|(said, found)| said.facts() == found.facts()).count();
    let (said, found) = (said.get(index), found.get(index));
    let (said, found) = match (said, found) {
        (None, None) => return None,
        (Some(said), None) => return Some((index, said.path.clone(), "is in the manifest but not in the image")),
        (None, Some(found)) => return Some((index, found.path.clone(), "is in the image but not in the manifest")),
        (Some(said), Some(found)) => (said, found),
    };
    if said.path != found.path {
        return Some((index, found.path.clone(), "is in the image where the manifest has another path"));
    }
    let differences = [
        (said.kind != found.kind, "has another type"),
        (said.mode != found.mode, "has another mode"),
        (said.uid != found.uid || said.gid != found.gid, "has another owner"),
        (said.size != found.size, "has another size"),
        (said.sha256 != found.sha256, "has other contents"),
        (said.target != found.target, "points elsewhere"),
        (said.device != found.device, "is another device"),
        (said.hard_link_to != found.hard_link_to, "is linked to other names"),
        (said.xattrs != found.xattrs, "has other extended attributes"),
    ];
    let what = differences.into_iter().find(|(differs, _)| *differs).map_or("has another time", |(_, what)| what);
    Some((index, found.path.clone(), what))
}
