//! `verify` accepts what was built, and names the first thing that is wrong in what was changed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use adamant::digest::Digest;
use adamant::disk::{ESP, Entry};
use adamant::inspect;
use adamant::lock::{Lock, LockedIndex, LockedPackage};
use adamant::recipe::RecipeField;
use adamant::tree::{Content, Kind, Node, NodeId};
use adamant::verify::{self, Failure, Problem, Verified};
use adamant::verity;

use crate::support::image::{Built, Sketch, file};
use crate::support::oracle::{oracle, run};

/// Flips a bit of the byte at `offset`.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Verifies with the byte at `offset` of the disk image flipped, and puts it back.
fn flipped(built: &Built, offset: u64) -> Failure {
    flip(&built.raw, offset);
    let result = verify::image(built.path());
    flip(&built.raw, offset);
    result.map(|_| ()).expect_err(&format!("byte {offset} of the image can be flipped unnoticed"))
}

fn range(built: &Built, index: usize) -> std::ops::Range<u64> {
    built.disk.table.entries[index].range()
}

/// Where the UKI starts on the disk: its bytes are contiguous.
fn uki_start(built: &Built) -> u64 {
    let disk = fs::read(&built.raw).unwrap();
    let uki = fs::read(built.path().join(&built.manifest.uki.file)).unwrap();
    let sectors = disk.chunks_exact(512);
    let starts = sectors.enumerate().filter(|(_, sector)| uki.starts_with(sector)).map(|(index, _)| index * 512);
    let start = starts.into_iter().find(|start| disk[*start..].starts_with(&uki)).unwrap();
    start as u64
}

#[test]
fn accepts_what_was_built() {
    let built = Sketch::default().build();
    let verified = verify::image(built.path()).unwrap();
    let expected = Verified {
        path: built.raw.clone(),
        name: "minimal".into(),
        version: "1".into(),
        architecture: adamant::architecture::Architecture::Amd64,
        root_hash: built.manifest.verity.root_hash,
        files: built.manifest.files.len(),
        packages: Some(1),
        digest: Some(built.manifest.digest()),
    };
    assert_eq!(verified, expected);
    assert_eq!(verify::image(&built.raw).unwrap(), Verified { digest: None, ..expected });
}

#[test]
fn sha256sum_and_veritysetup_agree() {
    let built = Sketch::default().build();
    let Some(mut sha256sum) = oracle("sha256sum") else { return };
    run(sha256sum.args(["--check", "--strict", "SHA256SUMS"]).current_dir(built.path()));
    let Some(mut veritysetup) = oracle("veritysetup") else { return };
    let disk = fs::read(&built.raw).unwrap();
    for (index, name) in [(1, "data"), (2, "hash")] {
        let range = range(&built, index);
        fs::write(built.path().join(name), &disk[range.start as usize..range.end as usize]).unwrap();
    }
    let root_hash = built.manifest.verity.root_hash.to_string();
    run(veritysetup.args(["verify", "data", "hash", &root_hash]).current_dir(built.path()));
}

#[test]
fn the_same_sketch_gives_the_same_image() {
    let (one, other) = (Sketch::default().build(), Sketch::default().build());
    assert_eq!(one.manifest.to_json(), other.manifest.to_json());
    assert_eq!(fs::read(&one.raw).unwrap(), fs::read(&other.raw).unwrap());
}

#[test]
fn names_a_flipped_byte_of_the_partition_table() {
    let built = Sketch::default().build();
    let size = built.manifest.disk.size;
    for (offset, named) in [
        (0, 0),
        (510, 510),
        (512, 512),
        // The disk UUID and the entries are known to checksums only.
        (512 + 60, 512 + 16),
        (1024 + 128 + 20, 512 + 88),
        (30 * 512, 512 + 88),
        (size - 33 * 512 + 3, size - 33 * 512 + 3),
        (size - 512 + 24, size - 512 + 24),
        (size - 1, size - 512 + 92 + 419),
    ] {
        let failure = flipped(&built, offset);
        assert!(matches!(failure.problem, Problem::Table(_)), "{failure}");
        let named_at = failure.offset;
        assert!(named_at.abs_diff(named) < 8, "byte {offset}: {failure}");
        assert_eq!(failure.file, built.raw);
    }
}

