//! EROFS images: what the kernel, fsck.erofs and our own reader make of what we write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use adamant::digest::Digest;
use adamant::filesystem::erofs::{Compression, Options, Reader, SegmentCache, WriteError, write, write_with};
use adamant::tree::{Content, DeviceNumber, Kind, Metadata, Node, ReadAt, Tree, scan};

use crate::support::oracle::{oracle, root, run};
use crate::support::torture::{self, Builder, Scale, differences};

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

/// Keeps values in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<Digest, Vec<u8>>>);

impl SegmentCache for Memory {
    fn get(&self, key: &Digest) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &Digest, value: &[u8]) {
        self.0.lock().unwrap().insert(*key, value.to_vec());
    }
}

/// The same tree, whose contents know their digests.
fn with_digests(mut tree: Tree) -> Tree {
    let ids: Vec<_> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        if let Kind::File(content) = &mut tree.node_mut(id).kind {
            *content = content.clone().with_digest(content.digest().unwrap());
        }
    }
    tree
}

#[test]
fn an_image_is_the_same_with_a_cache_that_has_nothing_all_or_a_part() {
    let bytes = |tree: &Tree, options: &Options, cache: &Memory| {
        let mut image = Cursor::new(Vec::new());
        write_with(tree, options, cache, &mut image).unwrap();
        Digest::of(image.get_ref())
    };
    let tree = torture::tree(Scale::SMALL);
    let known = with_digests(tree.clone());
    for options in all_options() {
        let one = Options { workers: NonZeroUsize::MIN, ..options.clone() };
        let expected = Digest::of_reader(&mut rewound(image(&tree, &options))).unwrap().0;
        let cache = Memory::default();
        for options in [&options, &one] {
            assert_eq!(bytes(&tree, options, &cache), expected, "{options:?}");
            let kept = cache.0.lock().unwrap().len();
            assert_eq!(bytes(&known, options, &cache), expected, "{options:?}");
            assert_eq!(cache.0.lock().unwrap().len(), kept, "{options:?}: something was compressed again");
            assert_eq!(kept == 0, options.compression == Compression::None);
        }
        let mut number = 0;
        cache.0.lock().unwrap().retain(|_, _| {
            number += 1;
            number % 2 == 0
        });
        assert_eq!(bytes(&known, &options, &cache), expected, "{options:?}");
        // What is no value of a segment is passed over.
        cache.0.lock().unwrap().values_mut().filter(|value| value.len() > 1).for_each(|value| value.truncate(5));
        assert_eq!(bytes(&known, &options, &cache), expected, "{options:?}");
    }
}

#[test]
fn bytes_that_are_not_those_of_their_digest_are_refused() {
    for size in [100, 100_000] {
        let mut tree = Tree::default();
        let content = Content::from_bytes(vec![b'x'; size]).with_digest(Digest::of(&vec![b'y'; size]));
        let node = Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(content) };
        tree.insert(b"damaged", node).unwrap();
        let written = write_with(&tree, &Options::default(), &Memory::default(), &mut Cursor::new(Vec::new()));
        assert!(matches!(written, Err(WriteError::Read { path, .. }) if path == b"damaged"), "{size}");
    }
}

fn rewound(mut file: File) -> File {
    file.seek(SeekFrom::Start(0)).unwrap();
    file
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

/// The version of erofs-utils as (major, minor), from any of its programs.
fn utils_version(program: &str) -> Option<(u32, u32)> {
    // Old ones print it and then do not know the option.
    let output = oracle(program)?.arg("-V").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut numbers = version.split(['.', '-', 'g']).map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next()?))
}

