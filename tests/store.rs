//! The store: fetching through faults, sharing between processes, surviving `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use adamant::apt::{self, FileIdentity, IndexSource};
use adamant::digest::Digest;
use adamant::store::fetch::{FetchError, Fetcher, Options, Request, Retry, TransportError};
use adamant::store::mirror::{Mirrors, Origin};
use adamant::store::{Amount, Damage, Limits, StageKey, Store, StoreError};
use adamant::telemetry::{Event, Progress, Silent};
use proptest::prelude::*;

use crate::support::http::{Fault, Server};

/// A directory that is served, a store, and what is in them.
struct Bench {
    directory: tempfile::TempDir,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("served")).unwrap();
        let server = Server::serve(&directory.path().join("served"));
        Self { directory, server }
    }

    fn served(&self) -> PathBuf {
        self.directory.path().join("served")
    }

    /// Serves a file of pseudo-random bytes; gives a request for it.
    fn file(&self, path: &str, size: usize) -> Request {
        let bytes = content(path, size);
        let target = self.served().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, &bytes).unwrap();
        request(path, &bytes)
    }

    fn store_path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn store(&self) -> Store {
        Store::open(&self.store_path()).unwrap()
    }

    fn mirrors(&self) -> Mirrors {
        Mirrors::from_values(&[format!("debian={}", self.server.url())], Origin::Argument).unwrap()
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.store(), self.mirrors(), hasty())
    }

    fn fetch(&self, request: &Request) -> Result<Vec<u8>, FetchError> {
        let paths = self.fetcher().fetch(std::slice::from_ref(request), &Silent)?;
        Ok(std::fs::read(&paths[0]).unwrap())
    }

    /// Puts bytes where a killed process would have left what had arrived of a file.
    fn leave_partial(&self, request: &Request, bytes: &[u8]) {
        drop(self.store());
        std::fs::write(self.partial(request), bytes).unwrap();
    }

    fn partial(&self, request: &Request) -> PathBuf {
        self.store_path().join("partial").join(request.digest.to_string())
    }
}

/// Options that do not let a test wait.
fn hasty() -> Options {
    Options {
        stall_timeout: Duration::from_millis(1500),
        connect_timeout: Duration::from_secs(5),
        retry: Retry { attempts: 3, first_delay: Duration::from_millis(2), longest_delay: Duration::from_millis(20) },
        proxy: false,
        ..Options::default()
    }
}

fn content(seed: &str, size: usize) -> Vec<u8> {
    let mut state = u64::from_le_bytes(Digest::of(seed.as_bytes()).as_bytes()[..8].try_into().unwrap()) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn request(path: &str, bytes: &[u8]) -> Request {
    Request {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        repository: "debian".to_owned(),
        path: path.to_owned(),
        label: path.to_owned(),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The error and its causes, as a user sees them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[test]
fn fetches_many_files_and_asks_for_each_once() {
    let bench = Bench::new();
    let requests: Vec<_> = (0..60).map(|index| bench.file(&format!("pool/a+b/{index}~x.deb"), index * 997)).collect();
    let doubled: Vec<_> = requests.iter().chain(&requests).cloned().collect();
    let paths = bench.fetcher().fetch(&doubled, &Silent).unwrap();
    assert_eq!(paths.len(), 120);
    for (request, path) in doubled.iter().zip(&paths) {
        assert_eq!(Digest::of(&std::fs::read(path).unwrap()), request.digest);
    }
    assert_eq!(bench.server.answered().len(), 60);
    bench.fetcher().fetch(&requests, &Silent).unwrap();
    assert_eq!(bench.server.answered().len(), 60, "what the store has is not asked for again");
    assert_eq!(entries(&bench.store_path().join("partial")), [] as [PathBuf; 0]);
}

#[test]
fn goes_on_after_truncation_reset_and_stall_where_it_stopped() {
    for (fault, at) in
        [(Fault::Truncate(50_000), 50_000), (Fault::Reset(60_000), 60_000), (Fault::Stall(70_000), 70_000)]
    {
        let bench = Bench::new();
        let request = bench.file("a.deb", 200_000);
        bench.server.fault("a.deb", fault, 1);
        assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 200_000), "{fault:?}");
        let ranges: Vec<_> = bench.server.answered().iter().map(|answered| answered.range).collect();
        let [None, Some(resumed)] = ranges[..] else { panic!("{fault:?}: {ranges:?}") };
        // A reset may overtake bytes that were sent before it.
        assert!(if matches!(fault, Fault::Reset(_)) { resumed <= at } else { resumed == at }, "{fault:?}: {resumed}");
    }
}

#[test]
fn a_flaky_line_that_brings_something_each_time_is_never_given_up() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 100_000);
    bench.server.always("a.deb", Fault::Truncate(9_000));
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 100_000));
    assert_eq!(bench.server.count("a.deb"), 12);
}

#[test]
fn begins_anew_where_the_server_gives_no_parts_or_wrong_ones() {
    for fault in [Fault::NoRange, Fault::WrongRange] {
        let bench = Bench::new();
        let request = bench.file("a.deb", 20_000);
        bench.leave_partial(&request, &content("a.deb", 20_000)[..5_000]);
        bench.server.fault("a.deb", fault, 1);
        assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000), "{fault:?}");
    }
}

#[test]
fn resumes_what_another_process_left() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    bench.leave_partial(&request, &content("a.deb", 20_000)[..5_000]);
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
    assert_eq!(bench.server.answered()[0].range, Some(5_000));
}

