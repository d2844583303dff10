//! Explanations of hand-made manifests: which input is named, and where it says that it cannot be told.

use serde_json::json;

use super::*;
use crate::digest::Digest;
use crate::lock::LockedIndex;
use crate::manifest::{self, File, LockRecord, Manifest, Package as Locked, Place, Step};
use crate::recipe::RecipeField;
use crate::tree::{Content, Kind, Metadata, Node as TreeNode, Tree};

const EPOCH: i64 = 1000;

fn package(set: &str, name: &str, version: &str) -> Locked {
    Locked {
        set: set.into(),
        name: name.into(),
        architecture: "amd64".into(),
        version: version.into(),
        sha256: Digest::of(format!("{name} {version}").as_bytes()),
        from: Some(Place { repository: "debian".into(), size: 1, path: format!("pool/{name}.deb") }),
    }
}

fn index(suite: &str, date: u64, content: &str) -> LockedIndex {
    LockedIndex {
        repository: "debian".into(),
        suite: suite.into(),
        component: "main".into(),
        architecture: "amd64".into(),
        date,
        size: 1,
        digest: Digest::of(content.as_bytes()),
    }
}

fn files(list: &[(&str, &str, Option<u32>, Option<Step>)]) -> Vec<File> {
    let mut tree = Tree::default();
    for (path, text, ..) in list {
        let (parent, _) = crate::tree::split(path.as_bytes()).unwrap();
        tree.make_directories(parent, &Metadata::with_mode(0o755)).unwrap();
        let kind = Kind::File(Content::from_bytes(*text));
        tree.insert(path.as_bytes(), TreeNode { metadata: Metadata::with_mode(0o644), kind }).unwrap();
    }
    let mut files = manifest::files(&tree).unwrap();
    for file in &mut files {
        let row = list.iter().find(|(path, ..)| file.path == *path);
        (file.package, file.by) = row.map_or((None, None), |(_, _, package, by)| (*package, *by));
    }
    files
}

fn recipe(value: serde_json::Value) -> Vec<RecipeField> {
    let serde_json::Value::Object(fields) = value else { panic!() };
    fields.into_iter().map(|(field, value)| RecipeField { field, value }).collect()
}

/// Packages y (0) and z (1); a file of y, one that scripts made, one of the recipe.
fn first() -> Manifest {
    Manifest {
        epoch: EPOCH,
        recipe: recipe(
            json!({ "version": "1", "packages": [{"name": "y"}], "files": [{"path": "/etc/motd", "mode": 1}] }),
        ),
        lock: Some(LockRecord { request: Digest::of(b"request"), epoch: 1000, sets: vec!["system".into()] }),
        indexes: vec![index("trixie", 900, "main"), index("trixie-security", 1000, "old")],
        packages: vec![package("system", "y", "1.2"), package("system", "z", "1")],
        files: files(&[
            ("/etc/ld.so.cache", "cache 1.2", None, Some(Step::Configure)),
            ("/etc/motd", "hello", None, Some(Step::Files)),
            ("/usr/lib/x", "1.2", Some(0), None),
            ("/usr/lib/z", "1", Some(1), None),
        ]),
        ..manifest::sample()
    }
}

/// After the lock was updated: the security archive has y 1.3.
fn updated() -> Manifest {
    let mut manifest = first();
    manifest.verity.root_hash = crate::verity::RootHash::from_bytes([2; 32]);
    manifest.indexes[1] = index("trixie-security", 2000, "new");
    manifest.packages[0] = package("system", "y", "1.3");
    manifest.files = files(&[
        ("/etc/ld.so.cache", "cache 1.3", None, Some(Step::Configure)),
        ("/etc/motd", "hello", None, Some(Step::Files)),
        ("/usr/lib/x", "1.3", Some(0), None),
        ("/usr/lib/z", "1", Some(1), None),
    ]);
    manifest
}

fn explained(before: Manifest, after: Manifest) -> Explanation {
    explain(&Subject::from_manifest("a", before), &Subject::from_manifest("b", after))
}

