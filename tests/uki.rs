//! Unified kernel images, judged by the tools of others.

use std::fs;

use adamant::boot::pe::{NewSection, Pe, PeError};
use adamant::boot::uki::{self, Parts, Uki, UkiError};
use adamant::tree::Content;

use crate::support::executable::{executable, kernel, stub};
use crate::support::image::noise;
use crate::support::oracle::{oracle, run};

fn parts() -> Parts {
    Parts {
        stub: Content::from_bytes(stub()),
        kernel: Content::from_bytes(kernel("6.12.1-test")),
        initrd: Content::from_bytes(noise(100_001, 4)),
        command_line: format!("roothash={} quiet", "ab".repeat(32)),
        os_release: "ID=debian\nIMAGE_ID=minimal\n".into(),
        uname: "6.12.1-test".into(),
    }
}

#[test]
fn an_image_reads_back_section_by_section() {
    let parts = parts();
    let image = uki::build(&parts).unwrap();
    let read = Uki::read(image).unwrap();
    read.pe.check().unwrap();
    let names: Vec<_> = read.pe.sections.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names, [".text", ".sbat", ".sdmagic", ".osrel", ".cmdline", ".uname", ".linux", ".initrd"]);
    assert_eq!(read.command_line, parts.command_line);
    assert_eq!(read.os_release, parts.os_release);
    assert_eq!(read.uname, parts.uname);
    let lines: Vec<_> = read.sbat.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(lines, ["sbat", "systemd-stub", "uki"]);
    for (name, content) in [(".linux", &parts.kernel), (".initrd", &parts.initrd)] {
        let found = read.pe.content(read.pe.section(name).unwrap());
        assert_eq!(found.digest().unwrap(), content.digest().unwrap(), "{name}");
    }
    assert_eq!(uki::kernel_release(&parts.kernel).as_deref(), Some("6.12.1-test"));
    assert_eq!(uki::kernel_release(&parts.stub), None);
}

#[test]
fn objdump_and_objcopy_see_the_same_sections() {
    let Some(mut objcopy) = oracle("objcopy") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.efi");
    fs::write(&path, uki::build(&parts()).unwrap().to_vec().unwrap()).unwrap();
    let headers = run(oracle("objdump").unwrap().arg("-h").arg(&path));
    assert!(headers.contains("pei-x86-64"), "{headers}");
    for (name, expected) in [
        (".linux", parts().kernel.to_vec().unwrap()),
        (".initrd", parts().initrd.to_vec().unwrap()),
        (".cmdline", parts().command_line.into_bytes()),
    ] {
        let out = directory.path().join(name);
        run(objcopy
            .args(["-O", "binary", "--set-section-flags"])
            .arg(format!("{name}=alloc,load,readonly"))
            .arg(format!("--only-section={name}"))
            .arg(&path)
            .arg(&out));
        objcopy = oracle("objcopy").unwrap();
        assert!(fs::read(&out).unwrap() == expected, "{name}");
    }
}

/// What `ukify build` of systemd 257.13 gives for the same parts:
/// `--linux= --initrd= --os-release=@ --cmdline= --uname= --stub=` with the bytes of `parts()`. With the stub and the kernel
/// of Debian 13 the files are equal too.
const UKIFY: &str = "eb26d0f9237bc7bd29daabe4e834e822a6ae531366972d99d5377d973f1bc506";

#[test]
fn ukify_makes_the_same_image_byte_for_byte() {
    let image = uki::build(&parts()).unwrap();
    assert_eq!(image.digest().unwrap().to_string(), UKIFY);
}

#[test]
fn a_kernel_without_nx_takes_the_flag_from_the_image() {
    let mut without = kernel("6.1");
    without[0x80 + 24 + 71] = 0;
    let image = uki::build(&Parts { kernel: Content::from_bytes(without), ..parts() }).unwrap();
    assert!(!Uki::read(image).unwrap().pe.nx_compatible);
    assert!(Uki::read(uki::build(&parts()).unwrap()).unwrap().pe.nx_compatible);
}

#[test]
fn refuses_a_stub_or_kernel_that_does_not_fit() {
    let other = |parts| uki::build(&parts).unwrap_err();
    let error = other(Parts { kernel: Content::from_bytes("no kernel"), ..parts() });
    assert!(matches!(error, UkiError::Kernel(PeError::Field { offset: 0, .. })), "{error}");
    let mut arm = kernel("6.1");
    arm[0x84..0x86].copy_from_slice(&0xaa64u16.to_le_bytes());
    let error = other(Parts { kernel: Content::from_bytes(arm), ..parts() });
    assert!(matches!(error, UkiError::Machine { stub: 0x8664, kernel: 0xaa64 }), "{error}");
    let pe = Pe::read(Content::from_bytes(stub())).unwrap();
    let many = [".a", ".b", ".c", ".d", ".e", ".f", ".g", ".h", ".i", ".j", ".k", ".l", ".m", ".n", ".o", ".p", ".q"];
    let sections = many.into_iter().chain([".r", ".s", ".t", ".u", ".v", ".w", ".x", ".y", ".z"]);
    let new = |name| NewSection { name, content: Content::from_bytes("x") };
    let error = pe.append(&sections.map(new).collect::<Vec<_>>()).unwrap_err();
    assert!(matches!(error, PeError::Full(_)), "{error}");
}

