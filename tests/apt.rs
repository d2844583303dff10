//! Locks made from small signed archives: what is resolved, beside the host's apt; what is refused.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use adamant::apt::update::{ControlSource, Renewal, update};
use adamant::apt::{LockError, LockRequest, Repository, SetRequest, lock};
use adamant::digest::Digest;
use adamant::lock::{Lock, LockedPackage, difference};
use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;

use crate::support::archive::{
    Archive, Deb, KEY_MADE, Key, KeyOptions, NOW, PUBLISHED, SignatureOptions, Suite, date, xz,
};
use crate::support::oracle;

/// What is asked for, in the words of a test.
#[derive(Clone, Copy, Default)]
struct Ask<'a> {
    packages: &'a [&'a str],
    recommends: bool,
    essential: bool,
    excluded: &'a [&'a str],
    pins: &'a [&'a str],
    /// Beside `trixie`, in one repository.
    suites: &'a [&'a str],
}

fn ask<'a>(packages: &'a [&'a str]) -> Ask<'a> {
    Ask { packages, ..Ask::default() }
}

fn request(archive: &Archive, ask: Ask<'_>) -> LockRequest {
    let mut set = SetRequest::new("system");
    set.packages = ask.packages.iter().map(|package| package.parse().unwrap()).collect();
    set.pins = ask.pins.iter().map(|package| package.parse().unwrap()).collect();
    set.excluded = ask.excluded.iter().map(|&name| name.to_owned()).collect();
    (set.recommends, set.essential) = (ask.recommends, ask.essential);
    let suites: Vec<&str> = ["trixie"].iter().chain(ask.suites).copied().collect();
    LockRequest {
        architecture: "amd64".to_owned(),
        repositories: vec![archive.repository("test", &suites)],
        sets: vec![set],
    }
}

/// The set as `name=version` or, if there is none, the error with its causes.
fn resolve(archive: &Archive, ask: Ask<'_>) -> Result<Vec<String>, String> {
    let lock = lock(&request(archive, ask), archive, NOW).map_err(|error| told(&error))?;
    Ok(lock.sets["system"].iter().map(|package| format!("{}={}", package.name, package.version)).collect())
}

/// The error and its causes, as a person reads them.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Asserts that we and the host's apt install exactly this.
#[track_caller]
fn installs(archive: &Archive, ask: Ask<'_>, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|&package| package.to_owned()).collect();
    assert_eq!(resolve(archive, ask).unwrap(), expected);
    if let Some(apt) = apt(archive, ask) {
        assert_eq!(apt.unwrap(), expected, "apt");
    }
}

/// Asserts that there is no such set for us, in these words, and none for the host's apt.
#[track_caller]
fn refuses(archive: &Archive, ask: Ask<'_>, words: &str) {
    assert_eq!(resolve(archive, ask).unwrap_err(), format!("cannot resolve the packages of system: {words}"));
    if let Some(apt) = apt(archive, ask) {
        assert!(apt.is_err(), "apt installs {apt:?}");
    }
}

/// What `apt-get install` would install on an empty system; its complaint if it would not; `None` without apt.
fn apt(archive: &Archive, ask: Ask<'_>) -> Option<Result<Vec<String>, String>> {
    Some(HostApt::new(archive, ask)?.install(archive, ask))
}

/// The host's apt, with the archive as its only source and an empty system.
struct HostApt {
    directory: tempfile::TempDir,
}

impl HostApt {
    fn new(archive: &Archive, ask: Ask<'_>) -> Option<Self> {
        oracle::oracle("apt-get")?;
        let apt = Self { directory: tempfile::tempdir().unwrap() };
        let at = |path: &str| apt.directory.path().join(path);
        for path in ["etc/preferences.d", "state/lists/partial", "cache/archives/partial", "log"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("status"), "").unwrap();
        fs::write(at("key.asc"), archive.key.public()).unwrap();
        let source = |suite: &str| {
            format!("deb [signed-by={}] file:{} {suite} main\n", at("key.asc").display(), archive.root().display())
        };
        let sources: String = ["trixie"].iter().chain(ask.suites).map(|suite| source(suite)).collect();
        fs::write(at("etc/sources.list"), sources).unwrap();
        let exclusions =
            ask.excluded.iter().map(|name| format!("Package: {name}\nPin: release *\nPin-Priority: -1\n\n"));
        let pins = ask.pins.iter().map(|pin| match pin.split_once('=') {
            Some((name, version)) => format!("Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n"),
            None => {
                let (name, suite) = pin.split_once('/').unwrap();
                format!("Package: {name}\nPin: release n={suite}\nPin-Priority: 1001\n\n")
            }
        });
        fs::write(at("etc/preferences"), exclusions.chain(pins).collect::<String>()).unwrap();
        let root = apt.directory.path().display();
        let configuration = format!(
            "Dir \"{root}\"; Dir::Etc \"{root}/etc\"; Dir::Etc::sourceparts \"-\"; Dir::Etc::parts \"-\";\n\
             Dir::State \"{root}/state\"; Dir::State::status \"{root}/status\"; Dir::Cache \"{root}/cache\";\n\
             Dir::Log \"{root}/log\"; APT::Architecture \"amd64\"; APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"\"; Acquire::Languages \"none\";\n"
        );
        fs::write(at("apt.conf"), configuration).unwrap();
        oracle::run(apt.command().args(["-q", "update"]));
        Some(apt)
    }

    /// apt 3 asks another solver where its old one, which we follow, finds nothing, and sweeps a little differently.
    fn is_version_2(&self) -> bool {
        let version = oracle::run(self.command().arg("--version"));
        version.starts_with("apt 2.")
    }

    fn command(&self) -> std::process::Command {
        let mut command = oracle::oracle("apt-get").unwrap();
        command.env("APT_CONFIG", self.directory.path().join("apt.conf"));
        command
    }

    fn install(&self, archive: &Archive, ask: Ask<'_>) -> Result<Vec<String>, String> {
        let mut names: Vec<String> = ask.packages.iter().map(|&package| package.to_owned()).collect();
        if ask.essential {
            names.extend(archive.essential());
        }
        names.sort();
        let recommends = format!("APT::Install-Recommends={}", ask.recommends);
        let output =
            self.command().args(["-s", "-y", "-V", "-o", &recommends, "install"]).args(names).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        // The list and not the `Inst` lines: apt may find a set and then no order in which to unpack it.
        let mut lines =
            said.lines().skip_while(|line| !line.starts_with("The following NEW packages will be installed"));
        if lines.next().is_none() {
            return Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        }
        let installed = lines.take_while(|line| line.starts_with("   ")).filter_map(|line| {
            let (name, version) = line.trim().split_once(" (")?;
            Some(format!("{name}={}", version.trim_end_matches(')')))
        });
        Ok(installed.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

mod resolution {
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
}

mod explanations {
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
}

mod trust {
    use super::*;

    fn archive() -> Archive {
        Archive::of([Deb::new("web", "1")])
    }

    /// The error of a lock made now, without the operation that it names first.
    fn refusal(archive: &Archive) -> String {
        refusal_at(archive, NOW)
    }

    fn refusal_at(archive: &Archive, now: u64) -> String {
        told(&lock(&request(archive, ask(&["web"])), archive, now).unwrap_err())
    }

    const RELEASE: &str = "repository test, dists/trixie/InRelease: ";
    const INDEX: &str = "repository test, dists/trixie/main/binary-amd64/Packages.xz: ";

    #[test]
    fn a_changed_text_is_refused() {
        let archive = archive();
        let path = archive.path("dists/trixie/InRelease");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("Origin: Test", "Origin: Evil")).unwrap();
        assert_eq!(
            refusal(&archive),
            format!(
                "{RELEASE}the signature is not accepted: bad signature: key {} did not sign this text",
                archive.key.fingerprint()
            )
        );
    }

    #[test]
    fn a_key_that_was_not_named_is_refused() {
        let mut archive = archive();
        let trusted = archive.key.clone();
        archive.key = Key::new(2);
        archive.publish();
        let mut request = request(&archive, ask(&["web"]));
        request.repositories[0].keys = trusted.keyring();
        assert_eq!(
            told(&lock(&request, &archive, NOW).unwrap_err()),
            format!(
                "{RELEASE}the signature is not accepted: no good signature: key {}: the key is not trusted for this \
                 repository",
                archive.key.fingerprint()
            )
        );
        request.repositories[0].keys = trusted.keyring().join(&archive.key.keyring());
        assert!(lock(&request, &archive, NOW).is_ok());
    }

    #[test]
    fn keys_that_may_not_sign_any_more_are_refused() {
        let standard = KeyOptions::default;
        let day = 86_400;
        let expiry = u32::try_from(NOW - KEY_MADE).unwrap();
        for (options, words) in [
            (KeyOptions { expires_after: Some(expiry), ..standard() }, "the key expired on 2025-06-01T00:00:00Z"),
            (KeyOptions { revoked: true, ..standard() }, "the key is revoked"),
            (KeyOptions { may_sign: false, ..standard() }, "the key is not meant for signing"),
            (
                KeyOptions { hash: HashAlgorithm::Sha1, kind: KeyType::Rsa(2048), ..standard() },
                "no valid self-signature over a strong hash binds the key",
            ),
            (KeyOptions { kind: KeyType::Rsa(1024), ..standard() }, "the key is too weak"),
            (KeyOptions { made: NOW + day, ..standard() }, "no valid self-signature over a strong hash binds the key"),
        ] {
            let mut archive = archive();
            archive.key = Key::with(options);
            archive.publish();
            let key = archive.key.fingerprint();
            let expected = format!("{RELEASE}the signature is not accepted: no good signature: key {key}: {words}");
            assert_eq!(refusal(&archive), expected);
        }
    }

    #[test]
    fn a_key_is_good_until_the_second_in_which_it_expires() {
        let mut archive = archive();
        archive.key = Key::with(KeyOptions {
            expires_after: Some(u32::try_from(NOW - KEY_MADE).unwrap()),
            ..KeyOptions::default()
        });
        archive.publish();
        assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW - 1).is_ok());
    }

    #[test]
    fn rsa_keys_of_today_are_good() {
        let mut archive = archive();
        archive.key = Key::with(KeyOptions { kind: KeyType::Rsa(2048), ..KeyOptions::default() });
        archive.publish();
        assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW).is_ok());
    }

    #[test]
    fn signatures_that_are_weak_old_or_from_the_future_are_refused() {
        let standard = SignatureOptions::default;
        for (options, words) in [
            (SignatureOptions { hash: HashAlgorithm::Sha1, ..standard() }, "the signature uses the weak hash SHA1"),
            (SignatureOptions { hash: HashAlgorithm::Sha224, ..standard() }, "the signature uses the weak hash SHA224"),
            (
                SignatureOptions { expires_after: Some(7200), ..standard() },
                "the signature expired on 2025-06-01T00:00:00Z",
            ),
            (
                SignatureOptions { made: NOW + 3600, ..standard() },
                "it is dated 2025-06-01T01:00:00Z, in the future: check the clock",
            ),
            (
                SignatureOptions { critical_notation: true, ..standard() },
                "it has a critical part that is not understood",
            ),
        ] {
            let mut archive = archive();
            // The library refuses to make weak signatures with the elliptic kind.
            archive.key = Key::with(KeyOptions { kind: KeyType::Rsa(2048), ..KeyOptions::default() });
            archive.sign("trixie", &archive.release_text("trixie"), options);
            let key = archive.key.fingerprint();
            let expected = format!("{RELEASE}the signature is not accepted: no good signature: key {key}: {words}");
            assert_eq!(refusal(&archive), expected);
        }
    }

    #[test]
    fn nothing_beside_the_signed_text_is_read() {
        let archive = archive();
        let path = archive.path("dists/trixie/InRelease");
        let good = fs::read_to_string(&path).unwrap();
        for text in [
            format!("Origin: Evil\n\n{good}"),
            format!("{good}\nOrigin: Evil\n"),
            good.replacen("\n\n", "\nComment: x\n\n", 1),
            format!("{good}{good}"),
        ] {
            fs::write(&path, text).unwrap();
            let error = refusal(&archive);
            assert!(
                error.starts_with(&format!("{RELEASE}the signature is not accepted: not a clearsigned")),
                "{error}"
            );
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        let error = refusal(&archive);
        assert_eq!(error, format!("{RELEASE}the signature is not accepted: the clearsigned text is truncated"));
    }

    #[test]
    fn an_expired_index_is_refused() {
        let mut archive = archive();
        archive.suite(Suite { valid_until: Some(NOW - 1), ..Suite::new("trixie") });
        archive.publish();
        assert_eq!(
            refusal(&archive),
            format!(
                "{RELEASE}the release file is not accepted: the release file expired on 2025-05-31T23:59:59Z (made on \
                 2025-05-31T22:00:00Z): the mirror is stale, or an old index is being replayed"
            )
        );
        assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW - 1).is_ok());
    }

    #[test]
    fn an_index_from_the_future_is_refused() {
        let archive = archive();
        let error = refusal_at(&archive, PUBLISHED - 3600);
        assert!(error.contains("in the future: check the clock"), "{error}");
    }

    #[test]
    fn the_well_signed_release_of_another_suite_is_refused() {
        let archive = archive();
        let text = archive.release_text("trixie").replace("trixie", "bookworm");
        archive.sign("trixie", &text, SignatureOptions::default());
        let expected = format!("{RELEASE}this is the release file of bookworm/bookworm-role, not of trixie");
        assert_eq!(refusal(&archive), expected);
    }

    #[test]
    fn an_index_that_is_not_the_listed_one_is_refused() {
        let mut archive = archive();
        archive.suite(Suite { by_hash: false, ..Suite::new("trixie") });
        archive.publish();
        let path = archive.path("dists/trixie/main/binary-amd64/Packages.xz");
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() - 7]).unwrap();
        let (found, expected) = (good.len() - 7, good.len());
        assert_eq!(refusal(&archive), format!("{INDEX}it is truncated: {found} of {expected} bytes"));
        let mut other = good.clone();
        other[40] ^= 1;
        fs::write(&path, &other).unwrap();
        assert_eq!(
            refusal(&archive),
            format!(
                "{INDEX}it is not the file that the release file lists: SHA-256 {}, expected {}",
                Digest::of(&other),
                Digest::of(&good)
            )
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(refusal(&archive), format!("{INDEX}cannot fetch it: there is no such file"));
    }

    #[test]
    fn indexes_are_fetched_by_digest_and_else_by_name() {
        let archive = archive();
        let directory = archive.path("dists/trixie/main/binary-amd64");
        fs::write(directory.join("Packages.xz"), "replaced in the meantime").unwrap();
        assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW).is_ok());
        archive.publish();
        fs::remove_dir_all(directory.join("by-hash")).unwrap();
        assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW).is_ok());
    }

    #[test]
    fn the_best_compression_that_is_listed_is_taken() {
        for compressions in [vec![".gz", ""], vec![""], vec![".gz"]] {
            let mut archive = archive();
            archive.suite(Suite { compressions, ..Suite::new("trixie") });
            archive.publish();
            assert!(lock(&request(&archive, ask(&["web"])), &archive, NOW).is_ok());
        }
    }

    #[test]
    fn an_index_that_unpacks_to_more_than_listed_is_refused() {
        let archive = archive();
        let bomb = xz(&vec![b'\n'; 1 << 20]);
        let plain = Digest::of(b"");
        let text = format!(
            "Suite: trixie\nCodename: trixie\nDate: {}\nArchitectures: amd64\nComponents: main\nSHA256:\n \
             {plain} 0 main/binary-amd64/Packages\n {} {} main/binary-amd64/Packages.xz\n",
            date(PUBLISHED),
            Digest::of(&bomb),
            bomb.len()
        );
        archive.sign("trixie", &text, SignatureOptions::default());
        fs::write(archive.path("dists/trixie/main/binary-amd64/Packages.xz"), bomb).unwrap();
        let expected = format!("{INDEX}it does not unpack to the 0 bytes that the release file lists");
        assert_eq!(refusal(&archive), expected);
    }

    #[test]
    fn an_index_that_is_listed_with_a_size_that_nothing_has_is_refused() {
        let archive = archive();
        let index = xz(b"\n");
        let text = format!(
            "Suite: trixie\nCodename: trixie\nDate: {}\nArchitectures: amd64\nComponents: main\nSHA256:\n \
             {} {} main/binary-amd64/Packages\n {} {} main/binary-amd64/Packages.xz\n",
            date(PUBLISHED),
            Digest::of(b"\n"),
            u64::MAX,
            Digest::of(&index),
            index.len()
        );
        archive.sign("trixie", &text, SignatureOptions::default());
        fs::write(archive.path("dists/trixie/main/binary-amd64/Packages.xz"), index).unwrap();
        assert!(refusal(&archive).starts_with(&format!("{INDEX}it does not unpack to the ")));
    }

    #[test]
    fn says_what_a_suite_does_not_have() {
        let archive = archive();
        let with = |change: &dyn Fn(&mut LockRequest)| {
            let mut request = request(&archive, ask(&["web"]));
            change(&mut request);
            told(&lock(&request, &archive, NOW).unwrap_err())
        };
        assert_eq!(
            with(&|request| request.repositories[0].components = vec!["contrib".to_owned()]),
            format!("{RELEASE}the suite has no component contrib, only main")
        );
        assert_eq!(
            with(&|request| request.architecture = "arm64".to_owned()),
            format!("{RELEASE}the suite has no packages for arm64, only for amd64")
        );
        assert_eq!(
            with(&|request| request.repositories[0].suites = vec!["sid".to_owned()]),
            "repository test, dists/sid/InRelease: cannot fetch it: there is no such file"
        );
    }
}