#[test]
fn what_was_left_whole_needs_no_request() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    bench.leave_partial(&request, &content("a.deb", 20_000));
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
    assert_eq!(bench.server.answered(), []);
}

#[test]
fn what_was_left_wrong_is_fetched_anew_once() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    for left in [vec![0; 5_000], vec![0; 20_000], vec![0; 30_000]] {
        std::fs::remove_dir_all(bench.store_path()).ok();
        bench.leave_partial(&request, &left);
        assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
    }
    let asked: Vec<_> = bench.server.answered().iter().map(|a| (a.range, a.no_cache)).collect();
    assert_eq!(asked, [(Some(5_000), false), (None, true), (None, true), (None, false)]);
}

#[test]
fn a_file_that_stays_wrong_is_an_error_that_names_both_digests_and_nothing_is_kept() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    bench.server.always("a.deb", Fault::Flip(7_000));
    let mut altered = content("a.deb", 20_000);
    altered[7_000] ^= 1;
    let error = bench.fetch(&request).unwrap_err();
    let FetchError::Digest { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*expected, *found), (request.digest, Digest::of(&altered)));
    assert_eq!(
        error.to_string(),
        format!(
            "{}a.deb is not the file that was expected: its SHA-256 is {found} instead of {expected}. The mirror, or \
             something between it and this machine, altered it: try another mirror",
            bench.server.url()
        )
    );
    assert_eq!(bench.server.count("a.deb"), 2, "once more past any cache, then the end");
    assert!(!bench.partial(&request).exists());
    assert_eq!(bench.store().objects().unwrap(), []);
    bench.server.heal();
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
}

#[test]
fn a_file_of_another_size_is_refused_before_it_is_read() {
    let bench = Bench::new();
    let wanted = bench.file("a.deb", 20_000);
    bench.file("a.deb", 20_001);
    let error = bench.fetch(&wanted).unwrap_err();
    assert!(matches!(error, FetchError::Size { expected: 20_000, found: 20_001, .. }), "{error:?}");
    assert!(!bench.partial(&wanted).exists());
}

#[test]
fn a_body_without_end_is_cut_off() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    bench.server.always("a.deb", Fault::Append(10_000_000));
    let error = bench.fetch(&request).unwrap_err();
    assert!(matches!(error, FetchError::Size { expected: 20_000, .. }), "{error:?}");
}

#[test]
fn a_body_that_ends_early_without_saying_so_is_resumed() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 20_000);
    bench.server.fault("a.deb", Fault::EndEarly(1_000), 1);
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
    bench.server.always("b.deb", Fault::EndEarly(0));
    let error = bench.fetch(&bench.file("b.deb", 10)).unwrap_err();
    let FetchError::Transport { attempts: 3, source: TransportError::Truncated { expected: 10, found: 0 }, .. } = error
    else {
        panic!("{error:?}")
    };
}

#[test]
fn servers_in_trouble_are_asked_again_and_given_up_after_the_last_attempt() {
    for status in [500, 502, 503, 504, 429, 408] {
        let bench = Bench::new();
        let request = bench.file("a.deb", 1_000);
        bench.server.fault("a.deb", Fault::Status(status), 2);
        assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 1_000), "{status}");
    }
    let bench = Bench::new();
    let request = bench.file("a.deb", 1_000);
    bench.server.always("a.deb", Fault::Status(503));
    let error = bench.fetch(&request).unwrap_err();
    assert_eq!(bench.server.count("a.deb"), 3);
    assert_eq!(
        chain(&error),
        format!(
            "{}a.deb could not be fetched (3 attempts); what has arrived is kept: run the command again to go on, \
             or try another mirror with --mirror: the \
             server answered 503 Service Unavailable",
            bench.server.url()
        )
    );
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 1_000);
    bench.server.fault("a.deb", Fault::RetryAfter(1), 1);
    let retry = Retry { longest_delay: Duration::from_secs(5), ..hasty().retry };
    let fetcher = Fetcher::new(bench.store(), bench.mirrors(), Options { retry, ..hasty() });
    let started = Instant::now();
    fetcher.fetch(&[request], &Silent).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_refusal_is_not_asked_again() {
    for status in [400, 401, 403, 501] {
        let bench = Bench::new();
        let request = bench.file("a.deb", 1_000);
        bench.server.always("a.deb", Fault::Status(status));
        let error = bench.fetch(&request).unwrap_err();
        assert!(matches!(error, FetchError::Status { .. }), "{error:?}");
        assert_eq!(bench.server.count("a.deb"), 1);
    }
}

#[test]
fn follows_redirects() {
    let (bench, other) = (Bench::new(), Bench::new());
    let request = other.file("a.deb", 1_000);
    bench.server.always("a.deb", Fault::Redirect(other.server.port()));
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 1_000));
}

#[test]
fn a_mirror_that_is_not_there_is_an_error_that_says_so() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 1_000);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mirrors = Mirrors::from_values(&[format!("http://127.0.0.1:{port}/")], Origin::Argument).unwrap();
    let error = Fetcher::new(bench.store(), mirrors, hasty()).fetch(&[request], &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Transport { attempts: 3, source: TransportError::Connection(_), .. }));
    assert!(chain(&error).ends_with("Connection refused (os error 111)"), "{}", chain(&error));
}

