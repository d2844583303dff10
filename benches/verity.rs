//! dm-verity of 1 GiB: `adamant` beside `veritysetup format`, in one run, on two cores.
//!
//! `cargo bench --bench verity`. The data is in a file and in the page cache for both. Prints both figures.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use adamant::identifier::Uuid;
use adamant::verity;

const SIZE: u64 = 1 << 30;
const CORES: usize = 2;
const ROUNDS: usize = 3;

fn main() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let (data, hash) = (directory.path().join("data"), directory.path().join("hash"));
    write_noise(&data)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(CORES).build().map_err(io::Error::other)?;
    let ours = fastest(|| pool.install(|| format(&data, &hash)))?;
    println!("adamant verity::format      {:>7.3} s  {:>6.0} MB/s  {CORES} threads", ours.as_secs_f64(), rate(ours));
    let checked = fastest(|| pool.install(|| check(&data, &hash)))?;
    println!(
        "adamant verity::verify      {:>7.3} s  {:>6.0} MB/s  {CORES} threads",
        checked.as_secs_f64(),
        rate(checked)
    );
    let mut command = Command::new("veritysetup");
    command.args(["format", "--salt", &"00".repeat(32)]).args([&data, &hash]);
    match fastest(
        || if command.output()?.status.success() { Ok(()) } else { Err(io::Error::other("veritysetup failed")) },
    ) {
        Ok(theirs) => {
            println!("veritysetup format          {:>7.3} s  {:>6.0} MB/s", theirs.as_secs_f64(), rate(theirs));
            println!("times faster                {:>7.2}", theirs.as_secs_f64() / ours.as_secs_f64());
        }
        Err(error) => println!("veritysetup format          not measured: {error}"),
    }
    Ok(())
}

fn rate(time: Duration) -> f64 {
    SIZE as f64 / 1e6 / time.as_secs_f64()
}

fn fastest(mut work: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn write_noise(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 1u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

fn format(data: &Path, hash: &Path) -> io::Result<()> {
    let data = File::open(data)?;
    let mut out = File::create(hash)?;
    let root = verity::format(&data, SIZE, [0; 32], Uuid::NIL, &mut out).map_err(io::Error::other)?;
    fs::write(hash.with_extension("root"), root.to_string())
}

fn check(data: &Path, hash: &Path) -> io::Result<()> {
    let root = fs::read_to_string(hash.with_extension("root"))?.parse().map_err(io::Error::other)?;
    let (data, hash) = (File::open(data)?, File::open(hash)?);
    let size = hash.metadata()?.len();
    verity::verify(&data, SIZE, &hash, size, &root).map(|_| ()).map_err(io::Error::other)
}
