//! What mutations start from: at least one good input for each reader, with as much of its format as fits in little.

use std::io::{Cursor, Write};
use std::num::NonZeroUsize;

use adamant::boot::command_line;
use adamant::digest::Digest;
use adamant::filesystem::erofs::{self, Compression};
use adamant::filesystem::{cpio, fat};
use adamant::identifier::Uuid;
use adamant::sign::SecretKey;
use adamant::store::shared::entry::{Entry, Item, Packed, Packing};
use adamant::tree::{Content, DeviceNumber, Kind, Metadata, Node, Timestamp, Tree, dump};
use adamant::verity::{self, RootHash};

use crate::support::archive::{Archive, Deb, Key, SignatureOptions, xz};
use crate::support::executable::{executable, kernel, stub};
use crate::support::image::{Sketch, noise};

/// The inputs that mutations of the reader `name` start from.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "recipe" => recipes(),
        "config" => texts(&[
            "[mirrors]\ndebian = \"http://m.example/debian\"\n[snapshots]\ndebian = \"http://s.example/{timestamp}\"\n",
        ]),
        "apt_sources" => apt_sources(),
        "identifiers" => identifiers(),
        "openpgp_keys" => vec![Key::new(1).public().into_bytes()],
        "in_release" => vec![in_release(), include_bytes!("../../fuzz/InRelease").to_vec()],
        "release" => vec![archive().release_text("trixie").into_bytes()],
        "control" | "packages" => packages(),
        "relations" => texts(&[
            "libc6 (>= 2.41), debconf (>= 0.5) | debconf-2.0, python3:any\na (<< 1:2.0~rc1-3+b1)\n1:2.0~rc1-3+b1\n1.0\n1.00\n~\n",
        ]),
        "lock" => lock(),
        "deb" => debs(),
        "deb_tar" => tars(),
        "deb_index" => vec![deb_index()],
        "accounts" => {
            texts(&["root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/sh\nshadow:x:42:a,b\nme:!:1000:me\n"])
        }
        "units" => texts(&[
            "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target \\\n  a.target\nAlias=h2.service\nAlso=a.service h@.service\nDefaultInstance=tty1\n",
        ]),
        "tree_dump" => vec![text_of(&tree())],
        "erofs" => images(),
        "fat" => vec![volume()],
        "cpio" => vec![cpio_archive()],
        "verity" => vec![hash_tree()],
        "elf" => vec![elf(), std::fs::read("/proc/self/exe").unwrap()[..4096].to_vec()],
        "kernel_module" => modules(),
        "command_line" => {
            let line =
                command_line::compose(&RootHash::from_bytes([0xab; 32]), &["console=ttyS0".into(), "a=\"b c\"".into()]);
            texts(&[&line.unwrap(), "quiet\nconsole=ttyS0\nfoo=\"a b\"\n--\nroot=/dev/vda\n"])
        }
        "os_release" => {
            texts(&["a b\nPRETTY_NAME=\"Debian GNU/Linux 13\"\nID=debian\nIMAGE_ID='x'\nVERSION_ID=\"1\\\"3\"\n"])
        }
        "cache_entry" => vec![cache_entry()],
        "keys" => keys(),
        "changelog" => texts(&[
            "a (2-1) trixie-security; urgency=medium\n\n  * CVE-2026-12345: x\n\n -- A <a@b>  Sat, 24 Jan 2026 10:00:00 +0100\n\n\
             a (1-1) unstable; urgency=low\n\n  * First.\n\n -- A <a@b>  Fri, 23 Jan 2026 10:00:00 +0100\n",
        ]),
        "uki" => ukis(),
        "gpt" => vec![disk()],
        "manifest" => vec![manifest()],
        "checksums" => {
            let digest = adamant::digest::Digest::of(b"");
            texts(&[&format!("{digest}  manifest.json\n{digest}  a b\n")])
        }
        "guest" => texts(&[
            "ready\ndone 7 1 aGkK\nrefused a.service b.mount\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n{\"error\": {\"desc\": \"x\"}}\n{\"return\": {\"status\": \"internal-error\"}}\n",
        ]),
        other => panic!("no seeds for {other}"),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn recipes() -> Vec<Vec<u8>> {
    let everything = include_str!("../../src/recipe/starter.toml");
    let minimal = include_str!("../../recipes/minimal.toml");
    let web = include_str!("../../recipes/web.toml");
    let wide = include_str!("everything.toml");
    let chain = |recipes: &[&str]| recipes.join("\n#-----\n");
    texts(&[
        everything,
        wide,
        &chain(&[minimal, web]),
        &chain(&[wide, "name = \"x\"\n[remove]\npackages = [\"nginx\"]\nusers = [\"me\"]\nfiles = [\"/etc/motd\"]\n"]),
    ])
}

