//! Unit tests of the module.

use super::*;
use crate::tree::Content;

const LIB: &str = "usr/lib/systemd/system";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        let kind = match text.strip_prefix("-> ") {
            Some(target) => Kind::Symlink(target.into()),
            None => Kind::File(Content::from_bytes(*text)),
        };
        put(&mut tree, path.as_bytes(), Node { metadata: Metadata::with_mode(0o644), kind }, Timestamp::default())
            .unwrap();
    }
    tree
}

fn unit(name: &str, install: &str) -> (String, String) {
    (format!("{LIB}/{name}"), format!("[Unit]\nDescription=x\n[Install]\n{install}\n"))
}

fn with(units: &[(String, String)]) -> Tree {
    let files: Vec<(&str, &str)> = units.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    tree(&files)
}

/// Every link below /etc, as `path -> target`.
fn links(tree: &Tree) -> Vec<String> {
    let etc = |path: &[u8]| path.starts_with(b"etc/");
    tree.walk()
        .filter(|(path, _)| etc(path))
        .filter_map(|(path, id)| match &tree.node(id).kind {
            Kind::Symlink(target) => Some(format!("{} -> {}", &show(&path)[20..], show(target))),
            _ => None,
        })
        .collect()
}

fn epoch() -> Timestamp {
    Timestamp::default()
}

#[test]
fn enables_a_unit_with_all_that_its_section_says() {
    let mut tree = with(&[
        unit(
            "a.service",
            "WantedBy=multi-user.target\nRequiredBy=x.service\nUpheldBy=y.target\nAlias=b.service\nAlso=c.socket gone.service",
        ),
        unit("c.socket", "WantedBy=sockets.target"),
    ]);
    enable(&mut tree, "a.service", epoch()).unwrap();
    enable(&mut tree, "a.service", epoch()).unwrap();
    assert_eq!(
        links(&tree),
        [
            "b.service -> /usr/lib/systemd/system/a.service",
            "multi-user.target.wants/a.service -> /usr/lib/systemd/system/a.service",
            "sockets.target.wants/c.socket -> /usr/lib/systemd/system/c.socket",
            "x.service.requires/a.service -> /usr/lib/systemd/system/a.service",
            "y.target.upholds/a.service -> /usr/lib/systemd/system/a.service",
        ]
    );
    disable(&mut tree, "a.service").unwrap();
    assert_eq!(links(&tree), [] as [&str; 0]);
    assert!(tree.lookup(b"etc/systemd/system/multi-user.target.wants").is_none());
}

#[test]
fn instances_come_from_templates() {
    let mut tree =
        with(&[unit("t@.service", "WantedBy=m.target dev-%i.device\nDefaultInstance=one\nAlias=z@.service")]);
    enable(&mut tree, "t@two.service", epoch()).unwrap();
    assert_eq!(
        links(&tree),
        [
            "dev-two.device.wants/t@two.service -> /usr/lib/systemd/system/t@.service",
            "m.target.wants/t@two.service -> /usr/lib/systemd/system/t@.service",
            "z@two.service -> /usr/lib/systemd/system/t@.service",
        ]
    );
    enable(&mut tree, "t@.service", epoch()).unwrap();
    assert!(links(&tree).contains(&"dev-one.device.wants/t@one.service -> /usr/lib/systemd/system/t@.service".into()));
    disable(&mut tree, "t@two.service").unwrap();
    // Its alias stays, as with systemctl, which looks at names and targets only.
    assert_eq!(links(&tree).len(), 4);
    disable(&mut tree, "t@.service").unwrap();
    assert_eq!(links(&tree).len(), 0);
}

#[test]
fn a_template_without_an_instance_is_refused() {
    let mut tree = with(&[unit("n@.service", "WantedBy=m.target")]);
    assert_eq!(enable(&mut tree, "n@.service", epoch()), Err(Fault::NoInstance("m.target".into())));
    assert_eq!(links(&tree).len(), 0);
}

