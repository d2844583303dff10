//! Files fetched from mirrors, over lines and from servers with every fault.

use super::*;

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
