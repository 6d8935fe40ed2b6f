//! Three actors for scenarios: backends that can be told to misbehave, the gateway (the real binary), and
//! clients that see every byte. All on 127.0.0.1, on ports that the kernel picks.

pub mod backend;
pub mod client;
pub mod collector;
pub mod dns;
pub mod frames;
pub mod gateway;
pub mod load;
pub mod programs;
pub mod script;
pub mod tls;
pub mod websocket;

use std::future::Future;
use std::time::{Duration, Instant};

pub use backend::{Act, Backend, backends};
pub use client::{Answer, Connection, get, get_admin, request};
pub use gateway::{Gateway, failing_start};
pub use load::Load;

/// How long a scenario waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the condition holds; panics with `what` if it does not in time.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "did not come true in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
