//! What is said where no set of packages serves.

use super::*;

#[test]
fn name_what_is_missing_and_who_needs_it() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("middle"),
        Deb::new("middle", "1").depends("lib (>= 3) | gone"),
        Deb::new("lib", "2"),
    ]);
    refuses(
        &archive,
        ask(&["web"]),
        "the packages cannot be installed together:\n  - web is asked for\n  - web 1 depends on middle\n  \
         - middle 1 depends on lib (>= 3) or gone, but there is only lib 2 (test trixie), and there is no package gone",
    );
}

#[test]
fn follow_both_sides_of_a_conflict() {
    let archive = Archive::of([
        Deb::new("desk", "1").depends("mail"),
        Deb::new("mail", "1").depends("exim | masq"),
        Deb::new("exim", "1").field("Conflicts", "mta"),
        Deb::new("masq", "1").field("Breaks", "postfix (<< 3)"),
        Deb::new("postfix", "2").field("Provides", "mta"),
    ]);
    refuses(
        &archive,
        ask(&["desk", "postfix"]),
        "the packages cannot be installed together:\n  - desk is asked for\n  - desk 1 depends on mail\n  \
         - mail 1 depends on exim or masq\n  - postfix is asked for\n  \
         - exim 1 conflicts with mta, which postfix 2 provides\n  \
         - masq 1 breaks postfix (<< 3), and it is postfix 2",
    );
}

#[test]
fn try_every_way_before_they_call_it_impossible() {
    let archive = Archive::of([
        Deb::new("desk", "1").depends("one | two"),
        Deb::new("one", "1").depends("left"),
        Deb::new("two", "1").depends("right"),
        Deb::new("left", "1").depends("deep (>= 2) | deeper"),
        Deb::new("right", "1").depends("deep (<< 2)"),
        Deb::new("deeper", "1").depends("bottom"),
        Deb::new("bottom", "1").field("Conflicts", "desk"),
        Deb::new("deep", "2").field("Conflicts", "bottom"),
        Deb::new("lock", "1").field("Conflicts", "deep"),
    ]);
    let error = resolve(&archive, ask(&["desk", "lock"])).unwrap_err();
    let facts: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        facts,
        [
            "- desk is asked for",
            "- desk 1 depends on one or two",
            "- one 1 depends on left",
            "- left 1 depends on deep (>= 2) or deeper",
            "- deeper 1 depends on bottom",
            "- two 1 depends on right",
            "- right 1 depends on deep (<< 2), but there is only deep 2 (test trixie)",
            "- lock is asked for",
            "- lock 1 conflicts with deep",
            "- bottom 1 conflicts with desk",
        ]
    );
}

#[test]
fn name_the_versions_and_names_that_exist() {
    let mut archive = Archive::new();
    archive.add("trixie", "main", Deb::new("nginx", "1.26"));
    archive.add("trixie", "main", Deb::new("nginx", "1.27"));
    archive.add("trixie", "main", Deb::new("default-mysql-server", "1"));
    archive.publish();
    for (wish, words) in [
        ("ngnix", "there is no package ngnix; did you mean nginx?"),
        ("mysql-server", "there is no package mysql-server; did you mean default-mysql-server?"),
        ("qqqqqqq", "there is no package qqqqqqq"),
        ("nginx=1.28", "there is no version 1.28 of nginx; there is 1.27 (test trixie), 1.26 (test trixie)"),
        ("nginx/sid", "sid has no package nginx; there is 1.27 (test trixie), 1.26 (test trixie)"),
    ] {
        refuses(&archive, ask(&[wish]), words);
    }
}

#[test]
fn an_essential_package_that_is_in_the_way_is_called_so() {
    let archive = Archive::of([
        Deb::new("init", "1").essential().depends("systemd"),
        Deb::new("systemd", "1"),
        Deb::new("runit", "1").field("Conflicts", "systemd"),
    ]);
    let both = Ask { essential: true, ..ask(&["runit"]) };
    refuses(
        &archive,
        both,
        "the packages cannot be installed together:\n  - init is essential\n  - init 1 depends on systemd\n  \
         - runit is asked for\n  - runit 1 conflicts with systemd",
    );
}