#[test]
fn files_that_are_gone_are_named_all_together() {
    let bench = Bench::new();
    let here = bench.file("here.deb", 1_000);
    let gone: Vec<_> = ["b.deb", "a.deb"].map(|path| request(path, path.as_bytes())).to_vec();
    bench.server.always("a.deb", Fault::Status(410));
    let error = bench.fetcher().fetch(&[std::slice::from_ref(&here), gone.as_slice()].concat(), &Silent).unwrap_err();
    let url = bench.server.url();
    let FetchError::Missing { files } = &error else { panic!("{error:?}") };
    assert_eq!(*files, [format!("{url}a.deb"), format!("{url}b.deb")]);
    assert!(bench.store().contains(&here.digest, here.size).unwrap());
    assert_eq!(entries(&bench.store_path().join("partial")), [] as [PathBuf; 0]);
}

#[test]
fn the_snapshot_archive_has_what_the_mirror_lost_or_replaced() {
    let (bench, archive) = (Bench::new(), Bench::new());
    let lost = archive.file("20250520T000000Z/pool/lost.deb", 5_000);
    let replaced = archive.file("20250520T000000Z/pool/replaced.deb", 5_000);
    let here = bench.file("pool/here.deb", 5_000);
    bench.file("pool/replaced.deb", 5_000);
    let at = |path: &str, request: &Request| Request { path: path.to_owned(), ..request.clone() };
    let requests = [at("pool/lost.deb", &lost), at("pool/replaced.deb", &replaced), here];
    let mut mirrors = bench.mirrors();
    mirrors.set_snapshot("debian", &format!("{}{{timestamp}}", archive.server.url()));
    mirrors.set_timestamp("debian", "20250520T000000Z");
    Fetcher::new(bench.store(), mirrors, hasty()).fetch(&requests, &Silent).unwrap();
    assert_eq!(archive.server.answered().len(), 2, "only what the mirror does not have");
    assert_eq!(bench.server.count("pool/lost.deb"), 1);
}

#[test]
fn a_mirror_can_be_a_directory() {
    let bench = Bench::new();
    let request = bench.file("pool/a+b.deb", 3_000_000);
    let base = format!("file://{}", bench.served().display());
    let mirrors = Mirrors::from_values(&[base], Origin::Argument).unwrap();
    let fetcher = Fetcher::new(bench.store(), mirrors, hasty());
    fetcher.fetch(std::slice::from_ref(&request), &Silent).unwrap();
    assert_eq!(bench.store().read_object(&request.digest, 3_000_000).unwrap(), content("pool/a+b.deb", 3_000_000));
    let error = fetcher.fetch(&[self::request("pool", b"x")], &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Missing { .. }), "{error:?}");
    assert_eq!(bench.server.answered(), []);
}

#[test]
fn offline_takes_from_the_store_and_never_connects() {
    let bench = Bench::new();
    let (first, second) = (bench.file("first.deb", 1_000), bench.file("second.deb", 1_000));
    bench.fetch(&first).unwrap();
    let fetcher = Fetcher::new(bench.store(), bench.mirrors(), Options { offline: true, ..hasty() });
    fetcher.fetch(std::slice::from_ref(&first), &Silent).unwrap();
    let error = fetcher.fetch(&[first, second], &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not in the store, and --offline forbids fetching: second.deb. Run the command once without --offline"
    );
    let error = fetcher.fetch_bytes("debian", "dists/trixie/InRelease", None, 1_000).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }));
    assert_eq!(bench.server.answered().len(), 1);
}

#[test]
fn without_a_mirror_the_error_says_how_to_give_one() {
    let bench = Bench::new();
    let fetcher = Fetcher::new(bench.store(), Mirrors::default(), hasty());
    let error = |repository: &str| {
        let request = Request { repository: repository.to_owned(), ..request("a.deb", b"a") };
        fetcher.fetch(&[request], &Silent).unwrap_err().to_string()
    };
    assert_eq!(
        error("debian"),
        "no mirror is known for the repository \"debian\": give one with --mirror URL, or in the variable \
         ADAMANT_MIRROR, or as \"debian\" under [mirrors] in ~/.config/adamant/config.toml or \
         /etc/adamant/config.toml; this machine's apt sources name none either"
    );
    assert_eq!(
        error("nginx"),
        "no mirror is known for the repository \"nginx\": give one with --mirror nginx=URL, or in the variable \
         ADAMANT_MIRROR, or as \"nginx\" under [mirrors] in ~/.config/adamant/config.toml or \
         /etc/adamant/config.toml"
    );
}

#[test]
fn paths_that_lead_out_of_the_mirror_are_refused() {
    let bench = Bench::new();
    for path in ["../secret", "/etc/passwd", "pool//a", "pool/./a", ""] {
        let error = bench.fetcher().fetch(&[request(path, b"a")], &Silent).unwrap_err();
        assert!(matches!(error, FetchError::Path { .. }), "{path:?}: {error:?}");
    }
    assert_eq!(bench.server.answered(), []);
}

#[test]
fn reads_an_index_within_its_limit() {
    let bench = Bench::new();
    bench.file("dists/trixie/InRelease", 5_000);
    let expected = content("dists/trixie/InRelease", 5_000);
    let read = |limit| bench.fetcher().fetch_bytes("debian", "dists/trixie/InRelease", None, limit);
    assert_eq!(read(5_000).unwrap(), expected);
    assert!(matches!(read(4_999), Err(FetchError::TooLarge { limit: 4_999, .. })));
    bench.server.fault("dists/trixie/InRelease", Fault::Truncate(100), 1);
    bench.server.fault("dists/trixie/InRelease", Fault::Status(502), 1);
    assert_eq!(read(5_000).unwrap(), expected);
    let error = bench.fetcher().fetch_bytes("debian", "dists/sid/InRelease", None, 10).unwrap_err();
    assert!(matches!(error, FetchError::Missing { .. }), "{error:?}");
}

