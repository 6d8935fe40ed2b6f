//! Why an attempt or a request failed, and whether it may be tried again.
//!
//! One closed list, [`Cause`], is the vocabulary of every place a failure shows: log, header, metric,
//! page, docs. Everything else about a failure is derived from it by exhaustive `match`. This room does
//! no I/O and reads no clock: time and randomness are arguments.

mod address;
mod attempt;
mod budget;
mod cause;
mod guide;
mod networks;
mod retry;
mod tls;
mod window;
mod words;

pub use address::Address;
pub use attempt::{Attempt, Attempts, ConnectionAge, Phase, decisive_cause};
pub use budget::{Budget, BudgetPolicy};
pub use cause::{Blame, Cause, ReceivedStatus};
pub use guide::{Chapter, Guide};
pub use networks::Networks;
pub use retry::{Allowance, Decision, Refusal, Replay, RetryPolicy, Situation, is_idempotent, is_safe};
pub use window::Window;
pub use words::{Word, Words};
