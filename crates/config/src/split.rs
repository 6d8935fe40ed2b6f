//! A share of a route's requests for other upstreams.

use goodgate_upstream::HashOn;

/// How a route's requests are split. What no share takes goes to the route's own upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Who is split: each request by itself if absent, else all with the same hash together.
    pub by: Option<HashOn>,
    /// The index of each upstream in [`Config::upstreams`](crate::Config::upstreams) with its percentage, 1 to 100;
    /// 100 at most in all. Not empty.
    pub shares: Vec<(usize, u8)>,
}
