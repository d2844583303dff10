//! How long to wait before the next attempt.

use std::time::Duration;

/// Attempts that follow one another at growing distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts that bring nothing are made, the first included. One that brings bytes starts the count anew.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait, also when a server asks for a longer one.
    pub longest_delay: Duration,
}

impl Default for Retry {
    /// Five attempts within about eight seconds: a mirror that restarts is waited for, a wrong address is soon told.
    fn default() -> Self {
        Self { attempts: 5, first_delay: Duration::from_millis(500), longest_delay: Duration::from_secs(30) }
    }
}

impl Retry {
    /// The wait after `failures` failures (at least one); `None`: give up. `jitter`, from 0 to 1, spreads the waits of
    /// connections that failed together over half to all of the time. `asked`: what the server asked for (Retry-After).
    pub fn delay(&self, failures: u32, jitter: f64, asked: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let doubled = self.first_delay.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let delay = doubled.min(self.longest_delay).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        Some(delay.max(asked.unwrap_or_default().min(self.longest_delay)))
    }
}

/// A number from 0 to 1 that differs between calls and processes. Nothing in any output depends on it.
pub(super) fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end_after_the_last_attempt() {
        let second = Duration::from_secs(1);
        let retry = Retry { attempts: 5, first_delay: second, longest_delay: 3 * second };
        let delays: Vec<_> = (1..=5).map(|failures| retry.delay(failures, 1.0, None)).collect();
        assert_eq!(delays, [Some(second), Some(2 * second), Some(3 * second), Some(3 * second), None]);
        assert_eq!(retry.delay(1, 0.0, None), Some(second / 2));
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_limits() {
        let second = Duration::from_secs(1);
        let retry = Retry { attempts: 5, first_delay: second, longest_delay: 10 * second };
        assert_eq!(retry.delay(1, 1.0, Some(4 * second)), Some(4 * second));
        assert_eq!(retry.delay(1, 1.0, Some(3600 * second)), Some(10 * second));
    }
}