#[test]
fn as_a_source_of_indexes_it_keeps_those_of_known_digest_and_tells_what_is_not_there() {
    let bench = Bench::new();
    let release = bench.file("dists/trixie/InRelease", 5_000);
    let index = bench.file("dists/trixie/main/binary-amd64/Packages.xz", 5_000);
    let fetcher = bench.fetcher();
    let source: &dyn IndexSource = &fetcher;
    let identity = Some(FileIdentity { size: index.size, digest: index.digest });
    for _ in 0..2 {
        assert_eq!(source.fetch("debian", &release.path, None).unwrap(), content(&release.path, 5_000));
        assert_eq!(source.fetch("debian", &index.path, identity).unwrap(), content(&index.path, 5_000));
    }
    assert_eq!((bench.server.count(&release.path), bench.server.count(&index.path)), (2, 1));
    let absent = source.fetch("debian", "dists/sid/InRelease", None);
    assert!(matches!(absent, Err(apt::FetchError::NotFound)));
    let unknown = source.fetch("nginx", "dists/sid/InRelease", None);
    assert!(matches!(unknown, Err(apt::FetchError::Failed(error)) if error.to_string().contains("--mirror nginx=URL")));
}

#[test]
fn one_fetcher_serves_many_threads() {
    let bench = Bench::new();
    let wanted: Vec<_> = (0..8).map(|index| bench.file(&format!("{index}/Packages.xz"), 50_000)).collect();
    let fetcher = bench.fetcher();
    std::thread::scope(|scope| {
        for request in wanted.iter().chain(&wanted) {
            let fetcher = &fetcher;
            scope.spawn(move || {
                let expected = Some((request.digest, request.size));
                let bytes = fetcher.fetch_bytes("debian", &request.path, expected, 50_000).unwrap();
                assert_eq!(bytes, content(&request.path, 50_000));
                assert_eq!(fetcher.fetch_bytes("debian", &request.path, None, 50_000).unwrap(), bytes);
            });
        }
    });
    assert_eq!(bench.server.answered().len(), 8 + 16, "with a digest once each, without one each time");
}

#[test]
fn an_index_of_known_digest_is_kept_and_healed() {
    let bench = Bench::new();
    let wanted = bench.file("Packages.xz", 5_000);
    let read = || bench.fetcher().fetch_bytes("debian", "Packages.xz", Some((wanted.digest, wanted.size)), 5_000);
    assert_eq!(read().unwrap(), content("Packages.xz", 5_000));
    assert_eq!(read().unwrap(), content("Packages.xz", 5_000));
    assert_eq!(bench.server.count("Packages.xz"), 1);
    corrupt(&bench.store().object_path(&wanted.digest));
    assert_eq!(read().unwrap(), content("Packages.xz", 5_000));
    assert_eq!(bench.server.count("Packages.xz"), 2);
}

/// Changes a bit in the middle of a file.
fn corrupt(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn verify_names_damaged_objects_and_moves_them_aside_to_be_fetched_anew() {
    let bench = Bench::new();
    let requests: Vec<_> = (0..20).map(|index| bench.file(&format!("{index}.deb"), 10_000)).collect();
    bench.fetcher().fetch(&requests, &Silent).unwrap();
    assert_eq!(bench.store().verify().unwrap(), []);
    corrupt(&bench.store().object_path(&requests[3].digest));
    let mut altered = content("3.deb", 10_000);
    altered[5_000] ^= 1;
    let quarantine = bench.store().directory().join("quarantine").join(requests[3].digest.to_string());
    let damage = Damage { digest: requests[3].digest, found: Digest::of(&altered), quarantine: quarantine.clone() };
    assert_eq!(bench.store().verify().unwrap(), [damage]);
    assert_eq!(std::fs::read(quarantine).unwrap(), altered);
    assert_eq!(bench.store().verify().unwrap(), []);
    bench.fetcher().fetch(&requests, &Silent).unwrap();
    assert_eq!(bench.server.answered().len(), 21);
}

#[test]
fn an_object_of_another_size_counts_as_absent() {
    let bench = Bench::new();
    let request = bench.file("a.deb", 10_000);
    bench.fetch(&request).unwrap();
    let path = bench.store().object_path(&request.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"").unwrap();
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 10_000));
}

#[test]
fn a_reader_of_a_damaged_object_gets_an_error_and_not_the_bytes() {
    let bench = Bench::new();
    let store = bench.store();
    let digest = store.insert(&mut b"some bytes".as_slice(), None).unwrap();
    assert_eq!(store.read_object(&digest, 10).unwrap(), b"some bytes");
    corrupt(&store.object_path(&digest));
    assert!(matches!(store.read_object(&digest, 10), Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.read_object(&digest, 10), Err(StoreError::Absent { .. })));
}

#[test]
fn insert_refuses_bytes_that_are_not_those_announced() {
    let bench = Bench::new();
    let store = bench.store();
    let (right, wrong) = (Digest::of(b"right"), Digest::of(b"wrong"));
    let error = store.insert(&mut b"wrong".as_slice(), Some(right)).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { expected, found } if (expected, found) == (right, wrong)));
    assert_eq!(store.objects().unwrap(), []);
    assert_eq!(store.insert(&mut b"right".as_slice(), Some(right)).unwrap(), right);
    assert_eq!(store.objects().unwrap(), [right]);
}

