//! Peak memory of whole builds of images with more and more in them: what grows with the size of the content.
//!
//!     cargo bench --bench memory [-- MEGABYTES...]          200 1000 4000 unless told otherwise
//!
//! The minimal recipe with a folder of so many megabytes: files of 1 KiB to 4 MiB, every tenth of up to 64 MiB, that compress to a
//! third. The folder is made in TMPDIR, store and image in the target folder; both need room for the largest.
//! Measured is the resident memory of the largest process of each build; the tree that scripts run in is a tmpfs and counts to none.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only compiles and starts it.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let sizes: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let mut sizes = if sizes.is_empty() { vec![200, 1000, 4000] } else { sizes };
    // The kernel tells the largest of all processes so far: each size has to be larger than the ones before.
    sizes.sort_unstable();
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let recipes = tempfile::tempdir().unwrap();
    println!("{:>10} {:>10} {:>10} {:>10}", "MB", "files", "peak MiB", "wall s");
    for size in sizes {
        let content = recipes.path().join("content");
        let files = write_content(&content, size * 1_000_000);
        write_recipe(recipes.path());
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command.args(["build", "--quiet", "--store"]).arg(scratch.path().join("store"));
        command.arg(recipes.path().join("large.toml")).arg("--out").arg(scratch.path().join("out"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
        println!("{size:10} {files:10} {peak:10} {:10.1}", start.elapsed().as_secs_f64());
        for directory in [scratch.path().join("out"), scratch.path().join("store/stages/image"), content] {
            fs::remove_dir_all(directory).unwrap();
        }
    }
}

fn write_recipe(folder: &Path) {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let text = fs::read_to_string(recipes.join("minimal.toml")).unwrap();
    let text = text + "\n[[file]]\npath = \"/srv/content\"\nsource = \"content\"\n";
    fs::write(folder.join("large.toml"), text).unwrap();
    fs::copy(recipes.join("minimal.lock"), folder.join("large.lock")).unwrap();
}

/// Writes files of `total` bytes; gives their number.
fn write_content(folder: &Path, total: u64) -> u64 {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let (mut number, mut written) = (0, 0);
    while written < total {
        let directory = folder.join((number / 200).to_string());
        fs::create_dir_all(&directory).unwrap();
        // As many of each order of magnitude.
        let most = 1 << (10 + next() % if number % 10 == 0 { 17 } else { 13 });
        let size = (most / 2 + next() % (most / 2)).min(total - written);
        let mut file = BufWriter::new(File::create(directory.join(number.to_string())).unwrap());
        let mut left = size;
        while left > 0 {
            let line = format!("{:06} the same words in every line {:04}\n", next() % 1_000_000, next() % 10_000);
            let count = left.min(line.len() as u64);
            file.write_all(&line.as_bytes()[..count as usize]).unwrap();
            left -= count;
        }
        file.flush().unwrap();
        (number, written) = (number + 1, written + size);
    }
    number
}
