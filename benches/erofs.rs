//! EROFS images side by side with the tools people use: `cargo bench --bench erofs -- DIRECTORY [LEVEL [PCLUSTER]]`.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use adamant::filesystem::erofs::{Compression, Options, write};
use adamant::tree::scan;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(directory) = arguments.first().map(PathBuf::from) else {
        eprintln!("usage: cargo bench --bench erofs -- DIRECTORY [LEVEL [PCLUSTER [PACKED [OUT]]]]");
        return;
    };
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let options = Options {
        compression: match number(1, 9) {
            0 => Compression::None,
            level if level > 100 => Compression::Lz4 { level: level as i32 - 100 },
            level => Compression::Zstd { level: level as i32 },
        },
        pcluster: number(2, 65536),
        packed_max: number(3, 32768),
        workers: NonZeroUsize::new(2).expect("not zero"),
        ..Options::default()
    };
    let start = Instant::now();
    let tree = scan(&directory).expect("the directory can be read");
    let scanned = start.elapsed();
    let start = Instant::now();
    let mut out = match arguments.get(4) {
        Some(path) => File::create(path).expect("the image can be made"),
        None => tempfile::tempfile().expect("a temporary file"),
    };
    let summary = write(&tree, &options, &mut out).expect("the image can be written");
    println!("scan {scanned:.2?}, write {:.2?}: {summary:?}", start.elapsed());
}
