//! Readers of disks, partitions, file systems and executables.

use std::io;
use std::sync::Arc;

use adamant::boot::initrd::{libraries, modules};
use adamant::boot::pe::{NewSection, Pe};
use adamant::boot::uki::{Uki, kernel_release};
use adamant::disk::Table;
use adamant::filesystem::{cpio as newc, erofs as file_system, fat::Volume};
use adamant::tree::{Content, Kind, Metadata, Node, NodeId, Segments, Tree, dump};
use adamant::verity::{RootHash, Shape, superblock, verify};

use super::repair;

/// Bytes of contents that are read of one image: clusters decode to thousands of times their size.
const READ_MAX: u64 = 4 << 20;

/// Whatever a tree can be asked, its contents up to a limit.
fn read_tree(tree: &Tree) {
    let counts = tree.link_counts();
    let mut left = READ_MAX;
    let mut buffer = vec![0; 64 << 10];
    for (path, id) in tree.walk() {
        assert!(counts[id.index()] > 0, "a name that does not count");
        assert_eq!(tree.lookup(&path), Some(id));
        let Kind::File(content) = &tree.node(id).kind else { continue };
        let mut offset = 0;
        while offset < content.size() && left > 0 {
            let step = (content.size() - offset).min(buffer.len() as u64).min(left);
            let read: io::Result<()> = content.read_exact_at(&mut buffer[..step as usize], offset);
            (offset, left) = (offset + step, left - step);
            if read.is_err() {
                break;
            }
        }
        // The end too, which other code reads.
        let tail = content.size().min(100);
        let _ = content.read_exact_at(&mut buffer[..tail as usize], content.size() - tail);
    }
}

fn read_erofs(image: Vec<u8>) {
    let size = image.len() as u64;
    let Ok(reader) = file_system::Reader::open(Arc::new(image), size) else { return };
    let _ = (reader.label().len(), reader.size());
    if let Ok(tree) = reader.tree() {
        read_tree(&tree);
    }
}

/// EROFS images, with the super block's checksum and without.
pub fn erofs(data: &[u8]) {
    let mut image = data.to_vec();
    repair::erofs(&mut image);
    read_erofs(image);
    read_erofs(data.to_vec());
}

/// FAT32 volumes: the input is laid over the front of a volume of the smallest size.
pub fn fat(data: &[u8]) {
    const SIZE: u64 = 33 << 20;
    let mut segments = Segments::new(SIZE);
    if segments.push(0, Content::from_bytes(data)).is_some()
        && let Ok(volume) = Volume::open(segments.into_content())
    {
        let _ = volume.check();
        for (path, _) in volume.tree.walk().take(100) {
            let _ = volume.place(&path, 5000);
        }
        read_tree(&volume.tree);
    }
}

/// cpio archives: one that is read is canonical when it is written.
pub fn cpio(data: &[u8]) {
    let Ok(mut tree) = newc::read(Arc::new(data.to_vec())) else { return };
    read_tree(&tree);
    // An archive may have an entry for the root directory; none is written.
    tree.node_mut(NodeId::ROOT).metadata = Metadata::with_mode(0o755);
    let mut archive = Vec::new();
    if newc::write(&tree, &mut archive).is_ok() {
        let mut again = newc::read(Arc::new(archive)).expect("what was written is an archive");
        again.node_mut(NodeId::ROOT).metadata = Metadata::with_mode(0o755);
        let text = |tree: &Tree| {
            let mut text = Vec::new();
            dump::write(tree, &mut text).expect("contents are in memory");
            // Archives are written without a member for the root.
            text.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(text(&again), text(&tree));
    }
}

/// dm-verity: the first half of the input is the hash partition, the second the data.
pub fn verity(data: &[u8]) {
    let (hash, data) = data.split_at(data.len() / 2);
    let (hash, data) = (hash.to_vec(), data.to_vec());
    let root_hash = RootHash::from_bytes([0; 32]);
    let _ = verify(&data, data.len() as u64, &hash, hash.len() as u64, &root_hash);
    if let Ok(superblock) = superblock(&hash, hash.len() as u64) {
        let _ = Shape::new(superblock.data_blocks).size();
        assert_eq!(&superblock.encode()[..], &hash[..4096]);
    }
}

fn tree_of(files: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::default();
    for (path, bytes) in files {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        tree.make_directories(parent.as_bytes(), &Metadata::with_mode(0o755)).expect("directories of a small tree");
        let node = Node { metadata: Metadata::with_mode(0o755), kind: Kind::File(Content::from_bytes(*bytes)) };
        tree.insert(path.as_bytes(), node).expect("paths of a small tree");
    }
    tree
}

/// Programs and libraries: what they need is looked for beside them.
pub fn elf(data: &[u8]) {
    let libraries = "usr/lib/x86_64-linux-gnu";
    let tree = tree_of(&[
        ("usr/bin/program", data),
        (&format!("{libraries}/libc.so.6"), data),
        (&format!("{libraries}/ld-linux-x86-64.so.2"), b"no executable"),
    ]);
    let _ = libraries::closure(&tree, &[b"usr/bin/program".to_vec()], &[]);
    let _ = libraries::closure(&tree, &[b"usr/bin/program".to_vec()], &["libc.so.6"]);
}

/// Kernel modules, plain and compressed, that name each other.
pub fn kernel_module(data: &[u8]) {
    let builtin: String = modules::wanted().flat_map(|name| ["kernel/", name, ".ko\n"]).collect();
    let directory = "usr/lib/modules/6.12.0";
    let builtin_path = format!("{directory}/modules.builtin");
    for ending in ["ko", "ko.xz", "ko.zst", "ko.gz"] {
        let paths = ["hostile", "other"].map(|name| format!("{directory}/kernel/{name}.{ending}"));
        let tree = tree_of(&[(&builtin_path, builtin.as_bytes()), (&paths[0], data), (&paths[1], data)]);
        let _ = modules::add(&tree, "6.12.0", &["hostile".to_owned()], &mut Tree::default());
    }
    let tree = tree_of(&[(&builtin_path, data)]);
    let _ = modules::add(&tree, "6.12.0", &["hostile".to_owned()], &mut Tree::default());
}

/// Executables and unified kernel images.
pub fn uki(data: &[u8]) {
    let content = Content::from_bytes(data);
    let _ = kernel_release(&content);
    let _ = Uki::read(content.clone());
    let Ok(pe) = Pe::read(content) else { return };
    let _ = pe.check();
    for section in &pe.sections {
        let _ = pe.content(section).to_vec();
    }
    for name in [".new", ".osrel", ".text"] {
        for bytes in ["", "x"] {
            // What was appended to must be readable.
            if let Ok(longer) = pe.append(&[NewSection { name, content: Content::from_bytes(bytes) }]) {
                let longer = Pe::read(longer).expect("an executable with one more section is one");
                let _ = longer.check();
            }
        }
    }
    let _ = pe.without_nx_compatible();
}

/// Partition tables, with their checksums as they are and put right.
pub fn gpt(data: &[u8]) {
    let _ = Table::read(&Content::from_bytes(data));
    let mut disk = data.to_vec();
    repair::gpt(&mut disk);
    if let Ok(table) = Table::read(&Content::from_bytes(disk.as_slice())) {
        let (front, back) = table.encode().expect("a table that was read can be written");
        assert_eq!(front, disk[..front.len()]);
        assert_eq!(back, disk[disk.len() - back.len()..]);
        assert!(table.entries.iter().all(|entry| entry.range().end <= disk.len() as u64));
    }
}
