//! What each address of the operator's side answers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use goodgate_cache::{PurgeMode, PurgeScope};
use goodgate_config::{Admin as Settings, Limits, RouteSpec};
use goodgate_telemetry::{AccessRecord, Metrics, Ring, StoreUsage};
use goodgate_upstream::Upstream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use log::info;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde::Serialize;

use crate::backends;
use crate::compression::compressed;
use crate::explain::measured::Measured;
use crate::explain::text::shown;
use crate::explain::{story, unknown};
use crate::failures::{self, Filter};
use crate::names::NameRow;
use crate::probes;
use crate::purge::Order;
use crate::query::Query;
use crate::visitor::Conditions;

/// How many records were counted and not kept, beside the list of those that were.
const SKIPPED: HeaderName = HeaderName::from_static("goodgate-skipped");

/// Where backends are shown and ordered about.
const BACKENDS: &str = "/api/v1/backends";
/// Where copies are purged.
const PURGE: &str = "/api/v1/cache/purge";
/// The longest form, in bytes, and how long it may take.
const FORM_BYTES_MAX: usize = 1 << 20;
const FORM_LIMIT: Duration = Duration::from_secs(10);

/// What every answer says to browsers: what it is and nothing else, nobody's frame or image, and not to be kept.
const FOR_BROWSERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the operator's side shows: the running gateway.
pub trait Subject: Send + Sync {
    /// Whether new requests are welcome.
    fn is_ready(&self) -> bool;
    /// The upstreams in force.
    fn upstreams(&self) -> Vec<Arc<Upstream>>;
    /// What each store holds.
    fn stores(&self) -> Vec<(&'static str, StoreUsage)>;
    /// The certificates that clients are shown, with their ends.
    fn certificates(&self) -> Vec<(String, SystemTime)>;
    /// Purges copies, of one store or all; the names of those where it was done.
    fn purge(&self, store: Option<&str>, scopes: &[PurgeScope], mode: PurgeMode) -> Vec<&'static str>;
    /// The metrics of the process.
    fn metrics(&self) -> &Metrics;
    /// The last failures and rescues.
    fn ring(&self) -> &Ring;
    /// The largest response header that a backend may send, in bytes.
    fn response_header_bytes_max(&self) -> usize;
    /// What a request may take.
    fn limits(&self) -> Arc<Limits>;
    /// The routes in force.
    fn routes(&self) -> Arc<[RouteSpec]>;
}

/// The operator's side of one gateway.
pub struct Admin {
    subject: Arc<dyn Subject>,
    conditions: ArcSwap<Conditions>,
}

/// A purge as the API confirms it.
#[derive(Serialize)]
struct Purged {
    mode: &'static str,
    stores: Vec<&'static str>,
    scopes: Vec<String>,
}

impl Admin {
    /// The settings say which requests are allowed.
    pub fn new(subject: Arc<dyn Subject>, settings: &Settings) -> Self {
        Self { subject, conditions: ArcSwap::from_pointee(Conditions::new(settings)) }
    }

    /// Applies the token and the names of a reloaded configuration from the next request on. The address stays.
    pub fn reconfigure(&self, settings: &Settings) {
        let conditions = self.conditions.load().changed(settings);
        self.conditions.store(Arc::new(conditions));
    }

    /// `form` is the body of a POST.
    fn page(&self, method: &Method, uri: &Uri, headers: &HeaderMap, form: &[u8]) -> Response<Vec<u8>> {
        if let Some((status, why)) = self.conditions.load().refusal(method, uri, headers) {
            return text(status, why);
        }
        if uri.path() == "/metrics" && matches!(*method, Method::GET | Method::HEAD) {
            return compressed(self.metrics(), headers);
        }
        self.answer(method, uri, form)
    }

