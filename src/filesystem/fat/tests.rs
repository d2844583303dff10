//! FAT32 volumes: what is written reads back, what is wrong is named.

use super::*;
use crate::tree::{Content, Kind, Metadata, Node, ReadAt, Timestamp, Tree};

const MEBIBYTE: u64 = 1024 * 1024;

fn file(bytes: impl Into<Vec<u8>>) -> Node {
    let metadata = Metadata { mtime: Timestamp::from_seconds(1_700_000_000), ..Metadata::with_mode(0o644) };
    Node { metadata, kind: Kind::File(Content::from_bytes(bytes)) }
}

fn sample() -> Tree {
    let mut tree = Tree::default();
    tree.make_directories(b"EFI/BOOT", &Metadata::with_mode(0o755)).unwrap();
    tree.make_directories(b"EFI/Linux", &Metadata::with_mode(0o755)).unwrap();
    tree.insert(b"EFI/BOOT/BOOTX64.EFI", file(vec![7; 100_000])).unwrap();
    tree.insert("EFI/Linux/minimal_1.2~rc1.efi".as_bytes(), file("a")).unwrap();
    tree.insert("EFI/Linux/minimal_1.2~rc2.efi".as_bytes(), file("b")).unwrap();
    tree.insert("EFI/Linux/äöü😀.conf".as_bytes(), file("c")).unwrap();
    tree.insert(b"EFI/Linux/exactly13char", file("")).unwrap();
    tree.insert(&[b'x'; 255], file("d")).unwrap();
    tree
}

fn options() -> Options {
    Options { size: 33 * MEBIBYTE, volume_id: 0x1234_abcd, label: "ESP".into(), hidden_sectors: 2048 }
}

fn volume(tree: &Tree) -> Vec<u8> {
    write(tree, &options()).unwrap().to_vec().unwrap()
}

fn open(bytes: Vec<u8>) -> Result<Volume, ReadError> {
    let volume = Volume::open(Content::from_bytes(bytes))?;
    volume.check()?;
    Ok(volume)
}

fn lines(tree: &Tree) -> Vec<String> {
    let line = |(path, id): (Vec<u8>, _)| {
        let node = tree.node(id);
        let bytes = match &node.kind {
            Kind::File(content) => content.digest().unwrap().to_string(),
            kind => kind.word().into(),
        };
        format!("{} {bytes}", String::from_utf8(path).unwrap())
    };
    tree.walk().map(line).collect()
}

#[test]
fn a_tree_reads_back_with_names_times_and_contents() {
    let tree = sample();
    let volume = open(volume(&tree)).unwrap();
    assert_eq!(lines(&volume.tree), lines(&tree));
    assert_eq!((volume.volume_id, volume.label.as_str(), volume.cluster_size), (0x1234_abcd, "ESP", 512));
    let id = volume.tree.lookup(b"EFI/BOOT/BOOTX64.EFI").unwrap();
    assert_eq!(volume.tree.node(id).metadata.mtime, Timestamp::from_seconds(1_700_000_000));
}

#[test]
fn clusters_grow_with_the_volume_and_stay_fat32() {
    for (mebibytes, cluster_size) in [(33, 512), (64, 512), (66, 1024), (256, 2048), (260, 4096), (1024, 4096)] {
        let content = write(&sample(), &Options { size: mebibytes * MEBIBYTE, ..options() }).unwrap();
        let volume = Volume::open(content).unwrap();
        volume.check().unwrap();
        assert_eq!(volume.cluster_size, cluster_size, "{mebibytes} MiB");
    }
    for size in [32 * MEBIBYTE, 33 * MEBIBYTE + 1, 4096 * 1024 * MEBIBYTE] {
        assert_eq!(write(&sample(), &Options { size, ..options() }).unwrap_err(), WriteError::VolumeSize(size));
    }
}

#[test]
fn the_minimum_size_holds_the_files_and_a_mebibyte_less_does_not() {
    assert_eq!(minimum_size(&sample()), Ok(33 * MEBIBYTE));
    let mut tree = Tree::default();
    tree.insert(b"A", file(vec![1; 50 << 20])).unwrap();
    let size = minimum_size(&tree).unwrap();
    assert_eq!(size, 51 * MEBIBYTE);
    assert!(write(&tree, &Options { size, ..options() }).is_ok());
    let error = write(&tree, &Options { size: size - MEBIBYTE, ..options() }).unwrap_err();
    assert!(matches!(error, WriteError::Full { cluster_size: 512, .. }), "{error}");
}

