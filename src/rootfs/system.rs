//! Settings of the system as a whole: host name, locale, time zone, and the image's name in os-release.
//!
//! | file | what |
//! |---|---|
//! | /etc/hostname | the name that the machine has until it is given another one, hostname(5) |
//! | /etc/hosts | `localhost`, if no package made the file: programs look it up |
//! | /etc/locale.conf, /etc/default/locale | `LANG=`, locale.conf(5); the second is Debian's older name for it |
//! | /etc/localtime | link into /usr/share/zoneinfo, localtime(5); /etc/timezone says the same where a package made it |
//! | /usr/lib/os-release | IMAGE_ID= and IMAGE_VERSION=, os-release(5); /etc/os-release is a link to it |
//!
//! A locale other than C needs its data, which the scripts of the package `locales` make while packages are
//! configured: [`files_before_configure`] is what has to be in the tree before that.

use super::files::{put, read, rewrite};
use crate::recipe::{At, Diagnostic, Diagnostics, Recipe, nearest};
use crate::tree::{Content, Kind, Metadata, Node, Timestamp, Tree, TreeError};

/// Where time zones are.
const ZONEINFO: &str = "/usr/share/zoneinfo";
/// Enough for programs that look up the machine's own name.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n";
/// Locales that every libc has.
const BUILT_IN_LOCALES: [&str; 3] = ["C.UTF-8", "C", "POSIX"];

