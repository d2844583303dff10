//! What a single value of a recipe may be: one function per kind, with the rule, its source and what to write
//! instead.
//!
//! Values are checked for what they are, never corrected in silence: what a recipe says is what the image gets.

use super::resolved::PackageRequest;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The rule, or what was found.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Fault {
    fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

type Checked<T = ()> = Result<T, Fault>;

/// Longest name of an image: a label of a host name (RFC 1123, 2.1), because it is the default host name.
const IMAGE_NAME_MAX: usize = 63;
/// Longest version: leaves room for name, architecture and suffix in a file name.
const VERSION_MAX: usize = 64;
/// `LOGIN_NAME_MAX` of utmp, as shadow's `useradd` enforces.
const ACCOUNT_NAME_MAX: usize = 32;
/// `HOST_NAME_MAX` of Linux.
const HOSTNAME_MAX: usize = 64;
/// `UNIT_NAME_MAX` of systemd.
const UNIT_NAME_MAX: usize = 255;
/// `PATH_MAX` of Linux without the NUL.
const PATH_MAX: usize = 4095;

/// Name of an image. No `_`: it separates name and version in file names and partition labels (sysupdate.d(5)).
pub fn image_name(text: &str) -> Checked {
    let rule = "a name has lower-case letters, digits, `-` and `.`, and begins with a letter or digit";
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if text.len() > IMAGE_NAME_MAX {
        return Err(Fault::new(format!("a name has at most {IMAGE_NAME_MAX} characters")));
    }
    if !text.chars().all(allowed)
        || !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || text.ends_with(['.', '-'])
    {
        let better: String = text.to_lowercase().chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        let better = better.trim_matches(['-', '.']);
        let fault = Fault::new(rule);
        return Err(if better.is_empty() { fault } else { fault.help(format!("for example \"{better}\"")) });
    }
    Ok(())
}

/// Version of an image: the alphabet of UAPI.10 without `_` (separates name and version) and `+` (boot counting).
pub fn version(text: &str) -> Checked {
    let rule = "a version has letters, digits, `.`, `-`, `~` and `^`, and begins with a letter or digit";
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-~^".contains(c);
    if text.len() > VERSION_MAX {
        return Err(Fault::new(format!("a version has at most {VERSION_MAX} characters")));
    }
    if !text.chars().all(allowed) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let better: String = text.chars().map(|c| if allowed(c) { c } else { '.' }).collect();
        let better = better.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let fault = Fault::new(rule);
        return Err(if better.is_empty() { fault } else { fault.help(format!("for example \"{better}\"")) });
    }
    Ok(())
}

/// Suite of an archive, the name of a folder of `dists/`.
pub fn suite(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let components = || text.split('/');
    if text.is_empty() || !text.chars().all(allowed) || components().any(|c| c.is_empty() || c == "." || c == "..") {
        return Err(Fault::new("a suite is the name of a release, as in \"trixie\""));
    }
    Ok(())
}

/// Suite of Debian itself: a code name, because `stable` becomes another release one day.
pub fn debian_suite(text: &str) -> Checked {
    suite(text)?;
    match text {
        "stable" | "oldstable" | "oldoldstable" | "testing" => {
            Err(Fault::new(format!("`{text}` becomes another release one day"))
                .help("give the code name, as in \"trixie\""))
        }
        _ if text.contains(['/', '.']) => Err(Fault::new("a suite of Debian is a code name, as in \"trixie\"")),
        _ => match text.split_once('-') {
            Some((release, pocket)) => Err(Fault::new(format!("`{pocket}` is a pocket, not part of the suite"))
                .help(format!("write `suite = \"{release}\"` and add \"{pocket}\" to `pockets`"))),
            None => Ok(()),
        },
    }
}

/// Component of an archive.
pub fn component(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if text.is_empty() || !text.chars().all(allowed) || text.split('/').any(|c| c.is_empty() || c == "..") {
        return Err(Fault::new("a component is a word such as \"main\" or \"non-free-firmware\""));
    }
    Ok(())
}

