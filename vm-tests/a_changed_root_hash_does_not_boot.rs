//! The root hash on the command line is another one: there is no root file system to it, and no boot.

use std::os::unix::fs::FileExt;

use adamant::vm::{Machine, Outcome};

use crate::support::{self, BOOT};

#[test]
fn a_changed_root_hash_does_not_boot() {
    let Some(built) = support::built("minimal") else { return };
    let (offset, size) = built.partition("esp");
    let (_directory, image) = built.altered(|file, manifest| {
        let mut esp = vec![0; size as usize];
        file.read_exact_at(&mut esp, offset).unwrap();
        let argument = format!("roothash={}", manifest.verity.root_hash);
        let places: Vec<usize> = (0..esp.len()).filter(|at| esp[*at..].starts_with(argument.as_bytes())).collect();
        let [place] = places[..] else { panic!("{} command lines in the ESP", places.len()) };
        let last = place + argument.len() - 1;
        let other = if esp[last] == b'0' { b'1' } else { b'0' };
        file.write_all_at(&[other], offset + last as u64).unwrap();
    });
    let mut running = support::start(Machine::new(image));
    let outcome = running.guest.wait(BOOT).unwrap();
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}\n{}", running.guest.last_words());
}
