//! Whole builds by the program itself, from a small archive over loopback: what comes out, and that whatever goes
//! wrong is told by its exit code and in words that say what to do, leaves no output and a store that is still good.

use crate::support::workshop::{Ended, Workshop};

#[test]
fn a_recipe_becomes_an_image_that_verifies() {
    let Some(workshop) = Workshop::new() else { return };
    let locked = Ended::of(&mut workshop.verb("lock", &[]));
    locked.expect(0, &[]);
    let started = std::time::Instant::now();
    let built = Ended::of(&mut workshop.build_with(&["--json"]));
    built.expect(0, &[]);
    eprintln!("{}\n{:?}", built.stdout, started.elapsed());
    let out = workshop.path("out/tiny");
    let out = out.to_str().unwrap();
    Ended::of(&mut workshop.adamant(&["verify", out])).expect(0, &[]);
    let inspected = Ended::of(&mut workshop.adamant(&["inspect", out]));
    inspected.expect(0, &[]);
    eprintln!("{}", inspected.stdout);
}