fn apt_sources() -> Vec<Vec<u8>> {
    texts(&[
        "# Debian\nTypes: deb deb-src\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: https://m.example/debian-security/\nSuites: bookworm-security\nComponents: main\nEnabled: yes\n",
        "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian/ trixie main non-free-firmware # note\ndeb\thttp://s.example/debian-security trixie-security main\n",
    ])
}

fn identifiers() -> Vec<Vec<u8>> {
    let digest = adamant::digest::Digest::of(b"").to_string();
    texts(&[&digest, &Uuid::from_u128(7).to_string(), "amd64", "arm64", "nginx=1.0-1", "nginx/trixie", "libc6:any"])
}

/// Packages with something of everything.
fn debs_of_archive() -> Vec<Deb> {
    vec![
        Deb::new("web", "1.0-1")
            .architecture("amd64")
            .depends("lib (>= 2) | other, tool:any")
            .field("Pre-Depends", "early")
            .field("Conflicts", "other (<< 2)")
            .field("Recommends", "nice")
            .script("postinst", "#!/bin/sh\nexit 0\n")
            .control_file("conffiles", "/etc/web.conf\n")
            .file("etc/web.conf", 0o644, b"a\n")
            .file("usr/bin/web", 0o755, &noise(3000, 1)),
        Deb::new("lib", "1:2.0~rc1-3+b1").field("Provides", "virtual (= 2), other").field("Breaks", "old"),
        Deb::new("lib", "3").field("Multi-Arch", "same").depends("lib"),
        Deb::new("tool", "1").field("Multi-Arch", "allowed").essential(),
        Deb::new("early", "1").depends("virtual"),
        Deb::new("nice", "1").depends("missing"),
        Deb::new("old", "1").field("Replaces", "lib").field("Enhances", "web").field("Suggests", "x"),
    ]
}

fn archive() -> Archive {
    Archive::of(debs_of_archive())
}

fn in_release() -> Vec<u8> {
    std::fs::read(archive().path("dists/trixie/InRelease")).unwrap()
}

fn packages() -> Vec<Vec<u8>> {
    let archive = archive();
    let index = std::fs::read(archive.path("dists/trixie/main/binary-amd64/Packages")).unwrap();
    vec![index]
}

fn lock() -> Vec<Vec<u8>> {
    let archive = archive();
    let mut set = adamant::apt::SetRequest::new("system");
    set.packages = vec!["web".parse().unwrap()];
    let request = adamant::apt::LockRequest {
        architecture: "amd64".to_owned(),
        repositories: vec![archive.repository("test", &["trixie"])],
        sets: vec![set],
    };
    let lock = adamant::apt::lock(&request, &archive, crate::support::archive::NOW).unwrap();
    vec![lock.to_text().into_bytes(), include_bytes!("../../recipes/minimal.lock")[..3000].to_vec()]
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, body) in members {
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes());
        archive.extend_from_slice(body);
        archive.extend(std::iter::repeat_n(b'\n', body.len() % 2));
    }
    archive
}

fn debs() -> Vec<Vec<u8>> {
    let gz = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (control, data) = (&tars()[0], &tars()[1]);
    let zst = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    vec![
        debs_of_archive()[0].bytes(),
        ar(&[("debian-binary", b"2.0\n"), ("_x", b"y"), ("control.tar", control), ("data.tar", data)]),
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gz(control)), ("data.tar.gz", &gz(data))]),
        ar(&[("debian-binary/", b"2.0\n"), ("control.tar.zst/", &zst(control)), ("data.tar.zst/", &zst(data))]),
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &xz(control)), ("data.tar.xz", &xz(data))]),
    ]
}

