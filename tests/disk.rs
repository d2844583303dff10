//! dm-verity, FAT and the partition table, judged by the tools of others.

use std::fs;
use std::path::Path;

use adamant::architecture::Architecture;
use adamant::disk::{self, Disk, Esp};
use adamant::filesystem::fat;
use adamant::identifier::{Seed, Uuid};
use adamant::tree::{Content, Kind, Metadata, Tree};
use adamant::verity;

use crate::support::image::{file, noise};
use crate::support::oracle::{oracle, run};

#[test]
fn veritysetup_makes_the_same_hash_partition_byte_for_byte() {
    let uuid = "01234567-89ab-cdef-0123-456789abcdef".parse::<Uuid>().unwrap();
    let salt: [u8; 32] = std::array::from_fn(|i| i as u8);
    let salt_text: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    for blocks in [1, 2, 127, 128, 129, 5000, 128 * 128, 128 * 128 + 1] {
        let Some(mut veritysetup) = oracle("veritysetup") else { return };
        let directory = tempfile::tempdir().unwrap();
        let (data_path, hash_path) = (directory.path().join("data"), directory.path().join("hash"));
        let data = noise(blocks * 4096, blocks as u64);
        fs::write(&data_path, &data).unwrap();
        let output = run(veritysetup
            .args(["format", "--salt", &salt_text, "--uuid", &uuid.to_string()])
            .args([&data_path, &hash_path]));
        let mut hash = Vec::new();
        let root = verity::format(&data, data.len() as u64, salt, uuid, &mut hash).unwrap();
        assert!(output.contains(&root.to_string()), "{blocks} blocks: {output}, ours {root}");
        let theirs = fs::read(&hash_path).unwrap();
        assert_eq!(hash.len(), theirs.len(), "{blocks} blocks");
        assert!(hash == theirs, "{blocks} blocks");
        fs::write(&hash_path, &hash).unwrap();
        run(oracle("veritysetup").unwrap().arg("verify").args([&data_path, &hash_path]).arg(root.to_string()));
    }
}

/// Long, short, mixed-case and non-ASCII names, empty and large files, a directory of several clusters.
fn esp() -> Tree {
    let mut tree = Tree::default();
    for path in ["EFI/BOOT", "EFI/Linux", "loader/entries.srel dir", "many"] {
        tree.make_directories(path.as_bytes(), &Metadata::with_mode(0o755)).unwrap();
    }
    tree.insert(b"EFI/BOOT/BOOTX64.EFI", file(noise(3_000_001, 1))).unwrap();
    for (path, bytes) in [
        ("EFI/Linux/minimal_1.2.3~rc1_x86-64.efi", noise(70_000, 2)),
        ("EFI/Linux/minimal_1.2.3~rc2_x86-64.efi", noise(512, 3)),
        ("loader/entries.srel dir/Größe.conf", noise(513, 4)),
        ("loader/loader.conf", noise(9, 5)),
        ("loader/empty", Vec::new()),
    ] {
        tree.insert(path.as_bytes(), file(bytes)).unwrap();
    }
    for number in 0..300 {
        tree.insert(format!("many/a long name number {number}").as_bytes(), file(noise(number, 6))).unwrap();
    }
    tree
}

fn write_content(content: &Content, path: &Path) {
    disk::write_sparse(content, &fs::File::create(path).unwrap()).unwrap();
}

#[test]
fn fsck_fat_finds_nothing_and_mtools_reads_every_file() {
    for mebibytes in [34, 64, 300] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("esp");
        let size = mebibytes * 1024 * 1024;
        let options = fat::Options { size, volume_id: 0xdead_beef, label: "ESP".into(), hidden_sectors: 2048 };
        write_content(&fat::write(&esp(), &options).unwrap(), &path);
        let Some(mut fsck) = oracle("fsck.fat") else { return };
        let output = run(fsck.args(["-n", "-v"]).arg(&path));
        assert!(!output.contains("differ") && !output.contains("rong") && !output.contains("dirty"), "{output}");
        let Some(mut mcopy) = oracle("mcopy") else { return };
        let copy = directory.path().join("copy");
        fs::create_dir(&copy).unwrap();
        run(mcopy.env("MTOOLS_SKIP_CHECK", "0").args(["-s", "-m", "-Q", "-i"]).arg(&path).arg("::/").arg(&copy));
        let copied = adamant::tree::scan(&copy).unwrap();
        assert_eq!(digests(&copied), digests(&esp()), "{mebibytes} MiB");
        let label = run(oracle("mlabel").unwrap().args(["-s", "-i"]).arg(&path).arg("::"));
        assert!(label.contains("ESP"), "{label}");
    }
}