#[test]
fn refuses_a_directory_of_another_format() {
    let bench = Bench::new();
    drop(bench.store());
    std::fs::write(bench.store_path().join("format"), "adamant store 2\n").unwrap();
    let error = Store::open(&bench.store_path()).unwrap_err();
    assert!(matches!(&error, StoreError::Format { found, .. } if found == "adamant store 2"), "{error:?}");
}

#[test]
fn progress_tells_of_all_bytes_once_and_ends() {
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);
    impl Progress for Told {
        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(match event {
                Event::TransferProgress { bytes, .. } => format!("{bytes}"),
                Event::TransferStarted { files, bytes } => format!("start {files} {bytes}"),
                Event::TransferFinished { files, bytes, .. } => format!("end {files} {bytes}"),
                other => format!("{other:?}"),
            });
        }
    }
    let bench = Bench::new();
    let requests: Vec<_> = (0..4).map(|index| bench.file(&format!("{index}.deb"), 300_000)).collect();
    requests.iter().for_each(|request| bench.server.always(&request.path, Fault::Slow(1_000)));
    let told = Told::default();
    bench.fetcher().fetch(&requests, &told).unwrap();
    let told = told.0.into_inner().unwrap();
    assert_eq!(told.first().unwrap(), "start 4 1200000");
    assert_eq!(told.last().unwrap(), "end 4 1200000");
    let bytes: Vec<u64> = told[1..told.len() - 1].iter().map(|text| text.parse().unwrap()).collect();
    assert!(bytes.len() > 2 && bytes.is_sorted() && bytes.iter().all(|&bytes| bytes <= 1_200_000), "{bytes:?}");
}

/// A server with TLS: OpenSSL's, which knows no more of us than a mirror does.
struct TlsServer {
    process: Child,
    port: String,
    certificate: PathBuf,
}

impl TlsServer {
    fn serve(directory: &Path) -> Option<Self> {
        use std::io::{BufRead, BufReader};
        let mut make = crate::support::oracle::oracle("openssl")?;
        make.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=mirror", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(directory);
        crate::support::oracle::run(&mut make);
        let mut process = crate::support::oracle::oracle("openssl")?
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem", "-WWW"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let mut ports = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next().map(str::to_owned));
        let port = ports.next().unwrap();
        Some(Self { process, port, certificate: directory.join("cert.pem") })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn over_tls_the_hosts_certificates_decide() {
    let bench = Bench::new();
    served_for_children(&bench, 2);
    let Some(server) = TlsServer::serve(&bench.served()) else { return };
    let url = format!("https://127.0.0.1:{}/", server.port);
    let mirrors = Mirrors::from_values(std::slice::from_ref(&url), Origin::Argument).unwrap();
    let error = Fetcher::new(bench.store(), mirrors, hasty()).fetch(&child_requests(1), &Silent).unwrap_err();
    assert!(matches!(&error, FetchError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
    let mut trusting = child_command(&bench, "fetch", 2);
    trusting.env("ADAMANT_TEST_MIRROR", url).env("SSL_CERT_FILE", &server.certificate).env_remove("SSL_CERT_DIR");
    assert!(trusting.status().unwrap().success());
    assert_eq!(bench.store().objects().unwrap().len(), 2);
}

#[test]
fn troubles_of_many_connections_are_told_once_with_their_cause() {
    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);
    impl Progress for Heard {
        fn event(&self, event: &Event<'_>) {
            if let Event::Message(text) = event {
                self.0.lock().unwrap().push((*text).to_owned());
            }
        }
    }
    let bench = Bench::new();
    let requests: Vec<_> = (0..8).map(|index| bench.file(&format!("{index}.deb"), 1_000)).collect();
    for request in &requests {
        bench.server.fault(&request.path, Fault::Status(503), 2);
    }
    let heard = Heard::default();
    bench.fetcher().fetch(&requests, &heard).unwrap();
    let heard = heard.0.into_inner().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].ends_with(".deb: the server answered 503 Service Unavailable; trying again"), "{heard:?}");
}

// Stages

fn key(input: &str) -> StageKey {
    StageKey::new("test").with("input", input.as_bytes())
}

fn write_result(text: &'static str) -> impl Fn(&Path) -> Result<(), StoreError> {
    move |directory| {
        std::fs::write(directory.join("result"), text).unwrap();
        Ok(())
    }
}

#[test]
fn a_stage_is_built_once_and_found_by_its_key() {
    let bench = Bench::new();
    let first = bench.store().build_stage(&key("a"), write_result("made of a")).unwrap();
    assert!(!first.cached);
    let again = bench.store().build_stage(&key("a"), |_| -> Result<(), StoreError> { panic!("built again") }).unwrap();
    assert_eq!((&again.path, again.cached), (&first.path, true));
    assert_eq!(std::fs::read(again.path.join("result")).unwrap(), b"made of a");
    assert_eq!(bench.store().stage(&key("b")).unwrap(), None);
}

#[test]
fn keys_differ_by_name_label_and_value_and_by_where_they_are_cut() {
    let keys = [
        StageKey::new("unpack"),
        StageKey::new("pack"),
        StageKey::new("unpack").with("ab", b"c"),
        StageKey::new("unpack").with("a", b"bc"),
        StageKey::new("unpack").with("a", b"b").with("c", b""),
        StageKey::new("unpack").with("a", b"").with("b", b"c"),
    ];
    let digests: BTreeSet<_> = keys.iter().map(StageKey::digest).collect();
    assert_eq!(digests.len(), keys.len());
}

#[test]
fn a_stage_that_fails_leaves_nothing() {
    let bench = Bench::new();
    let store = bench.store();
    let result = store.build_stage(&key("a"), |directory| {
        std::fs::write(directory.join("half"), b"").unwrap();
        Err(StoreError::Absent { digest: Digest::of(b"") })
    });
    assert!(matches!(result, Err(StoreError::Absent { .. })));
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    assert_eq!(entries(&bench.store_path().join("locks")), [] as [PathBuf; 0]);
    store.build_stage(&key("a"), write_result("whole")).unwrap();
}

#[test]
fn a_result_of_another_boot_counts_only_once_settled() {
    let bench = Bench::new();
    let pretend_reboot = |result: &Path| {
        let seal = result.parent().unwrap().join("seal");
        let text = std::fs::read_to_string(&seal).unwrap();
        if text.starts_with("boot ") {
            std::fs::write(&seal, "boot 00000000-0000-0000-0000-000000000000\n").unwrap();
        }
    };
    let store = bench.store();
    let first = store.build_stage(&key("a"), write_result("1")).unwrap();
    pretend_reboot(&first.path);
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    let second = store.build_stage(&key("a"), write_result("2")).unwrap();
    assert!(!second.cached);
    assert_eq!(std::fs::read(second.path.join("result")).unwrap(), b"2");
    store.settle().unwrap();
    pretend_reboot(&second.path);
    assert_eq!(bench.store().stage(&key("a")).unwrap(), Some(second.path));
}

#[test]
fn threads_that_want_a_stage_share_the_work() {
    let bench = Bench::new();
    let store = bench.store();
    let built = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let result = store.build_stage(&key("a"), |directory| {
                    built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(30));
                    write_result("x")(directory)
                });
                assert_eq!(std::fs::read(result.unwrap().path.join("result")).unwrap(), b"x");
            });
        }
    });
    assert_eq!(built.into_inner(), 1);
}

