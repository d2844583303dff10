//! A small Debian archive: packages made here, indexes, a signed `InRelease`. Deterministic but for its directory.
//!
//!     root/pool/<component>/<package>_<version>_<architecture>.deb
//!     root/dists/<suite>/<component>/binary-<architecture>/Packages{,.gz,.xz} and by-hash/SHA256/<digest>
//!     root/dists/<suite>/InRelease
//!
//! `root` can be served over HTTP, named in apt's sources as `file:` URL, or read by [`Archive`] itself, which is an
//! [`IndexSource`].

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use adamant::apt::source::{FetchError, IndexSource, Repository};
use adamant::apt::{FileIdentity, Keyring};
use adamant::digest::Digest;
use pgp::composed::{ArmorOptions, CleartextSignedMessage, KeyType, SignedKeyDetails, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PubKeyInner, PublicKey, SecretKey, SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::types::{Duration, KeyDetails, KeyVersion, Password, SignedUser, Tag, Timestamp};
use rand::SeedableRng;

/// When everything here happens, unless a test says otherwise: 2025-06-01T00:00:00Z. In the past of any clock, because
/// the programs that judge this archive look at theirs.
pub const NOW: u64 = 1_748_736_000;
/// When the archive was published: two hours before.
pub const PUBLISHED: u64 = NOW - 7200;
/// When its key was made: a year before.
pub const KEY_MADE: u64 = NOW - 365 * 86_400;

/// What is unusual about a key.
#[derive(Clone)]
pub struct KeyOptions {
    pub seed: u64,
    pub made: u64,
    /// Seconds after it was made.
    pub expires_after: Option<u32>,
    pub revoked: bool,
    pub may_sign: bool,
    /// Of the self-signature.
    pub hash: HashAlgorithm,
    /// No self-signature at all.
    pub unbound: bool,
    pub kind: KeyType,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            made: KEY_MADE,
            expires_after: None,
            revoked: false,
            may_sign: true,
            hash: HashAlgorithm::Sha512,
            unbound: false,
            kind: KeyType::Ed25519Legacy,
        }
    }
}

/// What is unusual about a signature.
#[derive(Clone, Copy)]
pub struct SignatureOptions {
    pub made: u64,
    pub expires_after: Option<u32>,
    pub hash: HashAlgorithm,
    pub critical_notation: bool,
}

impl Default for SignatureOptions {
    fn default() -> Self {
        Self { made: PUBLISHED, expires_after: None, hash: HashAlgorithm::Sha512, critical_notation: false }
    }
}

/// A key to sign archives with.
#[derive(Clone)]
pub struct Key {
    secret: SecretKey,
    public: SignedPublicKey,
}

impl Key {
    pub fn new(seed: u64) -> Self {
        Self::with(KeyOptions { seed, ..KeyOptions::default() })
    }

    pub fn with(options: KeyOptions) -> Self {
        let mut random = rand::rngs::StdRng::seed_from_u64(options.seed);
        let algorithm = match options.kind {
            KeyType::Rsa(_) => PublicKeyAlgorithm::RSA,
            _ => PublicKeyAlgorithm::EdDSALegacy,
        };
        let (public, secret) = options.kind.generate(&mut random).unwrap();
        let inner = PubKeyInner::new(KeyVersion::V4, algorithm, timestamp(options.made), None, public).unwrap();
        let public = PublicKey::from_inner(inner).unwrap();
        let secret = SecretKey::new(public.clone(), secret).unwrap();
        let user = UserId::from_str(Default::default(), "Test archive <archive@example.org>").unwrap();
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(options.may_sign);
        let mut packets = vec![Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap()];
        if let Some(seconds) = options.expires_after {
            let expires = SubpacketData::KeyExpirationTime(Duration::from_secs(seconds));
            packets.push(Subpacket::regular(expires).unwrap());
        }
        let config = |kind, packets| configuration(&secret, kind, options.hash, options.made, packets);
        let certification = config(SignatureType::CertPositive, packets)
            .sign_certification(&secret, &public, &Password::empty(), Tag::UserId, &user)
            .unwrap();
        let mut revocations = Vec::new();
        if options.revoked {
            let revocation = config(SignatureType::KeyRevocation, Vec::new());
            revocations.push(revocation.sign_key(&secret, &Password::empty(), &public).unwrap());
        }
        let certifications = if options.unbound { Vec::new() } else { vec![certification] };
        let details =
            SignedKeyDetails::new(revocations, Vec::new(), vec![SignedUser::new(user, certifications)], Vec::new());
        Self { secret, public: SignedPublicKey::new(public, details, Vec::new()) }
    }

