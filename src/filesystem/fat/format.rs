//! Boot sector, geometry, directory entries and names: what writer and reader share.

use crate::tree::Timestamp;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;
/// Bytes of a directory entry.
pub(super) const ENTRY: usize = 32;
/// Fewest clusters of a volume that drivers take for FAT32 ("FAT Type Determination").
pub(super) const CLUSTERS_MIN: u64 = 65_525;
/// Most clusters of a FAT32 volume: numbers from 0x0FFFFFF7 on have meanings.
pub(super) const CLUSTERS_MAX: u64 = 0x0fff_fff4;
/// Entry of the last cluster of a chain.
pub(super) const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// Numbers from here on end a chain.
pub(super) const END_OF_CHAIN_MIN: u32 = 0x0fff_fff8;
/// The upper four bits of a FAT entry are reserved.
pub(super) const CLUSTER_MASK: u32 = 0x0fff_ffff;
/// Where FSInfo stands, as every formatter does it.
pub(super) const INFO_SECTOR: u16 = 1;
/// Where the copy of the boot sector stands: the specification allows no other place.
pub(super) const BACKUP_SECTOR: u16 = 6;
/// Most bytes of a directory: 65,536 entries.
pub(super) const DIRECTORY_MAX: u64 = 65_536 * ENTRY as u64;

/// Longest path that is read: `PATH_MAX` of Linux. Without a bound, directories within each other would cost the
/// square of their number.
pub(super) const PATH_MAX: usize = 4096;

/// Attribute bits of a directory entry.
pub(super) mod attribute {
    pub const VOLUME_LABEL: u8 = 0x08;
    pub const DIRECTORY: u8 = 0x10;
    pub const ARCHIVE: u8 = 0x20;
    /// Read-only, hidden, system and label together mark a piece of a long name.
    pub const LONG_NAME: u8 = 0x0f;
}

/// What the boot sector says about the layout of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Sectors of the volume.
    pub sectors: u32,
    /// Sectors of a cluster: a power of two.
    pub cluster_sectors: u8,
    /// Sectors before the first FAT.
    pub reserved_sectors: u16,
    /// Number of FATs.
    pub fats: u8,
    /// Sectors of one FAT.
    pub fat_sectors: u32,
    /// First cluster of the root directory.
    pub root: u32,
}

impl Geometry {
    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        u64::from(self.cluster_sectors) * SECTOR
    }

    /// Where the FAT of that number starts, in bytes.
    pub fn fat_offset(&self, number: u8) -> u64 {
        (u64::from(self.reserved_sectors) + u64::from(number) * u64::from(self.fat_sectors)) * SECTOR
    }

    /// Where the clusters start, in bytes.
    pub fn data_offset(&self) -> u64 {
        self.fat_offset(self.fats)
    }

    /// Where a cluster starts, in bytes.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        self.data_offset() + u64::from(cluster.saturating_sub(2)) * self.cluster_size()
    }

    /// How many clusters there are; they are numbered from 2.
    pub fn clusters(&self) -> u64 {
        (u64::from(self.sectors) * SECTOR).saturating_sub(self.data_offset()) / self.cluster_size()
    }

    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }
}

/// The boot sector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootSector {
    pub geometry: Geometry,
    /// Sectors of the disk before the volume.
    pub hidden_sectors: u32,
    pub volume_id: u32,
    /// Padded with spaces.
    pub label: [u8; 11],
}

