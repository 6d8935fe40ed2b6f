//! The rate limits of a route: who is counted under which key, and what is said to who has asked too often.
//! The fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) stand on refusals only:
//! an answer that a cache may keep is no place for one client's figures.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use goodgate_config::{Per, RateLimit};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::gcra::Gcra;
use super::table::Table;
use crate::client_address::ClientAddress;

const NANOS: u64 = 1_000_000_000;

/// A limit at work.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: RateLimit,
    gcra: Gcra,
    policy: HeaderValue,
    counts: Arc<Counts>,
}

/// What is known of those who asked. It survives a reload that does not change the limit.
#[derive(Debug)]
struct Counts {
    born: Instant,
    /// Keyed anew in each process: nobody can choose an address that shares the place of another.
    hash: RandomState,
    table: Table,
}

/// Why a request is not admitted.
#[derive(Clone, Debug)]
pub(super) struct TooMany {
    /// Seconds until one more is admitted, rounded up.
    pub(super) retry_after: u64,
    /// The limit in the words of `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
}

impl Limiter {
    /// The limiters of a route; those that were there already keep their counts. Of several limits that differ only in
    /// who is exempt each one keeps its own.
    pub(crate) fn all(limits: &[RateLimit], previous: &[Self]) -> Vec<Self> {
        let mut left: Vec<&Self> = previous.iter().collect();
        let mut take = |is_same: &dyn Fn(&RateLimit) -> bool| {
            let at = left.iter().position(|old| is_same(&old.limit))?;
            Some(Arc::clone(&left.remove(at).counts))
        };
        let same = |limit: &RateLimit, old: &RateLimit| {
            (&old.per, old.rate, old.burst) == (&limit.per, limit.rate, limit.burst)
        };
        let exact: Vec<_> =
            limits.iter().map(|limit| take(&|old| same(limit, old) && old.exempt == limit.exempt)).collect();
        let counts =
            limits.iter().zip(exact).map(|(limit, exact)| exact.or_else(|| take(&|old| same(limit, old))));
        counts.zip(limits).map(|(counts, limit)| Self::new(limit, counts)).collect()
    }

    fn new(limit: &RateLimit, counts: Option<Arc<Counts>>) -> Self {
        let counts = counts.unwrap_or_else(|| Arc::new(Counts::new(Instant::now())));
        Self { limit: limit.clone(), gcra: Gcra::new(limit), policy: policy(limit), counts }
    }

    /// Asks all limits of a route, and counts the request at each if all admit it: one that is refused uses up none of
    /// them. The refusal is that of the longest wait. `forgets`: a limit has forgotten another client.
    pub(super) fn admit_all(
        limits: &[Self],
        client: ClientAddress,
        headers: &HeaderMap,
        now: Instant,
        mut forgets: impl FnMut(),
    ) -> Result<(), TooMany> {
        let counted: SmallVec<[Counted<'_>; 4]> = limits
            .iter()
            .filter(|limiter| !client.is_in(&limiter.limit.exempt))
            .map(|limiter| Counted {
                limiter,
                key: limiter.key(client, headers),
                now: limiter.counts.nanos(now),
            })
            .collect();
        // A single limit asks and counts in one step.
        if counted.len() > 1
            && let Some(refused) =
                counted.iter().filter_map(Counted::ask).max_by_key(|refused| refused.retry_after)
        {
            return Err(refused);
        }
        for (at, one) in counted.iter().enumerate() {
            if let Err(refused) = one.admit(&mut forgets) {
                // Another request has taken the last place since it was asked for.
                counted.iter().take(at).for_each(Counted::take_back);
                return Err(refused);
            }
        }
        Ok(())
    }

    fn refusal(&self, wait: u64) -> TooMany {
        TooMany { retry_after: wait.div_ceil(NANOS).max(1), policy: self.policy.clone() }
    }

    fn key(&self, client: ClientAddress, headers: &HeaderMap) -> u64 {
        match &self.limit.per {
            Per::Route => 0,
            Per::ClientIp => self.counts.of_client(client),
            Per::Header(name) => {
                let counts = &self.counts;
                counts.of_field(headers, name).unwrap_or_else(|| counts.of_client(client))
            }
        }
    }
}

/// One limit, asked for one request.
struct Counted<'a> {
    limiter: &'a Limiter,
    key: u64,
    now: u64,
}