/// Name of a further repository: a word in the host's configuration.
pub fn repository_name(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) || text.starts_with('-') {
        return Err(Fault::new("the name of a repository has lower-case letters, digits and `-`"));
    }
    if text == "debian" {
        return Err(Fault::new("`debian` is the archive that `[debian]` describes").help("choose another name"));
    }
    Ok(())
}

/// `name`, `name=version` or `name/target` (Debian Policy 5.6.1 and 5.6.12).
pub fn package(text: &str) -> Checked<PackageRequest> {
    let (rest, target) = match text.split_once('/') {
        Some((rest, target)) => (rest, Some(target)),
        None => (text, None),
    };
    let (name, version) = match rest.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    if let Some((package, relation)) = text.split_once('(') {
        let (package, version) = (package.trim(), relation.trim_matches(|c: char| "<>=() ".contains(c)));
        return Err(Fault::new("a version is asked for with `=`, exactly")
            .help(format!("\"{package}\" takes the newest; \"{package}={version}\" takes that one")));
    }
    if let Some((package, _)) = name.split_once(':') {
        let fault = Fault::new("the architecture is the recipe's `architecture`");
        return Err(fault.help(format!("write \"{package}\"")));
    }
    package_name(name)?;
    if let Some(version) = version
        && (!version.starts_with(|c: char| c.is_ascii_digit())
            || !version.chars().all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c)))
    {
        return Err(Fault::new("a package's version begins with a digit and has letters, digits, `.+-~:`"));
    }
    if let Some(target) = target {
        suite(target).map_err(|_| Fault::new("after `/` comes a suite or a repository's name"))?;
        if version.is_some() {
            return Err(Fault::new("a version and a suite at once: one of them is enough"));
        }
    }
    Ok(PackageRequest { name: name.into(), version: version.map(Into::into), target: target.map(Into::into) })
}

/// Name of a binary package (Debian Policy 5.6.1).
pub fn package_name(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if text.len() >= 2 && text.chars().all(allowed) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    let fault = Fault::new("a package's name has lower-case letters, digits, `+`, `-` and `.`");
    let better = text.to_lowercase().replace('_', "-");
    Err(if better != text && package_name(&better).is_ok() {
        fault.help(format!("for example \"{better}\""))
    } else {
        fault
    })
}

/// Name of a kernel module, as `modprobe` takes it.
pub fn module(text: &str) -> Checked {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Ok(());
    }
    let fault = Fault::new("a module is named without folder and ending, as in \"virtio_net\"");
    let stem = text.rsplit('/').next().and_then(|last| last.split(".ko").next()).unwrap_or_default();
    Err(if !stem.is_empty() && module(stem).is_ok() { fault.help(format!("write \"{stem}\"")) } else { fault })
}

/// Parameters that tie the kernel to the verified root file system, which a recipe must not contradict.
const TAKEN_PARAMETERS: [&str; 8] =
    ["root", "roothash", "usrhash", "mount.usr", "rootfstype", "rootflags", "rw", "systemd.verity_root_data"];

/// One parameter of the kernel command line (`Documentation/admin-guide/kernel-parameters.rst`).
pub fn kernel_parameter(text: &str) -> Checked {
    if text.is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(Fault::new("a parameter is not empty and has no line ends or control characters"));
    }
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= c == '"';
        if c.is_whitespace() && !quoted {
            let parts = text.split_whitespace().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(", ");
            return Err(Fault::new("one parameter per item").help(format!("write {parts}")));
        }
    }
    if quoted {
        return Err(Fault::new("a quotation mark is not closed"));
    }
    let key = text.split('=').next().unwrap_or_default();
    if TAKEN_PARAMETERS.contains(&key) {
        return Err(Fault::new(format!(
            "`{key}` is set by adamant, so that the root file system stays the verified one"
        ))
        .help("leave it out"));
    }
    Ok(())
}

