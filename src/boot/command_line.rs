//! The kernel command line: the root hash, what every image says besides, and the recipe's arguments behind it.
//!
//! The root hash is all that a machine needs to find its root: systemd-veritysetup-generator takes the two partitions by
//! their UUIDs, which are the halves of the hash, and sets up `/dev/mapper/root` from them. An argument that names another
//! root, or turns verification off, is refused when written and when verified.
//!
//! Text form: Linux `lib/cmdline.c` (`next_arg`): arguments are parted by white space, double quotes keep it.
//! Arguments: `systemd-veritysetup-generator(8)`, `kernel-command-line(7)`.

use crate::verity::{ParseRootHashError, RootHash};

/// Bytes that a kernel takes, without the NUL at the end (`COMMAND_LINE_SIZE` of x86 and arm64).
pub const SIZE_MAX: usize = 2047;

/// What every image's command line says besides its root hash, each with its reason. A recipe's arguments come after
/// them, and the kernel takes the last of each name; only the one for dm-verity is not a recipe's to change.
const OWN: [&str; 4] = [
    // A block that does not match its hash is never handed out, nor does the machine go on without it.
    VERITY_OPTIONS,
    // Seconds that a panic stands on the console before the machine starts again.
    "panic=10",
    // Errors only: a serial console takes longer to print a boot's messages than some units take to start.
    "quiet",
    // Self-tests of ciphers, as FIPS 140 wants them and nothing else: up to half a second.
    "cryptomgr.notests",
];

const VERITY_OPTIONS: &str = "systemd.verity_root_options=panic-on-corruption";

/// Arguments that would lead to another root than the one the hash stands for.
const RESERVED: [&str; 13] = [
    "root",
    "roothash",
    "usrhash",
    "mount.usr",
    "systemd.verity",
    "rd.systemd.verity",
    "systemd.verity_root_data",
    "systemd.verity_root_hash",
    "systemd.verity_root_options",
    "systemd.verity_usr_data",
    "systemd.verity_usr_hash",
    "systemd.verity_usr_options",
    "systemd.image_policy",
];

/// A command line that does not lead to the verified root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// An argument that is adamant's to set, or nobody's.
    #[error("the kernel argument {0:?} would lead to another root than the verified one; take it away")]
    Reserved(String),
    /// An argument that the kernel would read as something else.
    #[error("{0:?} is not one kernel argument: printable ASCII, white space only within a pair of double quotes")]
    Argument(String),
    /// Longer than the kernel reads.
    #[error("the kernel command line has {0} bytes, the kernel reads {SIZE_MAX}")]
    Size(usize),
    /// None, or several.
    #[error("the kernel command line has {0} arguments roothash=, it needs exactly one")]
    RootHashCount(usize),
    /// Not 64 hexadecimal digits.
    #[error("roothash= on the kernel command line is wrong")]
    RootHash(#[from] ParseRootHashError),
}

/// The command line of an image: `roothash=`, what all images have, then `arguments`, in their order.
pub fn compose(root_hash: &RootHash, arguments: &[String]) -> Result<String, CommandLineError> {
    let mut line = format!("roothash={root_hash}");
    for argument in OWN {
        line.push(' ');
        line.push_str(argument);
    }
    for argument in arguments {
        check(argument)?;
        line.push(' ');
        line.push_str(argument);
    }
    if line.len() > SIZE_MAX {
        return Err(CommandLineError::Size(line.len()));
    }
    Ok(line)
}

/// Whether a recipe may ask for `argument`.
pub fn check(argument: &str) -> Result<(), CommandLineError> {
    let parts: Vec<_> = split(argument).collect();
    let printable = argument.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let balanced = argument.bytes().filter(|byte| *byte == b'"').count() % 2 == 0;
    if !printable || !balanced || parts.len() != 1 || parts[0].0.is_empty() || argument.trim() != argument {
        return Err(CommandLineError::Argument(argument.to_owned()));
    }
    // `--` ends what the kernel reads and hands the rest to init.
    if is_reserved(&parts[0].0) || parts[0].0 == "--" {
        return Err(CommandLineError::Reserved(argument.to_owned()));
    }
    Ok(())
}

