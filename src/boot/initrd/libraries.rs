//! The shared libraries that programs need, found as the dynamic linker finds them: `DT_NEEDED` names, looked for in
//! `DT_RUNPATH` and the default directories.

use std::collections::BTreeSet;

use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use super::InitrdError;
use crate::tree::{Kind, Tree};

/// What a program or library says about the libraries it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    libraries: Vec<Vec<u8>>,
    directories: Vec<Vec<u8>>,
    interpreter: Option<Vec<u8>>,
}

/// What the ELF file in `bytes` needs; `None` if it is no ELF file of 64 bits, or a damaged one.
fn needs(bytes: &[u8]) -> Option<Needs> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    let mut needs = Needs::default();
    for segment in segments {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, bytes) {
            needs.interpreter = Some(interpreter.to_vec());
        }
        let Ok(Some(dynamic)) = segment.dynamic(endian, bytes) else { continue };
        let find = |tag| dynamic.iter().find(|d| d.tag(endian) == tag).map(|d| d.val(endian));
        let (address, size) = (find(elf::DT_STRTAB)?, find(elf::DT_STRSZ)?);
        let strings = segments.iter().find_map(|s| s.data_range(endian, bytes, address, size).ok().flatten())?;
        let string = |offset: u64| {
            let rest = strings.get(usize::try_from(offset).ok()?..)?;
            rest.split(|byte| *byte == 0).next()
        };
        for entry in dynamic {
            match entry.tag(endian) {
                elf::DT_NEEDED => needs.libraries.push(string(entry.val(endian))?.to_vec()),
                elf::DT_RUNPATH | elf::DT_RPATH => {
                    let list = string(entry.val(endian))?;
                    needs.directories.extend(list.split(|byte| *byte == b':').map(<[u8]>::to_vec));
                }
                _ => {}
            }
        }
    }
    Some(needs)
}

/// Paths of `source` that the ELF files among `programs` need, and that those need, as the linker opens them.
/// Contents that are no ELF files need nothing.
pub fn closure(source: &Tree, programs: &[Vec<u8>], opened: &[&str]) -> Result<BTreeSet<Vec<u8>>, InitrdError> {
    let defaults = default_directories(source);
    let mut found = BTreeSet::new();
    // Each with the directories of what needs it: a library that the program has loaded already satisfies another
    // library, even if that one's own directories would not lead to it.
    let mut pending: Vec<(Vec<u8>, Vec<Vec<u8>>)> = programs.iter().map(|path| (path.clone(), Vec::new())).collect();
    for library in opened {
        let path = find(source, library.as_bytes(), &defaults).ok_or_else(|| InitrdError::NoLibrary {
            library: (*library).to_owned(),
            program: b"usr/lib/systemd/systemd".to_vec(),
        })?;
        pending.push((path, Vec::new()));
    }
    let mut seen = BTreeSet::new();
    while let Some((path, inherited)) = pending.pop() {
        let (real, id) = source.resolve(&path)?;
        let Kind::File(_) = source.node(id).kind else { continue };
        if !programs.contains(&path) {
            found.insert(path.clone());
        }
        if !seen.insert(real.clone()) {
            continue;
        }
        let Some(needs) = needs(&super::contents_of(source, &real, id)?) else { continue };
        if let Some(interpreter) = needs.interpreter {
            pending.push((merged(&interpreter), Vec::new()));
        }
        let mut own = needs.directories;
        own.extend(inherited);
        let directories: Vec<Vec<u8>> = own.iter().chain(&defaults).cloned().collect();
        for library in needs.libraries {
            let path = find(source, &library, &directories).ok_or_else(|| InitrdError::NoLibrary {
                library: String::from_utf8_lossy(&library).into_owned(),
                program: real.clone(),
            })?;
            pending.push((path, own.clone()));
        }
    }
    Ok(found)
}

/// An interpreter's path below the root, with the merged `/usr` that no package of the set makes.
fn merged(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if path.starts_with(b"lib") { [b"usr/", path].concat() } else { path.to_vec() }
}

/// `usr/lib/<architecture>-linux-<abi>`, which Debian's linker searches without a cache, and `usr/lib64`.
fn default_directories(source: &Tree) -> Vec<Vec<u8>> {
    let entries = source.lookup(b"usr/lib").and_then(|id| source.entries(id));
    let names = entries.into_iter().flatten().map(|(name, _)| name);
    let multiarch = names.filter(|name| name.windows(7).any(|part| part == b"-linux-"));
    multiarch
        .map(|name| [b"usr/lib/", &name[..]].concat())
        .chain([b"usr/lib64".to_vec(), b"usr/lib".to_vec()])
        .collect()
}

fn find(source: &Tree, library: &[u8], directories: &[Vec<u8>]) -> Option<Vec<u8>> {
    directories.iter().find_map(|directory| {
        let directory = directory.strip_prefix(b"/").unwrap_or(directory);
        let path = [directory, b"/", library].concat();
        source.resolve(&path).is_ok().then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_program_needs() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let needs = needs(&own).unwrap();
        assert!(needs.libraries.contains(&b"libc.so.6".to_vec()), "{needs:?}");
        assert!(needs.interpreter.is_some());
    }

    #[test]
    fn a_damaged_program_never_panics() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let start = &own[..own.len().min(4096)];
        for offset in 0..start.len().min(1024) {
            let mut mutated = start.to_vec();
            mutated[offset] ^= 0xff;
            let _ = needs(&mutated);
        }
        assert_eq!(needs(b"#!/bin/sh"), None);
    }
}