    /// The public key, armoured.
    pub fn public(&self) -> String {
        self.public.to_armored_string(ArmorOptions::default()).unwrap()
    }

    pub fn keyring(&self) -> Keyring {
        Keyring::parse(self.public().as_bytes()).unwrap()
    }

    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.public.fingerprint())
    }

    /// The text, clearsigned.
    pub fn clearsign(&self, text: &str, options: SignatureOptions) -> String {
        let mut packets = Vec::new();
        if let Some(seconds) = options.expires_after {
            let expires = SubpacketData::SignatureExpirationTime(Duration::from_secs(seconds));
            packets.push(Subpacket::regular(expires).unwrap());
        }
        if options.critical_notation {
            let notation =
                pgp::packet::Notation { readable: true, name: "demand@example.org".into(), value: "yes".into() };
            packets.push(Subpacket::critical(SubpacketData::Notation(notation)).unwrap());
        }
        let config = configuration(&self.secret, SignatureType::Text, options.hash, options.made, packets);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let signed = CleartextSignedMessage::new(text, config, &self.secret, &Password::empty()).unwrap();
        signed.to_armored_string(ArmorOptions::default()).unwrap()
    }
}

fn timestamp(seconds: u64) -> Timestamp {
    Timestamp::from_secs(u32::try_from(seconds).unwrap())
}

fn configuration(
    key: &SecretKey,
    kind: SignatureType,
    hash: HashAlgorithm,
    made: u64,
    further: Vec<Subpacket>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), hash);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(timestamp(made))).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    config.hashed_subpackets.extend(further);
    config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id())).unwrap()];
    config
}

/// A package to be made.
#[derive(Clone)]
pub struct Deb {
    pub name: String,
    pub version: String,
    pub architecture: String,
    fields: Vec<(String, String)>,
    control: Vec<(String, Vec<u8>, u32)>,
    files: Vec<(String, Vec<u8>, u32)>,
    /// Control file and `.deb`, where they are not made from the above.
    ready: Option<(String, Vec<u8>)>,
}

impl Deb {
    /// A package for all architectures with nothing in it.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "all".to_owned(),
            fields: Vec::new(),
            control: Vec::new(),
            files: Vec::new(),
            ready: None,
        }
    }

    /// A package that is made already: its control file, and the whole of it.
    pub fn ready(control: &str, bytes: Vec<u8>) -> Self {
        let field = |name: &str| control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
        let deb = Self::new(field("Package"), field("Version")).architecture(field("Architecture"));
        Self { ready: Some((control.to_owned(), bytes)), ..deb }
    }

    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.to_owned();
        self
    }

    /// Any field, e.g. `Provides`. A field given twice has the last value.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(known, _)| known != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn depends(self, value: &str) -> Self {
        self.field("Depends", value)
    }

    pub fn essential(self) -> Self {
        self.field("Essential", "yes").field("Priority", "required")
    }

    /// A maintainer script: `preinst`, `postinst`, ...
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.control.push((name.to_owned(), text.as_bytes().to_vec(), 0o755));
        self
    }

    /// Another file of the control archive: `conffiles`, `triggers`, ...
    pub fn control_file(mut self, name: &str, text: &str) -> Self {
        self.control.push((name.to_owned(), text.as_bytes().to_vec(), 0o644));
        self
    }

    /// A file of the package, by its path without a leading slash.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.files.push((path.to_owned(), content.to_vec(), mode));
        self
    }

    pub fn file_name(&self) -> String {
        let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, rest)| rest);
        format!("{}_{version}_{}.deb", self.name, self.architecture)
    }

    pub fn value(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    /// The control file.
    pub fn control(&self) -> String {
        if let Some((control, _)) = &self.ready {
            return control.clone();
        }
        let mut text =
            format!("Package: {}\nVersion: {}\nArchitecture: {}\n", self.name, self.version, self.architecture);
        let given = |name: &str| self.fields.iter().any(|(known, _)| known == name);
        for (name, value) in [
            ("Maintainer", "Nobody <nobody@example.org>"),
            ("Priority", "optional"),
            ("Section", "misc"),
            ("Description", "a package for tests"),
        ] {
            if !given(name) {
                text += &format!("{name}: {value}\n");
            }
        }
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\n");
        }
        text
    }

    /// The `.deb`.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some((_, bytes)) = &self.ready {
            return bytes.clone();
        }
        let mut control = vec![("control".to_owned(), self.control().into_bytes(), 0o644)];
        control.extend(self.control.iter().cloned());
        let mut deb = b"!<arch>\n".to_vec();
        for (name, content) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.xz", xz(&tar(&control))),
            ("data.tar.xz", xz(&tar(&self.files))),
        ] {
            writeln!(deb, "{name:<16}{PUBLISHED:<12}0     0     100644  {:<10}`", content.len()).unwrap();
            deb.extend_from_slice(&content);
            if content.len() % 2 == 1 {
                deb.push(b'\n');
            }
        }
        deb
    }
}