#[test]
fn workspaces_vanish_with_their_value_and_sessions_with_their_store() {
    let bench = Bench::new();
    let store = bench.store();
    let workspace = store.workspace().unwrap();
    let path = workspace.path();
    std::fs::write(path.join("file"), b"x").unwrap();
    drop(workspace);
    assert!(!path.exists());
    let forgotten = store.workspace().unwrap();
    std::mem::forget(forgotten.path());
    drop(forgotten);
    assert_eq!(entries(&bench.store_path().join("sessions")).len(), 1);
    drop(store);
    assert_eq!(entries(&bench.store_path().join("sessions")), [] as [PathBuf; 0]);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn what_cannot_be_deleted_does_not_hinder_opening_and_is_offered_to_a_remover() {
    let bench = Bench::new();
    let store = bench.store();
    // A directory in place of a foreign user's: what is mounted on cannot be removed, not even by root. Without
    // that right, one without permissions does.
    let dead = store.directory().join("trash").join("1-0");
    std::fs::create_dir_all(dead.join("inner")).unwrap();
    std::fs::write(dead.join("inner/file"), b"").unwrap();
    let lock = Immutable::make(&dead.join("inner"));
    let Some(lock) = lock else { return crate::support::oracle::skip("this file system knows no immutable flag") };
    drop(store);
    let store = bench.store();
    assert!(dead.exists());
    let refused = store.empty_trash(&|_| Err(std::io::ErrorKind::PermissionDenied.into()));
    assert!(matches!(refused, Err(StoreError::Write { .. })));
    let lock = Mutex::new(Some(lock));
    store
        .empty_trash(&|path| {
            drop(lock.lock().unwrap().take());
            std::fs::remove_dir_all(path)
        })
        .unwrap();
    assert!(!dead.exists());
}

/// A directory from which nothing can be removed: by mode for ordinary users, by chattr(1) for root.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: &Path) -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o500)).unwrap();
        if nix::unistd::geteuid().is_root() {
            let mut chattr = crate::support::oracle::oracle("chattr")?;
            chattr.arg("+i").arg(path).stderr(Stdio::null()).status().ok().filter(|status| status.success())?;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        if nix::unistd::geteuid().is_root() {
            let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
        }
        let _ = std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700));
    }
}

// Room

/// Sets a thing's last use to so many days ago.
fn age(path: &Path, days: u64) {
    let time = std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

/// A store with four objects of 4096 bytes, last used 1, 2, 3 and 4 days ago.
fn aged(bench: &Bench) -> Vec<Digest> {
    let store = bench.store();
    let mut digests = Vec::new();
    for index in 1..=4_u8 {
        let digest = store.insert(&mut vec![index; 4096].as_slice(), None).unwrap();
        age(&store.object_path(&digest), index.into());
        digests.push(digest);
    }
    digests
}

fn left(store: &Store, digests: &[Digest]) -> Vec<bool> {
    digests.iter().map(|digest| store.object_path(digest).exists()).collect()
}

#[test]
fn collect_removes_what_was_not_used_for_long() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    let result = store.build_stage(&key("a"), write_result("x")).unwrap();
    age(&result.path.parent().unwrap().join("seal"), 5);
    let limits = Limits { age: Some(days(3) - Duration::from_secs(60)), ..Limits::default() };
    let removed = store.collect(&limits, &BTreeSet::new()).unwrap().total();
    assert_eq!(removed.count, 3);
    assert_eq!(left(&store, &digests), [true, true, false, false]);
    assert_eq!(store.stage(&key("a")).unwrap(), None);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn collect_makes_room_from_the_least_recently_used_on() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    assert_eq!(store.usage().unwrap().objects, Amount { count: 4, bytes: 4 * 4096 });
    let limits = Limits { bytes: Some(2 * 4096 + 1), ..Limits::default() };
    let removed = store.collect(&limits, &BTreeSet::new()).unwrap().total();
    assert_eq!(removed, Amount { count: 2, bytes: 2 * 4096 });
    assert_eq!(left(&store, &digests), [true, true, false, false]);
}