/// A control archive and a data archive with each type of entry, long names and extended attributes.
fn tars() -> Vec<Vec<u8>> {
    let header = |kind, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_username("root").unwrap();
        header
    };
    let file = |tar: &mut tar::Builder<Vec<u8>>, path: &str, body: &[u8]| {
        tar.append_data(&mut header(tar::EntryType::Regular, body.len()), path, body).unwrap();
    };
    let mut control = tar::Builder::new(Vec::new());
    file(&mut control, "./control", b"Package: a\nVersion: 1\nArchitecture: all\nDescription: x\n y\n");
    file(&mut control, "./conffiles", b"/etc/a\nremove-on-upgrade /etc/b\n");
    file(&mut control, "./md5sums", b"d41d8cd98f00b204e9800998ecf8427e  etc/a\n");
    file(&mut control, "./triggers", b"interest-noawait /usr/share/a\nactivate b\n");
    let mut data = tar::Builder::new(Vec::new());
    data.append_data(&mut header(tar::EntryType::Directory, 0), "./", &[][..]).unwrap();
    data.append_data(&mut header(tar::EntryType::Directory, 0), "./etc/", &[][..]).unwrap();
    let pax = [("SCHILY.xattr.security.capability", &b"\x01\0\0\x02"[..]), ("mtime", b"12.5"), ("path", b"./etc/a")];
    data.append_pax_extensions(pax).unwrap();
    file(&mut data, "./etc/a", b"twelve bytes");
    data.append_link(&mut header(tar::EntryType::Link, 0), "./etc/hard", "./etc/a").unwrap();
    data.append_link(&mut header(tar::EntryType::Symlink, 0), "./etc/soft", "../etc/a").unwrap();
    file(&mut data, &format!("./etc/{}", "long/".repeat(40)), b"x");
    let mut device = header(tar::EntryType::Char, 0);
    device.set_device_major(5).unwrap();
    device.set_device_minor(1).unwrap();
    data.append_data(&mut device, "./console", &[][..]).unwrap();
    data.append_data(&mut header(tar::EntryType::Fifo, 0), "./fifo", &[][..]).unwrap();
    vec![control.into_inner().unwrap(), data.into_inner().unwrap()]
}

fn deb_index() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (deb, data) = (directory.path().join("deb"), directory.path().join("data"));
    std::fs::write(&deb, &debs()[1]).unwrap();
    adamant::rootfs::deb::unpack(&deb, &data).unwrap();
    let mut bytes = std::fs::read(&data).unwrap();
    bytes.truncate(bytes.len() - 24);
    let start = bytes.iter().rposition(|byte| *byte == 0).map_or(0, |zero| zero + 1);
    bytes[start..].to_vec()
}

/// A small tree with something of everything.
fn tree() -> Tree {
    let mut metadata = Metadata::with_mode(0o755);
    metadata.mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 7 };
    let mut tree = Tree::new(metadata.clone());
    tree.make_directories(b"a/b/c", &metadata).unwrap();
    metadata.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
    metadata.xattrs.insert(b"security.capability".to_vec(), vec![1; 20]);
    metadata.uid = 70_000;
    let device = DeviceNumber { major: 5, minor: 1 };
    for (path, kind) in [
        (&b"a/small"[..], Kind::File(Content::from_bytes(vec![0; 40]))),
        (b"a/b/link", Kind::Symlink(b"../small".to_vec())),
        (b"a/b/char", Kind::CharacterDevice(device)),
        (b"a/b/block", Kind::BlockDevice(device)),
        (b"fifo", Kind::Fifo),
        (b"socket", Kind::Socket),
        (b"with space\\", Kind::Fifo),
    ] {
        tree.insert(path, Node { metadata: metadata.clone(), kind }).unwrap();
    }
    tree.link(b"a/small", b"again").unwrap();
    tree
}