fn tar(files: &[(String, Vec<u8>, u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directories = vec![String::from("./")];
    for (path, ..) in files {
        for (end, _) in path.match_indices('/') {
            directories.push(format!("./{}/", &path[..end]));
        }
    }
    directories.sort();
    directories.dedup();
    let header = |kind, size: u64, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(PUBLISHED);
        header.set_username("root").unwrap();
        header.set_groupname("root").unwrap();
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for directory in directories {
        // The library would take the leading `./` away, which dpkg writes.
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        header.as_old_mut().name[..directory.len()].copy_from_slice(directory.as_bytes());
        header.set_cksum();
        tar.append(&header, &[][..]).unwrap();
    }
    for (path, content, mode) in files {
        let mut header = header(tar::EntryType::Regular, content.len() as u64, *mode);
        let path = format!("./{path}");
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How a suite is published.
#[derive(Clone)]
pub struct Suite {
    pub name: String,
    /// `Suite`, the role beside the codename.
    pub role: String,
    pub components: Vec<String>,
    pub architectures: Vec<String>,
    pub date: u64,
    pub valid_until: Option<u64>,
    pub by_hash: bool,
    pub not_automatic: bool,
    pub but_automatic_upgrades: bool,
    /// Suffixes of the indexes that exist; all are listed.
    pub compressions: Vec<&'static str>,
    /// Further lines of the release file, each ended by `\n`.
    pub further: String,
    pub signature: SignatureOptions,
}

impl Suite {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: format!("{name}-role"),
            components: vec!["main".to_owned()],
            architectures: vec!["amd64".to_owned()],
            date: PUBLISHED,
            valid_until: None,
            by_hash: true,
            not_automatic: false,
            but_automatic_upgrades: false,
            compressions: vec!["", ".gz", ".xz"],
            further: String::new(),
            signature: SignatureOptions::default(),
        }
    }
}

/// The archive.
pub struct Archive {
    directory: tempfile::TempDir,
    pub key: Key,
    suites: BTreeMap<String, Suite>,
    /// By suite, component.
    packages: Vec<(String, String, Deb)>,
}

impl Archive {
    /// With one suite, `trixie`, and no packages; nothing is written before [`Self::publish`].
    pub fn new() -> Self {
        let mut archive = Self {
            directory: tempfile::tempdir().unwrap(),
            key: Key::new(1),
            suites: BTreeMap::new(),
            packages: Vec::new(),
        };
        archive.suite(Suite::new("trixie"));
        archive
    }

    /// An archive with these packages in `trixie main`, published.
    pub fn of(packages: impl IntoIterator<Item = Deb>) -> Self {
        let mut archive = Self::new();
        packages.into_iter().for_each(|deb| archive.add("trixie", "main", deb));
        archive.publish();
        archive
    }

    /// Adds a suite, or changes how it is published.
    pub fn suite(&mut self, suite: Suite) {
        self.suites.insert(suite.name.clone(), suite);
    }

    pub fn add(&mut self, suite: &str, component: &str, deb: Deb) {
        self.packages.push((suite.to_owned(), component.to_owned(), deb));
    }

    /// The package of this name and version.
    pub fn find(&self, package: (&str, &str)) -> &Deb {
        self.get(package).unwrap()
    }

    /// The package of this name and version, if there is one.
    pub fn get(&self, (name, version): (&str, &str)) -> Option<&Deb> {
        self.packages.iter().map(|(_, _, deb)| deb).find(|deb| deb.name == name && deb.version == version)
    }

    /// All packages, each with its suite and component.
    pub fn into_packages(self) -> Vec<(String, String, Deb)> {
        self.packages
    }

    /// The packages that are essential.
    pub fn essential(&self) -> Vec<String> {
        let essential = |deb: &&Deb| deb.fields.iter().any(|(name, value)| name == "Essential" && value == "yes");
        self.packages.iter().map(|(_, _, deb)| deb).filter(essential).map(|deb| deb.name.clone()).collect()
    }

    /// Where `dists` and `pool` are.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The file at a path below the root.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn release_text(&self, suite: &str) -> String {
        let signed = fs::read_to_string(self.path(&format!("dists/{suite}/InRelease"))).unwrap();
        let start = signed.find("\n\n").unwrap() + 2;
        let end = signed.find("-----BEGIN PGP SIGNATURE").unwrap();
        signed[start..end].to_owned()
    }

    /// Writes all files anew.
    pub fn publish(&self) {
        let _ = fs::remove_dir_all(self.path("dists"));
        let mut paragraphs: BTreeMap<(&str, &str, &str), String> = BTreeMap::new();
        for (suite, component, deb) in &self.packages {
            let path = format!("pool/{component}/{}", deb.file_name());
            let bytes = deb.bytes();
            write(&self.path(&path), &bytes);
            let control = deb.control();
            let text = format!("{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n", bytes.len(), Digest::of(&bytes));
            for architecture in &self.suites[suite].architectures {
                if deb.architecture == "all" || deb.architecture == *architecture {
                    *paragraphs.entry((suite, component, architecture)).or_default() += &text;
                }
            }
        }
        for suite in self.suites.values() {
            self.publish_suite(suite, &paragraphs);
        }
    }

    fn publish_suite(&self, suite: &Suite, paragraphs: &BTreeMap<(&str, &str, &str), String>) {
        let mut table = String::new();
        for component in &suite.components {
            for architecture in &suite.architectures {
                let key = (suite.name.as_str(), component.as_str(), architecture.as_str());
                let plain = paragraphs.get(&key).cloned().unwrap_or_default().into_bytes();
                for compression in &suite.compressions {
                    let bytes = match *compression {
                        ".xz" => xz(&plain),
                        ".gz" => gzip(&plain),
                        _ => plain.clone(),
                    };
                    let directory = format!("{component}/binary-{architecture}");
                    let path = format!("{directory}/Packages{compression}");
                    let digest = Digest::of(&bytes);
                    let base = format!("dists/{}", suite.name);
                    write(&self.path(&format!("{base}/{path}")), &bytes);
                    if suite.by_hash {
                        write(&self.path(&format!("{base}/{directory}/by-hash/SHA256/{digest}")), &bytes);
                    }
                    table += &format!(" {digest} {:>8} {path}\n", bytes.len());
                }
            }
        }
        let mut text = format!(
            "Origin: Test\nLabel: Test\nSuite: {}\nCodename: {}\nDate: {}\n",
            suite.role,
            suite.name,
            date(suite.date)
        );
        if let Some(valid_until) = suite.valid_until {
            text += &format!("Valid-Until: {}\n", date(valid_until));
        }
        for (field, set) in [
            ("Acquire-By-Hash", suite.by_hash),
            ("NotAutomatic", suite.not_automatic),
            ("ButAutomaticUpgrades", suite.but_automatic_upgrades),
        ] {
            if set {
                text += &format!("{field}: yes\n");
            }
        }
        text += &format!(
            "Architectures: {}\nComponents: {}\n{}SHA256:\n{table}",
            suite.architectures.join(" "),
            suite.components.join(" "),
            suite.further
        );
        self.sign(&suite.name, &text, suite.signature);
    }

    /// Replaces a suite's `InRelease` by this text, signed.
    pub fn sign(&self, suite: &str, text: &str, options: SignatureOptions) {
        let signed = self.key.clearsign(text, options);
        write(&self.path(&format!("dists/{suite}/InRelease")), signed.as_bytes());
    }

    /// The archive as a repository of that name, with its main component.
    pub fn repository(&self, name: &str, suites: &[&str]) -> Repository {
        Repository {
            name: name.to_owned(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            components: vec!["main".to_owned()],
            keys: self.key.keyring(),
            priority: None,
        }
    }
}

/// As `date -R -u` writes it, with the zone that archives use.
pub fn date(seconds: u64) -> String {
    let timestamp = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
    timestamp.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Whatever the repository is called, it is this one.
impl IndexSource for Archive {
    fn fetch(&self, _: &str, path: &str, _: Option<FileIdentity>) -> Result<Vec<u8>, FetchError> {
        fs::read(self.path(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FetchError::NotFound,
            _ => FetchError::Failed(Box::new(error)),
        })
    }
}