/// The root hash that `line` boots, if it is one that leads nowhere else.
pub fn root_hash(line: &str) -> Result<RootHash, CommandLineError> {
    let mut hashes = Vec::new();
    for (name, value) in split(line) {
        if name == "roothash" {
            hashes.push(value.unwrap_or_default());
        } else if is_own(&name, value.as_deref()) {
            // Not the recipe's, but ours.
        } else if is_reserved(&name) || name == "--" {
            return Err(CommandLineError::Reserved(name));
        }
    }
    match hashes.as_slice() {
        [hash] => Ok(hash.parse()?),
        hashes => Err(CommandLineError::RootHashCount(hashes.len())),
    }
}

fn is_own(name: &str, value: Option<&str>) -> bool {
    VERITY_OPTIONS.split_once('=') == value.map(|value| (name, value))
}

fn is_reserved(name: &str) -> bool {
    // The kernel and systemd take `-` and `_` for the same.
    RESERVED.iter().any(|reserved| name.replace('-', "_") == *reserved)
}

/// Names and values as the kernel takes them apart.
pub fn split(line: &str) -> impl Iterator<Item = (String, Option<String>)> + '_ {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            !quoted && c.is_ascii_whitespace()
        });
        let (argument, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        let argument = argument.strip_prefix('"').map_or(argument, |inner| inner.strip_suffix('"').unwrap_or(inner));
        Some(match argument.split_once('=') {
            None => (argument.to_owned(), None),
            Some((name, value)) => (name.to_owned(), Some(unquoted(value).to_owned())),
        })
    })
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').map_or(value, |inner| inner.strip_suffix('"').unwrap_or(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash() -> RootHash {
        RootHash::from_bytes([0xab; 32])
    }

    #[test]
    fn the_root_hash_comes_first_and_reads_back() {
        let arguments = ["console=ttyS0".to_owned(), "quiet".to_owned(), "foo=\"a b\"".to_owned()];
        let line = compose(&hash(), &arguments).unwrap();
        let own = OWN.join(" ");
        assert_eq!(line, format!("roothash={} {own} console=ttyS0 quiet foo=\"a b\"", "ab".repeat(32)));
        assert_eq!(root_hash(&line), Ok(hash()));
        let parts: Vec<_> = split(&line).skip(1 + OWN.len()).collect();
        let expected = [("console", Some("ttyS0")), ("quiet", None), ("foo", Some("a b"))];
        assert_eq!(parts, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }

    #[test]
    fn refuses_arguments_that_lead_to_another_root() {
        for argument in
            ["root=/dev/vda", "roothash=00", "systemd.verity=no", "rd.systemd.verity=0", "usrhash=1", "--", "--=x"]
        {
            let refused = Err(CommandLineError::Reserved(argument.into()));
            assert_eq!(compose(&hash(), &[argument.into()]), refused);
            assert!(root_hash(&format!("roothash={} {argument}", hash())).is_err(), "{argument}");
        }
        assert!(root_hash(&format!("roothash={} \"root=/dev/vda\"", hash())).is_err());
        assert!(root_hash(&format!("roothash={}\nsystemd.verity-root-data=/dev/vda", hash())).is_err());
    }

    #[test]
    fn refuses_what_is_not_one_argument() {
        for argument in ["", " ", "a b", "a\nb", "a\"b", "ä", "=x", "a ", "\"a\" \"b\""] {
            assert_eq!(check(argument), Err(CommandLineError::Argument(argument.into())), "{argument:?}");
        }
        let long = vec!["x".repeat(2000)];
        assert_eq!(compose(&hash(), &long), Err(CommandLineError::Size(9 + 64 + 1 + OWN.join(" ").len() + 1 + 2000)));
    }

    #[test]
    fn wants_exactly_one_root_hash() {
        assert_eq!(root_hash("quiet"), Err(CommandLineError::RootHashCount(0)));
        assert_eq!(root_hash(&format!("roothash={0} roothash={0}", hash())), Err(CommandLineError::RootHashCount(2)));
        assert!(matches!(root_hash("roothash=ABC"), Err(CommandLineError::RootHash(_))));
    }
}
