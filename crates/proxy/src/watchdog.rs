//! Deadlines of attempts that Pingora has no timer for: the response header as a whole, and a tunnel in which nothing
//! moves in either direction.
//!
//! Pingora's read timeout is per read and fixed for an attempt, so a backend that trickles its header, or
//! whose first byte may take longer than a pause in its body, escapes it. Here the deadline and the
//! attempt's socket are noted, and when it passes the socket is shut down, which the attempt sees as a
//! closed connection. The request's future and the alarm are polled by one task, so when the alarm acts,
//! the request is suspended and its socket still open: no descriptor can have been reused.
//! Nothing is scheduled per request; the alarm of a connection is set anew only when it rings.

use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep_until};

/// The deadline of the attempt that one client connection has under way.
#[derive(Debug)]
pub(crate) struct Watchdog {
    born: Instant,
    /// Microseconds after `born`; zero: none.
    deadline: AtomicU64,
    socket: AtomicI32,
    fired: AtomicBool,
}

/// A timer of one client connection, kept from request to request and set anew only when it rings.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer knows whom to wake: the task of the connection, always the same.
    is_set: bool,
}

impl Alarm {
    /// Ready once the deadline has passed. A timer that was set for an earlier one is left to ring first.
    fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        if timer.is_elapsed() && Instant::now() >= deadline {
            return Poll::Ready(());
        }
        if timer.is_elapsed() || timer.deadline() > deadline.into() {
            timer.as_mut().reset(deadline.into());
            self.is_set = false;
        }
        if self.is_set {
            return Poll::Pending;
        }
        self.is_set = true;
        timer.as_mut().poll(context)
    }
}

impl Alarm {
    /// What the future gives, or nothing if the deadline passes first.
    pub(crate) async fn race<F: Future>(&mut self, deadline: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(deadline, context).map(|()| None),
        })
        .await
    }
}

/// Watches the attempts of a request that no connection of a client runs: a refresh behind one.
///
/// Its task is on the thread of the request, whose runtime has no other: between the end of an attempt's
/// connection and the word of it here nothing else runs, so that this socket, too, is still the attempt's.
#[derive(Debug)]
pub(crate) struct Companion {
    watchdog: Arc<Watchdog>,
    task: Option<JoinHandle<()>>,
}

impl Companion {
    pub(crate) fn new(now: Instant) -> Self {
        Self { watchdog: Arc::new(Watchdog::new(now)), task: None }
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Begins to watch: after the watchdog was armed. Must be called within the request's runtime.
    pub(crate) fn wake(&mut self) {
        let watchdog = Arc::clone(&self.watchdog);
        let watching = async move {
            while let Some(deadline) = watchdog.deadline() {
                if Instant::now() >= deadline {
                    return watchdog.fire();
                }
                sleep_until(deadline.into()).await;
            }
        };
        if let Some(before) = self.task.replace(tokio::spawn(watching)) {
            before.abort();
        }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Watchdog {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            born: now,
            deadline: AtomicU64::new(0),
            socket: AtomicI32::new(-1),
            fired: AtomicBool::new(false),
        }
    }

    /// Moves the deadline of the attempt under way; nothing if there is none.
    pub(crate) fn adjust(&self, deadline: Instant) {
        if self.deadline.load(Ordering::Relaxed) != 0 {
            self.deadline.store(self.micros(deadline), Ordering::Relaxed);
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// From now on the attempt on `socket` must have its response header by `deadline`.
    pub(crate) fn arm(&self, socket: RawFd, deadline: Instant) {
        self.fired.store(false, Ordering::Relaxed);
        self.socket.store(socket, Ordering::Relaxed);
        self.deadline.store(self.micros(deadline), Ordering::Relaxed);
    }

    /// From now on there is this deadline for what follows on the same socket.
    pub(crate) fn rearm(&self, deadline: Instant) {
        self.deadline.store(self.micros(deadline), Ordering::Relaxed);
    }

    /// Whether the deadline has passed.
    pub(crate) fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed)
    }

    /// The header has come, or the attempt is over. Whether the deadline had passed before.
    pub(crate) fn disarm(&self) -> bool {
        self.deadline.store(0, Ordering::Relaxed);
        self.fired.swap(false, Ordering::Relaxed)
    }

    fn deadline(&self) -> Option<Instant> {
        match self.deadline.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.born + Duration::from_micros(micros)),
        }
    }

    fn fire(&self) {
        self.deadline.store(0, Ordering::Relaxed);
        self.fired.store(true, Ordering::Relaxed);
        // It fails only if the backend has closed already, and then the attempt is over as well.
        let _ = shutdown(self.socket.load(Ordering::Relaxed), Shutdown::Both);
    }

    /// Runs the request and watches its attempts.
    pub(crate) async fn watch<F: Future>(&self, alarm: &mut Alarm, request: F) -> F::Output {
        let mut request = pin!(request);
        poll_fn(|context| {
            if let Poll::Ready(output) = request.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            while let Some(deadline) = self.deadline() {
                if alarm.poll(deadline, context).is_pending() {
                    return Poll::Pending;
                }
                self.fire();
            }
            Poll::Pending
        })
        .await
    }
}
