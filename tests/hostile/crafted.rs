//! Inputs made by hand to cost more than they weigh: deep, long, self-referring.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::sync::Arc;

use adamant::filesystem::erofs::{self, Compression};
use adamant::filesystem::fat;
use adamant::tree::{Content, Kind, Metadata, Node, Timestamp, Tree};

use crate::attack;

/// The reader of that name gets along with each of these.
fn survives(name: &str, inputs: impl IntoIterator<Item = Vec<u8>>) {
    for input in inputs {
        attack::this(name, &input);
    }
}

#[test]
fn recipes() {
    let head = "name = \"a\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\n";
    let many = |line: &dyn Fn(usize) -> String| (0..5_000).map(line).collect::<String>();
    let few = |line: &dyn Fn(usize) -> String| (0..1_000).map(line).collect::<String>();
    survives(
        "recipe",
        [
            "[".repeat(100_000),
            format!("a = {}", "[".repeat(100_000)),
            format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
            format!("a = {}", "{a=".repeat(100_000)),
            format!("a{} = 1", ".a".repeat(100_000)),
            format!("[a{}]", ".a".repeat(100_000)),
            format!("{} = 1", "a".repeat(1_000_000)),
            format!("name = \"{}\"", "a".repeat(1_000_000)),
            format!("name = \"{}\"", "\\u0000".repeat(100_000)),
            many(&|number| format!("key-{number} = 1\n")),
            format!("{head}{}", many(&|number| format!("key-{number} = 1\n"))),
            format!("packages = [{}]\n{head}", many(&|number| format!("\"a{number}\", "))),
            format!("packages = [{}]\n{head}", many(&|_| "\"a\", ".to_owned())),
            format!(
                "packages = [{}]\n{head}\n#-----\n[remove]\npackages = [{}]\n",
                many(&|number| format!("\"package-{number}\", ")),
                many(&|number| format!("\"{number}-package\", "))
            ),
            format!("{head}{}", many(&|number| format!("[[file]]\npath = \"/a/{number}\"\ncontent = \"\"\n"))),
            format!("{head}{}", many(&|_| "[[file]]\npath = \"/a\"\ncontent = \"\"\n".to_owned())),
            format!("{head}{}", few(&|number| format!("[[user]]\nname = \"u{number}\"\ngroups = [\"www\"]\n"))),
            format!(
                "{head}{}",
                many(&|number| format!("[[symlink]]\npath = \"/b{number}\"\ntarget = \"b{}\"\n", number + 1))
            ),
            format!("{head}[[file]]\npath = \"{}\"\ncontent = \"\"\n", "/a".repeat(100_000)),
            format!("{head}[[directory]]\npath = \"{}\"\n", "/a".repeat(2000)),
            format!("{head}[[symlink]]\npath = \"/l\"\ntarget = \"l\"\n[[file]]\npath = \"/l/x\"\ncontent = \"\"\n"),
            format!("{head}[units]\nenable = [{}]\n", many(&|number| format!("\"a{number}.service\", "))),
        ]
        .map(String::into_bytes),
    );
}

#[test]
fn locks_and_manifests() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    survives(
        "lock",
        [deep("a = [", "]"), deep("[", "]"), deep("{a=", "}"), "[[sets.a]]\n".repeat(50_000).into_bytes()],
    );
    survives(
        "manifest",
        [deep("[", "]"), deep("{\"schema\":", "}"), b"\\x".repeat(100_000), b"\xff\\".repeat(100_000)],
    );
    survives("config", [deep("a = [", "]"), "[mirrors]\n".repeat(50_000).into_bytes()]);
    survives("guest", [deep("[", "]"), deep("{\"event\":", "}")]);
    survives("deb_index", [deep("[", "]"), deep("{\"name\":", "}")]);
}