#[test]
fn fsck_finds_nothing_wrong_with_the_torture_tree() {
    let Some(version) = utils_version("fsck.erofs") else { return };
    let tree = torture::tree(Scale::SMALL);
    for options in all_options() {
        // Fragments and shared clusters came with 1.6, Zstandard with 1.8.
        if version < (1, 8) && options.compression != Compression::None {
            eprintln!("skipped: fsck.erofs {version:?} does not know all of {:?}", options.compression);
            continue;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write(&tree, &options, file.as_file_mut()).unwrap();
        run(oracle("fsck.erofs").unwrap().arg("--extract").arg(file.path()));
    }
}

#[test]
fn fsck_finds_what_is_wrong() {
    if utils_version("fsck.erofs").is_none() {
        return;
    }
    let options = options(Compression::None, 4096, 0);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write(&torture::files(), &options, file.as_file_mut()).unwrap();
    let run = |file: &Path| oracle("fsck.erofs").unwrap().arg(file).output().unwrap().status.success();
    assert!(run(file.path()));
    let mut word = [0; 4];
    FileExt::read_exact_at(file.as_file(), &mut word, 1024 + 40).unwrap();
    // The root directory's inode is the first of the metadata, behind an empty slot.
    let root = u64::from(u32::from_le_bytes(word)) * 4096 + 32;
    file.as_file().write_all_at(&[0xff; 64], root).unwrap();
    assert!(!run(file.path()));
}

#[test]
fn an_image_can_stand_anywhere_in_its_output_and_tells_its_name() {
    let tree = torture::files();
    let options = Options {
        uuid: *b"sixteen bytes ok",
        label: b"root".to_vec(),
        ..options(Compression::Zstd { level: 3 }, 65536, 32768)
    };
    let mut alone = image(&tree, &options);
    let mut within = tempfile::tempfile().unwrap();
    within.write_all_at(&[0xaa; 10_000], 0).unwrap();
    within.seek(SeekFrom::Start(7168)).unwrap();
    let summary = write(&tree, &options, &mut within).unwrap();
    assert_eq!(within.stream_position().unwrap(), 7168 + summary.size);
    within.seek(SeekFrom::Start(7168)).unwrap();
    alone.rewind().unwrap();
    assert_eq!(Digest::of_reader(&mut within).unwrap(), Digest::of_reader(&mut alone).unwrap());
    let reader = Reader::open(Arc::new(alone), summary.size).unwrap();
    assert_eq!(reader.uuid(), options.uuid);
    assert_eq!(reader.label(), options.label);
    assert_eq!(reader.size(), summary.size);
}

#[test]
fn our_reader_reads_what_mkfs_writes() {
    let Some(version) = utils_version("mkfs.erofs") else { return };
    if !root() {
        return;
    }
    // What a kernel gives of our image is the source, so that it has every attribute. 1.5 stumbles over odd names.
    let tree = if version < (1, 8) { torture::files() } else { torture::tree(Scale::SMALL) };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write(&tree, &options(Compression::None, 4096, 0), file.as_file_mut()).unwrap();
    let source = Mount::new(file.path());
    let old: &[&[&str]] = &[
        &[],
        &["-zlz4hc"],
        &["-zlz4hc", "-C65536"],
        &["-zlz4", "-C16384", "-Eztailpacking"],
        &["-zlz4", "-Elegacy-compress"],
        &["--chunksize=4096"],
    ];
    let new: &[&[&str]] = &[
        &["-zzstd,level=3", "-C65536"],
        &["-zzstd,level=3", "-C65536", "-Eall-fragments,dedupe,ztailpacking"],
        &["-zdeflate,level=3", "-C16384", "-Efragments"],
        &["-zlz4", "-C16384", "-Ededupe,fragments", "-Elegacy-compress"],
        &["-b1024", "-zlz4", "-C16384"],
    ];
    for arguments in old.iter().chain(if version < (1, 8) { &[] } else { new }) {
        let image = tempfile::NamedTempFile::new().unwrap();
        let mut mkfs = oracle("mkfs.erofs").unwrap();
        run(mkfs.args(["--quiet", "-x1"]).args(*arguments).arg(image.path()).arg(source.0.path()));
        let found = read(image.reopen().unwrap());
        assert_eq!(differences(&tree, &found), [""; 0], "{arguments:?}");
        read_changed(&image.reopen().unwrap());
    }
}

/// An image with one byte changed.
struct Changed {
    image: File,
    at: u64,
    byte: u8,
}

impl ReadAt for Changed {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        FileExt::read_exact_at(&self.image, buffer, offset)?;
        if let Some(place) = self.at.checked_sub(offset).and_then(|place| buffer.get_mut(place as usize)) {
            *place = self.byte;
        }
        Ok(())
    }
}

/// Whatever changes, reading ends without panic: indexes of kinds that we do not write are among what is changed.
fn read_changed(image: &File) {
    let size = image.metadata().unwrap().len();
    for (number, noise) in torture::noise(size, 8 * 40).chunks_exact(8).enumerate() {
        let noise = u64::from_le_bytes(noise.try_into().unwrap());
        // The first mebibyte, because mkfs.erofs puts metadata in front.
        let at = 1152 + (noise >> 8) % if number % 4 == 0 { size - 1152 } else { size.min(1 << 20) - 1152 };
        let changed = Changed { image: image.try_clone().unwrap(), at, byte: noise as u8 };
        let Ok(tree) = Reader::open(Arc::new(changed), size).and_then(|reader| reader.tree()) else { continue };
        for (_, id) in tree.walk() {
            if let Kind::File(content) = &tree.node(id).kind {
                let mut bytes = vec![0; content.size().min(10_000) as usize];
                let _ = content.read_exact_at(&mut bytes, 0);
            }
        }
    }
}