/// The graph as lines: depth, certainty, what; each node's causes below it.
fn outline(found: &Explanation) -> Vec<String> {
    fn name(effect: &Effect) -> String {
        match effect {
            Effect::Image { .. } => "image".into(),
            Effect::RootHash { .. } => "root hash".into(),
            Effect::Files { paths, .. } => paths.join(" "),
            Effect::Package { name, before, after, .. } => {
                let version = |version: &Option<String>| version.clone().unwrap_or("-".into());
                format!("{name} {} {}", version(before), version(after))
            }
            Effect::Index { index, before, after, content } => {
                format!("{index} {} {} {content}", before.unwrap_or(0), after.unwrap_or(0))
            }
            Effect::Recipe(change) => format!("recipe {} {}", change.field, change.item.clone().unwrap_or_default()),
            Effect::Unknown { why } => format!("unknown: {why}"),
            other => format!("{other:?}"),
        }
    }
    fn below(found: &Explanation, index: usize, depth: usize, lines: &mut Vec<String>) {
        let node = &found.nodes[index];
        for (sign, list) in [("!", &node.because), ("?", &node.perhaps)] {
            for cause in list {
                lines.push(format!("{}{sign} {}", "  ".repeat(depth), name(&found.nodes[*cause].effect)));
                below(found, *cause, depth + 1, lines);
            }
        }
    }
    let mut lines = Vec::new();
    below(found, 0, 0, &mut lines);
    lines
}

#[test]
fn a_file_differs_because_its_package_does_because_the_lock_was_updated() {
    let found = explained(first(), updated());
    let index = "! debian trixie-security main amd64 1000 2000 true";
    let expected = [
        "! root hash".to_owned(),
        "  ! /etc/ld.so.cache".into(),
        "    ! y 1.2 1.3".into(),
        "      ! Lock".into(),
        format!("        {index}"),
        "  ! /usr/lib/x".into(),
        "    ! y 1.2 1.3".into(),
        "      ! Lock".into(),
        format!("        {index}"),
    ];
    assert_eq!(outline(&found), expected);
    assert_eq!(found.without_effect, [] as [usize; 0]);
    assert!(found.nodes.iter().all(|node| !matches!(node.effect, Effect::Unknown { .. })));
}

#[test]
fn a_file_of_the_recipe_differs_because_the_recipe_does() {
    let mut after = first();
    after.verity.root_hash = crate::verity::RootHash::from_bytes([2; 32]);
    after.recipe =
        recipe(json!({ "version": "1", "packages": [{"name": "y"}], "files": [{"path": "/etc/motd", "mode": 2}] }));
    let motd = after.files.iter_mut().find(|file| file.path == "/etc/motd").unwrap();
    motd.mode = "0600".into();
    let expected = ["! root hash", "  ! /etc/motd", "    ! recipe files /etc/motd"];
    assert_eq!(outline(&explained(first(), after)), expected);
}

#[test]
fn of_several_inputs_of_one_step_none_is_chosen() {
    let mut after = updated();
    after.packages[1] = package("system", "z", "2");
    after.files.last_mut().unwrap().sha256 = Some(Digest::of(b"2"));
    assert_eq!(after.files.last().unwrap().path, "/usr/lib/z");
    after.indexes[0] = index("trixie", 900, "other main");
    let found = explained(first(), after);
    let lock = found.nodes.iter().find(|node| node.effect == Effect::Lock).unwrap();
    assert_eq!((lock.because.len(), lock.perhaps.len()), (0, 2));
    let names: Vec<String> = outline(&found).into_iter().filter(|line| line.starts_with("  !")).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let cache =
        found.nodes.iter().find(|n| matches!(&n.effect, Effect::Files { paths, .. } if paths == &["/etc/ld.so.cache"]));
    let causes: Vec<&Effect> = cache.unwrap().because.iter().map(|index| &found.nodes[*index].effect).collect();
    assert_eq!(causes, [&Effect::InstalledPackages]);
}

#[test]
fn what_nothing_recorded_explains_is_unknown() {
    let mut after = first();
    after.verity.root_hash = crate::verity::RootHash::from_bytes([2; 32]);
    for file in &mut after.files {
        if file.size.is_some() {
            file.sha256 = Some(Digest::of(b"other"));
        }
    }
    let found = explained(first(), after);
    let expected = [
        "! root hash",
        "  ! /etc/ld.so.cache",
        "    ! unknown: nothing that the step which wrote it reads is recorded as changed",
        "  ! /etc/motd",
        "    ! unknown: nothing that the step which wrote it reads is recorded as changed",
        "  ! /usr/lib/x /usr/lib/z",
        "    ! unknown: its package is the same, and no step is said to have written it",
    ];
    assert_eq!(outline(&found), expected);
}