/// Writes the settings of `recipe` into `tree`, whose packages are configured.
pub fn apply(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Result<(), Diagnostics> {
    let mut found = Vec::new();
    let steps = [hostname(tree, recipe, epoch), locale(tree, recipe, epoch), timezone(tree, recipe, epoch)];
    found.extend(steps.into_iter().chain([os_release(tree, recipe, epoch)]).filter_map(|step| step.err()).map(|c| *c));
    if found.is_empty() { Ok(()) } else { Err(recipe.complain(found)) }
}

/// Files that must be in the tree before its packages are configured, as path and text: they tell scripts what to
/// make.
pub fn files_before_configure(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let locale = recipe.system.locale.as_str();
    if BUILT_IN_LOCALES.contains(&locale) {
        return Vec::new();
    }
    // locale.gen(5): the locale and its character set.
    let charset = locale.split_once('.').map_or("UTF-8", |(_, rest)| rest.split('@').next().unwrap_or_default());
    vec![("/etc/locale.gen", format!("{locale} {charset}\n"))]
}

type Step = Result<(), Box<Diagnostic>>;

fn write(tree: &mut Tree, path: &str, text: &str, epoch: Timestamp) -> Step {
    let bytes = text.as_bytes().to_vec();
    rewrite(tree, path.as_bytes(), bytes, Metadata::with_mode(0o644), epoch).map_err(|error| refusal(path, &error))
}

fn link(tree: &mut Tree, path: &str, target: &str, epoch: Timestamp) -> Step {
    let metadata = Metadata { mtime: epoch, ..Metadata::with_mode(0o777) };
    let node = Node { metadata, kind: Kind::Symlink(target.into()) };
    put(tree, path.as_bytes(), node, epoch).map_err(|error| refusal(path, &error))
}

fn refusal(path: &str, error: &TreeError) -> Box<Diagnostic> {
    let title = format!("cannot write {path}");
    let help = vec![error.to_string()];
    Box::new(Diagnostic { title, span: None, label: String::new(), context: Vec::new(), help })
}

fn exists(tree: &Tree, path: &str) -> bool {
    tree.resolve(path.as_bytes()).is_ok()
}

fn hostname(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Step {
    if !exists(tree, "/etc/hosts") {
        write(tree, "/etc/hosts", HOSTS, epoch)?;
    }
    write(tree, "/etc/hostname", &format!("{}\n", recipe.system.hostname.value), epoch)
}

fn locale(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Step {
    let locale: &At<String> = &recipe.system.locale;
    if !BUILT_IN_LOCALES.contains(&locale.as_str()) && !has_locale(tree, locale) {
        let title = format!("the image has no locale `{}`", locale.value);
        let complaint = Diagnostic::at(locale.span, title, "nothing made it");
        return Err(Box::new(
            complaint.help("add \"locales\" to `packages`: it makes the locale when it is configured"),
        ));
    }
    write(tree, "/etc/locale.conf", &format!("LANG={}\n", locale.value), epoch)?;
    // systemd in Debian 13 makes it this link; older releases have a file there.
    match tree.resolve_parent(b"/etc/default/locale").map(|(_, id)| &tree.node(id).kind) {
        Ok(Kind::Symlink(_)) => Ok(()),
        _ => link(tree, "/etc/default/locale", "../locale.conf", epoch),
    }
}

/// Compiled locales lie in one archive or in a folder each, whose name has the character set in glibc's spelling.
fn has_locale(tree: &Tree, locale: &str) -> bool {
    let (language, rest) = locale.split_once('.').unwrap_or((locale, ""));
    let (charset, modifier) = rest.split_once('@').unwrap_or((rest, ""));
    let charset: String = charset.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let name = match modifier {
        "" => format!("{language}.{charset}"),
        modifier => format!("{language}.{charset}@{modifier}"),
    };
    let folder = format!("/usr/lib/locale/{name}");
    let archive = || match read_archive(tree) {
        // Names stand in the archive as they are, each ended by NUL.
        Some(bytes) => bytes.windows(name.len() + 1).any(|window| window == [name.as_bytes(), b"\0"].concat()),
        None => false,
    };
    exists(tree, &folder) || archive()
}

/// The archive's beginning: header, hash table and names come first (glibc `locale/locarchive.h`).
fn read_archive(tree: &Tree) -> Option<Vec<u8>> {
    let (_, id) = tree.resolve(b"/usr/lib/locale/locale-archive").ok()?;
    let Kind::File(content) = &tree.node(id).kind else { return None };
    let mut bytes = vec![0; usize::try_from(content.size().min(1 << 20)).ok()?];
    content.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

fn timezone(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Step {
    let zone = &recipe.system.timezone;
    let file = format!("{ZONEINFO}/{}", zone.value);
    let is_file = |id| matches!(tree.node(id).kind, Kind::File(_));
    if !tree.resolve(file.as_bytes()).is_ok_and(|(_, id)| is_file(id)) {
        // Without /etc/localtime a machine is at UTC: no package is needed for that.
        if zone.value == "UTC" && !exists(tree, "/etc/localtime") {
            return Ok(());
        }
        let title = format!("the image has no time zone `{}`", zone.value);
        let zones = zones(tree);
        let complaint = match nearest(zone, zones.iter().map(String::as_str)) {
            Some(near) => Diagnostic::at(zone.span, title, format!("did you mean \"{near}\"?")),
            None if zones.is_empty() => {
                Diagnostic::at(zone.span, title, "it has none").help("add \"tzdata\" to `packages`")
            }
            None => {
                Diagnostic::at(zone.span, title, "no such zone").help("older names need the package `tzdata-legacy`")
            }
        };
        return Err(Box::new(complaint));
    }
    link(tree, "/etc/localtime", &file, epoch)?;
    // Debian's tzdata no longer makes it; where a package did, it must not say something else.
    if exists(tree, "/etc/timezone") {
        write(tree, "/etc/timezone", &format!("{}\n", zone.value), epoch)?;
    }
    Ok(())
}

fn zones(tree: &Tree) -> Vec<String> {
    let prefix = format!("{}/", ZONEINFO.trim_start_matches('/'));
    let Some(root) = tree.lookup(prefix.as_bytes()) else { return Vec::new() };
    let mut zones = Vec::new();
    let mut stack = vec![(String::new(), root)];
    while let Some((path, id)) = stack.pop() {
        for (name, child) in tree.entries(id).into_iter().flatten() {
            let path = format!("{path}{}", String::from_utf8_lossy(name));
            match &tree.node(*child).kind {
                Kind::Directory(_) => stack.push((format!("{path}/"), *child)),
                Kind::File(_) | Kind::Symlink(_) => zones.push(path),
                _ => {}
            }
        }
    }
    zones.sort();
    zones
}

fn os_release(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Step {
    let path = "/usr/lib/os-release";
    let Some(bytes) = read(tree, path.as_bytes())? else {
        let complaint = Diagnostic::at(recipe.name.span, format!("the image has no {path}"), "the name belongs there");
        return Err(Box::new(complaint.help("the package `base-files` has it")));
    };
    let ours = |line: &&[u8]| line.starts_with(b"IMAGE_ID=") || line.starts_with(b"IMAGE_VERSION=");
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !ours(line));
    let mut text: Vec<u8> = lines.flat_map(|line| [line, b"\n"].concat()).collect();
    text.extend(format!("IMAGE_ID={}\nIMAGE_VERSION={}\n", recipe.name.value, quoted(&recipe.version)).into_bytes());
    let (place, id) = tree.resolve(path.as_bytes()).map_err(|error| refusal(path, &error))?;
    let metadata = Metadata { mtime: epoch, ..tree.node(id).metadata.clone() };
    let node = Node { metadata, kind: Kind::File(Content::from_bytes(text)) };
    tree.replace(&place, node).map_err(|error| refusal(path, &error))?;
    // A copy in /etc would go on saying what it said.
    match tree.resolve(b"/etc/os-release") {
        Ok((found, _)) if found == place => Ok(()),
        _ => link(tree, "/etc/os-release", "../usr/lib/os-release", epoch),
    }
}

/// As a shell reads it: `~` and `^` are letters only in quotation marks (os-release(5)).
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if value.chars().all(plain) { value.into() } else { format!("\"{value}\"") }
}
