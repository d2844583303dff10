//! Manifests: their one text, and how they differ.

use super::*;
use crate::recipe::{CheckKind, Span};
use crate::tree::{Content, DeviceNumber, Kind, Metadata, Node, Timestamp, Tree};

fn tree() -> Tree {
    let mut tree = Tree::default();
    let node = |mode, kind| Node { metadata: Metadata::with_mode(mode), kind };
    tree.make_directories(b"usr/bin", &Metadata::with_mode(0o755)).unwrap();
    let mut ping = node(0o4755, Kind::File(Content::from_bytes("ping")));
    ping.metadata.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    ping.metadata.mtime = Timestamp { seconds: 5, nanoseconds: 7 };
    ping.metadata.gid = 70_000;
    tree.insert(b"usr/bin/ping", ping).unwrap();
    tree.link(b"usr/bin/ping", b"usr/bin/ping6").unwrap();
    tree.insert(b"usr/back\\slash\xff\n", node(0o777, Kind::Symlink(b"\xfe/\"".to_vec()))).unwrap();
    tree.insert(b"null", node(0o666, Kind::CharacterDevice(DeviceNumber { major: 1, minor: 3 }))).unwrap();
    tree
}

pub(crate) fn sample() -> Manifest {
    let digest = Digest::of(b"");
    Manifest {
        schema: SCHEMA,
        name: "minimal".into(),
        version: "1".into(),
        architecture: Architecture::Amd64,
        epoch: 1_700_000_000,
        tool: Tool { name: "adamant".into(), version: "0.1.0".into() },
        recipe_sha256: digest,
        lock_sha256: digest,
        recipe: Vec::new(),
        lock: None,
        indexes: Vec::new(),
        state: crate::recipe::State::Volatile,
        checks: vec![Check {
            name: "the page is served".into(),
            kind: CheckKind::Http { port: 80, path: "/".into(), status: 200, contains: None },
            timeout_s: 60,
            span: Span::default(),
        }],
        disk: Disk { file: "minimal_1_amd64.raw".into(), size: 1, sha256: digest, uuid: Uuid::NIL, sector_size: 512 },
        verity: Verity {
            root_hash: RootHash::from_bytes([1; 32]),
            salt: "00".repeat(32),
            uuid: Uuid::NIL,
            data_size: 4096,
        },
        uki: Uki {
            file: "minimal_1_amd64.efi".into(),
            path: "/EFI/BOOT/BOOTX64.EFI".into(),
            size: 1,
            sha256: digest,
            command_line: "roothash=".into(),
            uname: "6.12".into(),
            sections: vec![Section { name: ".linux".into(), offset: 512, size: 1, sha256: digest }],
        },
        partitions: Vec::new(),
        packages: Vec::new(),
        files: files(&tree()).unwrap(),
    }
}

