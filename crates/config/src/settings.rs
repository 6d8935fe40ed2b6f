//! The checked configuration: what the other rooms are built from. Immutable; policies are the types of
//! the rooms that apply them, and names have become indexes.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use goodgate_cache::{CachePolicy, StoreSpec};
use goodgate_failure::{Networks, RetryPolicy, Words};
use goodgate_upstream::UpstreamSpec;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    Access, Certificate, ErrorPage, FieldValue, HeaderRules, Mirror, RateLimit, Split, Token, Users, defaults,
};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `server`: the process.
    pub server: Server,
    /// `listeners`: where clients are accepted; at least one, no address twice.
    pub listeners: Vec<Listener>,
    /// `admin`: the operator's side.
    pub admin: Admin,
    /// `limits`: what one client connection or request may take.
    pub limits: Limits,
    /// `trusted_proxies`: whose word about the client's address is believed.
    pub trusted_proxies: Networks,
    /// `upstreams`, in the order of the file; names are unique.
    pub upstreams: Vec<UpstreamSpec>,
    /// `caches`, in the order of the file; names are unique; `main` if a route caches and none is given.
    pub stores: Vec<StoreSpec>,
    /// `routes`, in the order of the file; at least one; names are unique.
    pub routes: Vec<RouteSpec>,
    /// `access_log`: what is recorded of requests.
    pub access_log: AccessLog,
    /// `tracing`; none: no traces.
    pub tracing: Option<Tracing>,
}

/// The process.
#[derive(Clone, Debug)]
pub struct Server {
    /// Worker threads; none: as many as the cores that the container may use.
    pub threads: Option<NonZeroUsize>,
    /// After a request to stop: how long not to be ready before new connections are refused.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to end after that.
    pub shutdown_drain: Duration,
    /// Idle backend connections kept per worker, all upstreams together; none: as many as the backends of the start make
    /// useful.
    pub upstream_keepalive: Option<usize>,
    /// The folder in which what is known of backends is kept over a restart; none: it is forgotten.
    pub state_dir: Option<PathBuf>,
    /// Name servers of upstreams that name none; empty: those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// Where request bodies are kept that may be sent again.
    pub spool: Spool,
}

/// Files of request bodies, all together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder.
    pub path: PathBuf,
    /// Bytes of all files.
    pub bytes_max: u64,
}

/// An address that clients are accepted on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// IP address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Whether each connection begins with a PROXY header; it is taken from `trusted_proxies` only.
    pub proxy_protocol: bool,
    /// Requests are sent to the same address with `https` at this port; none: they are served.
    pub redirect_to_https: Option<NonZeroU16>,
    /// None: without TLS.
    pub tls: Option<ListenerTls>,
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Chosen by the name that the client asks for; the first one answers for names that none is for. Not empty.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whether clients that speak TLS 1.2 only are served.
    pub allows_tls12: bool,
    /// Whether clients may choose HTTP/2.
    pub http2: bool,
    /// Who vouches for clients; none: nobody is asked for a certificate.
    pub clients: Option<ClientCertificates>,
}

/// Mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Authorities in DER form; not empty.
    pub authorities: Vec<Vec<u8>>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// The operator's side.
#[derive(Clone, Debug)]
pub struct Admin {
    /// IP address and port; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What a changing request must carry; none: no changes, and the API on loopback only.
    pub token: Option<Token>,
    /// Names besides `localhost` that a listener on loopback goes by; in lower case.
    pub hosts: Vec<String>,
}

/// What one client connection or request may take. All finite, none zero.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the whole request header.
    pub header_timeout: Duration,
    /// Between two reads of the request body.
    pub body_timeout: Duration,
    /// Bytes a second of the request body, on average over `body_timeout`; none: however slow.
    pub body_rate_min: Option<NonZeroU32>,
    /// For each 16 KiB of a response that the client is to take.
    pub write_timeout: Duration,
    /// Between two requests of one connection.
    pub keepalive_timeout: Duration,
    /// For the TLS handshake, and for a PROXY header.
    pub handshake_timeout: Duration,
    /// Client connections, all listeners together.
    pub connections_max: usize,
    /// Connections of one client; none: as many as there may be in all.
    pub connections_per_ip_max: Option<NonZeroU32>,
    /// Requests of one connection, which is closed behind the last.
    pub requests_per_connection_max: u32,
    /// Bytes of a request header, request line included.
    pub header_bytes_max: usize,
    /// Fields of a request header.
    pub headers_max: usize,
    /// Bytes of a request target; at most `header_bytes_max`.
    pub uri_bytes_max: usize,
    /// Bytes of a request body, where the route does not say otherwise.
    pub body_bytes_max: u64,
    /// Bytes of a backend's response header.
    pub response_header_bytes_max: usize,
    /// How often a request may pass the gateway, by way of backends that ask it in turn.
    pub passages_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: defaults::HEADER_TIMEOUT,
            body_timeout: defaults::BODY_TIMEOUT,
            body_rate_min: NonZeroU32::new(defaults::BODY_RATE_MIN),
            write_timeout: defaults::CLIENT_WRITE_TIMEOUT,
            keepalive_timeout: defaults::KEEPALIVE_TIMEOUT,
            handshake_timeout: defaults::HANDSHAKE_TIMEOUT,
            connections_max: defaults::CONNECTIONS_MAX,
            connections_per_ip_max: None,
            requests_per_connection_max: defaults::REQUESTS_PER_CONNECTION_MAX,
            header_bytes_max: defaults::HEADER_BYTES_MAX,
            headers_max: defaults::HEADERS_MAX,
            uri_bytes_max: defaults::URI_BYTES_MAX,
            body_bytes_max: defaults::BODY_BYTES_MAX,
            response_header_bytes_max: defaults::RESPONSE_HEADER_BYTES_MAX,
            passages_max: defaults::PASSAGES_MAX,
        }
    }
}