/// Where something else is mounted when the machine runs, so that nobody would ever see the file.
const HIDDEN: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Files that other keys of the recipe or the machine's first boot make.
const MANAGED: [(&str, &str); 13] = [
    ("/etc/passwd", "add accounts with `[[user]]`"),
    ("/etc/shadow", "an image holds no password; one is given at boot, as a credential"),
    ("/etc/group", "add groups with `[[group]]`"),
    ("/etc/gshadow", "an image holds no password; add groups with `[[group]]`"),
    ("/etc/machine-id", "each machine makes its own when it boots"),
    ("/etc/hostname", "set `hostname` in `[system]`"),
    ("/etc/locale.conf", "set `locale` in `[system]`"),
    ("/etc/default/locale", "set `locale` in `[system]`"),
    ("/etc/localtime", "set `timezone` in `[system]`"),
    ("/etc/timezone", "set `timezone` in `[system]`"),
    ("/etc/os-release", "IMAGE_ID and IMAGE_VERSION come from `name` and `version`"),
    ("/usr/lib/os-release", "IMAGE_ID and IMAGE_VERSION come from `name` and `version`"),
    ("/etc/ssh/ssh_host_", "each machine makes its own when it boots"),
];

/// Absolute path in an image.
pub fn image_path(text: &str) -> Checked {
    let clean: Vec<&str> = text.split('/').filter(|c| !c.is_empty() && *c != ".").collect();
    let better = format!("/{}", clean.join("/"));
    if !text.starts_with('/') {
        return Err(Fault::new("a path in the image begins with `/`").help(format!("write \"{better}\"")));
    }
    if clean.is_empty() {
        return Err(Fault::new("this is the root directory itself"));
    }
    if clean.contains(&"..") {
        return Err(Fault::new("a path in the image has no `..`"));
    }
    if text.contains(|c: char| c.is_control()) {
        return Err(Fault::new("a path has no control characters"));
    }
    if better != text {
        return Err(Fault::new("a path has no empty or `.` components and no `/` at its end")
            .help(format!("write \"{better}\"")));
    }
    if text.len() > PATH_MAX || clean.iter().any(|component| component.len() > crate::tree::NAME_MAX) {
        return Err(Fault::new(format!("a path has at most {PATH_MAX} bytes, each component at most 255")));
    }
    if let Some(mount) = HIDDEN.iter().find(|mount| text == **mount || text.starts_with(&format!("{mount}/"))) {
        let fault =
            Fault::new(format!("{mount} is made anew at each boot: nothing in the image's {mount} is ever seen"));
        return Err(fault.help("files that should be there at boot are made by a file in /usr/lib/tmpfiles.d"));
    }
    Ok(())
}

/// As [`image_path`], for a file, link or source rather than a directory: some are made by other means.
pub fn file_path(text: &str) -> Checked {
    image_path(text)?;
    match MANAGED.iter().find(|(path, _)| text == *path || path.ends_with('_') && text.starts_with(path)) {
        Some((_, instead)) => Err(Fault::new("this file is not written by hand").help(*instead)),
        None => Ok(()),
    }
}

/// Target of a symbolic link.
pub fn symlink_target(text: &str) -> Checked {
    if text.is_empty() || text.len() > PATH_MAX || text.contains('\0') {
        return Err(Fault::new(format!("the target of a symbolic link has 1 to {PATH_MAX} bytes, without NUL")));
    }
    Ok(())
}

/// A path beside the recipe, not leaving its folder.
pub fn source_path(text: &str) -> Checked {
    if text.starts_with('/') {
        return Err(Fault::new("this path is absolute: the recipe would build on this machine only")
            .help("put the file beside the recipe and give its path relative to the recipe's folder"));
    }
    if text.split('/').any(|component| component == "..") {
        return Err(Fault::new("this path leaves the folder of the recipe")
            .help("put the file beside the recipe, or into a folder there"));
    }
    if text.split('/').all(|component| component.is_empty()) || text.contains('\0') {
        return Err(Fault::new("a path relative to the recipe's folder, not empty"));
    }
    Ok(())
}

