//! `adamant explain`: why do two images differ?

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::diff::report::{arrow_text, printable, short};
use super::{Failure, Output};
use crate::diff::{self, Effect, Explanation, RecipeChange};
use crate::manifest::Step;

/// Explain why two images differ: the chain from an input (the recipe, a package index, adamant itself) to the digest.
///
/// Each is a folder that `build` made, a disk image, or a manifest.json. What an image was made from is in its
/// manifest; where the chain ends in something that was not recorded, it says `unknown`.
///
/// Exit code 0: explained, or nothing to explain.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant explain out/web_1 out/web_2
  adamant explain web_1/manifest.json out/web_2 --json | jq '.nodes[] | select(.kind == \"recipe\")'")]
pub struct Arguments {
    /// A folder that `build` made, the image in it, or a manifest.
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// What differs from it.
    #[arg(value_name = "B")]
    pub after: PathBuf,
    /// List every file.
    #[arg(long)]
    pub all: bool,
}

/// How many files that have the same cause are named.
const FOLD: usize = 3;

/// Compares, and shows what caused what.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let (before, after) = rayon::join(|| diff::read(&arguments.before), || diff::read(&arguments.after));
    let found = diff::explain(&before?, &after?);
    let text = Writer { found: &found, all: arguments.all, lines: Vec::new(), seen: vec![false; found.nodes.len()] };
    output.result(&text.write(), || to_json(&found))
}

fn to_json(found: &Explanation) -> Value {
    let mut object = json!({ "schema": "adamant.explain/1" });
    if let (Value::Object(object), Ok(Value::Object(fields))) = (&mut object, serde_json::to_value(found)) {
        object.extend(fields);
    }
    object
}

struct Writer<'e> {
    found: &'e Explanation,
    all: bool,
    lines: Vec<String>,
    seen: Vec<bool>,
}

impl Writer<'_> {
    fn write(mut self) -> String {
        if self.found.same {
            return "the same: nothing to explain\n".to_owned();
        }
        self.lines.push(self.line(0));
        self.seen[0] = true;
        self.below(0, "");
        if !self.found.without_effect.is_empty() {
            self.lines.push("\nChanged without an effect on the disk".to_owned());
            for index in &self.found.without_effect {
                self.lines.push(format!("  {}", self.line(*index)));
            }
        }
        self.lines.join("\n") + "\n"
    }

    /// The causes of a node, each with its own below it the first time that it is met.
    fn below(&mut self, index: usize, indent: &str) {
        let node = &self.found.nodes[index];
        let one_of = node.because.is_empty() && !node.perhaps.is_empty();
        let certain = node.because.iter().map(|cause| (*cause, "because "));
        let perhaps = node.perhaps.iter().map(|cause| (*cause, if one_of { "" } else { "perhaps because " }));
        let causes: Vec<(usize, &str)> = certain.chain(perhaps).collect();
        if one_of {
            self.lines.push(format!("{indent}└ because of one or more of these, it cannot be told which:"));
        }
        let indent = if one_of { format!("{indent}  ") } else { indent.to_owned() };
        for (position, (cause, word)) in causes.iter().enumerate() {
            let last = position + 1 == causes.len();
            let (corner, bar) = if last { ("└", " ") } else { ("├", "│") };
            let again = self.seen[*cause] && !self.is_leaf(*cause);
            let note = if again { " (see above)" } else { "" };
            self.lines.push(format!("{indent}{corner} {word}{}{note}", self.line(*cause)));
            if !std::mem::replace(&mut self.seen[*cause], true) {
                self.below(*cause, &format!("{indent}{bar} "));
            }
        }
    }

    fn is_leaf(&self, index: usize) -> bool {
        let node = &self.found.nodes[index];
        node.because.is_empty() && node.perhaps.is_empty()
    }

    fn line(&self, index: usize) -> String {
        let text = match &self.found.nodes[index].effect {
            Effect::Image { before, after } => format!("the image: {}", arrow_text(before, after)),
            Effect::RootHash { before, after } => format!("the root hash: {} → {}", short(before), short(after)),
            Effect::Partition { partition } => format!("the partition {partition}"),
            Effect::Section { name } => format!("{name} in the kernel image"),
            Effect::Records => "what the manifest says of the inputs; the disk is the same".to_owned(),
            Effect::Files { by, paths } => format!("{}{}", self.files(paths), written(by)),
            Effect::Times { count } => format!("the times of {count} files, which are otherwise the same"),
            Effect::Identifiers => "UUIDs, labels and salt, which come from name and version".to_owned(),
            Effect::InstalledPackages => "the packages of the system, all of which scripts find".to_owned(),
            Effect::Package { set, name, before, after, repository } => {
                let set = if set == "system" { String::new() } else { format!(" in the set {set}") };
                let from = repository.as_ref().map_or(String::new(), |repository| format!(", from {repository}"));
                let what = match (before, after) {
                    (None, Some(version)) => format!("{version} was added"),
                    (Some(version), None) => format!("{version} was removed"),
                    _ => arrow_text(before, after),
                };
                format!("package {name} {what}{set}{from}")
            }
            Effect::Lock => "the lock was made anew".to_owned(),
            Effect::Index { index, before, after, content } => {
                let what = if *content { "lists other packages" } else { "has another date and the same packages" };
                let date = |seconds: &Option<u64>| seconds.map(|seconds| date(i64::try_from(seconds).unwrap_or(0)));
                format!("the index {index} {what}: {}", arrow_text(&date(before), &date(after)))
            }
            Effect::Epoch { before, after } => format!("the epoch: {} → {}", date(*before), date(*after)),
            Effect::Recipe(change) => recipe(change),
            Effect::Tool { before, after } => format!("the tool: {before} → {after}"),
            Effect::Unknown { why } => format!("unknown: {why}"),
        };
        printable(&text)
    }

    fn files(&self, paths: &[String]) -> String {
        let shown = if self.all { paths.len() } else { paths.len().min(FOLD) };
        let list = paths[..shown].join(", ");
        match paths.len() - shown {
            0 => list,
            more => format!("{list} and {more} more files"),
        }
    }
}

/// What wrote files that are not as a package ships them.
fn written(by: &[Step]) -> String {
    let words = |step: &Step| match step {
        Step::Configure => "by dpkg and scripts while packages were configured",
        Step::Normalise => "where what no image keeps was taken out",
        Step::Settings => "from the recipe's name, version and settings",
        Step::Accounts => "from the recipe's users and groups",
        Step::State => "for the way in which the machine keeps state",
        Step::Files => "from the recipe's files",
        Step::Units => "from the recipe's units",
    };
    let words: Vec<&str> = by.iter().map(words).collect();
    if words.is_empty() { String::new() } else { format!(" (written {})", words.join(", ")) }
}

fn recipe(change: &RecipeChange) -> String {
    let item = change.item.as_ref().map_or(String::new(), |item| format!(" {item}"));
    let what = match (&change.before, &change.after) {
        (None, _) => "was added".to_owned(),
        (_, None) => "was removed".to_owned(),
        // The whole of an entry is too long for a line.
        (Some(_), Some(_)) if change.item.is_some() => "changed".to_owned(),
        (before, after) => arrow_text(before, after),
    };
    format!("the recipe: {}{item} {what}", change.field)
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