/// The same with files that are worth compressing, and many names.
fn larger_tree() -> Tree {
    let mut tree = tree();
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n % 977).to_le_bytes()).collect();
    let metadata = Metadata::with_mode(0o644);
    let holes = Content::from_bytes(text.clone()).with_extents([0..10, 70_000..70_001]);
    for (path, content) in [
        ("large", Content::from_bytes(text.clone())),
        ("medium", Content::from_bytes(&text[..9000])),
        ("noise", Content::from_bytes(noise(20_000, 3))),
        ("zeros", Content::from_bytes(vec![0; 50_000])),
        ("holes", holes),
        ("a/tail", Content::from_bytes(&text[..5000])),
    ] {
        tree.insert(path.as_bytes(), Node { metadata: metadata.clone(), kind: Kind::File(content) }).unwrap();
    }
    for number in 0..300 {
        let kind = Kind::File(Content::from_bytes(format!("{number}")));
        tree.insert(format!("a/b/c/{number:030}").as_bytes(), Node { metadata: metadata.clone(), kind }).unwrap();
    }
    tree
}

fn text_of(tree: &Tree) -> Vec<u8> {
    let mut text = Vec::new();
    dump::write(tree, &mut text).unwrap();
    text
}

fn images() -> Vec<Vec<u8>> {
    let compressions = [Compression::None, Compression::Lz4 { level: 9 }, Compression::Zstd { level: 3 }];
    let options = |compression, pcluster, packed_max| erofs::Options {
        compression,
        pcluster,
        packed_max,
        workers: NonZeroUsize::MIN,
        ..erofs::Options::default()
    };
    let write = |tree: &Tree, options: &erofs::Options| {
        let mut image = Cursor::new(Vec::new());
        erofs::write(tree, options, &mut image).unwrap();
        image.into_inner()
    };
    let mut images = Vec::new();
    for compression in compressions {
        images.push(write(&larger_tree(), &options(compression, 4096, 0)));
        images.push(write(&larger_tree(), &options(compression, 16384, 4096)));
        images.push(write(&tree(), &options(compression, 4096, 4096)));
    }
    images
}

fn volume() -> Vec<u8> {
    let mut tree = Tree::default();
    let metadata = Metadata { mtime: Timestamp::from_seconds(1_700_000_000), ..Metadata::with_mode(0o755) };
    tree.make_directories(b"EFI/BOOT", &metadata).unwrap();
    for (path, size) in [("EFI/BOOT/BOOTX64.EFI", 9000), ("EFI/a long name.text", 10), ("empty", 0)] {
        let node = Node { metadata: metadata.clone(), kind: Kind::File(Content::from_bytes(noise(size, 9))) };
        tree.insert(path.as_bytes(), node).unwrap();
    }
    let size = fat::minimum_size(&tree).unwrap().max(33 << 20);
    let options = fat::Options { volume_id: 7, label: "ESP".into(), size, hidden_sectors: 0 };
    let bytes = fat::write(&tree, &options).unwrap().to_vec().unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}

fn cpio_archive() -> Vec<u8> {
    let mut tree = tree();
    for (_, id) in tree.walk().collect::<Vec<_>>() {
        tree.node_mut(id).metadata.xattrs.clear();
        tree.node_mut(id).metadata.mtime.nanoseconds = 0;
    }
    let mut bytes = Vec::new();
    cpio::write(&tree, &mut bytes).unwrap();
    bytes.extend([0; 512]);
    let again = bytes.clone();
    bytes.extend(again);
    bytes
}

fn hash_tree() -> Vec<u8> {
    let data = noise(4096 * 150, 5);
    let mut hash = Vec::new();
    verity::format(&data, data.len() as u64, [3; 32], Uuid::from_u128(1), &mut hash).unwrap();
    hash.resize(data.len(), 0);
    hash.extend(data);
    hash
}

