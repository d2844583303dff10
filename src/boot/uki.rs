//! The unified kernel image: systemd's stub with kernel, initrd, command line and more as sections.
//!
//! Flows in: [`Parts`]. Flows out: the bytes of the EFI executable ([`build`]), equal to those of `ukify` 257 for the
//! same parts; [`Uki`] takes one apart.
//!
//! Sections stand in ukify's order (`.osrel .cmdline .uname .linux .initrd`), which is not the order in which the stub
//! measures them: that one is fixed in the stub. The stub's own `.sbat` is replaced by the lines of stub, kernel and UKI
//! together, so that each can be revoked.
//!
//! Specification: UAPI group, Unified Kernel Image; SBAT: `shim/SBAT.md`.

use std::io;

use super::pe::{NewSection, Pe, PeError, Section};
use crate::tree::Content;

/// EFI application.
const SUBSYSTEM: u16 = 10;
/// Longest text section that is read.
const TEXT_MAX: u64 = 1024 * 1024;
/// Where the x86 boot protocol keeps its signature, and where it points to the kernel's version (`boot.rst`).
const SETUP_SIGNATURE: u64 = 0x202;
const SETUP_VERSION: u64 = 0x20e;

const SBAT_FIRST: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md";
const SBAT_UKI: &str = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/";

/// What goes into a unified kernel image.
#[derive(Debug, Clone)]
pub struct Parts {
    /// `linux<arch>.efi.stub` of systemd.
    pub stub: Content,
    /// The kernel, itself an EFI executable.
    pub kernel: Content,
    /// One or more cpio archives.
    pub initrd: Content,
    /// See [`super::command_line::compose`].
    pub command_line: String,
    /// See [`super::os_release::with_image`].
    pub os_release: String,
    /// The kernel's release, as `uname -r` says it.
    pub uname: String,
}