mod lockfile {
    use super::*;

    fn made() -> Lock {
        let archive = Archive::of([
            Deb::new("web", "1:1.0-1").depends("lib").architecture("amd64"),
            Deb::new("lib", "2.0").file("usr/lib/lib", 0o644, b"x"),
        ]);
        let mut request = request(&archive, ask(&["web"]));
        request.sets.push(SetRequest { packages: vec!["lib".parse().unwrap()], ..SetRequest::new("initrd") });
        lock(&request, &archive, NOW).unwrap()
    }

    #[test]
    fn is_canonical_text_with_a_line_for_each_package() {
        let lock = made();
        let text = lock.to_text();
        assert_eq!(Lock::parse(&text).unwrap(), lock);
        assert_eq!(Lock::parse(&text).unwrap().to_text(), text);
        assert_eq!(lock.epoch, PUBLISHED);
        let web = lock.sets["system"].iter().find(|package| package.name == "web").unwrap();
        let line = format!(
            "    {{ name = \"web\", version = \"1:1.0-1\", architecture = \"amd64\", repository = \"test\", size = {}, \
             sha256 = \"{}\", path = \"pool/main/web_1.0-1_amd64.deb\" }},",
            web.size, web.digest
        );
        assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{text}");
        assert!(text.contains("\ninitrd = [\n    { name = \"lib\""), "{text}");
        assert!(text.contains("date = 2025-05-31T22:00:00Z"), "{text}");
        let index = &lock.indexes[0];
        assert_eq!((index.repository.as_str(), index.suite.as_str(), index.date), ("test", "trixie", PUBLISHED));
    }

