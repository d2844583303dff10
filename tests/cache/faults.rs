//! Caches that are dead, silent, failing or slow: the build is as if there were none, with one warning.

use std::time::{Duration, Instant};

use super::{Commons, PACKAGES, build, build_without_mirror, came, closed_port, said, said_of_another, warnings};
use crate::support::object_store::ObjectStore;
use crate::support::proxy::{Harm, Proxy};
use crate::support::workshop::{Ended, Workshop};

/// What a cache in trouble may cost in seconds, beyond the build: an answer is waited for this long, once.
const COST: Duration = Duration::from_secs(8);

/// A machine's build with the cache behind `port`, and how long it took.
fn timed(workshop: &Workshop, url: &str, port: u16, further: &[String]) -> (Ended, Duration) {
    let mut command = build(workshop, url, further);
    ObjectStore::environment(&mut command, port);
    let start = Instant::now();
    let ended = Ended::of(&mut command);
    (ended, start.elapsed())
}

#[track_caller]
fn warned_once(ended: &Ended, url: &str, what: &str) {
    let warnings = warnings(ended);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with(&format!("warning: the cache {url}: ")), "{}", warnings[0]);
    assert!(warnings[0].contains(what), "{what:?} is not in {}", warnings[0]);
}

#[test]
fn a_cache_where_nobody_listens_costs_seconds_and_a_warning() {
    let Some(workshop) = Workshop::new() else { return };
    let commons = Commons::new(&workshop);
    let url = "s3://team/some/prefix";
    let plain = Instant::now();
    workshop.assert_builds_the_same();
    let plain = plain.elapsed();
    for further in [commons.listing("ci"), commons.signing("ci")] {
        std::fs::remove_dir_all(workshop.path("store")).unwrap();
        let (ended, took) = timed(&workshop, url, closed_port(), &further);
        assert_eq!(came(&said(&workshop, &ended)), (0, 0));
        let warnings = warnings(&ended);
        assert!(warnings[0].contains("it is not used any more by this command"), "{warnings:?}");
        assert_eq!(warnings.len(), if further[0] == "--cache-sign" { 2 } else { 1 }, "{warnings:?}");
        assert!(took < plain + COST, "{took:?}, without a cache {plain:?}");
    }
    // A directory that is not there (not mounted, say).
    std::fs::remove_dir_all(workshop.path("store")).unwrap();
    let ended = Ended::of(&mut build(&workshop, "/nowhere/cache", &commons.listing("ci")));
    said(&workshop, &ended);
    warned_once(&ended, "/nowhere/cache", "cannot open the directory /nowhere/cache: No such file or directory");
}

#[test]
fn a_cache_that_fails_in_any_way_is_done_without() {
    let Some(first) = Workshop::new() else { return };
    let Some(s3) = ObjectStore::start() else { return };
    let commons = Commons::new(&first);
    let (ended, plain) = timed(&first, &s3.url(), s3.port, &commons.signing("ci"));
    said(&first, &ended);
    let objects = "/objects/";
    for (part, harm, what) in [
        ("", Harm::Status(500), "500"),
        ("", Harm::Status(503), "503"),
        ("", Harm::Silent, "no answer within"),
        ("", Harm::Crawl, ""),
        (objects, Harm::Silent, "no answer within"),
        (objects, Harm::Crawl, ""),
        (objects, Harm::Truncate(100), ""),
        (objects, Harm::Reset(100), ""),
        (objects, Harm::Truncate(0), ""),
    ] {
        let Some(second) = Workshop::new() else { return };
        let proxy = Proxy::before(s3.port);
        proxy.harm("", part, harm);
        let (ended, took) = timed(&second, &s3.url(), proxy.port(), &commons.listing("ci"));
        assert_eq!(came(&said(&second, &ended)), (0, 0), "{part} {harm:?}");
        warned_once(&ended, &s3.url(), what);
        // Who crawls is given some time to become faster.
        let cost = if harm == Harm::Crawl { COST * 3 } else { COST * 2 };
        assert!(took < plain + cost, "{part} {harm:?}: {took:?}, without {plain:?}");
        assert!(!proxy.requests().is_empty());
    }
}

#[test]
fn who_may_not_read_is_told_and_builds() {
    let (Some(first), Some(s3)) = (Workshop::new(), ObjectStore::start()) else { return };
    let commons = Commons::new(&first);
    let proxy = Proxy::before(s3.port);
    proxy.harm("", "", Harm::Status(403));
    let (ended, _) = timed(&first, &s3.url(), proxy.port(), &commons.listing("ci"));
    said(&first, &ended);
    warned_once(&ended, &s3.url(), "reading needs the permissions to get objects and to list the bucket");
}

#[test]
fn uploads_that_fail_are_counted_at_the_end_and_fail_nothing() {
    let (Some(first), Some(s3)) = (Workshop::new(), ObjectStore::start()) else { return };
    let commons = Commons::new(&first);
    for harm in [Harm::Status(500), Harm::Status(403)] {
        let proxy = Proxy::before(s3.port);
        proxy.harm("PUT", "/", harm);
        let (ended, _) = timed(&first, &s3.url(), proxy.port(), &commons.signing("ci"));
        said(&first, &ended);
        warned_once(&ended, &s3.url(), "31 of 31 results and packages were not written to it");
        assert_eq!(s3.names(), [] as [String; 0]);
        std::fs::remove_dir_all(first.path("store")).unwrap();
    }
    // Entries alone fail: nobody sees what they would name.
    let proxy = Proxy::before(s3.port);
    proxy.harm("PUT", "/stages/", Harm::Status(500));
    let (ended, _) = timed(&first, &s3.url(), proxy.port(), &commons.signing("ci"));
    said(&first, &ended);
    let Some(second) = Workshop::new() else { return };
    let mut command = build_without_mirror(&second, &first, &s3.url(), &commons.listing("ci"));
    ObjectStore::environment(&mut command, s3.port);
    // Packages were written, and their digests vouch for them.
    assert_eq!(came(&said(&second, &Ended::of(&mut command))), (0, PACKAGES));
}

#[test]
fn many_small_results_are_waited_for_side_by_side() {
    const LATE: Duration = Duration::from_millis(400);
    let (Some(first), Some(second), Some(s3)) = (Workshop::new(), Workshop::new(), ObjectStore::start()) else {
        return;
    };
    let commons = Commons::new(&first);
    said(&first, &timed(&first, &s3.url(), s3.port, &commons.signing("ci")).0);
    let proxy = Proxy::before(s3.port);
    proxy.harm("", "", Harm::Late(LATE.as_millis() as u64));
    second.write("issue", "another welcome\n");
    let (ended, took) = timed(&second, &s3.url(), proxy.port(), &commons.listing("ci"));
    assert_eq!(came(&said_of_another(&ended)), (PACKAGES + 3, 0));
    // One after the other they would be waited for this long.
    let requests = proxy.requests().len() as u32;
    assert!(requests > 2 * PACKAGES as u32 && took < LATE * requests / 2, "{requests} requests, {took:?}");
}
