//! Which backend gets the next attempt of a request.

use std::time::Instant;

use goodgate_failure::{Address, Cause, Refusal};
use goodgate_telemetry::fails_open;
use goodgate_upstream::{How, Lease, Ties, Wish};
use http::Method;

use super::{Attempting, Replacement};
use crate::route::Route;

/// Attempts of one request on backends that are out of rotation because none is in it.
const FAIL_OPEN_MAX: u32 = 3;

impl Attempting {
    /// Takes the next backend; `fail_open` allows one that is out of rotation. False if there is none.
    pub(crate) fn take(
        &mut self,
        route: &Route,
        method: &Method,
        ties: Ties,
        fail_open: bool,
        now: Instant,
    ) -> bool {
        if matches!(self.replacement, Replacement::Aged | Replacement::RaceLost) {
            return self.lease.is_some();
        }
        let tried = |address| self.tried.has(address);
        let wish = Wish { is_retry: !self.log.is_empty(), may_be_trial: route.retry.replay.allows(method) };
        let shunned = self.shunned_family().filter(|_| route.upstream.has_both_families());
        let other_family = || {
            let is_ipv6 = shunned?;
            let is_ruled_out = |address: Address| tried(address) || address.is_ipv6() == Some(is_ipv6);
            route.upstream.select_tied(is_ruled_out, wish, ties, now)
        };
        let own = self.binding.backends().iter().rev().filter(|own| !tried(**own));
        let bound = own
            .copied()
            .find_map(|own| route.upstream.select_tied(|address| address != own, wish, ties, now));
        let lease = self.handed.take().or(bound).or_else(other_family);
        let lease = lease.or_else(|| route.upstream.select_tied(tried, wish, ties, now));
        let may_fail_open = fail_open && self.may_fail_open();
        let lease = lease.or_else(|| may_fail_open.then(|| route.upstream.select_fail_open(tried)).flatten());
        self.hold(lease, route, now)
    }

    fn hold(&mut self, lease: Option<Lease>, route: &Route, now: Instant) -> bool {
        if lease.as_ref().is_some_and(|lease| lease.how() == How::FailOpen) {
            self.failed_open += 1;
            route.upstream_metrics.failed_open();
            if route.upstream.fails_open(now) {
                fails_open(&route.upstream.spec().name);
            }
        }
        self.lease = lease;
        self.lease.is_some()
    }

    /// Whether one more backend out of rotation may be tried.
    pub(super) fn may_fail_open(&self) -> bool {
        self.failed_open < FAIL_OPEN_MAX
    }

    /// Why there is no backend for another attempt.
    pub(crate) fn why_none_left(&self) -> Refusal {
        if self.may_fail_open() { Refusal::NoBackendLeft } else { Refusal::FailOpen }
    }

    /// The network may not lead to addresses of the family of the last attempt: whether that is IPv6.
    fn shunned_family(&self) -> Option<bool> {
        let last = self.log.last()?;
        let is_unreached = matches!(last.cause?, Cause::ConnectionTimeout | Cause::DestinationIpUnroutable);
        if is_unreached { last.backend.is_ipv6() } else { None }
    }

    /// When every backend has been tried: takes one again that refused the connection a while ago. It may have
    /// come back while the others were asked, and nothing was sent to it. False if there is none.
    pub(crate) fn take_again(&mut self, route: &Route, now: Instant) -> bool {
        let is_ruled_out = |address| !self.tried.may_try_again(address, now);
        let wish = Wish { is_retry: true, may_be_trial: true };
        let lease = route.upstream.select(is_ruled_out, wish, now);
        let may_fail_open = self.may_fail_open();
        let lease =
            lease.or_else(|| may_fail_open.then(|| route.upstream.select_fail_open(is_ruled_out)).flatten());
        self.hold(lease, route, now)
    }
}
