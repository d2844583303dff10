//! The house style as a test: layers, sizes, banned calls, dependencies. What this holds nobody has to remember.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a source file without its tests.
const FILE_LINES_MAX: usize = 800;
/// Lines of one function.
const FUNCTION_LINES_MAX: usize = 70;

/// Modules that take bytes, readers and values, and know neither clock, environment, network nor the stages around
/// them.
const PURE: &[&str] = &[
    "apt",
    "diff",
    "digest",
    "disk",
    "filesystem",
    "lock",
    "manifest",
    "oci",
    "recipe",
    "sign",
    "tree",
    "verify",
    "verity",
    "boot",
];

/// What a pure module may not say. Opening a file is a matter of the edge too, but readers of local files are values.
const IMPURE: &[&str] = &[
    "std::env::",
    "env::var",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "std::net::",
    "tokio::",
    "reqwest::",
    "crate::store",
    "crate::build",
    "crate::cli",
    "crate::vm",
    "crate::telemetry",
    "thread_rng",
    "std::process::Command",
];

/// What no source file may say.
const BANNED: &[(&str, &str)] = &[
    ("todo!(", "unfinished work is not committed"),
    ("unimplemented!(", "unfinished work is not committed"),
    ("dbg!(", "events go through telemetry"),
    ("anyhow::", "errors are enums of their module"),
    ("Box<dyn Error", "errors are enums of their module"),
    ("#[ignore", "a case that does not run is no case"),
];

/// Directory and file names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

/// Licences that go together with MIT OR Apache-2.0 in a static binary.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "MIT-0",
    "CDLA-Permissive-2.0",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut stack = vec![root().join(directory)];
    while let Some(here) = stack.pop() {
        let Ok(entries) = fs::read_dir(&here) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The text before the unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

fn report(kind: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{kind}:\n  {}", faults.join("\n  "));
}

#[test]
fn source_files_keep_to_their_size() {
    let too_long = |(name, text): &(String, String)| {
        let lines = without_tests(text).lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{name}: {lines} lines, the ceiling is {FILE_LINES_MAX}"))
    };
    report("files over their ceiling", files("src", "rs").iter().filter_map(too_long).collect());
}

#[test]
fn functions_keep_to_their_size() {
    let mut faults = Vec::new();
    for (name, text) in files("src", "rs") {
        let mut open: Option<(usize, usize, String)> = None;
        for (number, line) in without_tests(&text).lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let starts =
                ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn ", "const fn "];
            if open.is_none() && starts.iter().any(|start| code.starts_with(start)) && !code.ends_with(';') {
                open = Some((number, indent, code.to_owned()));
            }
            if let Some((start, depth, signature)) = &open
                && ((code == "}" && indent == *depth) || (number == *start && code.ends_with('}')))
            {
                let lines = number - start + 1;
                if lines > FUNCTION_LINES_MAX {
                    faults.push(format!("{name}:{}: {lines} lines: {signature}", start + 1));
                }
                open = None;
            }
        }
    }
    report("functions over their ceiling", faults);
}

#[test]
fn pure_modules_know_no_clock_environment_or_network() {
    let mut faults = Vec::new();
    for (name, text) in files("src", "rs") {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        let code = code_lines(without_tests(&text));
        for (number, line) in code {
            faults.extend(
                IMPURE.iter().filter(|word| line.contains(**word)).map(|word| format!("{name}:{number}: {word}")),
            );
        }
    }
    report("impure words in pure modules", faults);
}

#[test]
fn verify_uses_readers_only() {
    let uses_writer = |(name, text): &(String, String)| {
        let inside = name.starts_with("src/verify");
        let line =
            code_lines(without_tests(text)).find(|(_, line)| line.contains("writer") || line.contains("::write("));
        line.filter(|_| inside).map(|(number, line)| format!("{name}:{number}: {line}"))
    };
    report("writers in verify", files("src", "rs").iter().filter_map(uses_writer).collect());
}

#[test]
fn nothing_downstream_is_imported_upstream() {
    // In the order of the dataflow; `build`, `cli` and `vm` stand outside.
    // A tree is a value that all may hold; recipes read their sources into one.
    let order = ["recipe", "lock", "filesystem", "verity", "disk", "manifest", "diff"];
    let mut faults = Vec::new();
    for (name, text) in files("src", "rs") {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        let Some(position) = order.iter().position(|m| *m == module) else { continue };
        for (number, line) in code_lines(without_tests(&text)) {
            for later in &order[position + 1..] {
                // Recipes and locks are plain data about what is downstream, never callers of it.
                if line.contains(&format!("crate::{later}::")) || line.contains(&format!("use crate::{later};")) {
                    faults.push(format!("{name}:{number}: {line}"));
                }
            }
        }
    }
    report("imports against the flow", faults);
}

