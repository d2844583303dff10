//! Power-on to login prompt in QEMU without KVM, beside an image of mkosi: one run prints both.
//!
//!     ADAMANT_ANCHORS=DIR cargo bench --bench boot -- out/minimal_1/minimal_1_amd64.raw
//!
//! DIR as for the bench `build`: its image is `mkosi/out/reference_1.raw`. Both images run on the same QEMU, the one of adamant's tools
//! tree, with 1 processor and 2 GiB; the console's `login: ` ends the clock. Each is booted three times, in turn.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adamant::build::tools;
use adamant::cli::FetchArguments;
use adamant::telemetry::Silent;
use adamant::vm::{Acceleration, Machine, Tools};

const RUNS: usize = 3;
const PROMPT: &[u8] = b"login: ";

/// Tells when the prompt has come by.
struct Watch {
    tail: Vec<u8>,
    seen: Sender<Instant>,
}

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tail.extend_from_slice(bytes);
        if self.tail.windows(PROMPT.len()).any(|window| window == PROMPT) {
            // After the first time nobody listens any more.
            let _ = self.seen.send(Instant::now());
        }
        let keep = self.tail.len().saturating_sub(PROMPT.len());
        self.tail.drain(..keep);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn seconds_to_prompt(image: &Path, tools: &Tools) -> f64 {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (seen, prompt) = channel();
    let mut machine = Machine::new(image);
    machine.acceleration = Acceleration::Software;
    // Mkosi's reference image has its console on the screen unless told otherwise.
    machine.command_line = vec!["console=ttyS0".to_owned()];
    let start = Instant::now();
    let mut guest = machine.start(tools, directory.path(), Some(Box::new(Watch { tail: Vec::new(), seen }))).unwrap();
    let limit = Instant::now() + Duration::from_secs(300);
    loop {
        guest.wait_for_end(Duration::from_millis(20)).unwrap();
        if let Ok(at) = prompt.try_recv() {
            return (at - start).as_secs_f64();
        }
        assert!(Instant::now() < limit, "no prompt: {}", guest.last_words());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let ours = arguments.iter().find(|argument| argument.ends_with(".raw")).expect("the path of an image (.raw)");
    let ours = PathBuf::from(ours).canonicalize().unwrap();
    let fetch = FetchArguments { offline: false, mirror: Vec::new(), store: None };
    let fetcher = fetch.fetcher(fetch.open_store().ok().unwrap(), fetch.mirrors().ok().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let tools = Tools::at(&tools::tree(&tools::VM, &fetcher, &Silent, now).unwrap()).unwrap();
    let theirs =
        std::env::var_os("ADAMANT_ANCHORS").map(|anchors| Path::new(&anchors).join("mkosi/out/reference_1.raw"));
    let (mut our_best, mut their_best) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..RUNS {
        our_best = our_best.min(seconds_to_prompt(&ours, &tools));
        if let Some(theirs) = &theirs {
            their_best = their_best.min(seconds_to_prompt(theirs, &tools));
        }
    }
    println!("adamant  {our_best:6.1} s to the login prompt");
    match theirs {
        Some(_) => println!("mkosi    {their_best:6.1} s to the login prompt; ratio {:.2}", our_best / their_best),
        None => println!("ADAMANT_ANCHORS is not set: mkosi's image is not booted"),
    }
}