#[test]
fn a_directory_that_packages_share_differs_because_of_them() {
    let mut after = updated();
    after.packages.push(package("system", "zz", "1"));
    let directory = File { path: "/usr/share".into(), ..after.files[0].clone() };
    after.files.push(directory);
    let found = explained(first(), after);
    let is = |node: &&Node| matches!(&node.effect, Effect::Files { paths, .. } if paths.contains(&"/usr/share".into()));
    let causes = &found.nodes.iter().find(is).unwrap().because;
    assert_eq!(causes.iter().map(|i| &found.nodes[*i].effect).collect::<Vec<_>>(), [&Effect::InstalledPackages]);
}

#[test]
fn a_new_tool_may_be_the_cause_but_not_of_what_packages_ship() {
    let mut after = updated();
    after.tool.version = "0.2.0".into();
    let found = explained(first(), after);
    let tool = found.nodes.iter().position(|node| matches!(node.effect, Effect::Tool { .. })).unwrap();
    let causes = |path: &str| {
        let is = |node: &&Node| matches!(&node.effect, Effect::Files { paths, .. } if paths == &[path]);
        found.nodes.iter().find(is).unwrap()
    };
    assert!(!causes("/usr/lib/x").because.contains(&tool) && causes("/usr/lib/x").perhaps.is_empty());
    assert!(causes("/etc/ld.so.cache").perhaps.contains(&tool) && causes("/etc/ld.so.cache").because.is_empty());
}

#[test]
fn inputs_that_changed_nothing_are_named_apart() {
    let mut after = updated();
    after.recipe = recipe(json!({
        "version": "1", "packages": [{"name": "y"}], "files": [{"path": "/etc/motd", "mode": 1}], "description": "new"
    }));
    let found = explained(first(), after);
    let [index] = found.without_effect.as_slice() else { panic!("{:?}", found.without_effect) };
    assert!(matches!(&found.nodes[*index].effect, Effect::Recipe(change) if change.field == "description"));
}

#[test]
fn a_disk_that_is_the_same_differs_in_what_its_manifest_says_only() {
    let mut after = first();
    after.recipe_sha256 = Digest::of(b"other");
    after.recipe[0].value = json!("1.0");
    assert_eq!(outline(&explained(first(), after)), ["! Records", "  ! recipe version "]);
}

#[test]
fn a_hundred_thousand_files_are_compared_and_explained_in_seconds() {
    let many = |text: &str| {
        let mut manifest = if text == "1" { first() } else { updated() };
        let template = manifest.files.last().unwrap().clone();
        let digest = Some(Digest::of(text.as_bytes()));
        let file = |number: u32| File {
            path: format!("/usr/lib/z/{number:06}"),
            package: Some(number % 2),
            sha256: digest,
            ..template.clone()
        };
        manifest.files.extend((0..100_000).map(file));
        manifest
    };
    let found = explained(many("1"), many("2"));
    let counts: Vec<usize> = found
        .nodes
        .iter()
        .filter_map(|node| if let Effect::Files { paths, .. } = &node.effect { Some(paths.len()) } else { None })
        .collect();
    // Those of y are explained by it, those of z by nothing.
    assert_eq!(counts.iter().sum::<usize>(), 100_002);
    assert!(counts.contains(&50_001) && counts.contains(&50_000), "{counts:?}");
}

#[test]
fn numbers_of_hard_links_symlinks_and_attributes_are_facts_too() {
    let list = || files(&[("/a", "1", None, None), ("/b", "1", None, None)]);
    let (before, mut after) = (list(), list());
    after[1].hard_link_to = Some("/b".into());
    after[1].xattrs.insert("user.x".into(), "AA==".into());
    after[2].kind = "symlink".into();
    after[2].target = Some("a".into());
    after[2].mtime = 7;
    after[0].mtime = 9;
    let found = super::files::compare(&before, &after);
    let names = |index: usize| found.changed[index].changes.iter().map(|field| field.name.as_str()).collect::<Vec<_>>();
    assert_eq!(names(0), ["hard_link_to", "xattr user.x"]);
    assert_eq!(names(1), ["type", "target", "mtime"]);
    assert_eq!(found.retimed, ["/"]);
}
