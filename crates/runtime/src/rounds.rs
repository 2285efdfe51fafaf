//! Several addresses of which one answers: tried in turn, with a wait after each round.

use std::time::Duration;

use crate::backoff::Backoff;

/// No wait between rounds is longer: whoever takes over is found soon.
const CAP: Duration = Duration::from_secs(1);

/// The addresses, and whose turn it is.
#[derive(Clone, Debug)]
pub struct Rounds<T> {
    peers: Vec<T>,
    next: usize,
    failures: usize,
    backoff: Backoff,
}

impl<T> Rounds<T> {
    /// Begins with the first of `peers`.
    #[must_use]
    pub fn new(peers: Vec<T>) -> Self {
        Self { peers, next: 0, failures: 0, backoff: Backoff::new(Duration::from_millis(100), CAP) }
    }

    /// Whose turn it is; `None` only where there are no peers.
    #[must_use]
    pub fn current(&self) -> Option<&T> {
        self.peers.get(self.next)
    }

    /// The current one failed: it is the next one's turn, after this delay. There is none within a round.
    pub fn failed(&mut self) -> Duration {
        self.failures += 1;
        self.next = (self.next + 1).checked_rem(self.peers.len()).unwrap_or(0);
        if self.failures < self.peers.len() {
            return Duration::ZERO;
        }
        self.failures = 0;
        self.backoff.next_delay()
    }

    /// The current one answers: when it fails, a new round begins behind it.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_and_only_a_round_is_followed_by_a_wait() {
        let mut rounds = Rounds::new(vec!['a', 'b', 'c']);
        for _ in 0..20 {
            for (peer, waits) in [('a', false), ('b', false), ('c', true)] {
                assert_eq!(rounds.current(), Some(&peer));
                let delay = rounds.failed();
                assert_eq!(delay > Duration::ZERO, waits);
                assert!(delay <= CAP);
            }
        }
        rounds.failed();
        rounds.succeeded();
        assert_eq!(rounds.current(), Some(&'b'));
        assert_eq!([rounds.failed(), rounds.failed()], [Duration::ZERO; 2], "a new round");
        assert!(rounds.failed() <= Duration::from_millis(100), "from the first delay on");
    }

    #[test]
    fn a_single_one_is_waited_for_each_time() {
        let mut rounds = Rounds::new(vec!['a']);
        for _ in 0..3 {
            assert_eq!(rounds.current(), Some(&'a'));
            assert!(rounds.failed() > Duration::ZERO);
        }
        assert_eq!(Rounds::<char>::new(vec![]).current(), None);
    }
}