#[test]
fn names_a_byte_that_lies_outside_the_partitions() {
    let built = Sketch::default().build();
    for offset in [34 * 512, (1 << 20) - 1, range(&built, 1).end, range(&built, 2).end + 77] {
        let failure = flipped(&built, offset);
        assert!(matches!(failure.problem, Problem::Outside), "{failure}");
        assert_eq!(failure.offset, offset);
    }
}

#[test]
fn names_a_flipped_byte_of_the_efi_system_partition() {
    let built = Sketch::default().build();
    let esp = range(&built, 0);
    // Boot sector, FSInfo, reserved sectors, first FAT, free space.
    for offset in [3, 11, 510, 512 + 488, 20 * 512, 32 * 512 + 100, esp.end - esp.start - 1] {
        let failure = flipped(&built, esp.start + offset);
        assert!(matches!(failure.problem, Problem::Esp(_)), "byte {offset}: {failure}");
        let copy = (failure.offset - esp.start).abs_diff(offset);
        assert!(copy < 8 || copy.abs_diff(6 * 512) < 8 || offset == 32 * 512 + 100, "byte {offset}: {failure}");
    }
}

#[test]
fn names_a_flipped_byte_of_the_uki_by_its_section() {
    let built = Sketch::default().build();
    let start = uki_start(&built);
    let section = |name: &str| built.manifest.uki.sections.iter().find(|s| s.name == name).unwrap();
    for name in [".text", ".sdmagic", ".linux", ".initrd", ".uname", ".osrel"] {
        let place = section(name).offset + section(name).size / 2;
        let failure = flipped(&built, start + place);
        match &failure.problem {
            // Kernel and initrd are known to digests only; the texts are also known to something else.
            Problem::Digest { what, .. } => {
                assert!(what.contains(name), "{failure}");
                assert_eq!(failure.offset, start + place, "{failure}");
            }
            Problem::Tie { .. } => assert!([".uname", ".osrel"].contains(&name), "{failure}"),
            _ => panic!("{name}: {failure}"),
        }
    }
    let failure = flipped(&built, start);
    assert!(matches!(failure.problem, Problem::Uki(_)), "{failure}");
    assert_eq!(failure.offset, start);
    let padding = section(".osrel").offset + section(".osrel").size + 1;
    let failure = flipped(&built, start + padding);
    assert!(matches!(failure.problem, Problem::Executable(_)), "{failure}");
    assert_eq!(failure.offset, start + padding);
}

#[test]
fn names_a_changed_root_hash_on_the_command_line() {
    let built = Sketch::default().build();
    let section = built.manifest.uki.sections.iter().find(|s| s.name == ".cmdline").unwrap();
    let digit = uki_start(&built) + section.offset + "roothash=".len() as u64;
    let file = OpenOptions::new().read(true).write(true).open(&built.raw).unwrap();
    let mut old = [0];
    file.read_exact_at(&mut old, digit).unwrap();
    file.write_all_at(if old == *b"0" { b"1" } else { b"0" }, digit).unwrap();
    for path in [built.path(), &built.raw] {
        let failure = verify::image(path).unwrap_err();
        assert!(matches!(failure.problem, Problem::PartitionUuid { partition: "root", .. }), "{failure}");
        assert_eq!(failure.offset, 1024 + 128 + 16);
    }
    file.write_all_at(b"x", digit).unwrap();
    let failure = verify::image(&built.raw).unwrap_err();
    assert!(matches!(failure.problem, Problem::CommandLine(_)), "{failure}");
    assert_eq!(failure.offset, digit - 9);
}

#[test]
fn names_a_flipped_byte_of_the_root_and_of_its_hashes() {
    let built = Sketch::default().build();
    let (root, hash) = (range(&built, 1), range(&built, 2));
    for offset in [0, 5000, root.end - root.start - 1] {
        let failure = flipped(&built, root.start + offset);
        let Problem::Verity(verity::Failure::DataBlock { block, .. }) = failure.problem else { panic!("{failure}") };
        assert_eq!(block, offset / 4096);
        assert_eq!(failure.offset, root.start + offset / 4096 * 4096);
    }
    for offset in [4096, 4096 + 4095, 8192] {
        let failure = flipped(&built, hash.start + offset);
        assert!(matches!(failure.problem, Problem::Verity(verity::Failure::HashBlock { .. })), "{failure}");
        assert_eq!(failure.offset, hash.start + offset / 4096 * 4096);
    }
    // Signature, version, algorithm, padding of the superblock; its salt makes every digest another.
    for (offset, named) in [(0, 0), (8, 8), (32, 32), (2000, 2000), (88, 4096)] {
        let failure = flipped(&built, hash.start + offset);
        assert!(matches!(failure.problem, Problem::Verity(_)), "{failure}");
        assert_eq!(failure.offset, hash.start + named);
    }
    // The UUID is not hashed into anything: only the manifest knows it.
    let failure = flipped(&built, hash.start + 16);
    assert!(matches!(&failure.problem, Problem::Field { field, .. } if field == "verity.uuid"), "{failure}");
    assert_eq!(failure.offset, hash.start + 16);
}