/// Why there is no such image.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// The stub.
    #[error("cannot use systemd's EFI stub")]
    Stub(#[source] PeError),
    /// The kernel.
    #[error("the kernel is not an EFI executable")]
    Kernel(#[source] PeError),
    /// The stub and the kernel do not belong together.
    #[error("the EFI stub is for machine {stub:#06x}, the kernel for {kernel:#06x}")]
    Machine {
        /// Of the stub.
        stub: u16,
        /// Of the kernel.
        kernel: u16,
    },
    /// The image itself, when read.
    #[error("the unified kernel image is wrong")]
    Image(#[source] PeError),
    /// A section that every image has.
    #[error("the unified kernel image has no section {0}, or two of them")]
    Missing(&'static str),
    /// A section that should be text.
    #[error("section {section} of the unified kernel image is not text of at most 1 MiB")]
    Text {
        /// Which.
        section: &'static str,
        /// Where it starts in the image.
        offset: u64,
    },
    /// A section that could not be read.
    #[error("cannot read section {section} of the unified kernel image")]
    Read {
        /// Which.
        section: &'static str,
        /// Where it starts in the image.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl UkiError {
    /// Where in the image; its start if the error lies in no place.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Stub(error) | Self::Kernel(error) | Self::Image(error) => error.offset(),
            Self::Text { offset, .. } | Self::Read { offset, .. } => *offset,
            Self::Machine { .. } | Self::Missing(_) => 0,
        }
    }
}

/// The image made of `parts`. Kernel and initrd are read when the image is.
pub fn build(parts: &Parts) -> Result<Content, UkiError> {
    let stub = Pe::read(parts.stub.clone()).map_err(UkiError::Stub)?;
    let kernel = Pe::read(parts.kernel.clone()).map_err(UkiError::Kernel)?;
    if stub.machine != kernel.machine {
        return Err(UkiError::Machine { stub: stub.machine, kernel: kernel.machine });
    }
    let sbat = merged_sbat(&stub, &kernel)?;
    // Firmware that enforces the flag wants both executables to agree on it.
    let stub = if kernel.nx_compatible { stub } else { stub.without_nx_compatible() };
    let text = |name, text: &str| NewSection { name, content: Content::from_bytes(text) };
    let sections = [
        text(".osrel", &parts.os_release),
        text(".cmdline", &parts.command_line),
        text(".uname", &parts.uname),
        NewSection { name: ".linux", content: parts.kernel.clone() },
        NewSection { name: ".initrd", content: parts.initrd.clone() },
        text(".sbat", &sbat),
    ];
    stub.append(&sections).map_err(UkiError::Stub)
}

/// The lines of stub, kernel and UKI under one heading.
fn merged_sbat(stub: &Pe, kernel: &Pe) -> Result<String, UkiError> {
    let mut lines = vec![SBAT_FIRST.to_owned()];
    for pe in [stub, kernel] {
        let Some(section) = pe.section(".sbat") else { continue };
        let text = text(pe, section, ".sbat")?;
        let text = text.trim_end_matches('\0');
        if text.starts_with("sbat,") {
            lines.extend(text.lines().skip(1).map(str::to_owned));
        }
    }
    lines.push(SBAT_UKI.to_owned());
    Ok(lines.join("\n") + "\n\0")
}

fn text(pe: &Pe, section: &Section, name: &'static str) -> Result<String, UkiError> {
    let content = pe.content(section);
    let offset = u64::from(section.offset);
    if content.size() > TEXT_MAX {
        return Err(UkiError::Text { section: name, offset });
    }
    let bytes = content.to_vec().map_err(|source| UkiError::Read { section: name, offset, source })?;
    String::from_utf8(bytes).map_err(|_| UkiError::Text { section: name, offset })
}

/// The release in the header of an x86 kernel, as `uname -r` will say it; `None` for kernels without such a header.
pub fn kernel_release(kernel: &Content) -> Option<String> {
    let mut header = [0; 14];
    kernel.read_exact_at(&mut header, SETUP_SIGNATURE).ok()?;
    if header[..4] != *b"HdrS" {
        return None;
    }
    let at = (SETUP_VERSION - SETUP_SIGNATURE) as usize;
    let place = u64::from(u16::from_le_bytes([header[at], header[at + 1]])) + 0x200;
    let mut text = vec![0; kernel.size().checked_sub(place)?.min(256) as usize];
    kernel.read_exact_at(&mut text, place).ok()?;
    let end = text.iter().position(|byte| *byte == b' ' || *byte == 0)?;
    String::from_utf8(text[..end].to_vec()).ok().filter(|release| !release.is_empty())
}

/// A unified kernel image that was read.
#[derive(Debug, Clone)]
pub struct Uki {
    /// Headers and sections.
    pub pe: Pe,
    /// The kernel command line, without a NUL behind it.
    pub command_line: String,
    /// The os-release file.
    pub os_release: String,
    /// The kernel's release.
    pub uname: String,
    /// The revocation lines.
    pub sbat: String,
}

impl Uki {
    /// Takes `image` apart. The sections that every image of ours has must be there once.
    pub fn read(image: Content) -> Result<Self, UkiError> {
        let pe = Pe::read(image).map_err(UkiError::Image)?;
        if pe.subsystem != SUBSYSTEM {
            let error = PeError::Field { field: "subsystem (EFI application)", offset: 60 };
            return Err(UkiError::Image(error));
        }
        let find = |name: &'static str| {
            let mut found = pe.sections.iter().filter(|section| section.name == name);
            match (found.next(), found.next()) {
                (Some(section), None) => Ok(section),
                _ => Err(UkiError::Missing(name)),
            }
        };
        find(".linux")?;
        find(".initrd")?;
        let read = |name| text(&pe, find(name)?, name).map(|text| text.trim_end_matches('\0').to_owned());
        Ok(Self {
            command_line: read(".cmdline")?,
            os_release: read(".osrel")?,
            uname: read(".uname")?,
            sbat: read(".sbat")?,
            pe,
        })
    }
}
