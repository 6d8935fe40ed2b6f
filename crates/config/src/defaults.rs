//! Every default, once. The readers, the reference in `docs/configuration.md` and `conf/goodgate.yaml` are
//! held to these by tests; what each one means is said in the reference.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use goodgate_cache::Mode;
use goodgate_failure::{Replay, Word};
use goodgate_upstream::{DnsPolicy, Family};
use http::{Method, StatusCode};

use crate::{LogFormat, Per};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// `listeners[].address`, when there are no `listeners`.
pub const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
/// `admin.address`.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// `server.shutdown.delay`.
pub const SHUTDOWN_DELAY: Duration = Duration::ZERO;
/// `server.shutdown.drain`.
pub const SHUTDOWN_DRAIN: Duration = Duration::from_secs(30);
/// `server.spool.path`.
pub const SPOOL_PATH: &str = "/var/tmp";
/// `server.spool.size`.
pub const SPOOL_BYTES_MAX: u64 = 1 << 30;
/// The port of a name server that is given none.
pub const RESOLVER_PORT: u16 = 53;

/// `limits.header_timeout`.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// `limits.body_timeout`.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// `limits.min_body_rate`, in a second.
pub const BODY_RATE_MIN: u32 = 128;
/// `limits.write_timeout`.
pub const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// `limits.keepalive_timeout`.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// `listeners[].http2`.
pub const HTTP2: bool = false;
/// `listeners[].tls.min_version` is 1.2.
pub const ALLOWS_TLS12: bool = true;
/// `listeners[].tls.client_auth` is `required`.
pub const CLIENT_AUTH_REQUIRED: bool = true;
/// `limits.handshake_timeout`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// `limits.max_connections`.
pub const CONNECTIONS_MAX: usize = 20_000;
/// `limits.max_requests_per_connection`.
pub const REQUESTS_PER_CONNECTION_MAX: u32 = 10_000;
/// `limits.max_header_bytes`.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// `limits.max_headers`.
pub const HEADERS_MAX: usize = 100;
/// `limits.max_uri_bytes`.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// `limits.max_body_bytes`.
pub const BODY_BYTES_MAX: u64 = 100 * MIB;
/// `limits.max_passages`.
pub const PASSAGES_MAX: u32 = 5;
/// `limits.max_response_header_bytes`.
pub const RESPONSE_HEADER_BYTES_MAX: usize = 64 * 1024;

/// `upstreams.*.max_fails`.
pub const MAX_FAILS: u32 = 3;
/// `upstreams.*.fail_timeout`.
pub const FAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// `upstreams.*.fail_on`.
pub const FAIL_ON: &[Word] = &[Word::Error, Word::Timeout, Word::InvalidHeader];
/// `upstreams.*.min_fail_share`, in percent.
pub const MIN_FAIL_SHARE_PERCENT: u8 = 20;
/// `upstreams.*.max_ejected`, in percent.
pub const MAX_EJECTED_PERCENT: u8 = 50;
/// `upstreams.*.fail_open`.
pub const FAIL_OPEN: bool = true;
/// `upstreams.*.outliers.interval`.
pub const OUTLIER_INTERVAL: Duration = Duration::from_secs(10);
/// `upstreams.*.outliers.min_requests`.
pub const OUTLIER_REQUESTS_MIN: u32 = 20;
/// `upstreams.*.outliers.success_rate`, in percent.
pub const OUTLIER_SUCCESS_PERCENT: u8 = 80;
/// `upstreams.*.outliers.first_byte`.
pub const OUTLIER_FIRST_BYTE: u32 = 3;
/// `upstreams.*.dns`.
pub const DNS: DnsPolicy = DnsPolicy::DEFAULT;
/// The words of `upstreams.*.dns.family`.
pub(crate) const DNS_FAMILIES: [(&str, Family); 5] = [
    ("any", Family::Any),
    ("ipv4_first", Family::Ipv4First),
    ("ipv6_first", Family::Ipv6First),
    ("ipv4_only", Family::Ipv4Only),
    ("ipv6_only", Family::Ipv6Only),
];
/// `routes[].mirror.share`, in percent.
pub const MIRROR_SHARE_PERCENT: u8 = 100;
/// `routes[].mirror.max_body_bytes`.
pub const MIRROR_BODY_BYTES_MAX: u64 = 64 * KIB;
/// `upstreams.*.slow_start`.
pub const SLOW_START: Duration = Duration::ZERO;
/// `upstreams.*.backends[].max_conns`: any number.
pub const MAX_CONNS: u32 = 0;
/// `upstreams.*.backends[].weight`.
pub const WEIGHT: u16 = 1;
/// The port of a backend written as `http://name`.
pub const HTTP_PORT: u16 = 80;
/// The port of a backend written as `https://name`.
pub const HTTPS_PORT: u16 = 443;
/// `upstreams.*.tls.verify`: whether a backend must prove who it is.
pub const TLS_VERIFY: bool = true;

/// `upstreams.*.health_check.http.method`.
pub const PROBE_METHOD: Method = Method::GET;
/// `upstreams.*.health_check.http.expect_status`: first and last status that pass.
pub const EXPECT_STATUS: (u16, u16) = (200, 299);
/// `upstreams.*.health_check.interval`.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// `upstreams.*.health_check.interval_down`.
pub const PROBE_INTERVAL_DOWN: Duration = Duration::from_secs(1);
/// `upstreams.*.health_check.timeout`.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// `upstreams.*.health_check.rise`.
pub const RISE: u32 = 2;
/// `upstreams.*.health_check.fall`.
pub const FALL: u32 = 3;

