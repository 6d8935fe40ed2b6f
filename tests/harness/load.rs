//! Keep-alive clients in the background. They note every request that does not end as it should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{Answer, Connection};
use super::eventually;

/// The longest pause of a client between two requests: other scenarios run at the same time.
const PAUSE_MAX_MS: u64 = 20;

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Vec<String>>,
}

struct Shared {
    address: SocketAddr,
    ended: AtomicBool,
    leaving: AtomicBool,
    /// Answers and failures, by client.
    ended_requests: Vec<AtomicU64>,
}

/// What the clients saw.
pub struct Report {
    pub answers: u64,
    pub failures: Vec<String>,
}

impl Report {
    /// Panics if there was a failure, or no answer at all.
    pub fn assert_good(&self) {
        let some: Vec<&String> = self.failures.iter().take(10).collect();
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed: {some:#?}",
            self.failures.len(),
            self.answers
        );
        assert!(self.answers > 0, "nothing was asked");
    }
}

impl Load {
    /// Starts clients that get the path of (client, request number) again and again. Good is what `is_good`
    /// says of path and answer.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        path: impl Fn(usize, u64) -> String + Clone + Send + Sync + 'static,
        is_good: impl Fn(&str, &Answer) -> bool + Clone + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            address,
            ended: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            ended_requests: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (shared, path, is_good) = (Arc::clone(&shared), path.clone(), is_good.clone());
            tasks.spawn(async move { shared.client(client, |at| path(client, at), is_good).await });
        }
        Self { shared, clients: tasks }
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.counts().into_iter().sum()
    }

    /// Waits until the clients have got so many more answers.
    pub async fn more(&self, count: u64) {
        let wanted = self.answers() + count;
        eventually("the clients get answers", || async { self.answers() >= wanted }).await;
    }

    /// From now on a client whose connection was announced closed goes away instead of opening another.
    pub fn leave_when_told(&self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
    }

    /// Waits until every client has gone away by itself.
    pub async fn all_left(mut self) -> Report {
        self.collect().await
    }

    /// Ends the load; what became of it.
    pub async fn stop(mut self) -> Report {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.collect().await
    }

    fn counts(&self) -> Vec<u64> {
        self.shared.ended_requests.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    async fn collect(&mut self) -> Report {
        let mut failures = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            failures.extend(client.unwrap());
        }
        Report { answers: self.answers(), failures }
    }
}

impl Shared {
    async fn client(
        &self,
        number: usize,
        path: impl Fn(u64) -> String,
        is_good: impl Fn(&str, &Answer) -> bool,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        let mut connection = None;
        for at in 0.. {
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            let path = path(at);
            let answer = self.ask(&mut connection, &path).await;
            self.ended_requests[number].fetch_add(1, Ordering::SeqCst);
            match &answer {
                Ok(answer) if answer.complete && is_good(&path, answer) => {}
                Ok(answer) => failures.push(format!("{path}: {answer:?}")),
                Err(error) => failures.push(format!("{path}: {error}")),
            }
            let closes = answer.is_ok_and(|answer| answer.header("connection") == Some("close"));
            if closes && self.leaving.load(Ordering::SeqCst) {
                break;
            }
            if closes {
                connection = None;
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=PAUSE_MAX_MS))).await;
        }
        failures
    }

    /// A failure costs the connection.
    async fn ask(&self, connection: &mut Option<Connection>, path: &str) -> std::io::Result<Answer> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(self.address).await?,
        };
        let answer = open.get(path).await?;
        *connection = Some(open);
        Ok(answer)
    }
}