#[test]
fn collect_spares_what_is_to_be_kept_and_what_a_living_session_uses() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let running = bench.store();
    assert!(running.contains(&digests[3], 4096).unwrap());
    let nothing = Limits { bytes: Some(0), age: Some(Duration::ZERO) };
    let collector = bench.store();
    collector.collect(&nothing, &[digests[1]].into()).unwrap();
    assert_eq!(left(&collector, &digests), [false, true, false, true]);
    drop(running);
    age(&collector.object_path(&digests[3]), 1);
    collector.collect(&nothing, &BTreeSet::new()).unwrap();
    assert_eq!(left(&collector, &digests), [false; 4]);
}

#[test]
fn a_use_is_noted() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    store.open_object(&digests[3]).unwrap();
    let limits = Limits { bytes: Some(4096), ..Limits::default() };
    store.collect(&limits, &BTreeSet::new()).unwrap();
    assert_eq!(left(&store, &digests), [false, false, false, true]);
}

#[test]
fn collect_without_limits_removes_only_litter() {
    let bench = Bench::new();
    let digests = aged(&bench);
    let store = bench.store();
    let (old, new) = (bench.file("old.deb", 10), bench.file("new.deb", 10));
    std::fs::write(bench.partial(&old), b"x").unwrap();
    std::fs::write(bench.partial(&new), b"x").unwrap();
    age(&bench.partial(&old), 8);
    store.collect(&Limits::default(), &BTreeSet::new()).unwrap();
    assert_eq!(left(&store, &digests), [true; 4]);
    assert_eq!((bench.partial(&old).exists(), bench.partial(&new).exists()), (false, true));
}

// Processes

/// This test program again, as another process that does what `ADAMANT_TEST_STORE_CHILD` says.
fn child(bench: &Bench, action: &str, count: usize) -> Child {
    child_command(bench, action, count).spawn().unwrap()
}

fn child_command(bench: &Bench, action: &str, count: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::child_process", "--nocapture"])
        .env("ADAMANT_TEST_STORE_CHILD", action)
        .env("ADAMANT_TEST_STORE", bench.store_path())
        .env("ADAMANT_TEST_MIRROR", bench.server.url())
        .env("ADAMANT_TEST_COUNT", count.to_string())
        .stdout(Stdio::null());
    command
}

const CHILD_FILE_SIZE: usize = 40_000;

fn child_requests(count: usize) -> Vec<Request> {
    (0..count)
        .map(|index| format!("{index}.deb"))
        .map(|path| request(&path, &content(&path, CHILD_FILE_SIZE)))
        .collect()
}

/// The body of the processes that other cases start; by itself it has nothing to do.
#[test]
fn child_process() {
    let Ok(action) = std::env::var("ADAMANT_TEST_STORE_CHILD") else { return };
    let of = |name: &str| std::env::var(name).unwrap();
    let store = Store::open(Path::new(&of("ADAMANT_TEST_STORE"))).unwrap();
    let count: usize = of("ADAMANT_TEST_COUNT").parse().unwrap();
    match action.as_str() {
        "fetch" => {
            let mirrors = Mirrors::from_values(&[of("ADAMANT_TEST_MIRROR")], Origin::Argument).unwrap();
            Fetcher::new(store, mirrors, Options { stall_timeout: Duration::from_secs(20), ..hasty() })
                .fetch(&child_requests(count), &Silent)
                .unwrap();
        }
        "stages" => {
            for index in 0..count {
                let result = store.build_stage(&key(&index.to_string()), |directory| -> Result<(), StoreError> {
                    for file in 0..20 {
                        std::fs::write(directory.join(file.to_string()), index.to_string()).unwrap();
                    }
                    Ok(())
                });
                let files = entries(&result.unwrap().path);
                assert_eq!(files.len(), 20);
            }
        }
        other => panic!("{other}"),
    }
}

fn served_for_children(bench: &Bench, count: usize) {
    for request in child_requests(count) {
        bench.file(&request.path, CHILD_FILE_SIZE);
    }
}

