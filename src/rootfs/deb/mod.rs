//! A binary package (`.deb`), opened once: what its scripts, its database entry and its files are.
//!
//! Flows in: the path of a `.deb` whose digest the caller has checked. Flows out: an [`UnpackedPackage`], and one
//! file beside it that holds the decompressed contents, so that the package never has to be decompressed again
//! ([`reopen`]):
//!
//! ```text
//! data.tar, decompressed, as it stands     contents of files are ranges of it
//! index                                    JSON: control fields, scripts, entries (owners, modes, digests)
//! length of the index                      u64, little endian
//! "adamant package\n"                      16 bytes
//! ```
//!
//! Specification: `deb(5)`, format 2.0.

mod ar;
mod data;
mod index;
pub(super) mod latin1;

pub use ar::{ArError, ArReader, Member};
pub use data::{Entry, EntryKind, TarError, read_entries};
pub use index::reopen;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::apt::control::{ControlError, Paragraph};
use crate::tree::{Content, FileAt, Kind, Node, ReadAt};

/// The decompressed control archive may be this large: the biggest of Debian has less than 10 MiB.
const CONTROL_MAX: u64 = 64 << 20;

/// The dictionary of `xz -9` takes 65 MiB; twice that is more than dpkg ever asks for.
const XZ_MEMORY_MAX: u64 = 128 << 20;

/// Contents of any package may take this much on disk.
const DATA_ROOM: u64 = 4 << 30;
/// And beyond it this much for each byte of the package: programs and pictures compress to a tenth, zeros to less
/// than a thousandth.
const DATA_PER_BYTE: u64 = 200;

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file cannot be opened.
    #[error("cannot open package {}", .path.display())]
    Open {
        /// Which package file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The outer archive is damaged.
    #[error("package {} is damaged", .path.display())]
    Archive {
        /// Which package file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ArError,
    },
    /// It is an archive, but not a package.
    #[error("{} is not a package of format 2.0: {why}", .path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is missing or unknown.
        why: String,
    },
    /// An inner archive is damaged or holds what no package may.
    #[error("package {}, member {member}", .path.display())]
    Tar {
        /// Which package file.
        path: PathBuf,
        /// `control.tar` or `data.tar`.
        member: &'static str,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// The control file is not one.
    #[error("package {}, control file", .path.display())]
    Control {
        /// Which package file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ControlError,
    },
    /// The decompressed contents cannot be kept.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that [`unpack`] wrote does not read back.
    #[error("{} is no unpacked package, or a damaged one", .path.display())]
    Index {
        /// Which file.
        path: PathBuf,
        /// Why, where reading failed.
        #[source]
        source: io::Error,
    },
}

/// A file of the control archive, other than `control` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// `postinst`, `md5sums`, ...
    pub name: String,
    /// Permission bits.
    pub mode: u16,
    /// Seconds since 1970.
    pub mtime: i64,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A package, ready to be placed into a tree.
#[derive(Debug, Clone)]
pub struct UnpackedPackage {
    name: String,
    version: String,
    architecture: String,
    control: String,
    control_files: Vec<ControlFile>,
    entries: Vec<Entry>,
    data: FileAt,
}

impl UnpackedPackage {
    /// A package that no archive holds, for tests of what comes after.
    #[cfg(test)]
    pub(crate) fn from_parts(
        name: &str,
        version: &str,
        architecture: &str,
        control: String,
        control_files: Vec<ControlFile>,
        entries: Vec<Entry>,
    ) -> Self {
        let [name, version, architecture] = [name, version, architecture].map(str::to_owned);
        Self { name, version, architecture, control, control_files, entries, data: FileAt(PathBuf::from("/dev/null")) }
    }

    /// The field `Package`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The field `Version`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The field `Architecture`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The value of any field of the control file.
    pub fn field(&self, name: &str) -> Option<&str> {
        // It was parsed when the package was opened, so it parses.
        Paragraph::parse(&self.control).ok()?.get(name)
    }

    /// The control file, as it stands in the package.
    pub fn control(&self) -> &str {
        &self.control
    }

    /// The other files of the control archive, in its order.
    pub fn control_files(&self) -> &[ControlFile] {
        &self.control_files
    }

    /// The file of that name of the control archive.
    pub fn control_file(&self, name: &str) -> Option<&ControlFile> {
        self.control_files.iter().find(|file| file.name == name)
    }

    /// The entries of the data archive, in its order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry with that path.
    pub fn entry(&self, path: &[u8]) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Where the decompressed contents are kept.
    pub fn data_path(&self) -> &Path {
        &self.data.0
    }

