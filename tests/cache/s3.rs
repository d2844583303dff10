//! A real S3 server as cache.

use super::{Commons, PACKAGES, build, build_without_mirror, came, said, said_of_another, warnings, was_there};
use crate::support::object_store::ObjectStore;
use crate::support::workshop::{Ended, Workshop};

#[test]
fn what_one_machine_built_another_takes_from_s3() {
    let (Some(first), Some(second)) = (Workshop::new(), Workshop::new()) else { return };
    let Some(s3) = ObjectStore::start() else { return };
    let commons = Commons::new(&first);
    let mut command = build(&first, &s3.url(), &commons.signing("ci"));
    ObjectStore::environment(&mut command, s3.port);
    let ended = Ended::of(&mut command);
    assert_eq!(came(&said(&first, &ended)), (0, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
    let names = s3.names();
    assert!(names.iter().all(|name| name.starts_with("some/prefix/")), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.contains("/stages/")).count() as u64, PACKAGES + 5);
    let mut command = build_without_mirror(&second, &first, &s3.url(), &commons.listing("ci"));
    ObjectStore::environment(&mut command, s3.port);
    let ended = Ended::of(&mut command);
    assert_eq!(came(&said(&second, &ended)), (1, 0));
    assert_eq!(warnings(&ended), [] as [&str; 0]);
    // Nothing but the image is of no use to another recipe: its stages are.
    let Some(third) = Workshop::new() else { return };
    third.write("issue", "another welcome\n");
    let mut command = build_without_mirror(&third, &first, &s3.url(), &commons.listing("ci"));
    ObjectStore::environment(&mut command, s3.port);
    let said = said_of_another(&Ended::of(&mut command));
    assert_eq!((came(&said), was_there(&said, "configure")), ((PACKAGES + 3, 0), Some(true)));
}