/// Permissions in octal digits.
pub fn mode(text: &str) -> Checked<u16> {
    let rule = || Fault::new("permissions are 3 or 4 octal digits, as in \"0644\"");
    if !(3..=4).contains(&text.len()) || !text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return Err(rule());
    }
    u16::from_str_radix(text, 8).map_err(|_| rule())
}

/// Name of a user or group: what Debian's `adduser` takes and systemd calls strict (systemd.io/USER_NAMES).
pub fn account_name(text: &str) -> Checked {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.len() > ACCOUNT_NAME_MAX {
        return Err(Fault::new(format!("the name of an account has at most {ACCOUNT_NAME_MAX} characters")));
    }
    if !text.starts_with(first) || !text.chars().all(rest) {
        return Err(Fault::new("the name of an account has lower-case letters, digits, `_` and `-`, a letter first"));
    }
    Ok(())
}

/// Number of a new user or group.
pub fn account_id(id: u32) -> Checked {
    match id {
        0 => Err(Fault::new("0 is root's number")),
        65534 => Err(Fault::new("65534 is the number of nobody")),
        // (uid_t) -1 in 16 and 32 bits means "no user" to system calls.
        65535 | u32::MAX => Err(Fault::new("this number means \"none\" to the kernel")),
        _ => Ok(()),
    }
}

/// Field of passwd(5).
pub fn passwd_field(text: &str) -> Checked {
    if text.contains([':', '\n']) || text.contains(|c: char| c.is_control()) {
        return Err(Fault::new("a field of /etc/passwd has no `:` and no control characters"));
    }
    Ok(())
}

/// Types of units that systemd knows.
pub const UNIT_SUFFIXES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// Full name of a unit (systemd.unit(5)).
pub fn unit_name(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let suffix = text.rsplit_once('.').map(|(_, suffix)| suffix);
    if text.is_empty() || text.len() > UNIT_NAME_MAX || !text.chars().all(allowed) || text.starts_with(['.', '@']) {
        return Err(Fault::new("the name of a unit has letters, digits and `:-_.\\@`"));
    }
    if !suffix.is_some_and(|suffix| UNIT_SUFFIXES.contains(&suffix)) {
        return Err(Fault::new("the name of a unit ends with its type").help(format!("write \"{text}.service\"")));
    }
    Ok(())
}

/// Host name (RFC 1123, 2.1; hostname(5)).
pub fn hostname(text: &str) -> Checked {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > HOSTNAME_MAX || !text.split('.').all(label) {
        return Err(Fault::new(
            "a host name has letters, digits and `-`, parts separated by `.`, at most 64 characters",
        ));
    }
    Ok(())
}

/// Name of a locale: `language_TERRITORY.charset@modifier` (locale(7)).
pub fn locale(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-@".contains(c);
    if text.is_empty() || !text.chars().all(allowed) || !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(Fault::new("a locale is written as in \"de_DE.UTF-8\""));
    }
    if !text.contains('.') && text != "C" && text != "POSIX" {
        let better = match text.split_once('@') {
            Some((language, modifier)) => format!("{language}.UTF-8@{modifier}"),
            None => format!("{text}.UTF-8"),
        };
        return Err(Fault::new("a locale names its character set").help(format!("write \"{better}\"")));
    }
    Ok(())
}