#[test]
fn paragraphs_with_many_fields() {
    let fields: String = (0..200_000).map(|number| format!("X{number}: y\n")).collect();
    survives("control", [fields.clone().into_bytes()]);
    survives("packages", [fields.clone().into_bytes()]);
    survives("release", [fields.clone().into_bytes()]);
    survives("apt_sources", [fields.into_bytes()]);
    let digest = adamant::digest::Digest::of(b"");
    let files: String = (0..100_000).map(|number| format!(" {digest} 0 main/{number}\n")).collect();
    survives("release", [format!("Date: Sat, 21 Nov 2026 00:53:03 UTC\nSHA256:\n{files}").into_bytes()]);
}

fn index(packages: impl IntoIterator<Item = (String, String)>) -> Vec<u8> {
    let digest = adamant::digest::Digest::of(b"");
    let one = |(name, fields): (String, String)| {
        format!(
            "Package: {name}\nVersion: 1\nArchitecture: all\nFilename: pool/{name}\nSize: 1\nSHA256: {digest}\n{fields}\n"
        )
    };
    packages.into_iter().map(one).collect::<String>().into_bytes()
}

#[test]
fn packages_that_need_each_other() {
    let package = |number: usize, fields: String| (format!("p{number}"), fields);
    survives(
        "packages",
        [
            // A chain, a ring, a ladder of alternatives, a web of conflicts.
            index((0..10_000).map(|n| package(n, format!("Depends: p{}\n", n + 1)))),
            index((0..10_000).map(|n| package(n, format!("Depends: p{}\n", (n + 1) % 10_000)))),
            index((0..2_000).map(|n| package(n, format!("Depends: p{} | p{}, p{}\n", n + 1, n + 2, n + 3)))),
            index((0..1_000).map(|n| package(n, format!("Depends: p{} | p{}\nConflicts: p{}\n", n + 1, n + 2, n / 2)))),
            index(
                (0..60)
                    .map(|n| package(n, format!("Depends: p{} | p{}\nConflicts: p{}\n", n * 2 + 3, n * 2 + 4, n + 1))),
            ),
            index((0..3_000).map(|n| package(n, format!("Provides: v\nDepends: v\nConflicts: v{}\n", n)))),
            index((0..3).map(|n| package(n, format!("Depends: {}\n", "x | ".repeat(100_000) + "y")))),
        ],
    );
}

fn image(tree: &Tree) -> Vec<u8> {
    let options = erofs::Options {
        compression: Compression::None,
        packed_max: 0,
        workers: NonZeroUsize::MIN,
        ..erofs::Options::default()
    };
    let mut image = Cursor::new(Vec::new());
    erofs::write(tree, &options, &mut image).unwrap();
    image.into_inner()
}

#[test]
fn images_with_long_paths() {
    let metadata = Metadata::with_mode(0o755);
    let mut tree = Tree::default();
    let deep = ["d".repeat(255)].join("/");
    let mut path = Vec::new();
    for _ in 0..1000 {
        path.extend_from_slice(deep.as_bytes());
        path.push(b'/');
    }
    let directory = tree.make_directories(&path, &metadata).unwrap();
    for number in 0..5_000 {
        let node = Node { metadata: metadata.clone(), kind: Kind::File(Content::from_bytes("")) };
        tree.insert_in(directory, format!("{number}").as_bytes(), node).unwrap();
    }
    let image = image(&tree);
    survives("erofs", [image.clone()]);
    let size = image.len() as u64;
    let refused = erofs::Reader::open(Arc::new(image), size).unwrap().tree().map(|_| ()).unwrap_err();
    assert!(matches!(refused, erofs::ReadError::Corrupt { fault: erofs::Fault::Amplified, .. }), "{refused}");
}

