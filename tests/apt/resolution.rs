//! Which packages are taken, beside what the host's apt takes.

use super::*;

#[test]
fn takes_what_is_asked_for_and_what_it_needs() {
    let archive = Archive::of([
        Deb::new("web", "1.0-1").depends("lib (>= 2), tool").field("Pre-Depends", "early"),
        Deb::new("lib", "2.0").depends("deep"),
        Deb::new("deep", "1"),
        Deb::new("tool", "1"),
        Deb::new("early", "1"),
        Deb::new("other", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["deep=1", "early=1", "lib=2.0", "tool=1", "web=1.0-1"]);
}

#[test]
fn takes_the_leftmost_alternative_that_can_be_had() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("missing | broken | good | better"),
        Deb::new("broken", "1").depends("missing"),
        Deb::new("good", "1"),
        Deb::new("better", "2"),
    ]);
    installs(&archive, ask(&["web"]), &["good=1", "web=1"]);
    installs(&archive, ask(&["web", "better"]), &["better=2", "web=1"]);
}

#[test]
fn an_alternative_whose_own_needs_fail_deep_down_is_passed_over() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("first | second"),
        Deb::new("first", "1").depends("middle, side"),
        Deb::new("middle", "1").depends("bottom (>= 2)"),
        Deb::new("bottom", "1"),
        Deb::new("side", "1"),
        Deb::new("second", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["second=1", "web=1"]);
}

#[test]
fn provided_versions_count_and_their_absence_too() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("api (>= 2)"),
        Deb::new("none", "9").field("Provides", "api"),
        Deb::new("old", "9").field("Provides", "api (= 1)"),
        Deb::new("new", "1").field("Provides", "other, api (= 2.1)"),
    ]);
    installs(&archive, ask(&["web"]), &["new=1", "web=1"]);
}

#[test]
fn of_several_providers_priority_decides_and_then_the_later_mention() {
    let providers = |priority: &'static str| {
        Archive::of([
            Deb::new("web", "1").depends("mta"),
            Deb::new("a-mta", "1").field("Provides", "mta"),
            Deb::new("b-mta", "1").field("Provides", "mta").field("Priority", priority),
            Deb::new("c-mta", "1").field("Provides", "mta"),
        ])
    };
    installs(&providers("standard"), ask(&["web"]), &["b-mta=1", "web=1"]);
    installs(&providers("optional"), ask(&["web"]), &["c-mta=1", "web=1"]);
    installs(&providers("extra"), ask(&["web"]), &["c-mta=1", "web=1"]);
    let mentioned_early = Archive::of([
        Deb::new("aa", "1").field("Suggests", "c-mta"),
        Deb::new("web", "1").depends("mta"),
        Deb::new("b-mta", "1").field("Provides", "mta"),
        Deb::new("c-mta", "1").field("Provides", "mta"),
    ]);
    installs(&mentioned_early, ask(&["web"]), &["b-mta=1", "web=1"]);
}

#[test]
fn a_real_package_comes_before_those_that_provide_its_name() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("api"),
        Deb::new("api", "1"),
        Deb::new("fast", "1").field("Provides", "api").field("Priority", "required"),
    ]);
    installs(&archive, ask(&["web"]), &["api=1", "web=1"]);
    installs(&archive, ask(&["fast", "web"]), &["fast=1", "web=1"]);
}

#[test]
fn any_is_satisfied_only_by_what_allows_it() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("python:any (>= 3) | fallback"),
        Deb::new("python", "3.1").architecture("amd64").field("Multi-Arch", "allowed"),
        Deb::new("shell", "1").depends("perl:any | fallback"),
        Deb::new("perl", "5").architecture("amd64"),
        Deb::new("native", "1").depends("perl:amd64"),
        Deb::new("fallback", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["python=3.1", "web=1"]);
    installs(&archive, ask(&["shell"]), &["fallback=1", "shell=1"]);
    installs(&archive, ask(&["native"]), &["native=1", "perl=5"]);
}

#[test]
fn packages_of_other_architectures_do_not_exist() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("lib"),
        Deb::new("lib", "2").architecture("arm64"),
        Deb::new("lib", "1").architecture("amd64"),
    ]);
    installs(&archive, ask(&["web"]), &["lib=1", "web=1"]);
}