#[test]
fn every_module_says_what_it_owns() {
    let silent = |(name, text): &(String, String)| (!text.starts_with("//!")).then(|| name.clone());
    report("files that do not open with `//!`", files("src", "rs").iter().filter_map(silent).collect());
}

#[test]
fn names_mean_something() {
    let empty = |(name, _): &(String, String)| {
        let bad = Path::new(name)
            .with_extension("")
            .components()
            .any(|part| EMPTY_NAMES.contains(&part.as_os_str().to_str().unwrap()));
        bad.then(|| name.clone())
    };
    report("names that say nothing", files("src", "rs").iter().filter_map(empty).collect());
}

#[test]
fn no_source_says_a_banned_word() {
    let mut faults = Vec::new();
    for directory in ["src", "tests", "vm-tests", "benches"] {
        for (name, text) in files(directory, "rs") {
            if name == "tests/tidy.rs" {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                // The process edge takes any error.
                let edge = name.starts_with("src/cli/");
                let found =
                    BANNED.iter().filter(|(word, _)| line.contains(word) && !(edge && *word == "Box<dyn Error"));
                faults.extend(found.map(|(word, why)| format!("{name}:{}: {word}: {why}", number + 1)));
            }
        }
    }
    report("banned words", faults);
}

#[test]
fn unsafe_stands_in_one_file() {
    let has = |(name, text): &(String, String)| {
        let bad = name != "src/sys.rs" && (text.contains("unsafe {") || text.contains("allow(unsafe_code)"));
        bad.then(|| name.clone())
    };
    report("unsafe outside src/sys.rs", files("src", "rs").iter().filter_map(has).collect());
    let (_, sys) = files("src", "rs").into_iter().find(|(name, _)| name == "src/sys.rs").unwrap();
    assert!(
        sys.matches("unsafe {").count() <= sys.matches("// SAFETY:").count(),
        "every unsafe block says why it is sound"
    );
}

/// Addresses belong to the host. Documentation of specifications and reserved names are the exception.
#[test]
fn no_file_names_a_mirror() {
    const KNOWN: &[&str] = &[
        "127.0.0.1",
        "localhost",
        "[::1]",
        "example.",
        "mirror.example",
        "{",
        "json-schema.org",
        "uapi-group.org",
        // The first line of every SBAT.
        "github.com/rhboot/shim/blob/main/SBAT.md",
        "spdx.",
        "www.apache.org",
        "in-toto.io",
        "slsa.dev",
        "…",
        "HOST",
        "%s",
        "$",
    ];
    let mut faults = Vec::new();
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Ok(listed) = listed else { return };
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|name| !name.is_empty()) {
        if name == "Cargo.lock" || name == "tests/tidy.rs" || name.starts_with("LICENSE") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (start, scheme) in ["http://", "https://"].iter().flat_map(|s| line.match_indices(s)) {
                let host = &line[start + scheme.len()..];
                let fine = host.is_empty()
                    || KNOWN.iter().any(|known| host.trim_start_matches("www.").starts_with(known))
                    || host
                        .split(['/', '"', '`', ' ', ')'])
                        .next()
                        .is_some_and(|h| h.contains("example") || h.starts_with('{'))
                    || !host.starts_with(|c: char| c.is_ascii_alphanumeric());
                if !fine {
                    faults.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    report("addresses of other people's machines", faults);
}

#[test]
fn every_dependency_has_a_reason_and_no_default_features() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut faults = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && line.contains(" = ")
            && !line.starts_with('#')
            && !line.contains("} # ")
            && !line.contains("\" # ")
        {
            faults.push(format!("{line}: no reason"));
        }
    }
    report("dependencies", faults);
}

#[test]
fn dependencies_have_licences_that_we_may_link() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let allowed: BTreeSet<&str> = LICENCES.iter().copied().collect();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or("none");
        // An expression is fine if, of each part joined by AND, one alternative joined by OR is.
        let expression = licence.replace('/', " OR ").replace(['(', ')'], "");
        let fine =
            expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.contains(licence.trim())));
        if !fine {
            faults.push(format!("{name}: {licence}"));
        }
    }
    report("licences", faults);
}

/// Lines of code with their numbers: no comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.starts_with("//"))
}
