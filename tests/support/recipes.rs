//! Recipes from text, and trees from lists of files.

use adamant::recipe::{Layer, Overrides, Recipe, Sources, parse, resolve};
use adamant::tree::{Content, Kind, Metadata, Node, Tree, show, split};

/// The recipe that `text` describes, a name, a version and a suite added.
pub fn recipe(text: &str) -> Recipe {
    try_recipe(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, or what is wrong with it, as text.
pub fn try_recipe(text: &str) -> Result<Recipe, String> {
    let text = format!("name = \"test\"\nversion = \"1\"\ndebian.suite = \"trixie\"\n{text}");
    let mut sources = Sources::default();
    let wrong = |found, sources: &Sources| adamant::recipe::Diagnostics::new(found, sources.clone()).to_string();
    let document = parse("recipe.toml".into(), text, &mut sources).map_err(|found| wrong(found, &sources))?;
    let layer = Layer { document, folder: ".".into(), start: sources.start_of_last() };
    resolve(vec![layer], &Overrides::default(), &sources).map_err(|error| error.to_string())
}

/// A tree of `(path, content)`: a path that ends in `/` is a directory, content that begins with `-> ` a link.
pub fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, content) in files {
        let parent = if path.ends_with('/') { path.as_bytes() } else { split(path.as_bytes()).unwrap().0 };
        tree.make_directories(parent, &Metadata::with_mode(0o755)).unwrap();
        if path.ends_with('/') {
            continue;
        }
        let kind = match content.strip_prefix("-> ") {
            Some(target) => Kind::Symlink(target.into()),
            None => Kind::File(Content::from_bytes(*content)),
        };
        tree.insert(path.as_bytes(), Node { metadata: Metadata::with_mode(0o644), kind }).unwrap();
    }
    tree
}

/// One line per node below the root: path, mode, owner, group, and content or target.
pub fn listing(tree: &Tree) -> Vec<String> {
    let line = |(path, id): (Vec<u8>, adamant::tree::NodeId)| {
        let node = tree.node(id);
        let Metadata { mode, uid, gid, .. } = node.metadata;
        let what = match &node.kind {
            Kind::File(content) => format!("= {}", show(&content.to_vec().unwrap()).trim_start_matches('/')),
            Kind::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
            other => other.word().to_owned(),
        };
        format!("{} {mode:04o} {uid}:{gid} {what}", show(&path))
    };
    tree.walk().skip(1).map(line).collect()
}

/// The text of a file.
pub fn text(tree: &Tree, path: &str) -> String {
    let (_, id) = tree.resolve(path.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    match &tree.node(id).kind {
        Kind::File(content) => String::from_utf8(content.to_vec().unwrap()).unwrap(),
        other => panic!("{path} is a {}", other.word()),
    }
}