/// Name of a time zone, a path below /usr/share/zoneinfo.
pub fn timezone(text: &str) -> Checked {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    if text.is_empty() || !text.chars().all(allowed) || text.split('/').any(str::is_empty) {
        return Err(Fault::new("a time zone is written as in \"Europe/Berlin\" or \"UTC\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help<T: std::fmt::Debug>(checked: Checked<T>) -> String {
        checked.unwrap_err().help.unwrap_or_default()
    }

    #[test]
    fn an_image_name_has_neither_underscore_nor_upper_case() {
        assert_eq!(image_name("web-1.test"), Ok(()));
        assert_eq!(help(image_name("My_Server")), "for example \"my-server\"");
        for name in ["", "-a", "a-", "a/b", "ä", &"a".repeat(64)] {
            assert!(image_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_version_keeps_clear_of_boot_counting_and_the_separator() {
        for text in ["1", "1.2~rc1", "20261101", "v1^git-3"] {
            assert_eq!(version(text), Ok(()), "{text}");
        }
        assert_eq!(help(version("1.0+deb13")), "for example \"1.0.deb13\"");
        assert!(version("1_2").is_err() && version("").is_err() && version("~1").is_err());
    }

    #[test]
    fn a_package_is_a_name_a_version_or_a_suite() {
        let request = package("nginx=1.26.3-3+deb13u1").unwrap();
        assert_eq!((request.name.as_str(), request.version.as_deref()), ("nginx", Some("1.26.3-3+deb13u1")));
        assert_eq!(package("linux-image-amd64/trixie-backports").unwrap().target.as_deref(), Some("trixie-backports"));
        assert_eq!(help(package("libc6:amd64")), "write \"libc6\"");
        assert_eq!(help(package("nginx (>= 1.2)")), "\"nginx\" takes the newest; \"nginx=1.2\" takes that one");
        assert_eq!(help(package("Nginx")), "for example \"nginx\"");
        assert!(
            package("a b").is_err() && package("").is_err() && package("nginx=").is_err() && package("x/").is_err()
        );
    }

    #[test]
    fn a_suite_of_debian_is_a_code_name() {
        assert_eq!(debian_suite("trixie"), Ok(()));
        assert!(debian_suite("stable").is_err());
        assert_eq!(
            help(debian_suite("trixie-backports")),
            "write `suite = \"trixie\"` and add \"backports\" to `pockets`"
        );
    }

    #[test]
    fn paths_are_written_in_one_way_only() {
        assert_eq!(image_path("/etc/motd"), Ok(()));
        assert_eq!(help(image_path("etc//motd/")), "write \"/etc/motd\"");
        for path in ["/", "/../etc", "/etc/", "/etc/./x", "/run/x", "/tmp", "/a\n", &format!("/{}", "a".repeat(256))] {
            assert!(image_path(path).is_err(), "{path:?}");
        }
        assert_eq!(image_path("/running"), Ok(()));
        assert_eq!(help(file_path("/etc/ssh/ssh_host_rsa_key")), "each machine makes its own when it boots");
        assert!(file_path("/etc/shadow").is_err() && file_path("/etc/passwd-").is_ok());
    }

    #[test]
    fn the_command_line_cannot_lead_away_from_the_verified_root() {
        for parameter in ["quiet", "console=ttyS0,115200", "dyndbg=\"file x +p\"", "rootwait"] {
            assert_eq!(kernel_parameter(parameter), Ok(()), "{parameter}");
        }
        for parameter in ["root=/dev/sda", "rw", "roothash=00", "a\nb", "", "a=\"b"] {
            assert!(kernel_parameter(parameter).is_err(), "{parameter}");
        }
        assert_eq!(help(kernel_parameter("quiet splash")), "write \"quiet\", \"splash\"");
    }

    #[test]
    fn sources_stay_beside_the_recipe() {
        assert_eq!(source_path("web/index.html"), Ok(()));
        for path in ["/etc/passwd", "../x", "a/../../x", "", "a\0"] {
            assert!(source_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_unit_has_its_type_in_its_name() {
        assert_eq!(unit_name("getty@tty1.service"), Ok(()));
        assert_eq!(help(unit_name("nginx")), "write \"nginx.service\"");
        assert!(unit_name("../x.service").is_err() && unit_name("").is_err());
    }
}