#[test]
fn no_byte_of_the_image_can_be_flipped_unnoticed() {
    let built = Sketch::default().build();
    let size = built.manifest.disk.size;
    // All of the first sectors of each structure, then a sample of everything.
    let starts = [0, 512, 1024, range(&built, 0).start, range(&built, 1).start + 1024, range(&built, 2).start];
    let mut state = 1u64;
    let sample = (0..24).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 16) % size
    });
    for offset in starts.into_iter().flat_map(|start| (start..start + 128).step_by(13)).chain(sample) {
        flipped(&built, offset);
    }
}

#[test]
fn names_what_the_manifest_says_otherwise() {
    let mut built = Sketch::default().build();
    let good = built.manifest.clone();
    let mut check = |change: &dyn Fn(&mut adamant::manifest::Manifest)| {
        built.manifest = good.clone();
        change(&mut built.manifest);
        built.write_manifest();
        verify::image(built.path()).unwrap_err()
    };
    let index = good.files.iter().position(|file| file.path == "/etc/hostname").unwrap();
    let failure = check(&|manifest| manifest.files[index].mode = "0666".into());
    let Problem::TreeFile { path, difference } = &failure.problem else { panic!("{failure}") };
    assert_eq!((path.as_str(), *difference), ("/etc/hostname", "has another mode"));
    assert!(failure.file.ends_with("manifest.json"));
    assert_eq!(failure.offset, good.to_json().find("    {\"path\":\"/etc/hostname\"").unwrap() as u64);
    let failure = check(&|manifest| manifest.packages[1].version = "14".into());
    assert!(
        matches!(&failure.problem, Problem::Package { package, .. } if package == "base-files:amd64 14"),
        "{failure}"
    );
    let failure = check(&|manifest| manifest.packages.truncate(1));
    assert!(
        matches!(&failure.problem, Problem::Package { package, .. } if package == "base-files:amd64 13.8"),
        "{failure}"
    );
    let failure = check(&|manifest| manifest.epoch -= 1);
    assert!(matches!(&failure.problem, Problem::Younger { path } if path == "/"), "{failure}");
    for (name, field) in
        [("salt", "verity.salt"), ("uname", "uki.uname"), ("size", "disk.size"), ("label", "partitions")]
    {
        let failure = check(&|manifest| match name {
            "salt" => manifest.verity.salt = "00".into(),
            "uname" => manifest.uki.uname = "6.1".into(),
            "size" => manifest.disk.size += 1,
            _ => manifest.partitions[0].label = "EFI".into(),
        });
        assert!(matches!(&failure.problem, Problem::Field { field: found, .. } if found == field), "{failure}");
    }
    for index in 0..3 {
        let failure = check(&|manifest| manifest.partitions[index].sha256 = good.lock_sha256);
        assert!(matches!(&failure.problem, Problem::Digest { .. }), "{failure}");
        assert_eq!(failure.offset, good.partitions[index].offset);
    }
    let failure = check(&|manifest| manifest.disk.sha256 = good.lock_sha256);
    assert!(matches!(&failure.problem, Problem::Digest { what, .. } if &**what == "the disk image"), "{failure}");
    let failure = check(&|manifest| manifest.disk.file = "../minimal_1_amd64.raw".into());
    assert!(matches!(&failure.problem, Problem::FileName { .. }), "{failure}");
}

