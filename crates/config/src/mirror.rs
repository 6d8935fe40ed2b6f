//! Copies of a route's requests for another upstream, whose answers nobody gets.

/// Which requests are copied, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The index of the upstream in [`Config::upstreams`](crate::Config::upstreams).
    pub upstream: usize,
    /// The percentage of requests that are copied, 1 to 100.
    pub share: u8,
    /// Requests with longer bodies are not copied.
    pub body_bytes_max: usize,
}
