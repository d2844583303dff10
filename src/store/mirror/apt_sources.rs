//! The host's apt sources, read to find Debian mirrors in them.
//!
//! Flows in: the bytes of `sources.list` and `sources.list.d/*`, in the one-line and the deb822 format
//! (sources.list(5)). Flows out: their enabled binary sources. A line or stanza that makes no sense is passed over:
//! apt complains about it, and it cannot hold the mirror that is looked for.
//!
//! A source counts as Debian's if all its suites are those of Debian releases and `main` is among its components. Other
//! projects imitate this, so of several the likeliest is taken (see [`best`]). To err costs no more than an error
//! message: what comes from a mirror is checked against Debian's keys. A host of another release serves as well: all
//! releases are at one address.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::{DEBIAN, DEBIAN_SECURITY, parse_base};

/// An enabled source of binary packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AptSource {
    /// Base addresses, as written; apt takes any of them.
    pub uris: Vec<String>,
    /// Suites, as written.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Where its key is; a key that stands in the source itself is `inline`.
    pub signed_by: Option<String>,
}

/// The names that Debian releases have in suites. A name is added here when Debian makes one.
const RELEASES: [&str; 14] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "experimental",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "rc-buggy",
];

/// Reads the one-line format: `deb [option=value …] URI suite component…`.
pub fn parse_list(bytes: &[u8]) -> Vec<AptSource> {
    String::from_utf8_lossy(bytes).lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<AptSource> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None; // deb-src
    }
    let mut rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        let mut options = options.split_whitespace().filter_map(|option| option.split_once('='));
        signed_by = options.find(|(name, _)| name.eq_ignore_ascii_case("signed-by")).map(|(_, key)| key.to_owned());
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uris = vec![words.next()?];
    let suites = vec![words.next()?];
    Some(AptSource { uris, suites, components: words.collect(), signed_by })
}

