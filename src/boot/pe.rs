//! Portable Executables, as far as a unified kernel image needs them: read strictly, and sections put behind.
//!
//! ```text
//! 0        MS-DOS header; at 60 the offset of
//! P        "PE\0\0", COFF header (20 bytes), optional header (PE32+), data directories
//! ..       section headers, 40 bytes each, up to SizeOfHeaders
//! ..       sections, each at a multiple of FileAlignment
//! ```
//!
//! Invariants of what is read: sections stand in ascending order, in the file and in memory, without overlaps, within
//! the file and SizeOfImage.
//!
//! Specification: Microsoft, "PE Format". What is appended is what systemd's `ukify` 257 appends, byte for byte; unlike
//! it, a section of another size than the file says is refused rather than cut.

use std::io;
use std::ops::Range;

use crate::tree::{Content, Segments, first_nonzero};

/// Bytes of headers that are read at most; the stub has 1.5 KiB.
const HEADERS_MAX: u64 = 64 * 1024;
const SECTION_HEADER: usize = 40;
/// Size of the optional header of PE32+ in front of the data directories.
const OPTIONAL_HEADER: usize = 112;
/// The directory entry that says where signatures are.
const SECURITY_DIRECTORY: usize = 4;

const CONTAINS_CODE: u32 = 0x20;
const CONTAINS_DATA: u32 = 0x40;
const MEMORY_READ: u32 = 0x4000_0000;
const NX_COMPATIBLE: u16 = 0x0100;

/// Why an executable could not be read, or not be extended. Offsets are bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum PeError {
    /// The source failed or ends too early.
    #[error("cannot read the executable at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A header field.
    #[error("{field} of the executable (byte {offset}) is wrong")]
    Field {
        /// Which field.
        field: &'static str,
        /// Where it stands.
        offset: u64,
    },
    /// A section header.
    #[error("section {name:?} of the executable (header at byte {offset}) {problem}")]
    Section {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Where its header stands.
        offset: u64,
    },
    /// Bytes of the file that no section has and that are not zero.
    #[error("byte {offset} of the executable belongs to no section and is not zero")]
    Stray {
        /// Where.
        offset: u64,
    },
    /// No room for another section header.
    #[error("the executable has no room for the header of section {0:?}")]
    Full(String),
    /// Sections beyond what 32 bits count.
    #[error("section {0:?} would end beyond 4 GiB")]
    Size(String),
}

impl PeError {
    /// Where in the executable; its start if the error lies in no place.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. } | Self::Field { offset, .. } | Self::Section { offset, .. } => *offset,
            Self::Stray { offset } => *offset,
            Self::Full(_) | Self::Size(_) => 0,
        }
    }
}

/// A section of an executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Up to 8 characters of ASCII.
    pub name: String,
    /// Where it is loaded.
    pub virtual_address: u32,
    /// Bytes in memory.
    pub virtual_size: u32,
    /// Where it stands in the file.
    pub offset: u32,
    /// Bytes in the file, a multiple of the file alignment.
    pub raw_size: u32,
    /// Flags.
    pub characteristics: u32,
}

impl Section {
    /// The bytes of the file that carry its contents.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.virtual_size.min(self.raw_size))
    }
}

/// The headers of an executable.
#[derive(Debug, Clone)]
pub struct Pe {
    /// Processor that it runs on.
    pub machine: u16,
    /// 10 for EFI applications.
    pub subsystem: u16,
    /// Whether its memory may be marked as not executable.
    pub nx_compatible: bool,
    /// In the order of the headers.
    pub sections: Vec<Section>,
    /// Where signatures stand in the file, if there are any.
    pub signatures: Option<Range<u64>>,
    source: Content,
    headers: Vec<u8>,
    /// Offset of the COFF header's signature.
    start: usize,
    section_alignment: u32,
    file_alignment: u32,
}

/// A section to put into an executable.
#[derive(Debug, Clone)]
pub struct NewSection {
    /// Up to 8 characters of ASCII.
    pub name: &'static str,
    /// Its bytes.
    pub content: Content,
}

fn le16(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..offset + 2).map_or(0, |field| u16::from_le_bytes([field[0], field[1]]))
}

fn le32(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).map_or(0, |field| u32::from_le_bytes(std::array::from_fn(|i| field[i])))
}

fn field(good: bool, field: &'static str, offset: usize) -> Result<(), PeError> {
    if good { Ok(()) } else { Err(PeError::Field { field, offset: offset as u64 }) }
}