#[test]
fn refuses_what_a_fat_volume_cannot_hold() {
    let with = |path: &[u8], node: Node| {
        let mut tree = sample();
        tree.insert(path, node).unwrap();
        write(&tree, &options()).unwrap_err()
    };
    let link = Node { metadata: Metadata::default(), kind: Kind::Symlink(b"x".to_vec()) };
    assert_eq!(with(b"link", link), WriteError::Kind { path: b"link".to_vec(), kind: "symlink" });
    assert_eq!(with(b"efi", file("")), WriteError::Duplicate(b"efi".to_vec()));
    for name in [&b"a:b"[..], b"a\xff", b"dot.", b"new\nline"] {
        assert_eq!(with(name, file("")), WriteError::Name(name.to_vec()));
    }
    for label in ["", "twelve chars", "a", "Ä"] {
        let options = Options { label: label.into(), ..options() };
        assert_eq!(write(&sample(), &options).unwrap_err(), WriteError::Label(label.into()));
    }
}

#[test]
fn refuses_paths_without_end() {
    let mut tree = Tree::default();
    tree.make_directories(&b"a/".repeat(2048), &Metadata::with_mode(0o755)).unwrap();
    assert!(Volume::open(write(&tree, &options()).unwrap()).is_ok());
    tree.make_directories(&b"a/".repeat(2049), &Metadata::with_mode(0o755)).unwrap();
    let error = Volume::open(write(&tree, &options()).unwrap()).unwrap_err();
    assert!(matches!(error, ReadError::Entry { .. }), "{error}");
}

#[test]
fn names_a_flipped_byte_in_every_structure() {
    let good = volume(&sample());
    let reserved = usize::from(u16::from_le_bytes([good[14], good[15]]));
    let fat_sectors = u32::from_le_bytes(good[36..40].try_into().unwrap()) as usize;
    let (fat, data) = (reserved * 512, (reserved + 2 * fat_sectors) * 512);
    let end = good.len();
    // Boot sector, its boot code, FSInfo, both copies, a reserved sector, each FAT, slack of directory and volume.
    let places = [3, 13, 40, 100, 300, 512 + 4, 512 + 488, 1024, 6 * 512 + 67, 7 * 512, 20 * 512, fat, fat + 9];
    let more = [fat + 3000, fat + fat_sectors * 512 + 8, data + 900, data + 1_000_000, end - 1];
    for place in places.into_iter().chain(more) {
        let mut bytes = good.clone();
        bytes[place] ^= 0x41;
        let error = open(bytes).err().unwrap_or_else(|| panic!("byte {place} is not noticed"));
        let distance = error.offset().abs_diff(place as u64);
        let copy = error.offset().abs_diff(place as u64 + 6 * 512);
        assert!(distance < 512 || copy < 512 || place == 13 || place == fat + 9, "byte {place}: {error}");
    }
}

#[test]
fn loops_crossed_and_cut_chains_are_refused() {
    let good = volume(&sample());
    let fat = usize::from(u16::from_le_bytes([good[14], good[15]])) * 512;
    let file = good.windows(11).position(|name| name == b"BOOTX64 EFI").unwrap();
    let first = u32::from(u16::from_le_bytes([good[file + 26], good[file + 27]]));
    for (cluster, next) in [(first, first), (first, 2), (first, 0), (first + 3, 0x0fff_ffff), (first, 0x0fff_fff0)] {
        let mut bytes = good.clone();
        let entry = fat + cluster as usize * 4;
        bytes[entry..entry + 4].copy_from_slice(&next.to_le_bytes());
        let error = open(bytes).err().unwrap();
        assert!(matches!(&error, ReadError::Chain { path, .. } if path == b"EFI/BOOT/BOOTX64.EFI"), "{error}");
        assert_eq!(error.offset(), entry as u64);
    }
}

/// A volume with some bytes changed, which keeps its holes: thousands of them are cheap.
struct Patched {
    volume: Content,
    patches: Vec<(u64, u8)>,
}

impl ReadAt for Patched {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.volume.read_exact_at(buffer, offset)?;
        for (place, byte) in &self.patches {
            if let Some(target) = place.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
                *target = *byte;
            }
        }
        Ok(())
    }
}

proptest::proptest! {
    #[test]
    fn mutated_volumes_never_panic(patches in proptest::collection::vec((0u64..3, 0u64..8192, 0u8..), 1..5)) {
        let volume = write(&sample(), &options()).unwrap();
        let mut boot = [0; 512];
        volume.read_exact_at(&mut boot, 0).unwrap();
        let fat = u64::from(u16::from_le_bytes([boot[14], boot[15]])) * 512;
        let data = fat + u64::from(u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]])) * 1024;
        let place = |(region, offset, byte)| ([offset % 1024, fat + offset % 2048, data + offset][region as usize], byte);
        let (size, extents) = (volume.size(), volume.extents());
        let patched = Patched { volume, patches: patches.into_iter().map(place).collect() };
        let changed = Content::new(size, std::sync::Arc::new(patched), 0).with_extents(extents);
        if let Ok(volume) = Volume::open(changed) {
            let _ = volume.check();
        }
    }
}
