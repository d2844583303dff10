//! Unit tests of the module.

use std::fs;

use super::*;

/// A package whose `data.tar` has the given suffix, made by hand: header fields of ar are blank-padded text.
fn deb(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, body) in members {
        bytes.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, body.len()).bytes());
        bytes.extend(body);
        bytes.extend(std::iter::repeat_n(b'\n', body.len() % 2));
    }
    bytes
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, body) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(body.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        builder.append_data(&mut header, name, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

const CONTROL: &str = "Package: a\nVersion: 1\nArchitecture: all\nDescription: x\n";

fn members(data_name: &'static str, data: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    let control = tar_of(&[("./control", CONTROL), ("./conffiles", "/etc/a\nremove-on-upgrade /etc/b\n")]);
    vec![("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), (data_name, data)]
}

fn unpack_bytes(bytes: &[u8]) -> Result<UnpackedPackage, DebError> {
    unpack_bytes_in(&tempfile::tempdir().unwrap(), bytes)
}

/// For cases with many packages: a directory for each would take longer than all else.
fn unpack_bytes_in(directory: &tempfile::TempDir, bytes: &[u8]) -> Result<UnpackedPackage, DebError> {
    let data = directory.path().join("a.data");
    let _ = fs::remove_file(&data);
    let path = directory.path().join("a.deb");
    fs::write(&path, bytes).unwrap();
    // Contents are not read by most cases: the data file may go with the directory.
    unpack(&path, &data)
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    io::copy(&mut liblzma::read::XzEncoder::new(bytes, 6), &mut out).unwrap();
    out
}

#[test]
fn reads_every_compression_that_debian_uses() {
    let tar = tar_of(&[("./etc/a", "hello")]);
    let mut gz = Vec::new();
    io::copy(&mut flate2::read::GzEncoder::new(tar.as_slice(), flate2::Compression::default()), &mut gz).unwrap();
    let zst = zstd::stream::encode_all(tar.as_slice(), 3).unwrap();
    let all = [("data.tar", tar.clone()), ("data.tar.gz", gz), ("data.tar.xz", xz(&tar)), ("data.tar.zst", zst)];
    for (name, data) in all {
        let package = unpack_bytes(&deb(&members(name, data))).unwrap();
        assert_eq!((package.name(), package.version(), package.architecture()), ("a", "1", "all"));
        assert_eq!(package.conffiles(), ["etc/a"]);
        assert_eq!(package.entries().len(), 1);
    }
    let error = unpack_bytes(&deb(&members("data.tar.bz2", Vec::new()))).unwrap_err();
    assert!(error.to_string().contains("data.tar.bz2 is compressed in a way"), "{error}");
}

#[test]
fn a_package_reopens_as_it_was_unpacked() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = (directory.path().join("a.deb"), directory.path().join("a.data"));
    fs::write(&path, deb(&members("data.tar.xz", xz(&tar_of(&[("./etc/a", "hello"), ("./b", "")]))))).unwrap();
    let package = unpack(&path, &data).unwrap();
    let again = reopen(&data).unwrap();
    assert_eq!(format!("{package:?}"), format!("{again:?}"));
    let content = again.content(again.entry(b"etc/a").unwrap()).unwrap();
    assert_eq!(content.to_vec().unwrap(), b"hello");
    assert_eq!(content.known_digest(), Some(crate::digest::Digest::of(b"hello")));
}

#[test]
fn a_data_file_that_was_cut_does_not_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let (path, data) = (directory.path().join("a.deb"), directory.path().join("a.data"));
    fs::write(&path, deb(&members("data.tar", tar_of(&[("./etc/a", "hello")])))).unwrap();
    unpack(&path, &data).unwrap();
    let whole = fs::read(&data).unwrap();
    for length in [0, 10, 600, whole.len() - 1] {
        fs::write(&data, &whole[..length]).unwrap();
        assert!(matches!(reopen(&data), Err(DebError::Index { .. })), "{length}");
    }
}

#[test]
fn a_truncated_package_is_an_error_wherever_it_was_cut() {
    let whole = deb(&members("data.tar.xz", xz(&tar_of(&[("./etc/a", &"hello ".repeat(400))]))));
    let directory = tempfile::tempdir().unwrap();
    for length in 0..whole.len() {
        assert!(unpack_bytes_in(&directory, &whole[..length]).is_err(), "cut at {length} of {}", whole.len());
    }
}

#[test]
fn a_damaged_package_never_panics() {
    let whole = deb(&members("data.tar.xz", xz(&tar_of(&[("./etc/a", "hello"), ("./b", "world")]))));
    let directory = tempfile::tempdir().unwrap();
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        let _ = unpack_bytes_in(&directory, &damaged);
    }
}

#[test]
fn a_package_with_a_hostile_name_of_its_own_is_refused() {
    let control = tar_of(&[("./control", "Package: ../../x\nVersion: 1\nArchitecture: all\n")]);
    let mut members = members("data.tar", tar_of(&[]));
    members[1].1 = control;
    assert!(matches!(unpack_bytes(&deb(&members)), Err(DebError::Format { .. })));
}

#[test]
fn other_archives_are_not_packages() {
    let error = unpack_bytes(&deb(&[("hello.o", b"x".to_vec())])).unwrap_err();
    assert!(error.to_string().contains("not a package of format 2.0"), "{error}");
    assert!(matches!(unpack_bytes(b"PK\x03\x04 and more"), Err(DebError::Archive { .. })));
}

#[test]
fn contents_that_unpack_to_more_than_is_warranted_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tar = tar_of(&[("./zeros", &"\0".repeat(1 << 20))]);
    let bomb = xz(&tar);
    let write = |name: &str, data_max: u64| {
        let path = directory.path().join(name);
        write_data(Path::new("a.deb"), "data.tar.xz", &mut bomb.as_slice(), &path, data_max)
    };
    assert_eq!(write("enough", tar.len() as u64).unwrap().len(), 1);
    let error = write("little", 500_000).unwrap_err().to_string();
    assert!(error.contains("data.tar.xz unpacks to more than 500000 bytes"), "{error}");
    assert!(fs::metadata(directory.path().join("little")).unwrap().len() <= 500_000);
}
