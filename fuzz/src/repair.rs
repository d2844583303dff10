//! Checksums put right, so that a mutation reaches what lies behind them.

/// CRCs of header and entries of a GUID partition table, in front and at the end; the copies follow the front.
pub fn gpt(disk: &mut [u8]) {
    const ENTRIES: usize = 128 * 128;
    let Some(last) = disk.len().checked_sub(512).filter(|last| *last >= 1024 + 2 * ENTRIES) else { return };
    let entries = disk[1024..1024 + ENTRIES].to_vec();
    let mut header = disk[512..1024].to_vec();
    disk[last - ENTRIES..last].copy_from_slice(&entries);
    let own = last as u64 / 512;
    let crc = crc32fast::hash(&entries);
    for (place, at, other, table) in [(512, 1, own, 2), (last, own, 1, own - 32)] {
        header[24..32].copy_from_slice(&u64::to_le_bytes(at));
        header[32..40].copy_from_slice(&u64::to_le_bytes(other));
        header[72..80].copy_from_slice(&u64::to_le_bytes(table));
        header[88..92].copy_from_slice(&crc.to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[place..place + 512].copy_from_slice(&header);
    }
}

/// An EROFS super block says whether it has a checksum: it has none.
pub fn erofs(image: &mut [u8]) {
    if let Some(features) = image.get_mut(1032) {
        *features &= !1;
    }
}

/// The checksum of every header of a tar archive, as far as sizes lead from one to the next.
pub fn tar(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().filter(|byte| (b'0'..b'8').contains(*byte));
        let size = digits.fold(0_u64, |size, digit| size << 3 | u64::from(digit - b'0'));
        at = at.saturating_add(512).saturating_add((size.min(u64::MAX / 2) as usize).next_multiple_of(512));
        if at > archive.len() {
            return;
        }
    }
}