    /// What a command on this machine gets that the control socket has admitted: the status and the body of a page.
    pub fn local_page(&self, target: &str) -> (u16, String) {
        let Ok(uri) = target.parse::<Uri>() else { return (400, "400: not the path of a page\n".to_owned()) };
        let response = self.answer(&Method::GET, &uri, &[]);
        (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
    }

    fn answer(&self, method: &Method, uri: &Uri, form: &[u8]) -> Response<Vec<u8>> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        match uri.path() {
            "/livez" if is_read => text(StatusCode::OK, "alive\n"),
            "/readyz" if is_read && self.subject.is_ready() => text(StatusCode::OK, "ready\n"),
            "/readyz" if is_read => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/metrics" if is_read => self.metrics(),
            BACKENDS if is_read => self.backends(uri.query()).unwrap_or_else(|why| refused(&why)),
            BACKENDS if *method == Method::POST => {
                self.order(uri.query(), form).unwrap_or_else(|why| refused(&why))
            }
            BACKENDS => text(StatusCode::METHOD_NOT_ALLOWED, "405: an order is a POST\n"),
            "/api/v1/upstreams" if is_read => self.upstreams(uri.query()).unwrap_or_else(|why| refused(&why)),
            "/api/v1/names" if is_read => self.names(),
            "/api/v1/probes" if is_read => self.probes(uri.query()).unwrap_or_else(|why| refused(&why)),
            "/api/v1/failures" if is_read => self.failures(uri.query()).unwrap_or_else(|why| refused(&why)),
            "/api/v1/cache/survival" if is_read => json(&self.subject.metrics().survival()),
            PURGE if *method == Method::POST => {
                self.purge(uri.query(), form).unwrap_or_else(|why| refused(&why))
            }
            PURGE => text(StatusCode::METHOD_NOT_ALLOWED, "405: a purge is a POST\n"),
            "/api/v1/explain" if is_read => self.explain(uri.query()).unwrap_or_else(|why| refused(&why)),
            _ => text(
                StatusCode::NOT_FOUND,
                "404: try /metrics, /livez, /readyz, /api/v1/backends?upstream=…, /api/v1/upstreams?upstream=…, \
                 /api/v1/names, /api/v1/probes?upstream=…&backend=…, \
                 /api/v1/failures, /api/v1/explain?request_id=…, \
                 /api/v1/cache/survival, POST /api/v1/cache/purge\n",
            ),
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let stores = self.subject.stores();
        match self.subject.metrics().text(
            &self.subject.upstreams(),
            stores.into_iter(),
            &self.subject.certificates(),
        ) {
            Ok(body) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {error}\n"))
            }
        }
    }

    fn names(&self) -> Response<Vec<u8>> {
        let (upstreams, now) = (self.subject.upstreams(), Instant::now());
        let rows = upstreams.iter().flat_map(|upstream| {
            let name = &upstream.spec().name;
            upstream.name_views().into_iter().map(move |view| NameRow::new(name, &view, now))
        });
        json(&rows.collect::<Vec<_>>())
    }

    /// The error says what is wrong with the query.
    fn backends(&self, query: Option<&str>) -> Result<Response<Vec<u8>>, String> {
        Ok(json(&backends::rows(&self.named(query)?, Instant::now())))
    }

    /// The error says what is wrong with the query.
    fn upstreams(&self, query: Option<&str>) -> Result<Response<Vec<u8>>, String> {
        Ok(json(&backends::upstream_rows(&self.named(query)?, Instant::now())))
    }

    /// The upstreams, or the one that the query names.
    fn named(&self, query: Option<&str>) -> Result<Vec<Arc<Upstream>>, String> {
        let query = Query::read(query, &["upstream"])?;
        let mut upstreams = self.subject.upstreams();
        if let Some(name) = query.value("upstream") {
            let names = backends::names(&upstreams);
            upstreams.retain(|upstream| upstream.spec().name == name);
            if upstreams.is_empty() {
                return Err(format!("there is no upstream {}; there are: {names}", shown(name)));
            }
        }
        Ok(upstreams)
    }

    /// The error says what is wrong with the order.
    fn order(&self, query: Option<&str>, form: &[u8]) -> Result<Response<Vec<u8>>, String> {
        let upstreams = self.subject.upstreams();
        backends::order(&upstreams, &parameters(query, form)?, Instant::now())?;
        Ok(json(&backends::rows(&upstreams, Instant::now())))
    }