    #[test]
    fn is_the_same_for_the_same_archive() {
        assert_eq!(made().to_text(), made().to_text());
    }

    #[test]
    fn may_have_its_lines_in_any_order() {
        let lock = made();
        let mut lines: Vec<String> = lock.to_text().lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.starts_with("system")).unwrap();
        lines.swap(at + 1, at + 2);
        assert_eq!(Lock::parse(&lines.join("\n")).unwrap(), lock);
    }

    #[test]
    fn says_what_is_wrong_with_it() {
        let text = made().to_text();
        for (from, to, words) in [
            ("schema = 1", "schema = 2", "the lockfile has schema 2, this adamant reads 1"),
            ("name = \"web\"", "name = \"../web\"", "set system, package ../web: \"../web\" is not a package name"),
            ("path = \"pool/main/web", "path = \"../web", "is not a path in a repository"),
            ("path = \"pool/main/web", "path = \"/web", "is not a path in a repository"),
            ("version = \"1:1.0-1\"", "version = \"x y\"", "package web: \"x y\" is not a version"),
            ("name = \"web\"", "name = \"lib\"", "set system: package lib is listed twice"),
            ("T22:00:00Z", "", "2025-05-31 is not a date in UTC since 1970"),
            ("architecture = \"amd64\"\nepoch", "epoch", "missing field `architecture`"),
            ("epoch =", "epock =", "unknown field `epock`"),
            ("size = ", "size = -", "invalid value"),
            ("[sets]", "[sets", "not a lockfile"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = told(&Lock::parse(&text.replace(from, to)).unwrap_err());
            assert!(error.contains(words), "{from}: {error}");
        }
    }

    #[test]
    fn differences_are_a_value() {
        let before = made();
        let mut after = before.clone();
        let packages = after.sets.get_mut("system").unwrap();
        packages[0].version = "2.1".to_owned();
        packages[1].name = "apache".to_owned();
        after.sets.remove("initrd");
        after.epoch += 1;
        let change = difference(&before, &after);
        assert!(!change.is_empty());
        assert_eq!(change.epoch, Some((PUBLISHED, PUBLISHED + 1)));
        let names = |packages: &[adamant::lock::LockedPackage]| {
            packages.iter().map(|package| package.name.clone()).collect::<Vec<_>>()
        };
        let system = &change.sets["system"];
        assert_eq!((names(&system.added), names(&system.removed)), (vec!["apache".into()], vec!["web".into()]));
        assert_eq!((system.changed.len(), system.changed[0].after.version.as_str()), (1, "2.1"));
        assert_eq!(names(&change.sets["initrd"].removed), ["lib"]);
        assert!(difference(&before, &before).is_empty());
    }
}