#[test]
fn volumes_with_long_paths() {
    let metadata = Metadata { mtime: Timestamp::from_seconds(1_700_000_000), ..Metadata::with_mode(0o755) };
    let mut tree = Tree::default();
    let directory = tree.make_directories(vec!["d".repeat(250); 16].join("/").as_bytes(), &metadata).unwrap();
    for number in 0..20_000 {
        let node = Node { metadata: metadata.clone(), kind: Kind::File(Content::from_bytes("")) };
        tree.insert_in(directory, format!("{number}").as_bytes(), node).unwrap();
    }
    let options = fat::Options { volume_id: 7, label: "ESP".to_owned(), size: 33 << 20, hidden_sectors: 0 };
    let volume = fat::write(&tree, &options).unwrap().to_vec().unwrap();
    let end = volume.iter().rposition(|byte| *byte != 0).unwrap();
    survives("fat", [volume[..=end].to_vec()]);
    let refused = fat::Volume::open(Content::from_bytes(volume)).unwrap_err().to_string();
    assert!(refused.contains("the paths of all files take more room than the volume has"), "{refused}");
}

#[test]
fn unit_files_that_lead_in_circles() {
    survives(
        "units",
        [
            "[Install]\nAlso=h.service a.service h@x.service\nAlias=h.service\nWantedBy=h.service\n".to_owned(),
            format!("[Install]\n{}", "Also=h.service\n".repeat(20_000)),
            format!("[Install]\nWantedBy={}", "a\\\n".repeat(100_000)),
            format!("[Install]\nWantedBy={}", "a.target ".repeat(50_000)),
            format!("[Install]\n{}", (0..20_000).map(|n| format!("Alias=x{n}.service\n")).collect::<String>()),
        ]
        .map(String::into_bytes),
    );
}

#[test]
fn texts_with_many_lines() {
    let accounts: String = (0..5_000).map(|number| format!("u{number}:x:{number}:u{number}\n")).collect();
    survives("accounts", [accounts.into_bytes(), ":".repeat(200_000).into_bytes(), ":\n".repeat(100_000).into_bytes()]);
    survives(
        "relations",
        ["1.".repeat(200_000).into_bytes(), "a | ".repeat(100_000).into_bytes(), "~\n".repeat(100_000).into_bytes()],
    );
    let root = "/ directory 0755 0:0 0.000000000\n";
    let line = |path: &str| format!("{path} directory 0755 0:0 0.000000000\n");
    let deep: String = (1..1500).map(|depth| line(&"/a".repeat(depth))).collect();
    let wide: String = (0..20_000).map(|number| line(&format!("/{number}"))).collect();
    let linked: String = (0..20_000).map(|number| format!("/{number}0 hardlink target=/f\n")).collect();
    let file = "/f fifo 0755 0:0 0.000000000\n";
    survives(
        "tree_dump",
        [format!("{root}{deep}"), format!("{root}{wide}"), format!("{root}{file}{linked}")].map(String::into_bytes),
    );
    survives(
        "command_line",
        ["\"".repeat(100_000).into_bytes(), " ".repeat(100_000).into_bytes(), "a=\"".repeat(100_000).into_bytes()],
    );
    survives("os_release", ["ID=\n".repeat(100_000).into_bytes(), "\\".repeat(200_000).into_bytes()]);
}

#[test]
fn signed_texts_with_much_armour() {
    let begin = "-----BEGIN PGP SIGNED MESSAGE-----\n";
    let signature = "-----BEGIN PGP SIGNATURE-----\n";
    survives(
        "in_release",
        [
            format!("{begin}{}", "Hash: SHA256\n".repeat(100_000)),
            format!("{begin}\n{}", "- -\n".repeat(300_000)),
            format!("{begin}\nx\n{signature}\n{}\n-----END PGP SIGNATURE-----\n", "AAAA\n".repeat(200_000)),
            format!("{begin}\nx\n{}", signature.repeat(50_000)),
        ]
        .map(String::into_bytes),
    );
    let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n";
    survives(
        "openpgp_keys",
        [key.repeat(50_000).into_bytes(), format!("{key}{}", "AAAA\n".repeat(200_000)).into_bytes()],
    );
}
