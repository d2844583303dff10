//! EROFS images: what the kernel, fsck.erofs and our own reader make of what we write.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use adamant::filesystem::erofs::{Compression, Options, Reader, write};
use adamant::tree::{Tree, scan};

use crate::support::oracle::{oracle, root, run};
use crate::support::torture::{self, Scale, differences};

fn options(compression: Compression, pcluster: usize, packed_max: usize) -> Options {
    Options { compression, pcluster, packed_max, workers: NonZeroUsize::new(4).unwrap(), ..Options::default() }
}

/// Every way of compressing, the smallest and the largest clusters.
fn all_options() -> Vec<Options> {
    let (lz4, zstd) = (Compression::Lz4 { level: 9 }, Compression::Zstd { level: 3 });
    vec![
        options(Compression::None, 4096, 0),
        options(lz4, 4096, 0),
        options(lz4, 65536, 16384),
        options(zstd, 4096, 4096),
        options(zstd, 65536, 32768),
        options(zstd, 1 << 20, 65536),
    ]
}

fn image(tree: &Tree, options: &Options) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let summary = write(tree, options, &mut file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), summary.size);
    file
}

fn read(image: File) -> Tree {
    let size = image.metadata().unwrap().len();
    Reader::open(Arc::new(image), size).unwrap().tree().unwrap()
}

/// A file system that is mounted as long as this lives.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(image: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = oracle("mount").expect("every Linux has mount");
        run(mount.args(["-t", "erofs", "-o", "loop,ro"]).arg(image).arg(directory.path()));
        Self(directory)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut umount) = oracle("umount") {
            run(umount.arg(self.0.path()));
        }
    }
}

#[test]
fn our_reader_gives_back_the_torture_tree() {
    let tree = torture::tree(Scale::SMALL);
    for options in all_options() {
        let found = read(image(&tree, &options));
        assert_eq!(differences(&tree, &found), [""; 0], "{options:?}");
    }
}

#[test]
fn the_kernel_gives_back_the_torture_tree() {
    if !root() {
        return;
    }
    let tree = torture::tree(Scale::SMALL);
    for options in all_options() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write(&tree, &options, file.as_file_mut()).unwrap();
        let mount = Mount::new(file.path());
        let found = scan(mount.0.path()).unwrap();
        assert_eq!(differences(&tree, &found), [""; 0], "{options:?}");
    }
}
