//! Objects: their bytes are what their names say, or they are not there.

use super::*;

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