#[test]
fn drop_ins_add_to_the_section() {
    let mut tree = with(&[unit("s.service", "")]);
    assert_eq!(enable(&mut tree, "s.service", epoch()), Err(Fault::Static));
    let node = |text: &str| Node {
        metadata: Metadata::with_mode(0o644),
        kind: Kind::File(Content::from_bytes(format!("[Install]\n{text}\n"))),
    };
    put(&mut tree, b"/usr/lib/systemd/system/s.service.d/a.conf", node("WantedBy=no.target"), epoch()).unwrap();
    put(&mut tree, b"/etc/systemd/system/s.service.d/a.conf", node("WantedBy=m.target"), epoch()).unwrap();
    enable(&mut tree, "s.service", epoch()).unwrap();
    assert_eq!(links(&tree), ["m.target.wants/s.service -> /usr/lib/systemd/system/s.service"]);
}

#[test]
fn aliases_of_packages_are_followed_and_those_in_etc_refused() {
    let mut tree = with(&[
        unit("a.service", "WantedBy=m.target"),
        (format!("{LIB}/al.service"), "-> a.service".into()),
        ("etc/systemd/system/b.service".into(), "-> /usr/lib/systemd/system/a.service".into()),
        (format!("{LIB}/o.service"), "-> o.service".into()),
    ]);
    enable(&mut tree, "al.service", epoch()).unwrap();
    assert!(links(&tree).contains(&"m.target.wants/a.service -> /usr/lib/systemd/system/a.service".into()));
    assert_eq!(enable(&mut tree, "b.service", epoch()), Err(LoadError::Alias("a.service".into()).into()));
    assert!(matches!(enable(&mut tree, "o.service", epoch()), Err(Fault::Load(LoadError::Unreadable(_)))));
}

#[test]
fn masks_what_exists_and_does_not_enable_it_afterwards() {
    let mut tree = with(&[unit("a.service", "WantedBy=m.target")]);
    mask(&mut tree, "a.service", epoch()).unwrap();
    mask(&mut tree, "dev-sda.swap", epoch()).unwrap();
    assert_eq!(links(&tree), ["a.service -> /dev/null", "dev-sda.swap -> /dev/null"]);
    assert_eq!(enable(&mut tree, "a.service", epoch()), Err(LoadError::Masked.into()));
    assert_eq!(mask(&mut tree, "b.service", epoch()), Err(LoadError::Missing.into()));
}

#[test]
fn a_file_of_the_recipe_is_not_masked_away() {
    let mut tree = tree(&[("etc/systemd/system/mine.service", "[Service]\nExecStart=/bin/true\n")]);
    assert_eq!(mask(&mut tree, "mine.service", epoch()), Err(Fault::Taken("/etc/systemd/system/mine.service".into())));
}

#[test]
fn a_section_cannot_write_outside_the_units_folder() {
    for line in ["WantedBy=../../../usr/bin/x", "Alias=../x.service", "RequiredBy=/etc/x.service", "WantedBy=%H.target"]
    {
        let mut tree = with(&[unit("a.service", line)]);
        assert!(matches!(enable(&mut tree, "a.service", epoch()), Err(Fault::BadName(_))), "{line}");
        assert_eq!(links(&tree).len(), 0);
    }
    let mut tree = with(&[unit("a.service", "Alias=b.socket")]);
    assert_eq!(enable(&mut tree, "a.service", epoch()), Err(Fault::BadAlias("b.socket".into())));
}

#[test]
fn a_taken_alias_is_not_stolen() {
    let mut tree = with(&[unit("a.service", "Alias=x.service"), unit("b.service", "Alias=x.service")]);
    enable(&mut tree, "a.service", epoch()).unwrap();
    assert_eq!(enable(&mut tree, "b.service", epoch()), Err(Fault::Taken("/etc/systemd/system/x.service".into())));
}