    /// The configuration files that dpkg will treat as such: paths without the leading slash.
    pub fn conffiles(&self) -> Vec<&str> {
        self.conffile_lines().filter_map(|line| line.strip_prefix('/')).collect()
    }

    /// The lines of `conffiles`: a path, or a flag and a path (`remove-on-upgrade /etc/x`: shipped no more).
    pub(crate) fn conffile_lines(&self) -> impl Iterator<Item = &str> {
        let bytes = self.control_file("conffiles").map_or(&[][..], |file| &file.bytes);
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.is_empty())
    }

    /// The contents of an entry of this package, read when asked for; `None` unless it is a regular file.
    pub fn content(&self, entry: &Entry) -> Option<Content> {
        let EntryKind::File { offset, size, digest } = entry.kind else { return None };
        let source: Arc<dyn ReadAt> = Arc::new(self.data.clone());
        Some(Content::new(size, source, offset).with_digest(digest))
    }

    /// The entry as a node of a tree; a hard link is the file it names.
    pub fn node(&self, entry: &Entry) -> Node {
        let kind = match &entry.kind {
            EntryKind::Directory => Kind::directory(),
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::CharacterDevice(..) | EntryKind::BlockDevice(..) | EntryKind::File { .. } => {
                self.file_or_device(entry)
            }
            EntryKind::HardLink(target) => self.entry(target).map_or(Kind::Fifo, |first| self.file_or_device(first)),
        };
        Node { metadata: entry.metadata.clone(), kind }
    }

    fn file_or_device(&self, entry: &Entry) -> Kind {
        match (&entry.kind, entry.kind.device()) {
            (EntryKind::CharacterDevice(..), Some(device)) => Kind::CharacterDevice(device),
            (EntryKind::BlockDevice(..), Some(device)) => Kind::BlockDevice(device),
            _ => Kind::File(self.content(entry).unwrap_or_else(|| Content::from_bytes(Vec::new()))),
        }
    }
}

/// Opens the package file `deb` and writes its decompressed contents, with an index, to the new file `data_path`.
///
/// Names that lead out of the root, types that packages do not have and damaged archives are refused. After an error
/// `data_path` may hold a part; the caller removes it.
pub fn unpack(deb: &Path, data_path: &Path) -> Result<UnpackedPackage, DebError> {
    let open = |source| DebError::Open { path: deb.to_owned(), source };
    let file = File::open(deb).map_err(open)?;
    let data_max = DATA_ROOM.max(file.metadata().map_err(open)?.len().saturating_mul(DATA_PER_BYTE));
    let archive = |source| DebError::Archive { path: deb.to_owned(), source };
    let mut ar = ArReader::new(BufReader::with_capacity(1 << 17, file)).map_err(archive)?;
    let version = member(&mut ar, deb, "debian-binary")?;
    if version != "debian-binary" {
        return Err(format_error(deb, "it does not start with debian-binary"));
    }
    let mut format = String::new();
    ar.by_ref().take(16).read_to_string(&mut format).map_err(|_| format_error(deb, "debian-binary is not text"))?;
    if !format.starts_with("2.") {
        return Err(format_error(deb, &format!("debian-binary says {format:?}")));
    }
    let name = member(&mut ar, deb, "control.tar")?;
    let (control, control_files) = read_control(deb, &name, &mut ar)?;
    let name = member(&mut ar, deb, "data.tar")?;
    let entries = write_data(deb, &name, &mut ar, data_path, data_max)?;
    let fields = Paragraph::parse(&control).map_err(|source| DebError::Control { path: deb.to_owned(), source })?;
    let field = |name: &str| match fields.get(name) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(format_error(deb, &format!("the control file has no {name}"))),
    };
    let (name, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
    let valid = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || b".+-~:".contains(&c));
    if !valid(&name) || !valid(&architecture) || name.starts_with('.') {
        return Err(format_error(deb, &format!("{name:?} ({architecture:?}) is no name of a package")));
    }
    let data = FileAt(data_path.to_owned());
    let package = UnpackedPackage { name, version, architecture, control, control_files, entries, data };
    index::append(&package).map_err(|source| DebError::Write { path: data_path.to_owned(), source })?;
    Ok(package)
}

fn format_error(path: &Path, why: &str) -> DebError {
    DebError::Format { path: path.to_owned(), why: why.to_owned() }
}

