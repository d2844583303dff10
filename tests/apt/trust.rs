//! What is refused because nobody vouches for it, or no longer.

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
    archive.key =
        Key::with(KeyOptions { expires_after: Some(u32::try_from(NOW - KEY_MADE).unwrap()), ..KeyOptions::default() });
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
        (SignatureOptions { expires_after: Some(7200), ..standard() }, "the signature expired on 2025-06-01T00:00:00Z"),
        (
            SignatureOptions { made: NOW + 3600, ..standard() },
            "it is dated 2025-06-01T01:00:00Z, in the future: check the clock",
        ),
        (SignatureOptions { critical_notation: true, ..standard() }, "it has a critical part that is not understood"),
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
        assert!(error.starts_with(&format!("{RELEASE}the signature is not accepted: not a clearsigned")), "{error}");
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
