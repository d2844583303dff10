//! The recipes of `recipes/` come out the same when they are built a second time under other circumstances.

use std::process::Output;

use crate::support;

#[test]
fn recipes_are_the_same_twice() {
    for name in ["minimal", "web"] {
        let Some(built) = support::built(name) else { return };
        let recipe = built.directory.parent().and_then(|out| out.parent()).unwrap().join(format!("{name}.toml"));
        let (recipe, out) = (recipe.to_str().unwrap(), built.directory.to_str().unwrap());
        let Output { status, stdout, stderr } = support::adamant(&["build", recipe, "--out", out, "--check"]);
        let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(0), "{text}");
        assert!(text.contains("built a second time, the same bits"), "{text}");
    }
}