#[test]
fn recommended_packages_are_followed_when_wanted_and_missing_ones_do_no_harm() {
    let archive = Archive::of([
        Deb::new("web", "1").field("Recommends", "docs, gone, cert | other").field("Suggests", "extra"),
        Deb::new("docs", "1").depends("viewer"),
        Deb::new("viewer", "1"),
        Deb::new("cert", "1").depends("gone"),
        Deb::new("other", "1"),
        Deb::new("extra", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["web=1"]);
    let with = Ask { recommends: true, ..ask(&["web"]) };
    installs(&archive, with, &["docs=1", "other=1", "viewer=1", "web=1"]);
}

#[test]
fn what_a_failed_alternative_had_pulled_in_is_left_out_again() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("fancy | plain"),
        Deb::new("fancy", "1").depends("helper, clash"),
        Deb::new("helper", "1"),
        Deb::new("clash", "1").field("Conflicts", "web"),
        Deb::new("plain", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["plain=1", "web=1"]);
}

#[test]
fn conflicts_and_breaks_keep_packages_apart() {
    let archive = Archive::of([
        Deb::new("desk", "1").depends("mail | news").field("Breaks", "old (<< 2)"),
        Deb::new("mail", "1").field("Conflicts", "mta"),
        Deb::new("news", "1"),
        Deb::new("postfix", "1").field("Provides", "mta").field("Conflicts", "mta"),
        Deb::new("old", "1"),
        Deb::new("user", "1").depends("old | news"),
    ]);
    installs(&archive, ask(&["desk"]), &["desk=1", "mail=1"]);
    installs(&archive, ask(&["desk", "postfix"]), &["desk=1", "news=1", "postfix=1"]);
    installs(&archive, ask(&["desk", "user"]), &["desk=1", "mail=1", "news=1", "user=1"]);
    installs(&archive, ask(&["postfix"]), &["postfix=1"]);
}

#[test]
fn of_two_recommended_packages_that_conflict_the_first_stays() {
    let archive = Archive::of([
        Deb::new("desk", "1").field("Recommends", "one, two"),
        Deb::new("one", "1"),
        Deb::new("two", "1").field("Conflicts", "one"),
    ]);
    let with = Ask { recommends: true, ..ask(&["desk"]) };
    let mine = resolve(&archive, with).unwrap();
    if let Some(apt) = apt(&archive, with) {
        assert_eq!(mine, apt.unwrap());
    }
}

#[test]
fn dependencies_may_go_in_circles() {
    let archive = Archive::of([
        Deb::new("a", "1").depends("b (= 1)"),
        Deb::new("b", "1").depends("c"),
        Deb::new("c", "1").depends("a | d").field("Recommends", "a"),
        Deb::new("d", "1"),
    ]);
    installs(&archive, ask(&["c"]), &["a=1", "b=1", "c=1"]);
}

#[test]
fn essential_packages_are_a_wish_like_any_other() {
    let archive = Archive::of([
        Deb::new("base", "1").essential().depends("libc | libc-other"),
        Deb::new("libc", "1"),
        Deb::new("shell", "2").essential(),
        Deb::new("web", "1"),
    ]);
    installs(&archive, ask(&["web"]), &["web=1"]);
    let system = Ask { essential: true, ..ask(&["web"]) };
    installs(&archive, system, &["base=1", "libc=1", "shell=2", "web=1"]);
    installs(&archive, Ask { essential: true, ..ask(&[]) }, &["base=1", "libc=1", "shell=2"]);
}

#[test]
fn a_virtual_package_with_one_provider_is_that_provider() {
    let archive = Archive::of([
        Deb::new("postfix", "1").field("Provides", "mta"),
        Deb::new("mawk", "1").field("Provides", "awk"),
        Deb::new("gawk", "1").field("Provides", "awk"),
    ]);
    installs(&archive, ask(&["mta"]), &["postfix=1"]);
    let words = "awk is a virtual package; ask for one of those that provide it: gawk, mawk";
    refuses(&archive, ask(&["awk"]), words);
}

#[test]
fn the_newest_version_is_taken_unless_another_is_asked_for() {
    let mut archive = Archive::new();
    archive.suite(Suite::new("trixie-updates"));
    archive.add("trixie", "main", Deb::new("web", "1.9").depends("lib"));
    archive.add("trixie", "main", Deb::new("lib", "1"));
    archive.add("trixie-updates", "main", Deb::new("web", "1.10").depends("lib"));
    archive.add("trixie-updates", "main", Deb::new("lib", "1.1"));
    archive.publish();
    let both = Ask { suites: &["trixie-updates"], ..ask(&["web"]) };
    installs(&archive, both, &["lib=1.1", "web=1.10"]);
    installs(&archive, Ask { packages: &["web=1.9"], ..both }, &["lib=1.1", "web=1.9"]);
    installs(&archive, Ask { packages: &["web/trixie"], ..both }, &["lib=1.1", "web=1.9"]);
    installs(&archive, Ask { pins: &["lib=1"], ..both }, &["lib=1", "web=1.10"]);
    installs(&archive, Ask { pins: &["lib/trixie"], ..both }, &["lib=1", "web=1.10"]);
    assert_eq!(resolve(&archive, ask(&["web"])).unwrap(), ["lib=1", "web=1.9"]);
    // The suite's other name, and the repository's, mean it as well.
    for other in ["web/trixie-role", "web/test"] {
        let version = if other == "web/test" { "web=1.10" } else { "web=1.9" };
        assert_eq!(resolve(&archive, Ask { packages: &[other], ..both }).unwrap(), ["lib=1.1", version]);
    }
}

#[test]
fn a_wish_with_a_version_says_more_than_one_without() {
    let mut archive = Archive::new();
    archive.add("trixie", "main", Deb::new("web", "1"));
    archive.add("trixie", "main", Deb::new("web", "2"));
    archive.publish();
    assert_eq!(resolve(&archive, ask(&["web", "web=1"])).unwrap(), ["web=1"]);
    assert_eq!(resolve(&archive, ask(&["web=1", "web"])).unwrap(), ["web=1"]);
    let error = resolve(&archive, ask(&["web=1", "web=2"])).unwrap_err();
    assert_eq!(error, "cannot resolve the packages of system: web=1 and web=2 contradict each other");
}

#[test]
fn backports_come_in_only_when_asked_for_and_bring_what_they_need() {
    let mut archive = Archive::new();
    let mut backports = Suite::new("trixie-backports");
    (backports.not_automatic, backports.but_automatic_upgrades) = (true, true);
    archive.suite(backports);
    archive.add("trixie", "main", Deb::new("web", "1").depends("lib, base"));
    archive.add("trixie", "main", Deb::new("lib", "1"));
    archive.add("trixie", "main", Deb::new("base", "1"));
    archive.add("trixie-backports", "main", Deb::new("web", "2~bpo").depends("lib (>= 2), base (>= 1)"));
    archive.add("trixie-backports", "main", Deb::new("lib", "2~bpo"));
    archive.add("trixie-backports", "main", Deb::new("lib", "2"));
    archive.add("trixie-backports", "main", Deb::new("new", "1"));
    archive.publish();
    let both = Ask { suites: &["trixie-backports"], ..ask(&["web"]) };
    installs(&archive, both, &["base=1", "lib=1", "web=1"]);
    installs(&archive, Ask { packages: &["new"], ..both }, &["new=1"]);
    installs(&archive, Ask { packages: &["web/trixie-backports"], ..both }, &["base=1", "lib=2", "web=2~bpo"]);
}

#[test]
fn a_repository_of_higher_priority_wins_over_newer_versions() {
    let (low, high) = (Archive::of([Deb::new("web", "2")]), Archive::of([Deb::new("web", "1")]));
    let repository = |name: &str, priority| Repository { priority, ..low.repository(name, &["trixie"]) };
    let mut request = request(&low, ask(&["web"]));
    request.repositories = vec![repository("low", None), repository("high", Some(990))];
    let source = |name: &str| if name == "high" { &high } else { &low };
    let resolved = lock(&request, &Several(&source), NOW).unwrap();
    let web = &resolved.sets["system"][0];
    assert_eq!((web.version.as_str(), web.repository.as_str()), ("1", "high"));
    request.repositories[1].priority = Some(-1);
    request.repositories[0].priority = Some(0);
    let error = told(&lock(&request, &Several(&source), NOW).unwrap_err());
    assert_eq!(
        error,
        "cannot resolve the packages of system: no repository with a priority above 0 has web; there is \
         2 (low trixie), 1 (high trixie)"
    );
}

#[test]
fn excluded_packages_stay_out_and_are_named_when_needed() {
    let archive = Archive::of([
        Deb::new("web", "1").depends("lib | other"),
        Deb::new("strict", "1").depends("lib"),
        Deb::new("lib", "1"),
        Deb::new("other", "1"),
    ]);
    installs(&archive, Ask { excluded: &["lib"], ..ask(&["web"]) }, &["other=1", "web=1"]);
    refuses(
        &archive,
        Ask { excluded: &["lib"], ..ask(&["strict"]) },
        "the packages cannot be installed together:\n  - strict is asked for\n  \
         - strict 1 depends on lib, but lib is excluded",
    );
    let error = resolve(&archive, Ask { excluded: &["web"], ..ask(&["web"]) }).unwrap_err();
    assert_eq!(error, "cannot resolve the packages of system: web is asked for and excluded");
}

#[test]
fn the_order_of_wishes_does_not_matter() {
    let archive = Archive::of([
        Deb::new("a", "1").depends("x | y"),
        Deb::new("b", "1").depends("y | x").field("Conflicts", "z"),
        Deb::new("x", "1"),
        Deb::new("y", "1"),
    ]);
    assert_eq!(resolve(&archive, ask(&["a", "b"])), resolve(&archive, ask(&["b", "a", "b"])));
    let digest = |packages| request(&archive, ask(packages)).digest();
    assert_eq!(digest(&["a", "b"]), digest(&["b", "a"]));
    assert_ne!(digest(&["a", "b"]), digest(&["a"]));
}

/// Several archives behind one source.
struct Several<'a>(&'a (dyn Fn(&str) -> &'a Archive + Sync));

impl adamant::apt::IndexSource for Several<'_> {
    fn fetch(
        &self,
        repository: &str,
        path: &str,
        expected: Option<adamant::apt::FileIdentity>,
    ) -> Result<Vec<u8>, adamant::apt::FetchError> {
        (self.0)(repository).fetch(repository, path, expected)
    }
}
