//! Small EFI executables that do nothing: stand-ins for systemd's stub and for kernels.

/// A PE32+ file for x86-64 with these sections, laid out as linkers do it: 512 bytes in the file, 4096 in memory.
pub fn executable(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let (start, optional_size, headers_size) = (0x80usize, 0xf0usize, 0x600usize);
    let mut file = vec![0; headers_size];
    let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(60, &(start as u32).to_le_bytes());
    put(start, b"PE\0\0");
    put(start + 4, &0x8664u16.to_le_bytes());
    put(start + 6, &(sections.len() as u16).to_le_bytes());
    put(start + 20, &(optional_size as u16).to_le_bytes());
    let optional = start + 24;
    put(optional, &0x20bu16.to_le_bytes());
    // Entry point and code: where the first section will be.
    put(optional + 16, &4096u32.to_le_bytes());
    put(optional + 20, &4096u32.to_le_bytes());
    put(optional + 32, &4096u32.to_le_bytes());
    put(optional + 36, &512u32.to_le_bytes());
    put(optional + 60, &(headers_size as u32).to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 70, &0x100u16.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    let mut address = 4096u32;
    let mut body = Vec::new();
    for (index, (name, bytes)) in sections.iter().enumerate() {
        let header = start + 24 + optional_size + index * 40;
        put(header, name.as_bytes());
        put(header + 8, &(bytes.len() as u32).to_le_bytes());
        put(header + 12, &address.to_le_bytes());
        put(header + 16, &(bytes.len().next_multiple_of(512) as u32).to_le_bytes());
        put(header + 20, &((headers_size + body.len()) as u32).to_le_bytes());
        put(header + 36, &0x4000_0040u32.to_le_bytes());
        address = (address + bytes.len() as u32).next_multiple_of(4096);
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(512), 0);
    }
    put(optional + 56, &address.to_le_bytes());
    file.extend(body);
    file
}

/// Like systemd's stub.
pub fn stub() -> Vec<u8> {
    let sbat = b"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nsystemd-stub,1,x\n\0";
    executable(&[(".text", &[0x90; 3000]), (".sbat", sbat), (".sdmagic", b"#### LoaderInfo: systemd-stub ####")])
}

/// Like a kernel: an EFI executable with the version in its setup header.
pub fn kernel(release: &str) -> Vec<u8> {
    let mut file = executable(&[(".text", &[0xcc; 20_000])]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x20e..0x210].copy_from_slice(&0x500u16.to_le_bytes());
    let text = format!("{release} (debian-kernel@lists.debian.org)\0");
    file[0x700..0x700 + text.len()].copy_from_slice(text.as_bytes());
    file
}