/// `upstreams.*.breaker.max_requests`.
pub const BREAKER_REQUESTS_MAX: u32 = 1024;
/// `upstreams.*.breaker.max_pending`.
pub const BREAKER_PENDING_MAX: u32 = 256;
/// `upstreams.*.breaker.pending_timeout`.
pub const BREAKER_PENDING_TIMEOUT: Duration = Duration::from_secs(5);
/// `upstreams.*.breaker.ramp`.
pub const BREAKER_RAMP: Duration = Duration::from_secs(10);

/// `upstreams.*.timeouts.connect`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// `upstreams.*.timeouts.first_byte`.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(1);
/// `upstreams.*.timeouts.read`.
pub const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// `upstreams.*.timeouts.write`.
pub const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// `upstreams.*.timeouts.idle`.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// `upstreams.*.timeouts.tunnel`.
pub const TUNNEL_TIMEOUT: Duration = Duration::from_hours(1);

/// The name of the store that routes use, and of the only one when there are no `caches`.
pub const STORE: &str = "main";
/// `caches.*.memory`.
pub const MEMORY_BYTES: u64 = 256 * MIB;
/// `caches.*.max_object`.
pub const OBJECT_BYTES_MAX: u64 = 64 * MIB;
/// `caches.*.last_good_share`, in percent.
pub const LAST_GOOD_PERCENT: u8 = 80;
/// The largest.
pub const LAST_GOOD_PERCENT_MAX: u8 = 95;
/// `caches.*.disk.max_object`: this share of `size`.
pub const DISK_OBJECT_SHARE: u64 = 8;
/// `caches.*.disk.refresh`.
pub const DISK_REFRESH: Duration = Duration::from_secs(10);
/// The smallest `caches.*.disk.size`.
pub const DISK_BYTES_MIN: u64 = 16 * MIB;
/// The smallest `caches.*.memory`.
pub const MEMORY_BYTES_MIN: u64 = MIB;
/// The smallest limit of a header, in bytes.
pub const HEADER_BYTES_MIN: u64 = KIB;

/// `routes[].match.path`.
pub const PATH: &str = "/";
/// `routes[].redirect.status`.
pub const REDIRECT_STATUS: StatusCode = StatusCode::MOVED_PERMANENTLY;
/// `routes[].respond.status`.
pub const RESPOND_STATUS: StatusCode = StatusCode::OK;
/// `routes[].respond.type`.
pub const RESPOND_TYPE: &str = "text/plain; charset=utf-8";
/// `routes[].rate_limit.per`.
pub const RATE_LIMIT_PER: Per = Per::ClientIp;
/// `routes[].basic_auth.realm`.
pub const REALM: &str = "restricted";
/// `routes[].maintenance.retry_after`.
pub const MAINTENANCE_RETRY_AFTER: Duration = Duration::from_mins(5);
/// `routes[].maintenance.use_stale`.
pub const MAINTENANCE_USE_STALE: bool = false;
/// `routes[].timeout`.
pub const ROUTE_TIMEOUT: Duration = Duration::from_mins(2);
/// `routes[].retry.tries`.
pub const TRIES: u32 = 3;
/// `routes[].retry.max_connect_failures`.
pub const CONNECT_FAILURES_MAX: u32 = 16;
/// `routes[].retry.on`.
pub const RETRY_ON: &[Word] =
    &[Word::Error, Word::Timeout, Word::InvalidHeader, Word::Http502, Word::Http503];
/// `routes[].retry.replay`.
pub const REPLAY: Replay = Replay::Idempotent;
/// `routes[].retry.budget`, in percent.
pub const BUDGET_PERCENT: u8 = 20;

/// `routes[].retry.max_body_bytes`, and the least that it can be: so much is kept in any case.
pub const RETRY_BODY_BYTES_MAX: u64 = 64 * KIB;

/// `routes[].cache.mode`.
pub const MODE: Mode = Mode::Standard;
/// `routes[].cache.use_stale`. Not `updating`: while the backend answers an old copy is served only as the response
/// allows itself (RFC 9111 section 4.2.4).
pub const USE_STALE: &[Word] =
    &[Word::Error, Word::Timeout, Word::InvalidHeader, Word::Http502, Word::Http503, Word::Http504];
/// `routes[].cache.stale_for`.
pub const STALE_FOR: Duration = Duration::from_hours(24);
/// `routes[].cache.status_header`.
pub const STATUS_HEADER: bool = true;

/// `access_log.format`.
pub const LOG_FORMAT: LogFormat = LogFormat::Json;
/// `access_log.sample_ok`.
pub const SAMPLE_OK: f64 = 1.0;
/// `access_log.mask.query`.
pub const MASK_QUERY: [&str; 41] = [
    "token",
    "code",
    "key",
    "password",
    "passwd",
    "pwd",
    "secret",
    "auth",
    "authorization",
    "jwt",
    "sig",
    "signature",
    "session",
    "sid",
    "session_id",
    "access_token",
    "id_token",
    "refresh_token",
    "auth_token",
    "private_token",
    "client_secret",
    "client_assertion",
    "code_verifier",
    "api_key",
    "access_key",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
    "x-goog-credential",
    "samlresponse",
    "oauth_token",
    "bearer_token",
    "csrf_token",
    "reset_token",
    "x-api-key",
    "otp",
    "phpsessid",
    "jsessionid",
    "key-pair-id",
    "policy",
];
/// `access_log.mask.client_ip`: whether it is `/24` and not `none`.
pub const MASK_CUTS_CLIENT: bool = false;

/// `tracing.sample`.
pub const TRACE_SAMPLE: f64 = 0.01;
/// The port of a `tracing.otlp` that names none: that of OTLP over HTTP.
pub const OTLP_PORT: u16 = 4318;