impl Counted<'_> {
    fn ask(&self) -> Option<TooMany> {
        let Limiter { gcra, counts, .. } = self.limiter;
        gcra.ask(counts.table.time(self.key), self.now).err().map(|wait| self.limiter.refusal(wait))
    }

    fn admit(&self, forgets: &mut impl FnMut()) -> Result<(), TooMany> {
        let Limiter { gcra, counts, .. } = self.limiter;
        let (admitted, has_forgotten) =
            counts.table.update(self.key, self.now, |time| gcra.admit(time, self.now));
        if has_forgotten {
            forgets();
        }
        admitted.map_err(|wait| self.limiter.refusal(wait))
    }

    fn take_back(&self) {
        let Limiter { gcra, counts, .. } = self.limiter;
        counts.table.amend(self.key, |time| gcra.take_back(time));
    }
}

impl Counts {
    fn new(now: Instant) -> Self {
        Self { born: now, hash: RandomState::new(), table: Table::new() }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The key of a client. Unknown clients behind one proxy share one.
    fn of_client(&self, client: ClientAddress) -> u64 {
        match client {
            ClientAddress::Known(ip) => self.hash.hash_one(network(ip)),
            ClientAddress::Unknown { peer } => self.hash.hash_one(("unknown", network(peer))),
        }
    }

    /// The key of who sends this field, with all its values.
    fn of_field(&self, headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
        let mut values = headers.get_all(name).iter();
        let (first, second) = (values.next()?, values.next());
        let mut hasher = self.hash.build_hasher();
        // Backends differ in which of several lines they read: all such requests share one count.
        if second.is_none() {
            first.as_bytes().hash(&mut hasher);
        } else {
            "several lines".hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// A number for what counts as one client. Unknown clients behind one proxy share one.
pub(super) fn client_number(client: ClientAddress) -> u64 {
    match client {
        ClientAddress::Known(ip) => network(ip),
        // No address has this bit without the highest.
        ClientAddress::Unknown { peer } => network(peer) ^ 1 << 62,
    }
}

/// What counts as one client: an address, of IPv6 the /64 network that one customer has at least.
fn network(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).unwrap_or_default() | 1 << 63,
    }
}

/// `"client_ip 100/s";q=100;w=1`: its name, how many, in how many seconds.
fn policy(limit: &RateLimit) -> HeaderValue {
    let RateLimit { per, rate, .. } = limit;
    let text = format!("\"{per} {rate}\";q={};w={}", rate.count, rate.period.seconds());
    // Names of fields and numbers have nothing that a field value may not have.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"limit\""))
}

impl TooMany {
    /// `RateLimit`: by which limit, that nothing remains, and when more comes.
    pub(super) fn state(&self) -> Option<HeaderValue> {
        let name = self.policy.to_str().ok()?.split(';').next()?;
        HeaderValue::try_from(format!("{name};r=0;t={}", self.retry_after)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use goodgate_config::{Period, Rate};
    use std::time::Duration;

    fn limit(per: Per, exempt: &[&str]) -> RateLimit {
        let rate = Rate { count: 2.try_into().unwrap(), period: Period::Minute };
        let exempt = exempt.iter().map(|text| text.parse().unwrap()).collect();
        RateLimit { per, rate, burst: 1.try_into().unwrap(), exempt }
    }

    fn one(per: Per, exempt: &[&str]) -> Limiter {
        Limiter::all(&[limit(per, exempt)], &[]).remove(0)
    }

    fn admit(
        limiter: &Limiter,
        client: ClientAddress,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<(), TooMany> {
        Limiter::admit_all(std::slice::from_ref(limiter), client, headers, now, || {})
    }

    fn admits(limiter: &Limiter, client: &str, key: Option<&'static str>) -> bool {
        let headers = key.map(|key| (HeaderName::from_static("x-key"), HeaderValue::from_static(key)));
        let client = ClientAddress::Known(client.parse().unwrap());
        admit(limiter, client, &headers.into_iter().collect(), Instant::now()).is_ok()
    }

    #[test]
    fn an_address_is_one_client_and_so_is_a_64_of_ipv6() {
        let limiter = one(Per::ClientIp, &["10.0.0.0/8"]);
        for (client, admitted) in [
            ("192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2:0:0:2", false),
            ("2001:db8:0:1::1", true),
            ("10.1.1.1", true),
            ("10.1.1.1", true),
        ] {
            assert_eq!(admits(&limiter, client, None), admitted, "{client}");
        }
    }

    #[test]
    fn a_field_is_counted_by_its_value_and_without_it_the_address_is() {
        let limiter = one(Per::Header(HeaderName::from_static("x-key")), &[]);
        for (client, key, admitted) in [
            ("192.0.2.1", Some("a"), true),
            ("192.0.2.2", Some("a"), false),
            ("192.0.2.2", Some("b"), true),
            ("192.0.2.1", None, true),
            ("192.0.2.1", None, false),
            ("192.0.2.2", None, true),
            ("192.0.2.2", Some(""), true),
            ("192.0.2.3", Some(""), false),
        ] {
            assert_eq!(admits(&limiter, client, key), admitted, "{client} {key:?}");
        }
    }

    #[test]
    fn unknown_clients_behind_one_proxy_are_counted_together_and_never_exempt() {
        let limiter = one(Per::ClientIp, &["10.0.0.0/8"]);
        let admits = |peer: [u8; 4]| {
            let client = ClientAddress::Unknown { peer: peer.into() };
            admit(&limiter, client, &HeaderMap::new(), Instant::now()).is_ok()
        };
        assert!(admits([10, 0, 0, 1]));
        assert!(!admits([10, 0, 0, 1]));
        assert!(admits([10, 0, 0, 2]));
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limiter = one(Per::Route, &[]);
        let now = Instant::now();
        let admit = |after: u64| {
            let client = ClientAddress::Known(IpAddr::from([192, 0, 2, 1]));
            admit(&limiter, client, &HeaderMap::new(), now + Duration::from_secs(after))
        };
        assert!(admit(1).is_ok());
        let refused = admit(2).unwrap_err();
        assert_eq!(refused.retry_after, 29);
        assert_eq!(refused.policy, "\"route 2/m\";q=2;w=60");
        assert_eq!(refused.state().unwrap(), "\"route 2/m\";r=0;t=29");
        assert!(admit(31).is_ok());
    }

    #[test]
    fn a_request_that_one_limit_refuses_uses_up_none_of_the_others() {
        let mut generous = limit(Per::Route, &[]);
        generous.burst = 3.try_into().unwrap();
        let limits = Limiter::all(&[generous, limit(Per::ClientIp, &[])], &[]);
        let now = Instant::now();
        let admits = |last: u8| {
            let client = ClientAddress::Known(IpAddr::from([192, 0, 2, last]));
            Limiter::admit_all(&limits, client, &HeaderMap::new(), now, || {}).is_ok()
        };
        assert!(admits(1));
        for _ in 0..10 {
            assert!(!admits(1));
        }
        assert!(admits(2) && admits(3));
        assert!(!admits(4), "three requests were admitted");
    }

    #[test]
    fn concurrent_requests_never_exceed_the_tighter_limit_and_leave_the_rest_of_the_other() {
        let mut generous = limit(Per::Route, &[]);
        generous.burst = 100.try_into().unwrap();
        let mut tight = limit(Per::ClientIp, &[]);
        tight.burst = 10.try_into().unwrap();
        let limits = Limiter::all(&[generous, tight], &[]);
        let now = Instant::now();
        let admitted = |last: u8| {
            let client = ClientAddress::Known(IpAddr::from([192, 0, 2, last]));
            let admits = || Limiter::admit_all(&limits, client, &HeaderMap::new(), now, || {}).is_ok();
            (0..200).filter(|_| admits()).count()
        };
        let first: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(1))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(first, 10);
        assert_eq!((2..=20).map(admitted).sum::<usize>(), 90);
    }

    #[test]
    fn counts_outlive_a_reload_that_leaves_the_limit_as_it_is() {
        let old = vec![one(Per::ClientIp, &[])];
        assert!(admits(&old[0], "192.0.2.1", None));
        let same = Limiter::all(&[limit(Per::ClientIp, &["10.0.0.0/8"])], &old);
        assert!(!admits(&same[0], "192.0.2.1", None), "who is exempt does not matter");
        let two = [limit(Per::ClientIp, &[]), limit(Per::ClientIp, &["192.0.2.0/24"])];
        let before = Limiter::all(&two, &[]);
        for order in [[0, 1], [1, 0]] {
            let after = Limiter::all(&order.map(|at| two[at].clone()), &before);
            for (new, at) in after.iter().zip(order) {
                assert!(Arc::ptr_eq(&new.counts, &before[at].counts), "each has its own");
            }
        }
        let mut other = limit(Per::ClientIp, &[]);
        other.burst = 2.try_into().unwrap();
        assert!(admits(&Limiter::all(&[other], &old)[0], "192.0.2.1", None));
    }
}