/// One route as configured.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Its name, a metric label: as given, else first host (`*` for none), path and methods, like
    /// `www.example.com/api` or `*/api GET,HEAD`.
    pub name: String,
    /// Hosts; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// A prefix of whole segments: `/api` is `/api` and `/api/x`, never `/apis`. No slash at its end but in `/`.
    pub path: String,
    /// Methods; empty: every method.
    pub methods: Vec<http::Method>,
    /// What it does with its requests.
    pub action: Action,
    /// Which of its requests other upstreams get; none: none of them.
    pub split: Option<Split>,
    /// Which of them another upstream gets a copy of; none: none of them.
    pub mirror: Option<Mirror>,
    /// From the first attempt to the final response header, all attempts together.
    pub timeout: Duration,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// What is cached; none: nothing.
    pub cache: Option<CachePolicy>,
    /// Bytes of a request body.
    pub body_bytes_max: u64,
    /// What clients get to see when it fails.
    pub errors: ErrorSpec,
    /// Fields of clients that backends get though they are dropped elsewhere.
    pub pass_headers: Vec<HeaderName>,
    /// Whether the backend gets each run of slashes in the path as one.
    pub merges_slashes: bool,
    /// Whether a POST may say in a field that it means another method; else it is refused.
    pub passes_method_override: bool,
    /// How the path that a backend gets differs from the client's; none: not at all.
    pub rewrite: Option<Rewrite>,
    /// What becomes of the fields that a backend gets.
    pub request_headers: HeaderRules,
    /// What becomes of the fields of an answer, whoever has made it.
    pub response_headers: HeaderRules,
    /// Who is let in.
    pub access: Access,
    /// How many requests it takes, in the order in which they are counted; all must admit.
    pub rate_limits: Vec<RateLimit>,
    /// Who must say who they are; none: nobody.
    pub basic_auth: Option<BasicAuth>,
    /// Who gets a notice instead of an answer; none: nobody.
    pub maintenance: Option<Maintenance>,
}

/// What a route does with its requests.
#[derive(Clone, Debug)]
pub enum Action {
    /// An upstream answers: its index in [`Config::upstreams`].
    Forward(usize),
    /// They are sent elsewhere.
    Redirect(Redirect),
    /// The gateway answers.
    Respond(Respond),
}

impl Action {
    /// The index of the upstream, if one answers.
    pub const fn upstream(&self) -> Option<usize> {
        match self {
            Self::Forward(upstream) => Some(*upstream),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }
}

/// How the path that a backend gets differs from the client's. Both are normal and have no slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Whole segments that are taken away first; may be empty.
    pub strip_prefix: String,
    /// What is then put before the path; may be empty.
    pub add_prefix: String,
}

/// Where requests are sent instead.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// The `Location`: an address or a path.
    pub to: FieldValue,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// An answer of the gateway's own.
#[derive(Clone, Debug)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// The whole body; empty where the status has none.
    pub body: String,
    /// What the body is.
    pub media_type: HeaderValue,
}

/// A route for those who have a password (RFC 7617).
#[derive(Clone, Debug)]
pub struct BasicAuth {
    /// Who they are.
    pub users: Arc<Users>,
    /// What the password is for, as people are told: visible ASCII and spaces, without quotes and backslashes.
    pub realm: String,
}

/// A route that is closed for a while, on purpose.
#[derive(Clone, Debug)]
pub struct Maintenance {
    /// What people get to see; none: our page for errors.
    pub page: Option<Arc<ErrorPage>>,
    /// When it may be over.
    pub retry_after: Duration,
    /// Who is let through.
    pub allow: Networks,
    /// Whether a copy is served where there is one.
    pub use_stale: bool,
}

/// The errors that a route's clients get to see.
#[derive(Clone, Debug, Default)]
pub struct ErrorSpec {
    /// A page of the operator's for people; none: ours.
    pub page: Option<Arc<ErrorPage>>,
    /// Whom to turn to. Needs no escaping in HTML and JSON.
    pub contact: Option<String>,
    /// Errors of backends that are replaced by ours, with the same status.
    pub replace: Words,
    /// Whether `Proxy-Status` says which backend it was.
    pub next_hop: bool,
}

/// A host that a route answers for. Lower case, no port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name alone.
    Exact(String),
    /// Every name that ends so, with at least one label before it: holds `.example.net` for `*.example.net`.
    Wildcard(String),
}

/// What is recorded of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where records go.
    pub target: LogTarget,
    /// How they are written.
    pub format: LogFormat,
    /// The share of requests that are recorded though nothing failed, 0 to 1.
    pub sample_ok: f64,
    /// What is kept out of records.
    pub mask: LogMask,
}

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object.
    Json,
    /// A line for people.
    Text,
}

/// What is kept out of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMask {
    /// Query parameters whose values are secrets.
    pub query: Vec<String>,
    /// Whether a client's address is cut to its network: IPv4 to /24, IPv6 to /48.
    pub cuts_client: bool,
}

/// Traces of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector: `host:port`, which takes OTLP over plain HTTP.
    pub otlp: String,
    /// The share of requests that are traced where the client does not decide, 0 to 1.
    pub sample: f64,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// A file; a relative path starts at the configuration file's folder.
    File(PathBuf),
}