#[test]
fn every_name_has_one_line_that_says_all_of_it() {
    let text = sample().to_json();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("    {\"path\":")).collect();
    let ping = Digest::of(b"ping");
    let file = |path: &str, more: &str| {
        format!(
            r#"    {{"path":"{path}","type":"file","mode":"4755","uid":0,"gid":70000,"mtime":5,"mtime_nanoseconds":7,"size":4,"sha256":"{ping}",{more}"xattrs":{{"security.capability":"AQAAAg=="}}}}"#
        )
    };
    let directory =
        |path: &str| format!(r#"    {{"path":"{path}","type":"directory","mode":"0755","uid":0,"gid":0,"mtime":0}},"#);
    let link = r#"    {"path":"/usr/back\\\\slash\\xff\n","type":"symlink","mode":"0777","uid":0,"gid":0,"mtime":0,"target":"\\xfe/\""},"#;
    let null =
        r#"    {"path":"/null","type":"character device","mode":"0666","uid":0,"gid":0,"mtime":0,"device":"1:3"},"#;
    let expected = [
        directory("/"),
        null.to_owned(),
        directory("/usr"),
        link.to_owned(),
        directory("/usr/bin"),
        file("/usr/bin/ping", "") + ",",
        file("/usr/bin/ping6", r#""hard_link_to":"/usr/bin/ping","#),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_manifest_reads_back_and_its_digest_is_that_of_its_text() {
    let manifest = sample();
    let text = manifest.to_json();
    assert!(text.starts_with("{\n  \"schema\": 1,\n  \"name\": \"minimal\",\n"), "{text}");
    assert!(text.contains("\n  \"packages\": [],\n"), "{text}");
    let check = r#"{"name":"the page is served","http":{"port":80,"path":"/","status":200},"timeout_s":60}"#;
    assert!(text.contains(&format!("\n  \"checks\": [\n    {check}\n  ],\n")), "{text}");
    assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
    assert_eq!(manifest.digest(), Digest::of(text.as_bytes()));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["files"][3]["path"], "/usr/back\\\\slash\\xff\n");
}

#[test]
fn no_other_text_is_accepted_for_the_same() {
    let text = sample().to_json();
    let refused = |text: String| Manifest::parse(text.as_bytes()).unwrap_err();
    let spaced = refused(text.replace("\"epoch\": 1", "\"epoch\":  1"));
    let at = text.find("\"epoch\": 1").unwrap() + "\"epoch\": ".len();
    assert!(matches!(spaced, ParseError::NotCanonical { offset } if offset == at as u64), "{spaced}");
    assert!(matches!(refused(text.clone() + "\n"), ParseError::NotCanonical { .. }));
    assert!(matches!(refused(text.replace("\"schema\": 1", "\"schema\": 2")), ParseError::Schema { found: 2 }));
    let unknown = refused(text.replace("  \"name\"", "  \"nickname\": 1,\n  \"name\""));
    assert!(matches!(unknown, ParseError::Json { offset, .. } if offset > 0), "{unknown}");
    let garbage = refused(text.replace("\"version\": \"1\"", "\"version\": oops"));
    let at = text.find("\"version\": \"1\"").unwrap() as u64 + 11;
    assert!(matches!(garbage, ParseError::Json { offset, .. } if offset.abs_diff(at) < 3), "{garbage}");
}

#[test]
fn paths_of_any_bytes_read_back_and_have_one_spelling() {
    for path in [&b"plain"[..], b"\\", b"\\\\", b"\\x41", b"\xff", b"a\xc3", "ä\n\u{1}".as_bytes(), b"", b"x\\\xffx41"]
    {
        assert_eq!(path_from_text(&path_to_text(path)).as_deref(), Ok(path));
    }
    for text in ["\\", "\\x4", "\\xfF", "\\x41", "\\y", "\\xc3\\xa4", "\\xä", "\\\\\\"] {
        assert_eq!(path_from_text(text), Err(PathError(text.into())));
    }
}

#[test]
fn names_the_first_line_that_differs_and_how() {
    let said = files(&tree()).unwrap();
    assert_eq!(compare(&said, &said), None);
    let with = |change: &dyn Fn(&mut Vec<File>)| {
        let mut found = said.clone();
        change(&mut found);
        compare(&said, &found).unwrap()
    };
    assert_eq!(with(&|f| f[5].mode = "0755".into()), (5, "/usr/bin/ping".into(), "has another mode"));
    assert_eq!(with(&|f| f[5].sha256 = None), (5, "/usr/bin/ping".into(), "has other contents"));
    assert_eq!(with(&|f| f[2].mtime = 9), (2, "/usr".into(), "has another time"));
    assert_eq!(with(&|f| drop(f.pop())), (6, "/usr/bin/ping6".into(), "is in the manifest but not in the image"));
    assert_eq!(with(&|f| drop(f.remove(1))).1, "/usr");
}

#[test]
fn the_schema_documents_every_field() {
    let schema = schema();
    for structure in [&schema, &schema["$defs"]["File"], &schema["$defs"]["Partition"], &schema["$defs"]["Uki"]] {
        let properties = structure["properties"].as_object().unwrap();
        assert!(properties.len() > 5);
        for (name, property) in properties {
            assert!(property["description"].is_string(), "{name}");
        }
    }
}