#[test]
fn the_reader_reads_what_mkfs_fat_and_mtools_wrote() {
    let Some(mut mkfs) = oracle("mkfs.fat") else { return };
    let Some(mut mcopy) = oracle("mcopy") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (path, source) = (directory.path().join("esp"), directory.path().join("source"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("lower.txt"), "lower").unwrap();
    fs::write(source.join("Mixed Case.Text"), noise(100_000, 9)).unwrap();
    fs::create_dir(source.join("DIR")).unwrap();
    fs::write(source.join("DIR/x"), "x").unwrap();
    fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    run(mkfs.args(["-F", "32", "-s", "1", "-n", "THEIRS", "-i", "00c0ffee"]).arg(&path));
    run(mcopy
        .args(["-s", "-Q", "-i"])
        .arg(&path)
        .args(["lower.txt", "Mixed Case.Text", "DIR"].map(|n| source.join(n)))
        .arg("::/"));
    let bytes = Content::from_bytes(fs::read(&path).unwrap());
    let volume = fat::Volume::open(bytes).unwrap();
    assert_eq!(digests(&volume.tree), digests(&adamant::tree::scan(&source).unwrap()));
    assert_eq!((volume.volume_id, volume.label.as_str()), (0x00c0_ffee, "THEIRS"));
}

fn digests(tree: &Tree) -> Vec<(String, String)> {
    let line = |(path, id): (Vec<u8>, _)| {
        let node = tree.node(id);
        let what = match &node.kind {
            Kind::File(content) => content.digest().unwrap().to_string(),
            kind => kind.word().to_owned(),
        };
        (String::from_utf8(path).unwrap(), what)
    };
    tree.walk().map(line).collect()
}

fn sample_disk(seed: &Seed) -> Disk {
    let root = noise(5 << 20, 11);
    let mut hash = Vec::new();
    let root_hash =
        verity::format(&root, root.len() as u64, seed.bytes(b"verity-salt"), seed.uuid(b"verity-uuid"), &mut hash)
            .unwrap();
    Disk::new(&disk::Image {
        name: "minimal",
        version: "1",
        architecture: Architecture::Amd64,
        seed,
        esp: Esp { tree: esp(), spare: 0 },
        root: Content::from_bytes(root),
        verity: Content::from_bytes(hash),
        root_hash,
    })
    .unwrap()
}

#[test]
fn sgdisk_and_sfdisk_find_the_table_in_order() {
    let disk = sample_disk(&Seed::new(&["minimal", "1"]));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    write_content(&disk.content, &path);
    let Some(mut sgdisk) = oracle("sgdisk") else { return };
    let output = run(sgdisk.arg("-v").arg(&path));
    assert!(output.contains("No problems found."), "{output}");
    let output = run(oracle("sgdisk").unwrap().args(["-i", "2"]).arg(&path));
    let guid = disk.table.entries[1].uuid.to_string().to_uppercase();
    assert!(output.contains(&guid) && output.contains("'minimal_1'"), "{output}");
    assert!(output.contains("1000000000000000"), "{output}");
    let Some(mut sfdisk) = oracle("sfdisk") else { return };
    run(sfdisk.arg("--verify").arg(&path));
    let dump: serde_json::Value =
        serde_json::from_str(&run(oracle("sfdisk").unwrap().arg("--json").arg(&path))).unwrap();
    let partitions = dump["partitiontable"]["partitions"].as_array().unwrap();
    for (partition, entry) in partitions.iter().zip(&disk.table.entries) {
        assert_eq!(partition["start"], entry.first_sector);
        assert_eq!(partition["size"], entry.last_sector - entry.first_sector + 1);
        assert_eq!(partition["name"], entry.label.as_str());
    }
    assert_eq!(partitions.len(), 3);
}