#[test]
fn processes_killed_at_any_moment_leave_a_good_store_and_useful_pieces() {
    const COUNT: usize = 60;
    let bench = Bench::new();
    served_for_children(&bench, COUNT);
    for index in 0..COUNT {
        bench.server.always(&format!("{index}.deb"), Fault::Slow(2_000));
    }
    let mut kills = 0;
    let mut delay = 60;
    loop {
        let mut process = child(&bench, "fetch", COUNT);
        std::thread::sleep(Duration::from_millis(delay));
        delay = 40 + (delay * 7) % 90;
        if let Some(status) = process.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        process.kill().unwrap();
        process.wait().unwrap();
        kills += 1;
        if kills % 5 == 0 {
            assert_eq!(bench.store().verify().unwrap(), []);
        }
        assert!(kills < 200, "no progress");
    }
    let store = bench.store();
    assert!(kills > 0);
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(store.objects().unwrap().len(), COUNT);
    assert!(bench.server.answered().iter().any(|answered| answered.range.is_some()), "nothing was resumed");
    assert_eq!(entries(&bench.store_path().join("partial")), [] as [PathBuf; 0]);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn processes_at_once_fetch_each_file_once() {
    const COUNT: usize = 80;
    let bench = Bench::new();
    served_for_children(&bench, COUNT);
    for index in 0..COUNT {
        bench.server.always(&format!("{index}.deb"), Fault::Slow(4_000));
    }
    let processes: Vec<_> = (0..3).map(|_| child(&bench, "fetch", COUNT)).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    bench.server.answered().into_iter().for_each(|answered| *counts.entry(answered.path).or_default() += 1);
    assert_eq!(counts.len(), COUNT);
    assert!(counts.values().all(|&count| count == 1), "{counts:?}");
    assert_eq!(bench.store().verify().unwrap(), []);
}

#[test]
fn stages_survive_kills_and_are_shared_by_processes() {
    const COUNT: usize = 300;
    let bench = Bench::new();
    for round in 0..15 {
        let mut processes: Vec<_> = (0..2).map(|_| child(&bench, "stages", COUNT)).collect();
        std::thread::sleep(Duration::from_millis(10 + round * 5));
        for process in &mut processes {
            process.kill().unwrap();
        }
        for process in &mut processes {
            process.wait().unwrap();
        }
    }
    let mut processes: Vec<_> = (0..2).map(|_| child(&bench, "stages", COUNT)).collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    let store = bench.store();
    for index in 0..COUNT {
        let path = store.stage(&key(&index.to_string())).unwrap().unwrap();
        assert_eq!(entries(&path).len(), 20);
        assert!(entries(&path).iter().all(|file| std::fs::read_to_string(file).unwrap() == index.to_string()));
    }
    assert_eq!(entries(&bench.store_path().join("sessions")).len(), 1);
    assert_eq!(entries(&bench.store_path().join("trash")), [] as [PathBuf; 0]);
}

#[test]
fn the_umask_changes_nothing() {
    use std::os::unix::fs::MetadataExt;
    let modes = |umask: u32| -> Vec<(PathBuf, u32)> {
        let bench = Bench::new();
        served_for_children(&bench, 2);
        let script = format!("umask {umask:03o}; exec \"$0\" --exact store::child_process");
        for action in ["fetch", "stages"] {
            let status = Command::new("/bin/sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .env("ADAMANT_TEST_STORE_CHILD", action)
                .env("ADAMANT_TEST_STORE", bench.store_path())
                .env("ADAMANT_TEST_MIRROR", bench.server.url())
                .env("ADAMANT_TEST_COUNT", "2")
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success());
        }
        let mut found = Vec::new();
        let mut queue = vec![bench.store_path()];
        while let Some(path) = queue.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(bench.store_path()).unwrap().to_owned();
            // What is in a result is the stage's own business.
            if metadata.is_dir() && !relative.ends_with("content") {
                queue.extend(entries(&path));
            }
            found.push((relative, metadata.mode()));
        }
        found.sort();
        found
    };
    assert_eq!(modes(0o077), modes(0o000));
}

#[test]
fn a_full_disk_is_told_and_the_fetch_goes_on_when_there_is_room() {
    if !crate::support::oracle::root() {
        return;
    }
    let bench = Bench::new();
    let request = bench.file("a.deb", 3_000_000);
    let mount_point = bench.store_path();
    std::fs::create_dir(&mount_point).unwrap();
    let mount = |options: &str, flags| {
        let none: Option<&str> = None;
        nix::mount::mount(Some("tmpfs"), &mount_point, Some("tmpfs"), flags, Some(options)).map_err(|_| none)
    };
    if mount("size=1m", nix::mount::MsFlags::empty()).is_err() {
        return crate::support::oracle::skip("cannot mount a tmpfs");
    }
    let mounted = Mounted(mount_point.clone());
    let error = bench.fetch(&request).unwrap_err();
    assert!(matches!(&error, FetchError::Store(StoreError::Full { .. })), "{error:?}");
    assert!(error.to_string().contains("free some room"), "{error}");
    assert_eq!(bench.store().verify().unwrap(), []);
    let before = bench.server.answered().len();
    mount("size=16m", nix::mount::MsFlags::MS_REMOUNT).unwrap();
    assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 3_000_000));
    assert!(bench.server.answered()[before].range.is_some_and(|first| first > 500_000));
    drop(mounted);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_faults_ends_with_the_right_bytes_or_an_error_and_a_good_store(
        faults in proptest::collection::vec((0..10_u8, 0..30_000_usize), 0..6),
        left in proptest::option::of(0..25_000_usize),
    ) {
        let bench = Bench::new();
        let request = bench.file("a.deb", 20_000);
        if let Some(length) = left {
            bench.leave_partial(&request, &content("other", length));
        }
        for (kind, value) in faults {
            let fault = match kind {
                0 => Fault::Status(503),
                1 => Fault::Truncate(value),
                2 => Fault::Reset(value),
                3 => Fault::EndEarly(value),
                4 => Fault::Flip(value),
                5 => Fault::Append(value),
                6 => Fault::NoRange,
                7 => Fault::WrongRange,
                8 => Fault::Status(404),
                _ => Fault::Status(416),
            };
            bench.server.fault("a.deb", fault, 1);
        }
        if let Ok(bytes) = bench.fetch(&request) {
            prop_assert_eq!(bytes, content("a.deb", 20_000));
        }
        prop_assert_eq!(bench.store().verify().unwrap(), []);
        bench.server.heal();
        prop_assert_eq!(bench.fetch(&request).unwrap(), content("a.deb", 20_000));
    }
}