/// An image whose manifest says what it was made from.
fn with_records() -> Sketch {
    let package = |name: &str, version: &str| LockedPackage {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        repository: "debian".into(),
        size: 5,
        digest: Digest::of(name.as_bytes()),
        path: format!("pool/{name}.deb"),
    };
    let index = LockedIndex {
        repository: "debian".into(),
        suite: "trixie".into(),
        component: "main".into(),
        architecture: "amd64".into(),
        date: 1_700_000_000,
        size: 7,
        digest: Digest::of(b"index"),
    };
    let sets = [("system", vec![package("base-files", "13.8")]), ("initrd", vec![package("udev", "257")])];
    let mut sketch = Sketch {
        recipe: vec![RecipeField { field: "version".into(), value: "1".into() }],
        lock: Some(Lock {
            request: Digest::of(b"request"),
            architecture: "amd64".into(),
            epoch: 1_700_000_000,
            indexes: vec![index],
            sets: sets.into_iter().map(|(set, packages)| (set.to_owned(), packages)).collect(),
        }),
        ..Sketch::default()
    };
    let info = adamant::tree::Metadata::with_mode(0o755);
    sketch.tree.make_directories(b"var/lib/dpkg/info", &info).unwrap();
    let list = "/.\n/usr\n/usr/bin\n/usr/bin/large\n";
    sketch.tree.insert(b"var/lib/dpkg/info/base-files.list", file(list)).unwrap();
    sketch
}

#[test]
fn what_a_manifest_says_of_the_inputs_is_recomputed() {
    let mut built = with_records().build();
    verify::image(built.path()).unwrap();
    let good = built.manifest.clone();
    assert_eq!(good.locked().unwrap().to_text(), with_records().lock.unwrap().to_text());
    let owned: Vec<&str> = good.files.iter().filter(|f| f.package.is_some()).map(|f| f.path.as_str()).collect();
    let expected = ["/", "/usr", "/usr/bin", "/usr/bin/large", "/var/lib/dpkg/info/base-files.list"];
    assert_eq!(owned, expected);
    let mut check = |change: &dyn Fn(&mut adamant::manifest::Manifest)| {
        built.manifest = good.clone();
        change(&mut built.manifest);
        built.write_manifest();
        verify::image(built.path()).unwrap_err()
    };
    let digest = |failure: &Failure, expected: &str| {
        assert!(matches!(&failure.problem, Problem::Digest { what, .. } if &**what == expected), "{failure}");
    };
    digest(&check(&|manifest| manifest.recipe[0].value = "2".into()), "the recipe in the manifest");
    digest(&check(&|manifest| manifest.indexes[0].date += 1), "the lock in the manifest");
    digest(&check(&|manifest| manifest.packages[1].from.as_mut().unwrap().size += 1), "the lock in the manifest");
    digest(&check(&|manifest| manifest.lock.as_mut().unwrap().sets.push("more".into())), "the lock in the manifest");
    assert!(matches!(check(&|manifest| manifest.packages[0].from = None).problem, Problem::Lock));
    let large = good.files.iter().position(|file| file.path == "/usr/bin/large").unwrap();
    for owner in [None, Some(0), Some(7)] {
        let failure = check(&|manifest| manifest.files[large].package = owner);
        let Problem::TreeFile { path, difference } = &failure.problem else { panic!("{failure}") };
        assert_eq!((path.as_str(), *difference), ("/usr/bin/large", "belongs to another package"));
    }
}

#[test]
fn names_a_flipped_byte_beside_the_image() {
    let built = Sketch::default().build();
    let at = |name: &str| built.path().join(name);
    let (manifest, uki) = (at("manifest.json"), at(&built.manifest.uki.file));
    let recipe = built.manifest.to_json().find("\"recipe_sha256\": \"").unwrap() as u64 + 18;
    let check = |path: &Path, bytes: &dyn Fn(&mut Vec<u8>)| {
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        bytes(&mut bad);
        fs::write(path, bad).unwrap();
        let failure = verify::image(built.path()).unwrap_err();
        fs::write(path, good).unwrap();
        failure
    };
    // A digest that nothing in the image confirms is known to the list of digests.
    let failure =
        check(&manifest, &|bytes| bytes[recipe as usize] = if bytes[recipe as usize] == b'0' { b'1' } else { b'0' });
    assert!(matches!(&failure.problem, Problem::Checksum { file, .. } if &**file == "manifest.json"), "{failure}");
    let failure = check(&manifest, &|bytes| bytes[2] = b'\t');
    assert!(matches!(&failure.problem, Problem::Manifest(_)), "{failure}");
    assert_eq!((failure.file.as_path(), failure.offset), (manifest.as_path(), 2));
    let failure = check(&uki, &|bytes| bytes[4321] ^= 1);
    assert!(matches!(&failure.problem, Problem::UkiCopy), "{failure}");
    assert_eq!((failure.file.as_path(), failure.offset), (uki.as_path(), 4321));
    let failure = check(&at("SHA256SUMS"), &|bytes| bytes[100] = if bytes[100] == b'0' { b'1' } else { b'0' });
    assert!(matches!(&failure.problem, Problem::Checksum { .. }), "{failure}");
    let failure = check(&at("SHA256SUMS"), &|bytes| bytes.truncate(50));
    assert!(matches!(&failure.problem, Problem::Checksums(_)), "{failure}");
}

