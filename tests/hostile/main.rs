//! Readers of bytes from outside, under mutated input: none panics, none overflows, none takes more memory than its row
//! in `fuzz/src/lib.rs` grants, none takes long.
//!
//! Each case runs for a second, always over the same inputs. Longer, elsewhere, or one input again:
//!
//! | variable | meaning |
//! |---|---|
//! | `HOSTILE_SECONDS` | how long each reader is attacked |
//! | `HOSTILE_START` | number of the first mutation |
//! | `HOSTILE_INPUT` | a file: this input and no other |
//! | `HOSTILE_SEEDS` | a directory, into which the case `seeds_can_be_written` writes what mutations start from |

mod attack;
mod crafted;
mod memory;
mod mutate;
mod seeds;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::path::PathBuf;

macro_rules! survives {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];

        mod survives_mutated {
            $(
                #[test]
                fn $name() {
                    super::attack::attack(stringify!($name));
                }
            )*
        }
    };
}

survives! {
    recipe config apt_sources identifiers openpgp_keys in_release release control packages relations lock deb deb_tar
    deb_index accounts units tree_dump erofs fat cpio verity elf kernel_module command_line os_release cache_entry keys changelog uki gpt
    manifest checksums guest
}

#[test]
fn every_reader_has_a_case_a_fuzz_target_and_seeds() {
    let rows: BTreeSet<String> = targets::TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(CASES.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), rows);
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let files = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
    let stems = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(stems.collect::<BTreeSet<_>>(), rows);
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in &rows {
        let text = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert!(!seeds::of(name).is_empty(), "{name}");
    }
}

#[test]
fn seeds_can_be_written() {
    let Some(directory) = std::env::var_os("HOSTILE_SEEDS").map(PathBuf::from) else { return };
    for name in CASES {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        for (number, seed) in seeds::of(name).into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
