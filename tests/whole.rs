//! Whole builds by the program itself, from a small archive over loopback: what comes out, and that whatever goes
//! wrong is told by its exit code and in words that say what to do, leaves no output and a store that is still good.

mod bits;
mod check;
mod full_disk;
mod increments;
mod interrupted;
mod machine;
mod mirror;
mod packages;

use serde_json::Value;

use crate::support::workshop::{Ended, Workshop};

#[test]
fn a_recipe_becomes_an_image_that_verifies() {
    let Some(workshop) = Workshop::new() else { return };
    let locked = Ended::of(&mut workshop.verb("lock", &[]));
    locked.expect(0, &[]);
    assert!(locked.stdout.ends_with("tiny.lock: 13 packages\n"), "{}", locked.stdout);
    let built = Ended::of(&mut workshop.build_with(&["--json"]));
    built.expect(0, &[]);
    let built: Value = serde_json::from_str(&built.stdout).unwrap();
    assert_eq!(built["schema"], "adamant.build/1");
    let names: Vec<_> = workshop.image().unwrap().into_keys().collect();
    let stem = format!("tiny_1_{}", crate::support::packages::architecture());
    assert_eq!(names, ["SHA256SUMS", "manifest.json", &format!("{stem}.efi"), &format!("{stem}.raw")]);
    let out = workshop.path("out/tiny");
    let out = out.to_str().unwrap();
    Ended::of(&mut workshop.adamant(&["verify", out])).expect(0, &[]);
    let inspected = Ended::of(&mut workshop.adamant(&["inspect", out, "--json"]));
    inspected.expect(0, &[]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert!(inspected.to_string().contains(built["root_hash"].as_str().unwrap()));
    // What is made is not made again, and not fetched.
    let again = Ended::of(&mut workshop.build_with(&["--offline"]));
    again.expect(0, &[]);
    assert_eq!(workshop.image().as_ref(), Some(workshop.archived.reference()));
}
