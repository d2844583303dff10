//! Locks made from small signed archives.

use adamant::apt::{LockRequest, SetRequest, lock};

use crate::support::archive::{Archive, Deb, NOW};

fn request(archive: &Archive, packages: &[&str]) -> LockRequest {
    let mut set = SetRequest::new("system");
    set.packages = packages.iter().map(|package| package.parse().unwrap()).collect();
    LockRequest {
        architecture: "amd64".into(),
        repositories: vec![archive.repository("test", &["trixie"])],
        sets: vec![set],
    }
}

#[test]
fn locks_what_is_asked_for_and_what_it_needs() {
    let archive =
        Archive::of([Deb::new("web", "1.0-1").depends("lib (>= 2)"), Deb::new("lib", "2.0"), Deb::new("other", "1")]);
    let lock = lock(&request(&archive, &["web"]), &archive, NOW).unwrap();
    println!("{}", lock.to_text());
    let names: Vec<_> = lock.sets["system"].iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["lib", "web"]);
}
