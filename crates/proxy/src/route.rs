//! Which route a request takes: exact host before wildcard before none, then the longest path.
//!
//! Lookups are a hash of the host and a walk over that host's paths, longest first. Paths are prefixes of
//! whole segments. A route that does not take the method is passed over, so that a wider one may.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use goodgate_cache::CachePolicy;
use goodgate_config::{Access, ErrorSpec, HeaderRules, HostPattern, Rewrite, RouteSpec, merged_path};
use goodgate_failure::RetryPolicy;
use goodgate_telemetry::{QueueMetrics, RouteMetrics, UpstreamMetrics};
use goodgate_upstream::Upstream;
use http::{HeaderName, Method};

use crate::gate::Gate;
use crate::mirror::Mirror;
use crate::own::OwnAnswer;
use crate::peer::BackendTls;
use crate::split::Split;
use crate::stores::StoreRoom;

/// A route with everything that a request on it needs. A request holds one from its start to its end.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name: a metric label.
    pub(crate) name: String,
    /// What it answers itself, if it does.
    pub(crate) own: Option<OwnAnswer>,
    /// Where its requests go; without a backend if it answers itself, so that nobody has to ask whether there
    /// is one.
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) upstream_metrics: Arc<UpstreamMetrics>,
    /// None: nobody waits there.
    pub(crate) queue_metrics: Option<Arc<QueueMetrics>>,
    pub(crate) metrics: RouteMetrics,
    pub(crate) backend_tls: Arc<BackendTls>,
    pub(crate) timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) cache: Option<(CachePolicy, &'static StoreRoom)>,
    pub(crate) body_bytes_max: u64,
    pub(crate) errors: ErrorSpec,
    /// Fields of clients that are let through though they are dropped elsewhere.
    pub(crate) pass_headers: Vec<HeaderName>,
    /// Whether a POST may say that it means another method.
    pub(crate) passes_method_override: bool,
    /// Whether the backend gets each run of slashes in the path as one.
    pub(crate) merges_slashes: bool,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) request_headers: HeaderRules,
    pub(crate) response_headers: HeaderRules,
    pub(crate) access: Access,
    /// What else a request must meet before anything answers it.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) response_header_bytes_max: usize,
    /// How long a client may let its body wait: `limits.body_timeout`.
    pub(crate) body_timeout: Duration,
    /// Which of its requests go elsewhere.
    pub(crate) split: Option<Split>,
    /// Who gets copies of its requests.
    pub(crate) mirror: Option<Mirror>,
    /// Who takes over when this one's upstream has no backend left: the route that it is a share of.
    pub(crate) rest: Option<Arc<Self>>,
}

/// The routes of one configuration, ordered for lookups.
#[derive(Debug, Default)]
pub(crate) struct Router {
    exact: HashMap<String, Vec<Entry>, RandomState>,
    /// By suffixes such as `.example.net`.
    wildcard: HashMap<String, Vec<Entry>, RandomState>,
    /// The longest of these suffixes has so many bytes.
    suffix_bytes_max: usize,
    any: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: String,
    methods: Vec<Method>,
    route: Arc<Route>,
}

impl Router {
    /// Orders the routes. In the order of the configuration.
    pub(crate) fn new<'a>(entries: impl Iterator<Item = (&'a RouteSpec, Arc<Route>)>) -> Self {
        let mut router = Self::default();
        for (spec, route) in entries {
            let entry = Entry { path: spec.path.clone(), methods: spec.methods.clone(), route };
            if spec.hosts.is_empty() {
                router.any.push(entry.clone());
            }
            for host in &spec.hosts {
                match host {
                    HostPattern::Exact(name) => {
                        router.exact.entry(name.clone()).or_default().push(entry.clone());
                    }
                    HostPattern::Wildcard(suffix) => {
                        router.suffix_bytes_max = router.suffix_bytes_max.max(suffix.len());
                        router.wildcard.entry(suffix.clone()).or_default().push(entry.clone());
                    }
                }
            }
        }
        let named = router.exact.values_mut().chain(router.wildcard.values_mut());
        for entries in named.chain([&mut router.any]) {
            // Stable: the order of the file breaks ties.
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        }
        router
    }

    /// The route for a request. `host` may carry a port and capitals.
    pub(crate) fn find(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<Route>> {
        let (host, path) = (bare(host), &merged_path(path));
        self.candidates(&host).find(|entry| entry.takes(path, method)).map(|entry| &entry.route)
    }

    /// What there is for a [`bare`] host, the first to be asked first.
    fn candidates<'a, 'h>(&'a self, host: &'h str) -> impl Iterator<Item = &'a Entry> + use<'a, 'h> {
        let exact = self.exact.get(host);
        let wildcards = suffixes(host, self.suffix_bytes_max).filter_map(|suffix| self.wildcard.get(suffix));
        exact.into_iter().chain(wildcards).chain([&self.any]).flatten()
    }

    /// The routes that requests for an address can take, whatever their method.
    pub(crate) fn reachable(&self, host: &str, path: &str) -> Vec<Arc<Route>> {
        let (host, path) = (bare(host), &merged_path(path));
        let mut routes = Vec::new();
        for entry in self.candidates(&host).filter(|entry| entry.covers(path)) {
            routes.push(Arc::clone(&entry.route));
            if entry.methods.is_empty() {
                break;
            }
        }
        routes
    }

    /// All routes by name.
    pub(crate) fn by_name(&self) -> HashMap<&str, &Route> {
        let all = self.exact.values().chain(self.wildcard.values()).chain([&self.any]).flatten();
        all.map(|entry| (entry.route.name.as_str(), &*entry.route)).collect()
    }
}

impl Entry {
    fn takes(&self, path: &str, method: &Method) -> bool {
        self.covers(path) && (self.methods.is_empty() || self.methods.contains(method))
    }

    fn covers(&self, path: &str) -> bool {
        let under = path.strip_prefix(self.path.as_str());
        under.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'))
    }
}

/// The host without port and trailing dot, in lower case.
pub(crate) fn bare(host: &str) -> Cow<'_, str> {
    let end = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(bracket) => bracket + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let name = host.get(..end).unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The suffixes of a host that begin with a dot, the longest first, of those that are no longer than `bytes_max`.
fn suffixes(host: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let begin = host.len().saturating_sub(bytes_max).max(1);
    let rest = host.as_bytes().get(begin..).unwrap_or_default();
    memchr::memchr_iter(b'.', rest).filter_map(move |dot| host.get(begin + dot..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_dot_and_capitals() {
        assert_eq!(bare("WWW.Example.com:8080"), "www.example.com");
        assert_eq!(bare("example.com."), "example.com");
        assert_eq!(bare("[::1]:80"), "[::1]");
        assert_eq!(bare(""), "");
    }

    #[test]
    fn a_wildcard_needs_a_label_before_it() {
        let all = |host: &'static str| suffixes(host, 12).collect::<Vec<_>>();
        assert_eq!(all("a.example.net"), [".example.net", ".net"]);
        assert_eq!(all("a.b.example.net"), [".example.net", ".net"]);
        assert_eq!(all("example.net"), [".net"]);
        assert_eq!(all(".example.net"), [".net"]);
        assert_eq!((all(""), all("a"), suffixes("a.b", 0).count()), (vec![], vec![], 0));
    }

    #[test]
    fn a_host_of_many_labels_is_looked_up_a_bounded_number_of_times() {
        assert!(suffixes(&".".repeat(8 << 10), 20).count() <= 20);
    }
}