    /// The error says what is wrong with the query.
    fn probes(&self, query: Option<&str>) -> Result<Response<Vec<u8>>, String> {
        Ok(json(&probes::probes(&self.subject.upstreams(), query, Instant::now())?))
    }

    /// The error says what is wrong with the query.
    fn failures(&self, query: Option<&str>) -> Result<Response<Vec<u8>>, String> {
        let query = Query::read(query, &failures::PARAMETERS)?;
        let ring = self.subject.ring();
        let records = Filter::of(&query)?.apply(ring);
        let records: Vec<&AccessRecord<'_>> = records.iter().map(AsRef::as_ref).collect();
        let mut response = json(&records);
        response.headers_mut().insert(SKIPPED, ring.skipped().into());
        Ok(response)
    }

    /// The error says what is wrong with the order.
    fn purge(&self, query: Option<&str>, form: &[u8]) -> Result<Response<Vec<u8>>, String> {
        let order = Order::read(&parameters(query, form)?)?;
        let stores = self.subject.purge(order.store.as_deref(), &order.scopes, order.mode);
        if stores.is_empty() {
            return Err(format!("there is no store {}", order.store.as_deref().unwrap_or("at all")));
        }
        let scopes: Vec<String> = order.scopes.iter().map(ToString::to_string).collect();
        info!(mode = order.mode.name(), stores:? = stores, scopes:? = scopes; "copies are purged");
        Ok(json(&Purged { mode: order.mode.name(), stores, scopes }))
    }

    /// The error says what is wrong with the query.
    fn explain(&self, query: Option<&str>) -> Result<Response<Vec<u8>>, String> {
        let query = Query::read(query, &["request_id"])?;
        let id = query.request_id()?.ok_or("request_id is needed")?;
        let ring = self.subject.ring();
        Ok(match ring.find(id) {
            None => text(StatusCode::NOT_FOUND, &unknown(id, ring.skipped())),
            Some(record) => {
                let measured = Measured::of(&record, &*self.subject, Instant::now());
                text(StatusCode::OK, &story(&record, &measured))
            }
        })
    }
}

/// What the query and the form of an order say together.
fn parameters(query: Option<&str>, form: &[u8]) -> Result<String, String> {
    let form = std::str::from_utf8(form).map_err(|_| "the form is not UTF-8")?;
    Ok([query.unwrap_or_default(), form.trim_end()].join("&"))
}

fn refused(why: &str) -> Response<Vec<u8>> {
    text(StatusCode::BAD_REQUEST, &format!("400: {why}\n"))
}

fn json(document: &impl Serialize) -> Response<Vec<u8>> {
    match serde_json::to_string_pretty(document) {
        Ok(body) => answer(StatusCode::OK, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let is_form = request.method == Method::POST
            && self.conditions.load().refusal(&request.method, &request.uri, &request.headers).is_none();
        let form = if is_form { read_form(session).await } else { Some(Vec::new()) };
        let request = session.req_header();
        match form {
            Some(form) => self.page(&request.method, &request.uri, &request.headers, &form),
            None => {
                text(StatusCode::PAYLOAD_TOO_LARGE, "413: the form is too long, or did not come in time\n")
            }
        }
    }
}

/// The body of a request; none if it is too long, broken, or too slow.
async fn read_form(session: &mut ServerSession) -> Option<Vec<u8>> {
    let read = async {
        let mut form = Vec::new();
        while let Some(piece) = session.read_request_body().await.ok()? {
            form.extend_from_slice(&piece);
            if form.len() > FORM_BYTES_MAX {
                return None;
            }
        }
        Some(form)
    };
    tokio::time::timeout(FORM_LIMIT, read).await.ok().flatten()
}

fn text(status: StatusCode, body: &str) -> Response<Vec<u8>> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, media_type: &'static str, body: String) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in FOR_BROWSERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
