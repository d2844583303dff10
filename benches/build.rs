//! The whole build beside mkosi, packages in the store, both making a verity disk of the same packages: one run prints both.
//!
//!     ADAMANT_ANCHORS=DIR cargo bench --bench build
//!
//! DIR has a Debian 13 root tree in `tree/` with mkosi 25, systemd-repart, erofs-utils, cryptsetup-bin, systemd-ukify,
//! systemd-boot and what they need, as `mmdebstrap` makes it, and `mkosi/` with the configuration of a disk with an EROFS root, its verity
//! partition and a UKI (`mkosi.conf`, `mkosi.repart/`). Without it only adamant is measured. Needs root for mkosi.
//!
//! Measured are wall and CPU time (children included) and the peak resident memory of one process. Adamant's stage results are removed
//! before each run, so that it unpacks, configures and compresses everything; only package files are kept, as mkosi keeps its.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

const RUNS: usize = 3;

struct Measured {
    wall: f64,
    cpu: f64,
}

fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn measure(command: &mut Command) -> Measured {
    let (start, before) = (Instant::now(), cpu_of_children());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Measured { wall: start.elapsed().as_secs_f64(), cpu: cpu_of_children() - before }
}

fn best(runs: Vec<Measured>) -> Measured {
    runs.into_iter().min_by(|a, b| a.wall.total_cmp(&b.wall)).unwrap()
}

fn adamant(scratch: &Path) -> Measured {
    let store = scratch.join("store");
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/minimal.toml");
    let build = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adamant"));
        command.arg("build").arg(&recipe).arg("--quiet").arg("--store").arg(&store);
        command.arg("--out").arg(scratch.join("out"));
        command
    };
    measure(&mut build()); // fills the store
    best(
        (0..RUNS)
            .map(|_| {
                fs::remove_dir_all(store.join("stages")).unwrap();
                fs::create_dir(store.join("stages")).unwrap();
                measure(build().arg("--offline"))
            })
            .collect(),
    )
}

/// mkosi in the tree: a mount namespace of its own, the tree as root, the configuration at /mnt.
fn mkosi(anchors: &Path) -> Measured {
    const ENTER: &str = "set -e; tree=$1; cd \"$2\"; mount --bind \"$tree\" \"$tree\"; mount -t proc proc \"$tree/proc\"; \
        mount --rbind /dev \"$tree/dev\"; mount --rbind /sys \"$tree/sys\"; mount -t tmpfs tmpfs \"$tree/run\"; \
        mount --bind \"$PWD\" \"$tree/mnt\"; exec chroot \"$tree\" sh -c 'cd /mnt && exec mkosi -f build'";
    let run = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-c", ENTER, "bash"]);
        command.arg(anchors.join("tree")).arg(anchors.join("mkosi"));
        command
    };
    measure(&mut run()); // fills its cache of packages
    best((0..RUNS).map(|_| measure(&mut run())).collect())
}

fn main() {
    // `cargo test --benches` only compiles and starts it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ours = adamant(scratch.path());
    println!("adamant build recipes/minimal.toml   {:6.2} s wall {:6.2} s CPU", ours.wall, ours.cpu);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    println!("largest process so far               {:6.0} MiB resident", usage.max_rss() as f64 / 1024.0);
    let Some(anchors) = std::env::var_os("ADAMANT_ANCHORS").map(PathBuf::from) else {
        println!("ADAMANT_ANCHORS is not set: mkosi is not measured");
        return;
    };
    let theirs = mkosi(&anchors);
    println!("mkosi build                          {:6.2} s wall {:6.2} s CPU", theirs.wall, theirs.cpu);
    println!(
        "ratio                                {:6.2}   wall {:6.2}   CPU",
        theirs.wall / ours.wall,
        theirs.cpu / ours.cpu
    );
}