impl Pe {
    /// Reads the headers of the executable `source`.
    pub fn read(source: Content) -> Result<Self, PeError> {
        let mut headers = vec![0; source.size().min(HEADERS_MAX) as usize];
        source.read_exact_at(&mut headers, 0).map_err(|source| PeError::Read { offset: 0, source })?;
        field(headers.starts_with(b"MZ"), "signature \"MZ\"", 0)?;
        let start = le32(&headers, 60) as usize;
        field(start.is_multiple_of(8) && start < headers.len(), "offset of the PE header", 60)?;
        field(headers.get(start..start + 4) == Some(b"PE\0\0"), "signature \"PE\"", start)?;
        let optional = start + 24;
        field(le16(&headers, optional) == 0x20b, "magic number of PE32+", optional)?;
        // The section headers stand behind it: in a shorter one a new section would be written over its fields.
        let optional_size = usize::from(le16(&headers, start + 20));
        field(optional_size >= OPTIONAL_HEADER, "size of the optional header", start + 20)?;
        let size = le32(&headers, optional + 60) as usize;
        field(size <= headers.len() && size > optional + OPTIONAL_HEADER, "size of the headers", optional + 60)?;
        headers.truncate(size);
        let mut pe = Self {
            machine: le16(&headers, start + 4),
            subsystem: le16(&headers, optional + 68),
            nx_compatible: le16(&headers, optional + 70) & NX_COMPATIBLE != 0,
            sections: Vec::new(),
            signatures: None,
            section_alignment: le32(&headers, optional + 32),
            file_alignment: le32(&headers, optional + 36),
            start,
            headers,
            source,
        };
        field(pe.section_alignment.is_power_of_two(), "section alignment", optional + 32)?;
        field(pe.file_alignment.is_power_of_two(), "file alignment", optional + 36)?;
        pe.signatures = pe.read_signatures()?;
        pe.sections = pe.read_sections()?;
        Ok(pe)
    }

    fn section_headers(&self) -> usize {
        self.start + 24 + usize::from(le16(&self.headers, self.start + 20))
    }

    fn read_signatures(&self) -> Result<Option<Range<u64>>, PeError> {
        let directories = self.start + 24 + OPTIONAL_HEADER;
        let place = directories + SECURITY_DIRECTORY * 8;
        if le32(&self.headers, directories - 4) as usize <= SECURITY_DIRECTORY || place >= self.section_headers() {
            return Ok(None);
        }
        let offset = u64::from(le32(&self.headers, place));
        let end = offset + u64::from(le32(&self.headers, place + 4));
        if offset == 0 && end == 0 {
            return Ok(None);
        }
        field(end <= self.source.size() && offset < end, "place of the signatures", place)?;
        Ok(Some(offset..end))
    }

    fn read_sections(&self) -> Result<Vec<Section>, PeError> {
        let count = usize::from(le16(&self.headers, self.start + 6));
        let first = self.section_headers();
        let (mut file_end, mut memory_end) = (self.headers.len() as u64, 0);
        let image_size = u64::from(le32(&self.headers, self.start + 80));
        let mut sections = Vec::new();
        for index in 0..count {
            let offset = first + index * SECTION_HEADER;
            let header = self.headers.get(offset..offset + SECTION_HEADER);
            let header = header.ok_or(PeError::Field { field: "number of sections", offset: self.start as u64 + 6 })?;
            let name = header[..8].split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            let section = Section {
                virtual_size: le32(header, 8),
                virtual_address: le32(header, 12),
                raw_size: le32(header, 16),
                offset: le32(header, 20),
                characteristics: le32(header, 36),
                name,
            };
            let refuse = |problem| Err(PeError::Section { name: section.name.clone(), problem, offset: offset as u64 });
            let file = u64::from(section.offset)..u64::from(section.offset) + u64::from(section.raw_size);
            let memory = u64::from(section.virtual_address)
                ..u64::from(section.virtual_address) + u64::from(section.virtual_size);
            if file.end > self.source.size() {
                return refuse("ends beyond the end of the file");
            }
            if section.raw_size > 0 && file.start < file_end {
                return refuse("overlaps the headers or a section before it in the file");
            }
            if memory.start < memory_end || memory.end > image_size {
                return refuse("overlaps a section before it in memory, or ends beyond the image");
            }
            if section.raw_size > 0 {
                file_end = file.end;
            }
            memory_end = memory.end;
            sections.push(section);
        }
        Ok(sections)
    }

    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The bytes of a section, without the padding in the file.
    pub fn content(&self, section: &Section) -> Content {
        let range = section.range();
        Content::new(range.end - range.start, std::sync::Arc::new(self.source.clone()), range.start)
    }

