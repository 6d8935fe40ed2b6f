//! A share of a route's requests for another upstream.
//!
//! Each share is a route of its own, which differs in its upstream, and in that it has no copies: what a new
//! version answers must not reach those who are to get the old one. What a share cannot serve goes back to the rest,
//! before it fails and after.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use goodgate_upstream::HashOn;
use pingora_http::RequestHeader;

use crate::client_address::ClientAddress;
use crate::context::{Client, Context};
use crate::route::Route;
use crate::route_state::RouteState;
use crate::ties;

/// The shares of a route.
#[derive(Debug)]
pub(crate) struct Split {
    by: Option<HashOn>,
    shares: Vec<(Arc<Route>, u8)>,
    state: Arc<RouteState>,
}

impl Split {
    /// Shares in percent, 100 at most in all. Each request by itself, or all with the same hash together.
    pub(crate) fn new(by: Option<HashOn>, shares: Vec<(Arc<Route>, u8)>, state: Arc<RouteState>) -> Self {
        Self { by, shares, state }
    }

    /// The number of a request, 0 to 99. None, if it has nothing to be told by.
    fn number(&self, request: &RequestHeader, context: &Context) -> Option<u8> {
        match &self.by {
            None => Some(self.number_once(context.client.as_deref()?, context.is_for_good)),
            Some(on) => {
                ties::hash(on, request, context.client_address.and_then(ClientAddress::known)).map(percentile)
            }
        }
    }

    /// The fast lane looks at a request before Pingora does, and both must come to the same result.
    fn number_once(&self, client: &Client, is_for_good: bool) -> u8 {
        if is_for_good && let Some(number) = client.split.swap(0, Ordering::Relaxed).checked_sub(1) {
            return number;
        }
        let number = spread(self.state.split_requests.fetch_add(1, Ordering::Relaxed));
        if !is_for_good {
            client.split.store(number + 1, Ordering::Relaxed);
        }
        number
    }
}

/// Every number once in a hundred requests, and those that are close together far apart.
pub(crate) fn spread(request: u64) -> u8 {
    u8::try_from(request % 100 * 61 % 100).unwrap_or_default()
}

/// 0 to 99. A share that grows keeps whom it has.
fn percentile(hash: u64) -> u8 {
    // The upper bits of FNV-1a depend too little on the last bytes.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u8::try_from(((mixed >> 32) * 100) >> 32).unwrap_or_default()
}

/// The route that a request takes: its own, or a share of it.
pub(crate) fn share(route: &Arc<Route>, request: &RequestHeader, context: &Context) -> Arc<Route> {
    let Some(split) = &route.split else {
        return Arc::clone(route);
    };
    if let Some(upstream) = context.attempting.handed_of() {
        // A trial of one of their backends.
        let name = &upstream.spec().name;
        let share = split.shares.iter().find(|(share, _)| share.upstream.spec().name == *name);
        return Arc::clone(share.map_or(route, |(share, _)| share));
    }
    let Some(number) = split.number(request, context) else {
        return Arc::clone(route);
    };
    let mut below = 0;
    let taken = split.shares.iter().find(|(_, percent)| {
        below += percent;
        number < below
    });
    let usable = taken.filter(|(share, _)| is_usable(share));
    Arc::clone(usable.map_or(route, |(share, _)| share))
}

/// Whether requests make sense there: some find out now and then whether what was out is back.
fn is_usable(share: &Route) -> bool {
    let upstream = &share.upstream;
    !upstream.is_busy() && (!upstream.is_out() || upstream.is_trial_due(Instant::now()))
}

/// The request is answered: the next one of its client has a number of its own.
pub(crate) fn forget(context: &Context) {
    if let (Some(Route { split: Some(_), .. }), Some(client)) = (context.route.as_deref(), &context.client) {
        client.split.store(0, Ordering::Relaxed);
    }
}

/// A request whose share has no backend for it belongs to the rest.
pub(crate) fn hand_back(context: &mut Context) {
    if let Some(route) = context.route.clone()
        && let Some(rest) = &route.rest
        && (route.upstream.is_busy() || !route.upstream.has_untried(|_| false, true, Instant::now()))
    {
        leave(context, rest);
    }
}

/// The request goes on with the rest.
pub(crate) fn leave(context: &mut Context, rest: &Arc<Route>) {
    context.route = Some(Arc::clone(rest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use goodgate_upstream::hash_of;

    #[test]
    fn a_hundred_requests_have_every_number_once_and_each_stretch_its_share() {
        let mut numbers: Vec<_> = (0..100).map(spread).collect();
        // A share of five percent: at most one of any 18 in a row, at least one of any 23.
        let of = |start, length| (start..start + length).filter(|request| spread(*request) < 5).count();
        assert!((0..100).all(|start| of(start, 18) <= 1 && of(start, 23) >= 1));
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn clients_are_spread_over_all_numbers() {
        let mut counts = [0_u32; 100];
        for client in 0..100_000_u32 {
            counts[usize::from(percentile(hash_of(&client.to_be_bytes())))] += 1;
        }
        // 1000 each, with a deviation of 31; four of them.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 126), "{counts:?}");
    }
}
