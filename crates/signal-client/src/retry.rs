//! Whether and when to come back. Pure: the random number and the time are given to it.

use std::time::Duration;

use signal_core::close::CloseCode;

use crate::event::Loss;

/// A hint of the edge beyond this is a mistake.
const HINT_MAX: Duration = Duration::from_mins(5);

/// How long to wait, at least and at most, and when a connection was stable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconnect {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) stable: Duration,
}

/// What a connection was like when it ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) loss: Loss,
    /// Since it was online; `None` if it never was.
    pub(crate) online_for: Option<Duration>,
    /// What `goodbye` said.
    pub(crate) retry_after: Option<Duration>,
    /// The edge could not judge the credentials.
    pub(crate) is_unjudged: bool,
    /// It must not come back, whatever the code.
    pub(crate) is_final: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    End,
    /// Dial after this long; the credentials may have to be others.
    Dial {
        delay: Duration,
        was_refused: bool,
    },
}

/// The attempts since a connection was stable.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    count: u32,
    was_refused: bool,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(500),
            max: Duration::from_secs(20),
            stable: Duration::from_secs(10),
        }
    }
}

// === impl Ended ===

impl Ended {
    pub(crate) fn with(loss: Loss) -> Self {
        Self { loss, online_for: None, retry_after: None, is_unjudged: false, is_final: false }
    }
}

// === impl Attempts ===

impl Attempts {
    /// `random` is a number from 0 to 1.
    pub(crate) fn next(&mut self, reconnect: Reconnect, ended: &Ended, random: f64) -> Next {
        let code = match &ended.loss {
            Loss::Application => return Next::End,
            Loss::Closed { code, .. } => Some(*code),
            Loss::Failed(_) => None,
        };
        let refused = matches!(
            ended.loss.code(),
            Some(CloseCode::AuthenticationFailed | CloseCode::CredentialsRevoked)
        ) && !ended.is_unjudged;
        if ended.online_for.is_some() {
            self.was_refused = false;
        }
        let may_return = match code {
            _ if ended.is_final => false,
            _ if refused => !self.was_refused,
            _ if ended.is_unjudged => true,
            Some(code) => may_reconnect(code),
            None => true,
        };
        if !may_return {
            return Next::End;
        }
        self.was_refused = refused;
        if ended.online_for.is_some_and(|lasted| lasted >= reconnect.stable) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        let backoff = backoff(reconnect, self.count, random);
        let delay = match ended.retry_after.map(|hint| hint.min(HINT_MAX)) {
            // It was stable, so the edge's word counts as it is.
            Some(hint) if self.count == 1 => hint,
            Some(hint) => hint.max(backoff),
            None => backoff,
        };
        Next::Dial { delay, was_refused: refused }
    }
}

/// Whether a client comes back after a close with this code. Others than Signal's come from proxies.
fn may_reconnect(code: u16) -> bool {
    CloseCode::from_code(code).map_or(!(4500..4600).contains(&code), CloseCode::reconnect)
}

/// Full jitter: after a restart not everyone comes back in the same instant.
fn backoff(reconnect: Reconnect, attempt: u32, random: f64) -> Duration {
    let Reconnect { min, max, .. } = reconnect;
    let cap = min.saturating_mul(2_u32.saturating_pow(attempt.min(20))).min(max);
    min + cap.saturating_sub(min).mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16) -> Ended {
        Ended::with(Loss::Closed { code, reason: String::new() })
    }

    fn delays(random: f64) -> Vec<u128> {
        let mut attempts = Attempts::default();
        let next = |attempts: &mut Attempts| match attempts.next(
            Reconnect::default(),
            &closed(1006),
            random,
        ) {
            Next::Dial { delay, .. } => delay.as_millis(),
            Next::End => panic!("it ended"),
        };
        (0..7).map(|_| next(&mut attempts)).collect()
    }

    #[test]
    fn waits_grow_and_are_spread() {
        assert_eq!(delays(0.0), [500; 7]);
        assert_eq!(delays(1.0), [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
    }

    #[test]
    fn only_a_stable_connection_begins_anew() {
        let mut attempts = Attempts::default();
        let mut ended = closed(1006);
        for (seconds, expected) in [(1, 1000), (9, 2000), (10, 1000)] {
            ended.online_for = Some(Duration::from_secs(seconds));
            let next = attempts.next(Reconnect::default(), &ended, 1.0);
            let delay = Duration::from_millis(expected);
            assert_eq!(next, Next::Dial { delay, was_refused: false });
        }
    }

    #[test]
    fn the_table_decides() {
        for &code in CloseCode::ALL {
            let may_renew = matches!(code.code(), 4003 | 4500);
            let next = Attempts::default().next(Reconnect::default(), &closed(code.code()), 0.0);
            assert_eq!(next != Next::End, code.reconnect() || may_renew, "{code}");
        }
        for (code, again) in [(1005, true), (1011, true), (4199, true), (4599, false)] {
            let next = Attempts::default().next(Reconnect::default(), &closed(code), 0.0);
            assert_eq!(next != Next::End, again, "{code}");
        }
    }

    #[test]
    fn refused_credentials_are_replaced_once() {
        let mut attempts = Attempts::default();
        let reconnect = Reconnect::default();
        let next = attempts.next(reconnect, &closed(4003), 0.0);
        assert!(matches!(next, Next::Dial { was_refused: true, .. }));
        assert_eq!(attempts.next(reconnect, &closed(4003), 0.0), Next::End);
        // Those that nobody could judge are offered again and again.
        let unjudged = Ended { is_unjudged: true, ..closed(4003) };
        for _ in 0..3 {
            let next = attempts.next(reconnect, &unjudged, 0.0);
            assert!(matches!(next, Next::Dial { was_refused: false, .. }));
        }
    }

    #[test]
    fn a_hint_counts_but_never_makes_a_loop() {
        let mut attempts = Attempts::default();
        let mut ended = closed(4101);
        ended.online_for = Some(Duration::from_mins(1));
        ended.retry_after = Some(Duration::from_secs(3));
        let delay = Duration::from_secs(3);
        let next = attempts.next(Reconnect::default(), &ended, 1.0);
        assert_eq!(next, Next::Dial { delay, was_refused: false });
        // Again and again, from connections that do not last.
        ended.online_for = Some(Duration::ZERO);
        ended.retry_after = Some(Duration::ZERO);
        let next = attempts.next(Reconnect::default(), &ended, 0.0);
        let delay = Duration::from_millis(500);
        assert_eq!(next, Next::Dial { delay, was_refused: false });
        ended.retry_after = Some(Duration::from_hours(10_000));
        let next = attempts.next(Reconnect::default(), &ended, 0.0);
        assert_eq!(next, Next::Dial { delay: HINT_MAX, was_refused: false });
    }
}
