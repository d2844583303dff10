//! The loop: seeds, mutations, limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mutate::Mutator;
use crate::targets::{self, TARGETS, Target};
use crate::{memory, seeds};

/// No input may take longer. A busy machine and an unoptimised build are slow, an endless loop is slower.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Attacks the reader of that name for a while.
pub fn attack(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a row");
    let watch = Watch::start(name);
    // Errors of other crates hold backtraces where the environment asks for them: what those need once is not the
    // input's fault.
    let _ = std::backtrace::Backtrace::capture().to_string();
    if let Some(path) = std::env::var_os("HOSTILE_INPUT") {
        return one(target, &std::fs::read(path).unwrap(), &watch);
    }
    let seeds = seeds::of(name);
    for seed in &seeds {
        one(target, seed, &watch);
    }
    let seconds = number("HOSTILE_SECONDS", 1);
    let first = number("HOSTILE_START", 0);
    let started = Instant::now();
    let mut round = first;
    while started.elapsed() < Duration::from_secs(seconds) {
        let input = Mutator::new(round).mutate(&seeds);
        one(target, &input, &watch);
        round += 1;
    }
    println!("{name}: {} inputs", round - first);
}

/// Gives the reader of that name one input.
pub fn this(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a row");
    one(target, input, &Watch::start(name));
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn one(target: &Target, input: &[u8], watch: &Watch) {
    watch.begin(input);
    let started = Instant::now();
    let mut fell = false;
    let most = memory::most(|| {
        let run = std::panic::AssertUnwindSafe(|| targets::run(target.name, input));
        fell = std::panic::catch_unwind(run).is_err();
    });
    let took = started.elapsed();
    watch.end();
    let room = target.room + target.room_per_byte * input.len();
    let complaint = if fell {
        "panics".to_owned()
    } else if most > room {
        format!("takes {most} bytes of memory, of {room} granted to {} bytes of input", input.len())
    } else if took > TIME_MAX {
        format!("takes {took:?} for {} bytes of input", input.len())
    } else {
        return;
    };
    panic!("{} {complaint}; the input is {}", target.name, keep(target.name, input).display());
}

/// Writes an input where it can be looked at.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hostile-{name}-{}", std::process::id()));
    std::fs::write(&path, input).unwrap();
    path
}

/// Ends the process when an input takes so long that it will not end.
struct Watch {
    started: Instant,
    /// Milliseconds from `started` at which the current input began; 0: none is running.
    began: Arc<AtomicU64>,
    input: Arc<std::sync::Mutex<Vec<u8>>>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(name: &str) -> Self {
        let watch =
            Self { started: Instant::now(), began: Arc::default(), input: Arc::default(), over: Arc::default() };
        let (started, began, input, over) =
            (watch.started, watch.began.clone(), watch.input.clone(), watch.over.clone());
        let name = name.to_owned();
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                let since = began.load(Ordering::Relaxed);
                let now = started.elapsed().as_millis() as u64;
                if since != 0 && now > since + 4 * TIME_MAX.as_millis() as u64 {
                    let path = keep(&name, &input.lock().unwrap());
                    eprintln!("{name} does not end; the input is {}", path.display());
                    std::process::abort();
                }
            }
        });
        watch
    }

    fn begin(&self, input: &[u8]) {
        *self.input.lock().unwrap() = input.to_vec();
        self.began.store(self.started.elapsed().as_millis().max(1) as u64, Ordering::Relaxed);
    }

    fn end(&self) {
        self.began.store(0, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