impl BootSector {
    pub fn encode(&self) -> [u8; SECTOR as usize] {
        let geometry = &self.geometry;
        let mut sector = [0; SECTOR as usize];
        let mut put = |offset: usize, bytes: &[u8]| sector[offset..offset + bytes.len()].copy_from_slice(bytes);
        // A jump, which firmware that boots such sectors looks for, and the name that old drivers trust most.
        put(0, &[0xeb, 0x58, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[geometry.cluster_sectors]);
        put(14, &geometry.reserved_sectors.to_le_bytes());
        put(16, &[geometry.fats]);
        // Media descriptor "fixed disk", and a geometry for the tools that still want one.
        put(21, &[0xf8]);
        put(24, &63u16.to_le_bytes());
        put(26, &255u16.to_le_bytes());
        put(28, &self.hidden_sectors.to_le_bytes());
        put(32, &geometry.sectors.to_le_bytes());
        put(36, &geometry.fat_sectors.to_le_bytes());
        put(44, &geometry.root.to_le_bytes());
        put(48, &INFO_SECTOR.to_le_bytes());
        put(50, &BACKUP_SECTOR.to_le_bytes());
        put(64, &[0x80, 0, 0x29]);
        put(67, &self.volume_id.to_le_bytes());
        put(71, &self.label);
        put(82, b"FAT32   ");
        put(510, &[0x55, 0xaa]);
        sector
    }
}

/// FSInfo: how many clusters are free, and where to look for the next one.
pub(super) fn info_sector(free: u32, next: u32) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    sector[0..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..492].copy_from_slice(&free.to_le_bytes());
    sector[492..496].copy_from_slice(&next.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Date and time as FAT has them (two-second steps, 1980 to 2107), in UTC; times outside become the nearest end.
pub(super) fn dos_time(time: Timestamp) -> (u16, u16) {
    // 1980-01-01 00:00:00 and 2107-12-31 23:59:58.
    let seconds = time.seconds.clamp(315_532_800, 4_354_819_198);
    let Ok(instant) = jiff::Timestamp::from_second(seconds) else { return (0x21, 0) };
    let at = jiff::tz::Offset::UTC.to_datetime(instant);
    let date = (at.year() as u16 - 1980) << 9 | (at.month() as u16) << 5 | at.day() as u16;
    (date, (at.hour() as u16) << 11 | (at.minute() as u16) << 5 | (at.second() as u16 / 2))
}

/// The inverse of [`dos_time`]; a date that is none is the epoch.
pub(super) fn timestamp(date: u16, time: u16) -> Timestamp {
    let day = jiff::civil::Date::new(1980 + (date >> 9) as i16, (date >> 5 & 15) as i8, (date & 31) as i8);
    let clock = jiff::civil::Time::new((time >> 11) as i8, (time >> 5 & 63) as i8, (time & 31) as i8 * 2, 0);
    let instant = match (day, clock) {
        (Ok(day), Ok(clock)) => jiff::tz::Offset::UTC.to_timestamp(day.to_datetime(clock)).ok(),
        _ => None,
    };
    Timestamp::from_seconds(instant.map_or(0, jiff::Timestamp::as_second))
}

/// Checksum of a short name, by which the pieces of a long name know whose they are.
pub(super) fn short_name_checksum(name: &[u8; 11]) -> u8 {
    name.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The name as a directory entry has it, if it is a valid short name as it stands: upper case, 8 and 3 bytes.
pub(super) fn short_name(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = match name.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (name, ""),
    };
    let allowed = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(byte);
    let valid = (1..=8).contains(&base.len())
        && extension.len() <= 3
        && base.as_bytes().iter().chain(extension.as_bytes()).all(allowed);
    valid.then(|| {
        let mut bytes = [b' '; 11];
        bytes[..base.len()].copy_from_slice(base.as_bytes());
        bytes[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
        bytes
    })
}

/// Whether a long name may be stored: what Windows refuses, other systems cannot open either.
pub(super) fn is_long_name(name: &str) -> bool {
    let forbidden = |c: char| c < ' ' || c == '\u{7f}' || "\"*/:<>?\\|".contains(c);
    (1..=255).contains(&name.encode_utf16().count()) && !name.contains(forbidden) && !name.ends_with(['.', ' '])
}

/// The name by which two entries of a directory must differ.
pub(super) fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Positions of the thirteen UTF-16 units in a piece of a long name.
pub(super) const LONG_NAME_UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_in_steps_of_two_seconds_and_clamped() {
        let time = Timestamp::from_seconds(1_700_000_001);
        let (date, clock) = dos_time(time);
        assert_eq!((date >> 9, date >> 5 & 15, date & 31), (2023 - 1980, 11, 14));
        assert_eq!((clock >> 11, clock >> 5 & 63, clock & 31), (22, 13, 10));
        assert_eq!(timestamp(date, clock), Timestamp::from_seconds(1_700_000_000));
        assert_eq!(dos_time(Timestamp::from_seconds(0)), (0x21, 0));
        assert_eq!(dos_time(Timestamp::from_seconds(i64::MAX)).0 >> 9, 127);
        assert_eq!(timestamp(0, 0xffff), Timestamp::from_seconds(0));
    }

    #[test]
    fn only_upper_case_8_3_names_are_short() {
        assert_eq!(short_name("BOOTX64.EFI"), Some(*b"BOOTX64 EFI"));
        assert_eq!(short_name("EFI"), Some(*b"EFI        "));
        for name in ["", ".", "A.", ".A", "bootx64.efi", "BOOTX64AB", "A.B.C", "A B", "Ä"] {
            assert_eq!(short_name(name), None, "{name}");
        }
    }
}