#[test]
fn refuses_more_files_on_the_efi_system_partition() {
    for path in ["startup.nsh", "EFI/BOOT/OTHER.EFI", "EFI/evil"] {
        let built = Sketch { esp_extra: vec![(path, "evil")], ..Sketch::default() }.build();
        let failure = verify::image(&built.raw).unwrap_err();
        assert!(
            matches!(&failure.problem, Problem::EspFiles { found, .. } if *found == format!("/{path}")),
            "{failure}"
        );
    }
}

#[test]
fn refuses_a_kernel_that_is_not_the_one_it_says() {
    let built = Sketch { uname: "6.12.2-test", ..Sketch::default() }.build();
    let failure = verify::image(&built.raw).unwrap_err();
    assert!(matches!(&failure.problem, Problem::Tie { expected, .. } if expected == "6.12.1-test"), "{failure}");
}

#[test]
fn a_truncated_image_and_a_directory_without_one_are_refused() {
    let built = Sketch::default().build();
    for size in [0, 1, 511, 1 << 20, built.manifest.disk.size - 512, built.manifest.disk.size - 1] {
        OpenOptions::new().write(true).open(&built.raw).unwrap().set_len(size).unwrap();
        let failure = verify::image(built.path()).unwrap_err();
        assert!(matches!(failure.problem, Problem::Table(_)), "{size}: {failure}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify::image(empty.path()).unwrap_err().problem, Problem::NoImage));
    assert!(matches!(verify::image(&empty.path().join("no.raw")).unwrap_err().problem, Problem::Read(_)));
}

#[test]
fn inspect_shows_what_is_in_an_image() {
    let mut sketch = Sketch::default();
    sketch.tree.insert(b"usr/lib/more", file(vec![1; 3_000_000])).unwrap();
    let built = sketch.build();
    let inspection = inspect::image(built.path()).unwrap();
    assert_eq!((inspection.name.as_str(), inspection.version.as_str()), ("minimal", "1"));
    let roles: Vec<_> = inspection.partitions.iter().map(|p| (p.role, p.label.as_str(), p.read_only)).collect();
    let expected = [("esp", "esp", false), ("root", "minimal_1", true), ("root-verity", "minimal_1_verity", true)];
    assert_eq!(roles, expected);
    assert_eq!(inspection.partitions[0].type_uuid, ESP);
    assert_eq!(inspection.partitions[1].offset, Entry::range(&built.disk.table.entries[1]).start);
    assert_eq!(inspection.uki.command_line, built.manifest.uki.command_line);
    let directories: Vec<_> = inspection.directories.iter().take(3).map(|d| d.path.as_str()).collect();
    assert_eq!(directories, ["/", "/usr", "/usr/lib"]);
    assert_eq!(inspection.packages.len(), 1);
    assert_eq!(inspection.manifest.as_ref().unwrap().digest, built.manifest.digest());
    assert_eq!(inspection.manifest.unwrap().initrd_packages[0].name, "udev");
    assert!(inspection.allocated < inspection.size / 2);
    let raw = inspect::image(&built.raw).unwrap();
    assert_eq!(raw.manifest, None);
    let json = serde_json::to_value(&raw).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["verity"]["root_hash"], built.manifest.verity.root_hash.to_string());
}

#[test]
fn refuses_to_hash_for_ever() {
    let mut sketch = Sketch::default();
    let hole = Content::new(1 << 40, std::sync::Arc::new(Vec::new()), 0).with_extents([]).with_digest(Digest::of(b""));
    let node = Node { metadata: sketch.tree.node(NodeId::ROOT).metadata.clone(), kind: Kind::File(hole) };
    sketch.tree.insert(b"hole", node).unwrap();
    let built = sketch.build();
    let failure = verify::image(&built.raw).unwrap_err();
    assert!(matches!(failure.problem, Problem::Contents { bytes } if bytes > 1 << 40), "{failure}");
    assert!(inspect::image(&built.raw).unwrap().root.bytes > 1 << 40);
}
