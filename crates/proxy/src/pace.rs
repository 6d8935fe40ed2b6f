//! How fast a client must be. One who sends a body or takes an answer a few bytes at a time holds a connection,
//! memory and often a backend for as long as it likes, whatever the limit between two reads or writes is.
//!
//! Time in which we wait for the client is a debt, and bytes pay it off at the least rate that is allowed. A
//! debt of a whole limit gives the client up. Who is never waited for owes nothing, so that a slow backend is
//! not held against its clients. No burst is credited for later.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use goodgate_config::Limits;
use tokio::time::{Sleep, sleep};

/// What of an answer a client must take in `limits.write_timeout`.
const TAKEN_BYTES_MIN: u32 = 16 << 10;

/// How long a client may owe, and what a byte is worth.
#[derive(Clone, Copy, Debug)]
struct Rule {
    limit: Duration,
    byte: Duration,
}

/// A client's debts in both directions.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    body: Option<Rule>,
    answer: Option<Rule>,
    sending: Account,
    taking: Account,
}

#[derive(Debug, Default)]
struct Account {
    debt: Debt,
    /// Set for the earliest time that matters, and looked at again only when it rings.
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Default)]
struct Debt {
    owed: Duration,
    waits_since: Option<Instant>,
}

impl Pace {
    /// The rules from now on.
    pub(crate) fn keep(&mut self, limits: &Limits) {
        let second = Duration::from_secs(1);
        let rate = limits.body_rate_min;
        self.body = rate.map(|rate| Rule { limit: limits.body_timeout, byte: second / rate.get() });
        let limit = limits.write_timeout;
        self.answer = Some(Rule { limit, byte: limit / TAKEN_BYTES_MIN });
    }

    /// The next request owes nothing.
    pub(crate) fn begin(&mut self) {
        (self.sending, self.taking) = (Account::default(), Account::default());
    }

    /// The client has sent this much of a body.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sending.pay(self.body, bytes);
    }

    /// The client has taken this much of an answer.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.taking.pay(self.answer, bytes);
    }

    /// The client has taken all that there was: of TLS it is not known how much.
    pub(crate) fn took_all(&mut self) {
        self.taking.debt = Debt::default();
    }

    /// There is nothing to read of a body. Ready when the client is given up.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.sending.poll(self.body, context)
    }

    /// There is no room to write. Ready when the client is given up.
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.taking.poll(self.answer, context)
    }
}

impl Account {
    fn pay(&mut self, rule: Option<Rule>, bytes: usize) {
        if let Some(rule) = rule.filter(|_| self.debt.is_any()) {
            self.debt.pay(rule, bytes, Instant::now());
        }
    }

    fn poll(&mut self, rule: Option<Rule>, context: &mut Context<'_>) -> Poll<()> {
        let Some(rule) = rule else { return Poll::Pending };
        let left = self.debt.wait(rule, Instant::now());
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(left)));
        while alarm.as_mut().poll(context).is_ready() {
            let left = self.debt.wait(rule, Instant::now());
            if left.is_zero() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(tokio::time::Instant::now() + left);
        }
        Poll::Pending
    }
}

impl Debt {
    fn is_any(&self) -> bool {
        self.waits_since.is_some() || !self.owed.is_zero()
    }

    /// The client is waited for; for how long it may be from now on.
    fn wait(&mut self, rule: Rule, now: Instant) -> Duration {
        let since = *self.waits_since.get_or_insert(now);
        rule.limit.saturating_sub(self.owed + now.saturating_duration_since(since))
    }

    /// Bytes have come, or have gone.
    fn pay(&mut self, rule: Rule, bytes: usize, now: Instant) {
        let waited = self.waits_since.take().map(|since| now.saturating_duration_since(since));
        let paid = rule.byte.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.owed = (self.owed + waited.unwrap_or_default()).saturating_sub(paid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// 100 bytes a second.
    const RULE: Rule = Rule { limit: Duration::from_secs(30), byte: Duration::from_millis(10) };

    /// After how long a client is given up that sends so many bytes again and again, after a pause.
    fn given_up(bytes: usize, pause: Duration) -> Option<Duration> {
        let start = Instant::now();
        let (mut debt, mut now) = (Debt::default(), start);
        while now - start < 1000 * SECOND {
            let left = debt.wait(RULE, now);
            if left <= pause {
                return Some(now + left - start);
            }
            now += pause;
            debt.pay(RULE, bytes, now);
        }
        None
    }

    #[test]
    fn who_trickles_is_given_up_after_the_limit_and_what_its_bytes_are_worth() {
        assert_eq!(given_up(1, 40 * SECOND), Some(30 * SECOND), "nothing comes");
        assert_eq!(given_up(1, SECOND), Some(Duration::from_millis(30_300)));
        assert_eq!(given_up(50, SECOND), Some(59 * SECOND));
        assert_eq!(given_up(100, SECOND), None, "just fast enough");
        assert_eq!(given_up(2000, 20 * SECOND), None, "in spurts");
    }

    #[test]
    fn no_burst_is_credited_and_only_a_wait_is_a_debt() {
        let start = Instant::now();
        let mut debt = Debt::default();
        debt.pay(RULE, 1 << 30, start);
        assert_eq!(debt.wait(RULE, start), 30 * SECOND);
        assert_eq!(debt.wait(RULE, start + 10 * SECOND), 20 * SECOND);
        debt.pay(RULE, 100, start + 10 * SECOND);
        assert!(debt.is_any());
        // For an hour nobody asks: the backend is slow.
        let later = start + 3600 * SECOND;
        assert_eq!(debt.wait(RULE, later), 21 * SECOND);
        debt.pay(RULE, 900, later);
        assert!(!debt.is_any());
    }
}