#[test]
fn symbols_for_debuggers_are_left_out() {
    let mut stub = stub();
    let end = stub.len() as u32;
    stub[0x80 + 12..0x80 + 16].copy_from_slice(&end.to_le_bytes());
    stub[0x80 + 16] = 7;
    stub.extend(b"symbols");
    let image = uki::build(&Parts { stub: Content::from_bytes(stub), ..parts() }).unwrap();
    Uki::read(image.clone()).unwrap().pe.check().unwrap();
    assert_eq!(image.to_vec().unwrap(), uki::build(&parts()).unwrap().to_vec().unwrap());
}

#[test]
fn a_section_that_outgrows_its_place_moves_to_the_end() {
    let long = executable(&[(".sbat", [b"sbat,1\n".to_vec(), vec![b'x'; 600]].concat().as_slice())]);
    // The place ends where the next section starts in memory; in the file there is more room.
    for stub in [
        executable(&[(".sbat", b"sbat,1\n")]),
        executable(&[(".text", b"x"), (".sbat", b"sbat,1\n"), (".sdmagic", b"magic")]),
    ] {
        let (stub, kernel) = (Content::from_bytes(stub), Content::from_bytes(long.clone()));
        let uki = Uki::read(uki::build(&Parts { stub, kernel, ..parts() }).unwrap()).unwrap();
        uki.pe.check().unwrap();
        assert!(uki.sbat.contains(&"x".repeat(600)));
        assert_eq!(uki.pe.sections.last().unwrap().name, ".sbat");
        if let Some(magic) = uki.pe.section(".sdmagic") {
            assert_eq!(uki.pe.content(magic).to_vec().unwrap(), b"magic");
        }
    }
}

#[test]
fn refuses_overlapping_sections_and_hidden_bytes() {
    let good = uki::build(&parts()).unwrap().to_vec().unwrap();
    let header = |index: usize| 0x80 + 24 + 0xf0 + index * 40;
    let with = |offset: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        Pe::read(Content::from_bytes(bytes)).map(|_| ()).unwrap_err()
    };
    for (field, value) in [(20, 0x600), (16, u32::MAX), (12, 0x1000), (8, u32::MAX)] {
        let error = with(header(4) + field, value);
        assert!(matches!(&error, PeError::Section { name, .. } if name == ".cmdline"), "{error}");
        assert_eq!(error.offset(), header(4) as u64);
    }
    let mut hidden = good.clone();
    let cmdline = Uki::read(Content::from_bytes(good)).unwrap().pe.section(".cmdline").unwrap().range();
    hidden[cmdline.end as usize + 3] = 1;
    let error = Uki::read(Content::from_bytes(hidden)).unwrap().pe.check().unwrap_err();
    assert!(matches!(error, PeError::Stray { offset } if offset == cmdline.end + 3), "{error}");
}

proptest::proptest! {
    #[test]
    fn mutated_images_never_panic(changes in proptest::collection::vec((0usize..0x700, 0u8..), 1..6)) {
        let mut bytes = uki::build(&parts()).unwrap().to_vec().unwrap();
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        if let Ok(image) = Uki::read(Content::from_bytes(bytes)) {
            let _ = image.pe.check();
            let _ = image.pe.append(&[NewSection { name: ".new", content: Content::from_bytes("x") }]);
        }
    }
}

#[test]
fn a_section_without_bytes_in_the_file_may_stand_anywhere() {
    let mut file = executable(&[(".text", &[0x90; 600]), (".osrel", b"")]);
    // Its offset in the file, in the second section header.
    let offset = 0x80 + 24 + 0xf0 + 40 + 20;
    file[offset..offset + 4].copy_from_slice(&0u32.to_le_bytes());
    let pe = Pe::read(Content::from_bytes(file.clone())).unwrap();
    let empty = pe.append(&[NewSection { name: ".osrel", content: Content::from_bytes("") }]).unwrap();
    assert_eq!(empty.to_vec().unwrap()[0x600..], file[0x600..]);
    let moved = pe.append(&[NewSection { name: ".osrel", content: Content::from_bytes("x") }]).unwrap();
    let moved = Pe::read(moved).unwrap();
    assert_eq!(moved.content(moved.section(".osrel").unwrap()).to_vec().unwrap(), b"x");
    assert_eq!(moved.sections.len(), 2);
}

#[test]
fn refuses_an_optional_header_that_ends_among_its_fields() {
    let mut file = stub();
    file[0x80 + 20..0x80 + 22].copy_from_slice(&24u16.to_le_bytes());
    let refused = Pe::read(Content::from_bytes(file)).unwrap_err();
    assert!(matches!(refused, PeError::Field { field: "size of the optional header", offset: 0x94 }), "{refused}");
}

#[test]
fn a_section_is_not_replaced_by_more_than_memory_has_room_for() {
    let mut file = executable(&[(".osrel", &[1; 600]), (".text", &[0x90; 600])]);
    // The second section stands right behind the first byte of the first.
    let headers = 0x80 + 24 + 0xf0;
    file[headers + 8..headers + 12].copy_from_slice(&1u32.to_le_bytes());
    file[headers + 40 + 12..headers + 40 + 16].copy_from_slice(&4097u32.to_le_bytes());
    let pe = Pe::read(Content::from_bytes(file)).unwrap();
    let replace = |bytes: &str| pe.append(&[NewSection { name: ".osrel", content: Content::from_bytes(bytes) }]);
    let place = |image| Pe::read(image).unwrap().sections.iter().position(|section| section.name == ".osrel").unwrap();
    assert_eq!(place(replace("x").unwrap()), 0);
    assert_eq!(place(replace("xy").unwrap()), 1);
}