/// The name of the next member, which must be `wanted` with or without a suffix. Members whose name starts with `_`
/// are for others (deb(5)).
fn member<R: Read>(ar: &mut ArReader<R>, deb: &Path, wanted: &str) -> Result<String, DebError> {
    loop {
        let next = ar.next_member().map_err(|source| DebError::Archive { path: deb.to_owned(), source })?;
        let Some(next) = next else {
            return Err(format_error(deb, &format!("it has no member {wanted}")));
        };
        let name = String::from_utf8_lossy(&next.name).into_owned();
        if name.starts_with(wanted) {
            return Ok(name);
        }
        if !name.starts_with('_') {
            return Err(format_error(deb, &format!("member {name:?} stands where {wanted} belongs")));
        }
    }
}

/// The decompressor that the suffix of a member asks for.
fn decompress<'a>(deb: &Path, member: &str, bytes: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>, DebError> {
    let refuse = |why: io::Error| format_error(deb, &format!("{member}: {why}"));
    let suffix = member.rsplit_once(".tar").map_or("", |(_, suffix)| suffix);
    Ok(match suffix {
        "" => Box::new(bytes),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED);
            let stream = stream.map_err(|error| refuse(error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(bytes, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::new(bytes).map_err(refuse)?),
        _ => return Err(format_error(deb, &format!("{member} is compressed in a way that adamant does not read"))),
    })
}

fn read_control(deb: &Path, member: &str, ar: &mut dyn Read) -> Result<(String, Vec<ControlFile>), DebError> {
    let tar_error = |source: io::Error| DebError::Tar {
        path: deb.to_owned(),
        member: "control.tar",
        source: TarError::Read(source),
    };
    let mut bytes = Vec::new();
    let mut decoder = decompress(deb, member, ar)?.take(CONTROL_MAX + 1);
    decoder.read_to_end(&mut bytes).map_err(tar_error)?;
    if bytes.len() as u64 > CONTROL_MAX {
        return Err(format_error(deb, "its control archive has more than 64 MiB"));
    }
    let entries = read_entries(&mut tar::Archive::new(bytes.as_slice())).map_err(|source| DebError::Tar {
        path: deb.to_owned(),
        member: "control.tar",
        source,
    })?;
    let mut control = None;
    let mut files = Vec::new();
    for entry in entries {
        let EntryKind::File { offset, size, .. } = entry.kind else { continue };
        let Ok(name) = String::from_utf8(entry.path) else { continue };
        let bytes = bytes[offset as usize..(offset + size) as usize].to_vec();
        if name == "control" {
            let text = String::from_utf8(bytes).map_err(|_| format_error(deb, "its control file is not UTF-8"))?;
            control = Some(text);
        } else if !name.contains('/') {
            // The time a script was packed at is of no use in dpkg's directory, but it is what dpkg keeps.
            files.push(ControlFile { name, mode: entry.metadata.mode, mtime: entry.metadata.mtime.seconds, bytes });
        }
    }
    Ok((control.ok_or_else(|| format_error(deb, "it has no control file"))?, files))
}

fn write_data(
    deb: &Path,
    member: &str,
    ar: &mut dyn Read,
    data_path: &Path,
    data_max: u64,
) -> Result<Vec<Entry>, DebError> {
    let write = |source| DebError::Write { path: data_path.to_owned(), source };
    let file = File::create_new(data_path).map_err(write)?;
    let inner = decompress(deb, member, ar)?;
    let tee = Tee { inner, out: BufWriter::with_capacity(1 << 18, file), left: data_max, full: false, failed: None };
    let mut archive = tar::Archive::new(tee);
    let entries = read_entries(&mut archive);
    let mut tee = archive.into_inner();
    // Behind the end of the archive stand padding and the checksums of the compressed stream: read them, too.
    let drained = entries.is_ok().then(|| io::copy(&mut tee, &mut io::sink()));
    if let Some(source) = tee.failed.take() {
        return Err(write(source));
    }
    if tee.full {
        return Err(format_error(
            deb,
            &format!("{member} unpacks to more than {data_max} bytes, which nothing warrants"),
        ));
    }
    let tar = |source| DebError::Tar { path: deb.to_owned(), member: "data.tar", source };
    let entries = entries.map_err(tar)?;
    if let Some(Err(source)) = drained {
        return Err(tar(TarError::Read(source)));
    }
    tee.out.flush().map_err(write)?;
    Ok(entries)
}

/// Copies what is read from `inner` to `out`.
struct Tee<'a> {
    inner: Box<dyn Read + 'a>,
    out: BufWriter<File>,
    /// Bytes that may still come, and whether more came.
    left: u64,
    full: bool,
    /// Why writing failed: the reader's own errors are the archive's fault, these are not.
    failed: Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.left = left;
        if let Err(error) = self.out.write_all(&buffer[..count]) {
            self.failed = Some(error);
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