/// An ELF file of 64 bits, put together by hand: a program header of each kind that is read, two sections.
fn elf() -> Vec<u8> {
    let strings = b"\0libc.so.6\0/usr/lib/a:/b\0";
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    // Entry, program headers, section headers; flags; sizes and counts.
    [0_u64, 64, 1024].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    [64_u16, 56, 3, 64, 3, 2].iter().for_each(|half| file.extend(half.to_le_bytes()));
    for (kind, offset, size) in [(1_u32, 0_u64, 2048_u64), (2, 512, 80), (3, 700, 28)] {
        file.extend(kind.to_le_bytes());
        file.extend(4_u32.to_le_bytes());
        [offset, offset, offset, size, size, 8].iter().for_each(|word| file.extend(word.to_le_bytes()));
    }
    file.resize(512, 0);
    for (tag, value) in [(5_u64, 600_u64), (10, strings.len() as u64), (1, 1), (29, 11), (0, 0)] {
        [tag, value].iter().for_each(|word| file.extend(word.to_le_bytes()));
    }
    file.resize(600, 0);
    file.extend(strings);
    file.resize(700, 0);
    file.extend(b"/lib64/ld-linux-x86-64.so.2\0");
    let names = b"\0.modinfo\0.shstrtab\0";
    let modinfo = b"depends=other,erofs\0softdep=pre: crc32c post: x\0alias=virtio:d*-[a-c]\0license=GPL\0";
    file.resize(800, 0);
    file.extend(names);
    file.resize(840, 0);
    file.extend(modinfo);
    file.resize(1024 + 64, 0);
    for (name, kind, offset, size) in [(1_u32, 1_u32, 840_u64, modinfo.len()), (10, 3, 800, names.len())] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        [0, 0, offset, size as u64].iter().for_each(|word| file.extend(word.to_le_bytes()));
        file.extend([0; 24]);
    }
    file.resize(2048, 0);
    file
}

fn modules() -> Vec<Vec<u8>> {
    let plain = elf();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    vec![xz(&plain), zstd::encode_all(&plain[..], 1).unwrap(), gz.finish().unwrap(), plain]
}

fn ukis() -> Vec<Vec<u8>> {
    let sections: &[(&str, &[u8])] = &[
        (".text", &[0x90; 600]),
        (".osrel", b"ID=debian\nIMAGE_ID=a\nIMAGE_VERSION=1\n"),
        (".cmdline", b"roothash=00"),
        (".uname", b"6.12"),
        (".linux", &[0xcc; 600]),
        (".initrd", &[1; 600]),
        (".sbat", b"sbat,1\n\0"),
    ];
    vec![executable(sections), stub(), kernel("6.12.1-test")]
}

fn disk() -> Vec<u8> {
    let partition = |number: u128, first_sector, last_sector| adamant::disk::Entry {
        type_uuid: Uuid::from_u128(number),
        uuid: Uuid::from_u128(number + 100),
        first_sector,
        last_sector,
        attributes: 1 << 60,
        label: format!("part-{number}"),
    };
    let entries = vec![partition(1, 40, 63), partition(2, 64, 79), partition(3, 80, 95)];
    let table = adamant::disk::Table { disk_uuid: Uuid::from_u128(9), sectors: 256, entries };
    let (front, back) = table.encode().unwrap();
    let mut bytes = front;
    bytes.resize(256 * 512 - back.len(), 0);
    bytes.extend(back);
    bytes
}

fn manifest() -> Vec<u8> {
    let sketch = Sketch { tree: tree(), ..Sketch::default() };
    sketch.build().manifest.to_json().into_bytes()
}

#[test]
fn signed_seeds_are_believed() {
    let text = archive().release_text("trixie");
    let signed = Key::new(1).clearsign(&text, SignatureOptions::default());
    let keyring = adamant::apt::Keyring::parse(include_bytes!("../../fuzz/archive.asc")).unwrap();
    for signed in [signed.as_bytes(), include_bytes!("../../fuzz/InRelease")] {
        adamant::apt::openpgp::verify_cleartext(signed, &keyring, crate::support::archive::NOW).unwrap();
    }
}

fn cache_entry() -> Vec<u8> {
    let digest = Digest::of(b"x");
    let packed = |packing| Packed { packing, size: 7, digest };
    let file = |path: &str, packing| {
        let (path, packed) = (path.to_owned(), packed(packing));
        Item::File { path, size: 7, digest, packed }
    };
    let items = vec![
        Item::Directory { path: "sandbox".to_owned() },
        file("sandbox/pack", Packing::Zstd),
        file("sandbox/result.json", Packing::Plain),
    ];
    let entry = Entry { stage: "configure".to_owned(), key: digest, items };
    entry.sign(&SecretKey::from_random([7; 32])).into_bytes()
}

fn keys() -> Vec<Vec<u8>> {
    let key = SecretKey::from_random([7; 32]);
    let public = key.public().to_pem().unwrap();
    texts(&[&key.to_pem().unwrap(), &public, &format!("{public}{public}"), &key.sign(b"x").to_string()])
}
