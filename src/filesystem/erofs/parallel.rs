//! Work done by several threads, taken in order, with a bounded amount of it in flight.
//!
//! rayon's `collect` would hold every result; its scopes do not hold back workers that run ahead of the writer.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Tasks in flight (waiting, worked on, or waiting to be taken) per worker.
const WINDOW: usize = 3;

struct Progress<R, E> {
    /// The task that the next free worker takes.
    next: usize,
    /// Results taken so far.
    taken: usize,
    done: BTreeMap<usize, Result<R, E>>,
    stop: bool,
}

struct Shared<R, E> {
    progress: Mutex<Progress<R, E>>,
    room: Condvar,
    result: Condvar,
}

impl<R, E> Shared<R, E> {
    fn lock(&self) -> MutexGuard<'_, Progress<R, E>> {
        // A panicking worker unwinds through the scope anyhow; the counters are whole at every unlock.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the other threads to stop, also when this one panics.
struct StopOnDrop<'a, R, E>(&'a Shared<R, E>);

impl<R, E> Drop for StopOnDrop<'_, R, E> {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.room.notify_all();
        self.0.result.notify_all();
    }
}

/// Runs `work` on every task with `workers` threads, each with a state of its own, and hands the
/// results to `take` in the order of the tasks. The first error in that order ends it.
pub fn in_order<T, S, R, E>(
    tasks: &[T],
    workers: NonZeroUsize,
    work: impl Fn(&mut S, &T) -> Result<R, E> + Sync,
    mut take: impl FnMut(&T, R) -> Result<(), E>,
) -> Result<(), E>
where
    T: Sync,
    S: Default,
    R: Send,
    E: Send,
{
    let shared = Shared {
        progress: Mutex::new(Progress { next: 0, taken: 0, done: BTreeMap::new(), stop: false }),
        room: Condvar::new(),
        result: Condvar::new(),
    };
    let window = workers.get() * WINDOW;
    std::thread::scope(|scope| {
        for _ in 0..workers.get().min(tasks.len()) {
            scope.spawn(|| run(&shared, tasks, window, &work));
        }
        let _stop = StopOnDrop(&shared);
        for (number, task) in tasks.iter().enumerate() {
            let mut progress = shared.lock();
            let result = loop {
                if let Some(result) = progress.done.remove(&number) {
                    break result;
                }
                if progress.stop {
                    // A worker panicked: leave, so that the scope can pass it on.
                    return Ok(());
                }
                progress = shared.result.wait(progress).unwrap_or_else(PoisonError::into_inner);
            };
            progress.taken += 1;
            drop(progress);
            shared.room.notify_all();
            take(task, result?)?;
        }
        Ok(())
    })
}

fn run<T, S: Default, R, E>(
    shared: &Shared<R, E>,
    tasks: &[T],
    window: usize,
    work: &(impl Fn(&mut S, &T) -> Result<R, E> + Sync),
) {
    let panicking = StopOnDrop(shared);
    let mut state = S::default();
    loop {
        let mut progress = shared.lock();
        while !progress.stop && progress.next < tasks.len() && progress.next >= progress.taken + window {
            progress = shared.room.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if progress.stop || progress.next >= tasks.len() {
            break;
        }
        let number = progress.next;
        progress.next += 1;
        drop(progress);
        let result = work(&mut state, &tasks[number]);
        shared.lock().done.insert(number, result);
        shared.result.notify_all();
    }
    std::mem::forget(panicking);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(workers: usize, fail_at: usize) -> Result<Vec<u64>, u64> {
        let tasks: Vec<u64> = (0..200).collect();
        let mut taken = Vec::new();
        let work = |_: &mut (), task: &u64| {
            std::thread::sleep(std::time::Duration::from_micros(task * 7919 % 13 * 20));
            if *task >= fail_at as u64 { Err(*task) } else { Ok(task * task) }
        };
        let workers = NonZeroUsize::new(workers).unwrap();
        in_order(&tasks, workers, work, |_, result| {
            taken.push(result);
            Ok(())
        })?;
        Ok(taken)
    }

    #[test]
    fn results_come_in_the_order_of_the_tasks() {
        let expected: Vec<u64> = (0..200).map(|task| task * task).collect();
        for workers in [1, 2, 7, 300] {
            assert_eq!(squares(workers, usize::MAX), Ok(expected.clone()));
        }
    }

    #[test]
    fn the_first_error_in_order_is_the_one_told() {
        for workers in [1, 2, 7] {
            assert_eq!(squares(workers, 50), Err(50));
        }
    }

    #[test]
    #[should_panic]
    fn a_panicking_worker_is_not_waited_for() {
        let tasks = [1, 2, 3];
        let work = |_: &mut (), task: &i32| if *task == 2 { panic!("as asked") } else { Ok::<_, ()>(()) };
        let _ = in_order(&tasks, NonZeroUsize::MIN, work, |_, _| Ok(()));
    }
}
