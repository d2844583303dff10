//! Outputs that are still as a build left them: the next build of the same inputs has nothing to do.
//!
//! After an output was published, the store notes under the directory's path which image it holds and what the file
//! system says of each file: device, inode, size, time of the last change of its bytes and of its inode. The last
//! one nobody can set: a file that was written to, replaced or put back from a copy is not the one that was noted,
//! and the output is made again from the image in the store. A note that cannot be read or written is none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store::Store;

/// What was published in a directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// The key of the image.
    image: Digest,
    /// Identity of each file, by its name.
    files: BTreeMap<String, [i64; 7]>,
}

/// Whether `directory` is what the image `image` was published as, untouched since.
pub(super) fn is_unchanged(store: &Store, directory: &Path, image: Digest) -> bool {
    let noted = || -> Option<Note> {
        let text = store.note(&name(directory)?).ok()??;
        serde_json::from_slice(&text).ok()
    };
    noted().is_some_and(|note| note.image == image && files(directory).is_ok_and(|files| files == note.files))
}

/// Notes that `directory` holds the image `image`.
pub(super) fn remember(store: &Store, directory: &Path, image: Digest) {
    let note = || -> Option<()> {
        let note = Note { image, files: files(directory).ok()? };
        store.set_note(&name(directory)?, &serde_json::to_vec(&note).ok()?).ok()
    };
    // Without a note the next build writes the output again.
    let _ = note();
}

/// The name of the note about a directory: by where it really is.
fn name(directory: &Path) -> Option<String> {
    let path = directory.canonicalize().ok()?;
    Some(format!("output-{}", Digest::of(path.as_os_str().as_encoded_bytes())))
}

fn files(directory: &Path) -> io::Result<BTreeMap<String, [i64; 7]>> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let found = entry.metadata()?;
            let identity = [
                found.dev() as i64,
                found.ino() as i64,
                found.size() as i64,
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            ];
            Ok((entry.file_name().to_string_lossy().into_owned(), identity))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_untouched_directory_with_the_same_image_is_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let output = place.path().join("web_1");
        let make = || {
            let _ = fs::remove_dir_all(&output);
            fs::create_dir(&output).unwrap();
            fs::write(output.join("web.raw"), "image").unwrap();
            remember(&store, &output, Digest::of(b"web"));
        };
        let unchanged = || is_unchanged(&store, &output, Digest::of(b"web"));
        assert!(!unchanged());
        make();
        assert!(unchanged());
        assert!(!is_unchanged(&store, &output, Digest::of(b"other")));
        let ways: [(&str, &dyn Fn()); 4] = [
            ("written", &|| fs::write(output.join("web.raw"), "imagE").unwrap()),
            ("added", &|| fs::write(output.join("more"), "").unwrap()),
            ("removed", &|| fs::remove_file(output.join("web.raw")).unwrap()),
            ("put back", &|| {
                let copy = place.path().join("copy");
                let time = fs::metadata(output.join("web.raw")).unwrap().modified().unwrap();
                fs::write(&copy, "imagE").unwrap();
                fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
                fs::rename(copy, output.join("web.raw")).unwrap();
            }),
        ];
        for (way, change) in ways {
            make();
            change();
            assert!(!unchanged(), "{way}");
        }
    }
}