#[test]
fn errors_say_which_set_it_was() {
    let archive = Archive::of([Deb::new("web", "1")]);
    let error = lock(&request(&archive, ask(&["wob"])), &archive, NOW).unwrap_err();
    assert!(matches!(&error, LockError::Resolve { set, .. } if set == "system"), "{error}");
}

#[test]
fn the_packages_made_for_tests_are_packages_to_dpkg() {
    let deb = Deb::new("web", "1:1.0-1")
        .depends("lib")
        .file("usr/bin/web", 0o755, b"#!/bin/sh\n")
        .script("postinst", "#!/bin/sh\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(deb.file_name());
    fs::write(&path, deb.bytes()).unwrap();
    let Some(mut dpkg) = oracle::oracle("dpkg-deb") else { return };
    assert_eq!(oracle::run(dpkg.arg("--field").arg(&path).arg("Version")).trim(), "1:1.0-1");
    let mut dpkg = oracle::oracle("dpkg-deb").unwrap();
    assert!(oracle::run(dpkg.arg("--contents").arg(&path)).contains("-rwxr-xr-x root/root        10"));
}

mod random {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    const PACKAGES: usize = 24;

    /// A name that is mostly a package and sometimes only provided or missing.
    fn name(random: &mut StdRng) -> String {
        match random.gen_range(0..10) {
            0 => format!("v{}", random.gen_range(0..4)),
            _ => format!("p{}", random.gen_range(0..PACKAGES + 1)),
        }
    }

    fn relation(random: &mut StdRng) -> String {
        let mut text = name(random);
        if random.gen_range(0..4) == 0 {
            let operator = ["<<", "<=", "=", ">=", ">>"][random.gen_range(0..5)];
            text += &format!(" ({operator} {})", random.gen_range(1..4));
        }
        text
    }

    fn group(random: &mut StdRng) -> String {
        let alternatives = 1 + [0, 0, 1, 2][random.gen_range(0..4)];
        (0..alternatives).map(|_| relation(random)).collect::<Vec<_>>().join(" | ")
    }

    fn list(random: &mut StdRng, most: usize, one: fn(&mut StdRng) -> String) -> String {
        (0..random.gen_range(0..=most)).map(|_| one(random)).collect::<Vec<_>>().join(", ")
    }

    fn archive(random: &mut StdRng) -> Archive {
        let mut archive = Archive::new();
        for at in 0..PACKAGES {
            for version in 1..=random.gen_range(1..3) {
                let mut deb = Deb::new(&format!("p{at}"), &version.to_string());
                deb = deb.field(
                    "Priority",
                    ["required", "important", "standard", "optional", "extra"][random.gen_range(0..5)],
                );
                for (field, value) in [
                    ("Depends", list(random, 2, group)),
                    ("Pre-Depends", if random.gen_range(0..6) == 0 { group(random) } else { String::new() }),
                    ("Recommends", list(random, 2, group)),
                    ("Suggests", list(random, 1, group)),
                    ("Conflicts", if random.gen_range(0..8) == 0 { relation(random) } else { String::new() }),
                    ("Breaks", if random.gen_range(0..8) == 0 { relation(random) } else { String::new() }),
                ] {
                    if !value.is_empty() {
                        deb = deb.field(field, &value);
                    }
                }
                if random.gen_range(0..4) == 0 {
                    let claimed = ["", " (= 1)", " (= 2)"][random.gen_range(0..3)];
                    deb = deb.field("Provides", &format!("v{}{claimed}", random.gen_range(0..4)));
                }
                archive.add("trixie", "main", deb);
            }
        }
        archive.publish();
        archive
    }

    /// Control files of an earlier archive.
    impl ControlSource for Archive {
        fn controls(&self, packages: &[LockedPackage]) -> Result<Vec<String>, LockError> {
            Ok(packages.iter().map(|one| self.find((&one.name, &one.version)).control()).collect())
        }
    }

    /// The next archive: further versions of all packages, those so far dropped.
    fn successor(random: &mut StdRng) -> Archive {
        let mut next = Archive::new();
        for (_, _, mut deb) in archive(random).into_packages() {
            deb.version = (deb.version.parse::<u32>().unwrap() + 2).to_string();
            next.add("trixie", "main", deb);
        }
        next.publish();
        next
    }

    #[test]
    fn what_is_not_renewed_stays_although_the_archive_has_only_other_versions() {
        let archives = std::env::var("ADAMANT_RANDOM_ARCHIVES").map_or(24, |count| count.parse().unwrap());
        let (mut sets, mut renewed, mut moved, mut all) = (0, 0, 0, 0);
        for seed in 0..archives {
            let random = &mut StdRng::seed_from_u64(seed);
            let (now, next) = (archive(random), successor(random));
            for _ in 0..8 {
                let wishes: Vec<String> =
                    (0..random.gen_range(1..5)).map(|_| format!("p{}", random.gen_range(0..PACKAGES))).collect();
                let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
                let request = request(&now, Ask { recommends: random.gen_range(0..2) == 0, ..ask(&wishes) });
                let Ok(before) = lock(&request, &now, NOW) else { continue };
                let names = |lock: &Lock| -> BTreeSet<String> {
                    lock.sets["system"].iter().map(|one| format!("{}={}", one.name, one.version)).collect()
                };
                let kept = update(&request, &before, &Renewal::nothing(), &now, &next, NOW).unwrap().lock;
                assert_eq!(names(&kept), names(&before), "seed {seed}: {wishes:?}");
                sets += 1;
                let some = &before.sets["system"][random.gen_range(0..before.sets["system"].len())].name;
                let one = Renewal::Only { security: false, packages: [some.clone()].into() };
                let Ok(after) = update(&request, &before, &one, &now, &next, NOW) else { continue };
                let after = names(&after.lock);
                let sound = is_sound(&[&now, &next], &after);
                assert_eq!(sound, Ok(()), "seed {seed}: {wishes:?}, {some}");
                renewed += 1;
                moved += names(&before).difference(&after).count();
                all += before.sets["system"].len();
            }
        }
        println!("{sets} sets kept; {renewed} with one package renewed: {moved} of {all} packages changed");
        assert!(sets > archives && moved * 2 < all, "{sets} sets, {moved} of {all} packages changed");
    }

    /// Every dependency of the set holds and nothing in it conflicts, judged by the text of the packages alone.
    fn is_sound(archives: &[&Archive], set: &BTreeSet<String>) -> Result<(), String> {
        let find =
            |one: &String| archives.iter().find_map(|archive| archive.get(one.split_once('=').unwrap())).unwrap();
        let chosen: Vec<_> = set.iter().map(find).collect();
        let satisfies = |deb: &Deb, alternative: &adamant::apt::relation::Alternative<'_>| {
            let holds = |version: Option<&str>| match (alternative.constraint, version) {
                (None, _) => true,
                (Some((operator, bound)), Some(version)) => operator.holds(version, bound),
                (Some(_), None) => false,
            };
            let provided = deb.value("Provides").unwrap_or("");
            deb.name == alternative.name && holds(Some(&deb.version))
                || adamant::apt::relation::parse(provided).map(Result::unwrap).any(|provided| {
                    provided.name == alternative.name && holds(provided.constraint.map(|(_, version)| version))
                })
        };
        for deb in &chosen {
            for field in ["Pre-Depends", "Depends"] {
                let all: Vec<_> =
                    adamant::apt::relation::parse(deb.value(field).unwrap_or("")).map(Result::unwrap).collect();
                for group in all.split_inclusive(|alternative| alternative.last) {
                    if !group.iter().any(|one| chosen.iter().any(|other| satisfies(other, one))) {
                        return Err(format!("{} lacks {:?}", deb.name, group));
                    }
                }
            }
            for field in ["Conflicts", "Breaks"] {
                for conflict in adamant::apt::relation::parse(deb.value(field).unwrap_or("")).map(Result::unwrap) {
                    if chosen.iter().any(|other| other.name != deb.name && satisfies(other, &conflict)) {
                        return Err(format!("{} {field} {conflict}", deb.name));
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn sets_are_sound_and_those_of_apt() {
        let archives = std::env::var("ADAMANT_RANDOM_ARCHIVES").map_or(8, |count| count.parse().unwrap());
        let (mut counts, mut differing) = ((0, 0), Vec::new());
        for seed in 0..archives {
            let random = &mut StdRng::seed_from_u64(seed);
            let archive = archive(random);
            let host = HostApt::new(&archive, Ask::default()).filter(HostApt::is_version_2);
            for _ in 0..8 {
                let wishes: Vec<String> =
                    (0..random.gen_range(1..5)).map(|_| format!("p{}", random.gen_range(0..PACKAGES))).collect();
                let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
                let ask = Ask { recommends: random.gen_range(0..2) == 0, ..ask(&wishes) };
                let ours = resolve(&archive, ask).map(|set| set.into_iter().collect::<BTreeSet<_>>());
                match &ours {
                    Ok(set) => assert_eq!(is_sound(&[&archive], set), Ok(()), "seed {seed}: {wishes:?}"),
                    Err(error) => assert!(error.contains("\n  - "), "seed {seed}: {wishes:?}: {error}"),
                }
                let theirs = host.as_ref().map(|host| host.install(&archive, ask));
                let theirs = theirs.map(|set| set.map(|set| set.into_iter().collect::<BTreeSet<_>>()));
                let same = match (&ours, &theirs) {
                    (_, None) => true,
                    (Ok(ours), Some(Ok(theirs))) => ours == theirs,
                    (ours, Some(theirs)) => ours.is_err() && theirs.is_err(),
                };
                if !same {
                    differing.push(format!("seed {seed}, {wishes:?}, {}:\n{ours:?}\n{theirs:?}", ask.recommends));
                }
                if ours.is_ok() { counts.0 += 1 } else { counts.1 += 1 }
            }
        }
        println!("{} sets, {} refusals, {} unlike apt's", counts.0, counts.1, differing.len());
        assert!(differing.is_empty(), "{}", differing.join("\n"));
    }
}