#[test]
fn an_image_does_not_depend_on_the_number_of_workers() {
    let tree = torture::tree(Scale::SMALL);
    for mut options in all_options() {
        let digests: Vec<_> = [1, 2, 7]
            .into_iter()
            .map(|workers| {
                options.workers = NonZeroUsize::new(workers).unwrap();
                let mut file = image(&tree, &options);
                file.rewind().unwrap();
                Digest::of_reader(&mut file).unwrap().0
            })
            .collect();
        assert_eq!(digests[0], digests[1], "{options:?}");
        assert_eq!(digests[0], digests[2], "{options:?}");
    }
}

#[test]
fn files_beyond_four_gigabytes_come_back() {
    for compression in [Compression::Zstd { level: 1 }, Compression::None] {
        // Uncompressed data would fill the disk and show nothing more.
        let tree = torture::large(compression != Compression::None);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write(&tree, &options(compression, 1 << 20, 4096), file.as_file_mut()).unwrap();
        let found = read(file.reopen().unwrap());
        assert_eq!(differences(&tree, &found), [""; 0], "{compression:?}");
        if !root() {
            continue;
        }
        let mount = Mount::new(file.path());
        // A scan takes the terabytes of zeros for data: Linux counts no blocks of EROFS files. So spots only.
        for (path, id) in tree.walk() {
            let Kind::File(expected) = &tree.node(id).kind else { continue };
            let path = mount.0.path().join(std::str::from_utf8(&path).unwrap());
            let found = File::open(&path).unwrap();
            assert_eq!(found.metadata().unwrap().len(), expected.size());
            for spot in [0, (1 << 30) - 2, (4 << 30) - 1, (4 << 30) + 5, 1 << 42, expected.size() - 1] {
                let start = spot.min(expected.size() - 1);
                let mut bytes = vec![0; (expected.size() - start).min(70_000) as usize];
                let mut other = bytes.clone();
                expected.read_exact_at(&mut bytes, start).unwrap();
                FileExt::read_exact_at(&found, &mut other, start).unwrap();
                assert!(bytes == other, "{} at {start}, {compression:?}", path.display());
            }
        }
    }
}

#[test]
fn a_directory_holds_100_000_names_and_a_file_has_70_000() {
    let tree = torture::tree(Scale::FULL);
    let options = options(Compression::Zstd { level: 3 }, 65536, 32768);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write(&tree, &options, file.as_file_mut()).unwrap();
    assert_eq!(differences(&tree, &read(file.reopen().unwrap())), [""; 0]);
    if root() {
        let mount = Mount::new(file.path());
        assert_eq!(differences(&tree, &scan(mount.0.path()).unwrap()), [""; 0]);
    }
}

#[test]
fn writing_refuses_what_erofs_cannot_hold() {
    let refuse =
        |tree: &Tree, options: &Options| write(tree, options, &mut std::io::Cursor::new(Vec::new())).unwrap_err();
    let tree = Tree::default();
    for pcluster in [0, 2048, 5000, 2 << 20] {
        let error = refuse(&tree, &options(Compression::None, pcluster, 0));
        assert!(matches!(error, WriteError::Pcluster(found) if found == pcluster), "{error}");
    }
    for compression in [Compression::Lz4 { level: 13 }, Compression::Zstd { level: 0 }, Compression::Zstd { level: 23 }]
    {
        let error = refuse(&tree, &options(compression, 4096, 0));
        assert!(matches!(error, WriteError::Level { compression: found } if found == compression), "{error}");
    }
    let label = Options { label: vec![b'l'; 17], ..Options::default() };
    assert!(matches!(refuse(&tree, &label), WriteError::Label(17)));
    let with = |name: &str, kind: Kind, xattrs: &[(&str, &[u8])]| {
        let mut builder = Builder::new();
        builder.directory("d");
        torture::set(builder.add(format!("d/{name}"), 0o644, kind), xattrs);
        refuse(&builder.tree(), &Options::default())
    };
    let device = Kind::BlockDevice(DeviceNumber { major: 4096, minor: 0 });
    let error = with("device", device, &[]);
    assert!(matches!(&error, WriteError::Device(path) if path == b"d/device"), "{error}");
    let error = with("symlink", Kind::Symlink(vec![b'x'; 4096]), &[]);
    assert!(matches!(&error, WriteError::Symlink(path) if path == b"d/symlink"), "{error}");
    let error = with("xattr", Kind::Fifo, &[("system.nfs4_acl", b"")]);
    assert!(matches!(&error, WriteError::Xattr { path, .. } if path == b"d/xattr"), "{error}");
    let names: Vec<_> = (0..5).map(|number| format!("user.{number}")).collect();
    let value = vec![0; 65_535];
    let xattrs: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_slice())).collect();
    let error = with("xattrs", Kind::Fifo, &xattrs);
    assert!(matches!(&error, WriteError::Xattrs(path) if path == b"d/xattrs"), "{error}");
}