/// Reads the deb822 format: stanzas of fields, separated by empty lines.
pub fn parse_sources(bytes: &[u8]) -> Vec<AptSource> {
    let text = String::from_utf8_lossy(bytes);
    let mut sources = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(source_of(&std::mem::take(&mut stanza)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn source_of(stanza: &[(String, String)]) -> Option<AptSource> {
    let field = |name: &str| stanza.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let words =
        |name: &str| -> Vec<String> { field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect() };
    let disabled = field("enabled").is_some_and(|value| {
        ["no", "false", "without", "off", "disable", "0"].iter().any(|word| value.eq_ignore_ascii_case(word))
    });
    if disabled || !words("types").iter().any(|word| word == "deb") {
        return None;
    }
    let signed_by = field("signed-by")
        .filter(|value| !value.is_empty())
        .map(|value| if value.contains("BEGIN PGP") { "inline".to_owned() } else { value.to_owned() });
    Some(AptSource { uris: words("uris"), suites: words("suites"), components: words("components"), signed_by })
}

/// All sources of apt's directory, each with its file, in the order in which apt reads them. What cannot be read is
/// passed over: it is apt's configuration, not ours. `mirror+file:` addresses (Debian's cloud images have them) are
/// replaced by the addresses in the file that they name.
pub(super) fn read_directory(directory: &Path) -> Vec<(PathBuf, AptSource)> {
    let mut paths = vec![directory.join("sources.list")];
    let parts = std::fs::read_dir(directory.join("sources.list.d"));
    let mut parts: Vec<_> = parts.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.sort();
    paths.append(&mut parts);
    let mut sources = Vec::new();
    for path in paths {
        let parse = match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_sources,
            _ => continue,
        };
        for mut source in read_small(&path).map(|bytes| parse(&bytes)).unwrap_or_default() {
            source.uris = source.uris.iter().flat_map(|uri| expand(uri)).collect();
            sources.push((path.clone(), source));
        }
    }
    sources
}

/// The addresses in a list of mirrors, one on a line, attributes after a tab (apt-transport-mirror(1)).
fn expand(uri: &str) -> Vec<String> {
    let Some(path) = uri.strip_prefix("mirror+file:") else { return vec![uri.to_owned()] };
    let path = Path::new("/").join(path.trim_start_matches('/'));
    let bytes = read_small(&path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().filter_map(|line| line.split_whitespace().next());
    lines.filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// A configuration file's bytes; one that is larger than any such file is cut off.
fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    const LIMIT: u64 = 1 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The likeliest mirror of `debian` or `debian-security` among the sources, and the file that names it.
///
/// A source signed by a keyring of Debian's own name goes first, then one that leaves the key to apt, then any other;
/// among these one whose address ends in the repository's name; among these the first.
pub(super) fn best(sources: &[(PathBuf, AptSource)], repository: &str) -> Option<(PathBuf, Url)> {
    let mut found: Option<((u8, bool), PathBuf, Url)> = None;
    for (path, source) in sources.iter().filter(|(_, source)| serves(source, repository)) {
        let Some(url) = source.uris.iter().find_map(|uri| parse_base(uri).ok()) else { continue };
        let trust = match &source.signed_by {
            Some(key) if key.contains("debian-archive-") => 2,
            None => 1,
            Some(_) => 0,
        };
        let rank = (trust, url.path().ends_with(&format!("/{repository}/")));
        if found.as_ref().is_none_or(|(other, ..)| rank > *other) {
            found = Some((rank, path.clone(), url));
        }
    }
    found.map(|(_, path, url)| (path, url))
}

fn serves(source: &AptSource, repository: &str) -> bool {
    let repository_of = |suite: &str| {
        // Until buster, security suites were called `buster/updates`.
        let (release, pocket) = match suite.split_once(['-', '/']) {
            _ if suite == "rc-buggy" => (suite, None),
            Some((release, pocket)) => (release, Some(pocket)),
            None => (suite, None),
        };
        match pocket {
            _ if !RELEASES.contains(&release) => None,
            None | Some("updates" | "proposed-updates" | "backports" | "backports-sloppy") if !suite.contains('/') => {
                Some(DEBIAN)
            }
            Some("security") => Some(DEBIAN_SECURITY),
            Some("updates") => Some(DEBIAN_SECURITY),
            _ => None,
        }
    };
    source.components.iter().any(|component| component == "main")
        && !source.suites.is_empty()
        && source.suites.iter().all(|suite| repository_of(suite.trim_end_matches('/')).is_some())
        && source.suites.iter().any(|suite| repository_of(suite.trim_end_matches('/')) == Some(repository))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(sources: Vec<AptSource>, repository: &str) -> Option<String> {
        let sources: Vec<_> = sources.into_iter().map(|source| (PathBuf::from("f"), source)).collect();
        best(&sources, repository).map(|(_, url)| url.to_string())
    }

    const DEB822: &[u8] =
        b"# Debian\nTypes: deb deb-src\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\n contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Types: deb\nURIs: cdrom:[x]/ https://m.example/debian-security/\nSuites: bookworm-security\nComponents: main\n";

    #[test]
    fn reads_the_deb822_format() {
        let sources = parse_sources(DEB822);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(find(sources.clone(), DEBIAN).as_deref(), Some("http://m.example/debian/"));
        assert_eq!(find(sources, DEBIAN_SECURITY).as_deref(), Some("https://m.example/debian-security/"));
    }

    #[test]
    fn reads_the_one_line_format() {
        let sources = parse_list(
            b"# deb http://old.example/debian trixie main\n\
              deb-src http://src.example/debian trixie main\n\
              deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian/ trixie main non-free-firmware # note\n\
              deb\thttp://s.example/debian-security trixie-security main\n\
              deb http://b.example/debian buster/updates main\ndeb\ndeb http://incomplete.example\n",
        );
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(sources[0].components, ["main", "non-free-firmware"]);
        assert_eq!(find(sources.clone(), DEBIAN).as_deref(), Some("http://m.example/debian/"));
        assert_eq!(find(sources, DEBIAN_SECURITY).as_deref(), Some("http://s.example/debian-security/"));
    }

    #[test]
    fn passes_over_other_projects_and_other_distributions() {
        let list = b"deb http://a.example/ubuntu noble main\ndeb http://b.example/apt cloud-sdk-bookworm main\n\
                     deb http://c.example/debian bookworm stable\ndeb http://d.example/debian bookworm-pgdg main\n\
                     deb cdrom:[Debian]/ trixie main\ndeb mirror://e.example/list trixie main\n";
        assert_eq!(find(parse_list(list), DEBIAN), None);
        let list = b"deb [signed-by=/vpn.gpg] http://vpn.example/stable/debian bookworm main\n\
                     deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example/ftp bookworm main\n";
        assert_eq!(find(parse_list(list), DEBIAN).as_deref(), Some("http://m.example/ftp/"));
    }

    #[test]
    fn passes_over_disabled_stanzas_and_source_packages() {
        let text = String::from_utf8_lossy(DEB822).replace("Types: deb", "Enabled: no\nTypes: deb");
        assert_eq!(parse_sources(text.as_bytes()), []);
        let text = String::from_utf8_lossy(DEB822).replace("Types: deb deb-src", "Types: deb-src");
        assert_eq!(parse_sources(text.as_bytes()).len(), 1);
    }

    #[test]
    fn looks_into_the_lists_of_mirrors_that_cloud_images_have() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("debian.list");
        std::fs::write(&list, "# mirrors\nhttps://cdn.example/debian\tpriority:1\nhttps://other.example/debian\n")
            .unwrap();
        std::fs::create_dir(directory.path().join("sources.list.d")).unwrap();
        let stanza = format!("Types: deb\nURIs: mirror+file://{}\nSuites: trixie\nComponents: main\n", list.display());
        std::fs::write(directory.path().join("sources.list.d/debian.sources"), stanza).unwrap();
        let sources = read_directory(directory.path());
        let (path, url) = best(&sources, DEBIAN).unwrap();
        assert_eq!(url.as_str(), "https://cdn.example/debian/");
        assert!(path.ends_with("sources.list.d/debian.sources"));
    }

    proptest! {
        #[test]
        fn mutated_sources_never_panic(position in 0..DEB822.len(), byte: u8, cut in 0..DEB822.len()) {
            let mut bytes = DEB822.to_vec();
            bytes[position] = byte;
            bytes.truncate(cut);
            let _ = find(parse_sources(&bytes), DEBIAN);
            let _ = find(parse_list(&bytes), DEBIAN);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = find(parse_sources(&bytes), DEBIAN);
            let _ = find(parse_list(&bytes), DEBIAN_SECURITY);
        }
    }
}
