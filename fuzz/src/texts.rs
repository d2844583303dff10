//! Readers of text.

use std::path::{Path, PathBuf};

use adamant::apt::changelog;
use adamant::architecture::Architecture;
use adamant::boot::{self, command_line as kernel_line};
use adamant::digest::Digest;
use adamant::identifier::Uuid;
use adamant::lock::{self, Lock};
use adamant::manifest::{Manifest, parse_checksums, path_from_text, path_to_text};
use adamant::recipe::{self, Layer, Overrides, Recipe, Sources};
use adamant::rootfs;
use adamant::sign::{PublicKey, SecretKey, Signature};
use adamant::store::mirror::{Mirrors, parse_config, parse_list, parse_sources};
use adamant::store::shared::entry::{Entry, Item};
use adamant::tree::{Content, Kind, Metadata, Node, Timestamp, Tree, dump};
use adamant::verity::RootHash;
use adamant::vm::{agent, qmp};

/// What stands between the recipes of a chain, the oldest first.
const NEXT_LAYER: &str = "\n#-----\n";

/// A chain of recipes, laid over each other; what comes of it is applied to a small tree.
pub fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut sources = Sources::default();
    let mut layers = Vec::new();
    for text in text.split(NEXT_LAYER).take(4) {
        match recipe::parse("hostile.toml".to_owned(), text.to_owned(), &mut sources) {
            Ok(document) => {
                let start = sources.start_of_last();
                layers.push(Layer { document, folder: PathBuf::from("/nonexistent"), start });
            }
            Err(found) => return show(&recipe::Diagnostics::new(found, sources)),
        }
    }
    match recipe::resolve(layers, &Overrides::default(), &sources) {
        Ok(recipe) => apply(&recipe, small_tree()),
        Err(found) => show(&found),
    }
}

fn show(found: &recipe::Diagnostics) {
    let _ = found.render(true);
    let _ = found.to_json();
}

fn apply(recipe: &Recipe, mut tree: Tree) {
    let epoch = Timestamp::from_seconds(1);
    let contents = recipe::SourceContents::default();
    let _ = recipe.digest(&contents);
    let _ = recipe.lock_digest(&contents);
    for done in [
        rootfs::users::apply(&mut tree, recipe, epoch),
        rootfs::files::apply(&mut tree, recipe, &contents, epoch),
        rootfs::system::apply(&mut tree, recipe, epoch),
        rootfs::units::apply(&mut tree, recipe, epoch),
    ] {
        if let Err(found) = done {
            show(&found);
        }
    }
}

fn put(tree: &mut Tree, path: &str, bytes: &[u8]) {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let made = tree.make_directories(parent.as_bytes(), &Metadata::with_mode(0o755));
    made.expect("directories of a small tree");
    let node = Node { metadata: Metadata::with_mode(0o644), kind: Kind::File(Content::from_bytes(bytes)) };
    tree.insert(path.as_bytes(), node).expect("paths of a small tree");
}

fn small_tree() -> Tree {
    let mut tree = Tree::default();
    put(&mut tree, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n");
    put(&mut tree, "etc/group", b"root:x:0:\nwww:x:33:\nshadow:x:42:\n");
    put(&mut tree, "etc/shadow", b"root:*:1::::::\n");
    put(&mut tree, "usr/lib/systemd/system/a.service", b"[Install]\nWantedBy=multi-user.target\nAlias=b.service\n");
    put(&mut tree, "usr/share/zoneinfo/Europe/Berlin", b"TZif2");
    tree
}

/// Account files of a tree, as package scripts may leave them.
pub fn accounts(data: &[u8]) {
    let mut tree = Tree::default();
    for path in ["etc/passwd", "etc/shadow", "etc/group", "etc/gshadow", "etc/subuid", "etc/subgid"] {
        put(&mut tree, path, data);
    }
    if let Ok(accounts) = rootfs::users::Accounts::read(&tree) {
        let ids = accounts.user_names().filter_map(|name| accounts.uid(name)).count();
        assert!(ids <= accounts.user_names().count());
        assert_eq!(accounts.group_names().filter(|name| accounts.gid(name).is_none()).count(), 0);
    }
    let text = "name = \"a\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\n\
                [[user]]\nname = \"me\"\ngroups = [\"www\"]\n[[group]]\nname = \"us\"\n";
    if let Some(recipe) = wanted(text) {
        apply(&recipe, tree);
    }
}

/// A unit file that a recipe enables, disables or masks, with drop-ins and aliases.
pub fn units(data: &[u8]) {
    let mut tree = small_tree();
    put(&mut tree, "usr/lib/systemd/system/h.service", data);
    put(&mut tree, "usr/lib/systemd/system/h@.service", data);
    put(&mut tree, "etc/systemd/system/h.service.d/x.conf", data);
    let text = "name = \"a\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\n\
                [units]\nenable = [\"h.service\", \"h@x.service\"]\ndisable = [\"a.service\"]\nmask = [\"m.service\"]\n";
    if let Some(recipe) = wanted(text) {
        apply(&recipe, tree);
    }
}

fn wanted(text: &str) -> Option<Recipe> {
    let mut sources = Sources::default();
    let document = recipe::parse("own.toml".to_owned(), text.to_owned(), &mut sources);
    let layer = |document| Layer { document, folder: PathBuf::new(), start: Default::default() };
    let recipe = recipe::resolve(vec![layer(document.ok()?)], &Overrides::default(), &sources);
    Some(recipe.unwrap_or_else(|found| panic!("{found}")))
}

/// Configuration files.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse_config(text);
    let _ = Mirrors::from_config(text, Path::new("config.toml"));
}