    /// Checks that all bytes of the file that belong neither to the headers, to a section nor to signatures are zero.
    pub fn check(&self) -> Result<(), PeError> {
        let zero = |range: Range<u64>| {
            if range.start >= range.end {
                return Ok(());
            }
            match first_nonzero(&self.source, range.clone()) {
                Ok(None) => Ok(()),
                Ok(Some(offset)) => Err(PeError::Stray { offset }),
                Err(source) => Err(PeError::Read { offset: range.start, source }),
            }
        };
        let headers_end = self.section_headers() + self.sections.len() * SECTION_HEADER;
        let mut position = headers_end as u64;
        let in_file = self.sections.iter().filter(|section| section.raw_size > 0).map(Section::range);
        for range in in_file.chain(self.signatures.clone()) {
            zero(position..range.start)?;
            position = range.end;
        }
        zero(position..self.source.size())
    }

    /// The executable with `sections` put behind its own, in their order. A section that it has already takes the new
    /// contents in place if they fit there, in the file and in memory; else it gives way to the new one.
    pub fn append(&self, sections: &[NewSection]) -> Result<Content, PeError> {
        if self.signatures.is_some() {
            let offset = self.start + 24 + OPTIONAL_HEADER + SECURITY_DIRECTORY * 8;
            return Err(PeError::Field { field: "signature (sections cannot follow one)", offset: offset as u64 });
        }
        let mut writer = Writer {
            headers: self.headers.clone(),
            start: self.start,
            count: self.sections.len(),
            place: self.section_headers(),
            replaced: Vec::new(),
            appended: Vec::new(),
            file_end: self.kept().next_multiple_of(u64::from(self.file_alignment)),
            memory_end: self
                .sections
                .last()
                .map_or(0, |last| u64::from(last.virtual_address) + u64::from(last.virtual_size)),
        };
        for section in sections {
            match self.sections.iter().position(|own| own.name == section.name) {
                Some(index) if section.content.size() <= self.room(index) => {
                    writer.replace(&self.sections[index], section)
                }
                Some(index) => {
                    writer.remove(&self.sections[index]);
                    writer.append(self, section)?;
                }
                None => writer.append(self, section)?,
            }
        }
        writer.finish(self)
    }

    /// Bytes of the file that stay when it grows: not the COFF symbol table behind the sections, which only debuggers
    /// read and which Debian 12's stub has.
    fn kept(&self) -> u64 {
        match le32(&self.headers, self.start + SYMBOL_TABLE) {
            0 => self.source.size(),
            _ => self.sections.iter().map(|section| section.range().end).fold(self.headers.len() as u64, u64::max),
        }
    }

    /// Bytes that fit where that section is.
    fn room(&self, index: usize) -> u64 {
        let own = &self.sections[index];
        let start = u64::from(own.virtual_address);
        // In memory there is room up to the next section; a new one behind the last starts at the alignment.
        let end = self.sections.get(index + 1).map_or_else(
            || (start + u64::from(own.virtual_size)).next_multiple_of(u64::from(self.section_alignment)),
            |next| u64::from(next.virtual_address),
        );
        (end - start).min(u64::from(own.raw_size))
    }

    /// Marks the executable as one whose memory must stay executable, because its kernel is such a one.
    pub fn without_nx_compatible(mut self) -> Self {
        let place = self.start + 24 + 70;
        let flags = le16(&self.headers, place) & !NX_COMPATIBLE;
        self.headers[place..place + 2].copy_from_slice(&flags.to_le_bytes());
        self.nx_compatible = false;
        self
    }
}

/// Place of the COFF header's symbol table, then the number of its symbols: Microsoft PE format, "COFF File Header".
const SYMBOL_TABLE: usize = 12;

/// An executable that grows.
struct Writer {
    headers: Vec<u8>,
    start: usize,
    count: usize,
    /// Where the section headers start.
    place: usize,
    replaced: Vec<(u64, u32, Content)>,
    appended: Vec<(u64, Content)>,
    file_end: u64,
    memory_end: u64,
}

impl Writer {
    fn put(&mut self, offset: usize, value: u32) {
        self.headers[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Where the header of that section is.
    fn header_of(&self, own: &Section) -> usize {
        let is_own = |header: &usize| {
            self.headers[*header..].starts_with(own.name.as_bytes())
                && le32(&self.headers, header + 12) == own.virtual_address
        };
        let mut headers = (0..self.count).map(|index| self.place + index * SECTION_HEADER);
        headers.find(is_own).unwrap_or(self.place)
    }

    fn replace(&mut self, own: &Section, new: &NewSection) {
        self.put(self.header_of(own) + 8, new.content.size() as u32);
        self.put_bytes(own, new.content.clone());
    }

    /// A section without bytes in the file may claim to stand anywhere.
    fn put_bytes(&mut self, own: &Section, content: Content) {
        if own.raw_size > 0 {
            self.replaced.push((u64::from(own.offset), own.raw_size, content));
        }
    }

    /// Takes a section away: its header, and its bytes become zero.
    fn remove(&mut self, own: &Section) {
        let header = self.header_of(own);
        let end = self.place + self.count * SECTION_HEADER;
        self.headers.copy_within(header + SECTION_HEADER..end, header);
        self.headers[end - SECTION_HEADER..end].fill(0);
        self.count -= 1;
        self.put_bytes(own, Content::from_bytes(""));
    }

    fn append(&mut self, pe: &Pe, new: &NewSection) -> Result<(), PeError> {
        let too_large = || PeError::Size(new.name.into());
        let header = self.place + self.count * SECTION_HEADER;
        if header + SECTION_HEADER > self.headers.len() || new.name.len() > 8 {
            return Err(PeError::Full(new.name.into()));
        }
        let size = u32::try_from(new.content.size()).map_err(|_| too_large())?;
        let raw_size = u64::from(size).next_multiple_of(u64::from(pe.file_alignment));
        let address = self.memory_end.next_multiple_of(u64::from(pe.section_alignment));
        let (file_end, memory_end) = (self.file_end + raw_size, address + u64::from(size));
        if file_end > u64::from(u32::MAX) || memory_end > u64::from(u32::MAX - pe.section_alignment) {
            return Err(too_large());
        }
        self.headers[header..header + SECTION_HEADER].fill(0);
        self.headers[header..header + new.name.len()].copy_from_slice(new.name.as_bytes());
        self.put(header + 8, size);
        self.put(header + 12, address as u32);
        self.put(header + 16, raw_size as u32);
        self.put(header + 20, self.file_end as u32);
        // Kernels with the old handover protocol are run where they lie.
        let kind = if new.name == ".linux" { CONTAINS_CODE } else { CONTAINS_DATA };
        self.put(header + 36, MEMORY_READ | kind);
        let initialized = self.start + 24 + 8;
        self.put(initialized, le32(&self.headers, initialized).saturating_add(size));
        self.appended.push((self.file_end, new.content.clone()));
        (self.file_end, self.memory_end, self.count) = (file_end, memory_end, self.count + 1);
        Ok(())
    }

    fn finish(mut self, pe: &Pe) -> Result<Content, PeError> {
        let image_size = self.memory_end.next_multiple_of(u64::from(pe.section_alignment));
        let (count, start) = (self.count as u16, self.start);
        self.headers[start + 6..start + 8].copy_from_slice(&count.to_le_bytes());
        self.put(start + 80, image_size as u32);
        self.headers[start + SYMBOL_TABLE..start + SYMBOL_TABLE + 8].fill(0);
        // No checksum: firmware does not look at it, whoever signs the file sets it.
        self.put(start + 24 + 64, 0);
        let source: std::sync::Arc<dyn crate::tree::ReadAt> = std::sync::Arc::new(pe.source.clone());
        let mut segments = Segments::new(self.file_end);
        let mut position = self.headers.len() as u64;
        let stub =
            |range: Range<u64>| (range.start, Content::new(range.end - range.start, source.clone(), range.start));
        let mut pieces = vec![(0, Content::from_bytes(self.headers))];
        self.replaced.sort_by_key(|(offset, ..)| *offset);
        for (offset, room, content) in self.replaced {
            pieces.push(stub(position..offset));
            pieces.push((offset, content));
            position = offset + u64::from(room);
        }
        pieces.push(stub(position..pe.kept().max(position)));
        pieces.extend(self.appended);
        for (offset, content) in pieces {
            let fits = segments.push(offset, content);
            fits.ok_or(PeError::Field { field: "order of the sections", offset })?;
        }
        Ok(segments.into_content())
    }
}