/// apt's sources in both formats.
pub fn apt_sources(data: &[u8]) {
    for sources in [parse_list(data), parse_sources(data)] {
        let sources: Vec<_> = sources.into_iter().map(|source| (PathBuf::from("x.sources"), source)).collect();
        let _ = Mirrors::from_apt(&sources);
    }
}

/// Short texts with an inverse: digests, UUIDs, architectures, requests for packages.
pub fn identifiers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(hash) = text.parse::<RootHash>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(uuid) = text.parse::<Uuid>() {
        assert_eq!(uuid.to_string().parse::<Uuid>().ok(), Some(uuid));
    }
    if let Ok(architecture) = text.parse::<Architecture>() {
        assert_eq!(architecture.to_string(), text);
    }
    if let Ok(request) = text.parse::<adamant::apt::PackageRequest>() {
        assert_eq!(request.to_string(), text);
    }
}

/// Locks: one that is read is canonical when it is written, and nothing in it leads out of an archive.
pub fn lock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(lock) = Lock::parse(text) else { return };
    let canonical = lock.to_text();
    assert_eq!(Lock::parse(&canonical).as_ref(), Ok(&lock));
    assert_eq!(lock::difference(&lock, &lock), lock::Difference::default());
    for package in lock.sets.values().flatten() {
        assert!(package.path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", package.path);
    }
}

/// The text of a tree: one that is read is canonical when it is written.
pub fn tree_dump(data: &[u8]) {
    let content = |_: &[u8], size: u64, digest: &Digest| {
        let zeros = Content::from_bytes(vec![0; size.min(64) as usize]).with_digest(*digest);
        (size <= 64).then_some(zeros)
    };
    let Ok(tree) = dump::parse(data, content) else { return };
    let write = |tree: &Tree| {
        let mut text = Vec::new();
        dump::write(tree, &mut text).map(|()| text).expect("contents are in memory")
    };
    let text = write(&tree);
    let again = dump::parse(&text, content).unwrap_or_else(|error| panic!("{error}: {}", text.escape_ascii()));
    assert_eq!(write(&again), text);
}

/// Kernel command lines.
pub fn command_line(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = kernel_line::root_hash(text);
    let arguments: Vec<String> =
        text.lines().filter(|line| kernel_line::check(line).is_ok()).map(str::to_owned).collect();
    let hash = RootHash::from_bytes([0xab; 32]);
    // What a recipe may ask for leads to no other root.
    if let Ok(line) = kernel_line::compose(&hash, &arguments) {
        assert_eq!(kernel_line::root_hash(&line), Ok(hash), "{line}");
    }
}

/// Changelogs of packages: every entry is a part of the text, and a run of entries starts with the newest.
pub fn changelog(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let entries = changelog::entries(text);
    assert!(entries.iter().map(|entry| entry.text.len()).sum::<usize>() <= text.len());
    let (first, last) = (entries.first().map_or("1", |entry| entry.version), entries.last().map_or("0", |e| e.version));
    let _ = (changelog::cves(text), changelog::source_version(first));
    let between = changelog::between(text, last, first).unwrap_or_default();
    assert!(between.iter().zip(&entries).all(|(between, entry)| between == entry));
    let _ = changelog::since(text, last);
}

/// os-release files: the image's own name and version come back.
pub fn os_release(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (id, rest) = text.split_once('\n').unwrap_or((text, ""));
    for key in ["ID", "VERSION_ID", "IMAGE_ID"] {
        let _ = boot::os_release::get(text, key);
    }
    if !id.contains('\r') {
        let changed = boot::os_release::with_image(rest, id, "1");
        assert_eq!(boot::os_release::get(&changed, "IMAGE_ID").as_deref(), Some(id));
        assert_eq!(boot::os_release::get(&changed, "IMAGE_VERSION").as_deref(), Some("1"));
    }
}

/// Manifests: only the canonical text of one is one. Paths as they have them.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        assert_eq!(manifest.to_json().as_bytes(), data);
        let _ = manifest.file_offset(manifest.files.len() / 2);
    }
    assert_eq!(path_from_text(&path_to_text(data)).as_deref(), Ok(data));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = path_from_text(text);
    }
}

/// What a cache has of a stage's result: as it is, and with the signature put right.
pub fn cache_entry(data: &[u8]) {
    let key = SecretKey::from_random([7; 32]);
    let listed = [key.public()];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    let (stage, digest) = (value("stage "), value("key ").parse().unwrap_or(Digest::of(b"")));
    let _ = Entry::read(data, stage, &digest, &listed);
    let signed = match text.find("\nsignature ") {
        Some(end) => &text[..=end],
        None => text,
    };
    let resigned = format!("{signed}signature {} {}\n", key.public().id(), key.sign(signed.as_bytes()));
    if let Ok(entry) = Entry::read(resigned.as_bytes(), stage, &digest, &listed) {
        assert_eq!(entry.sign(&key), resigned);
        for path in entry.items.iter().map(Item::path) {
            assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
        }
    }
}

/// Key files.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(keys) = PublicKey::from_pem(text) {
        let again: String = keys.iter().flat_map(|key| key.to_pem()).collect();
        assert_eq!(PublicKey::from_pem(&again), Ok(keys));
    }
    if let Ok(key) = SecretKey::from_pem(text) {
        let again = key.to_pem().and_then(|text| SecretKey::from_pem(&text)).map(|key| key.public());
        assert_eq!(again, Ok(key.public()));
    }
    let _ = text.trim().parse::<Signature>();
}

/// `SHA256SUMS`.
pub fn checksums(data: &[u8]) {
    if let Ok(files) = parse_checksums(data) {
        assert_eq!(files.len(), data.split_inclusive(|byte| *byte == b'\n').count());
    }
}

/// What a guest's agent and QEMU say.
pub fn guest(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        let _ = agent::parse(line);
        let _ = qmp::parse(line);
    }
}
