//! The site behind the gateway: pages whose text says everything that the backend was told, and when it was written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::backend::{Gate, read_body, read_head};

/// How many addresses of each kind there are.
pub const PAGES: usize = 3;

/// What a page is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same for everyone, fresh for minutes.
    Open,
    /// The same, fresh for a second.
    Short,
    /// Never fresh, with a validator.
    Checked,
    /// In several languages.
    Vary,
    /// As the address of the client is.
    Address,
    /// Personal, and silent about caches.
    Own,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Open, Self::Short, Self::Checked, Self::Vary, Self::Address, Self::Own];

    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Short => "short",
            Self::Checked => "checked",
            Self::Vary => "vary",
            Self::Address => "address",
            Self::Own => "own",
        }
    }

    fn of(path: &str) -> Self {
        let named = |kind: &Self| path.split('/').any(|part| part == kind.name());
        Self::ALL.into_iter().find(named).unwrap_or(Self::Open)
    }

    /// For how many seconds a response is fresh.
    pub fn lifetime(self) -> u64 {
        match self {
            Self::Open | Self::Vary | Self::Address => 600,
            Self::Short => 1,
            Self::Checked | Self::Own => 0,
        }
    }

    fn fields(self, etag: &str) -> String {
        match self {
            Self::Own => String::new(),
            Self::Checked => format!("Cache-Control: no-cache\r\nETag: \"{etag}\"\r\n"),
            Self::Vary => "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n".to_owned(),
            Self::Address => {
                "Cache-Control: max-age=600\r\nVary: X-Forwarded-For, Client-Cert\r\n".to_owned()
            }
            Self::Open | Self::Short => format!("Cache-Control: max-age={}\r\n", self.lifetime()),
        }
    }
}

/// How the backends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Connections are closed without a byte.
    Closing,
    /// Every response is 503.
    Failing,
}

/// What all backends share.
pub struct World {
    pub mood: Mutex<Mood>,
    /// How often each address has changed.
    versions: Mutex<std::collections::HashMap<String, u64>>,
    /// When each response was made, and for which request.
    made: Mutex<Vec<(Instant, String)>>,
    /// The next GET for an address waits here once its page is made.
    pub hold: Mutex<Option<Gate>>,
    pub held: AtomicUsize,
    pub requests: AtomicU64,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Well),
            versions: Mutex::default(),
            made: Mutex::default(),
            hold: Mutex::default(),
            held: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
        })
    }

    /// A backend of this site.
    pub async fn backend(self: &Arc<Self>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.serve(stream).await });
            }
        });
        address
    }

    pub fn version(&self, target: &str) -> u64 {
        self.versions.lock().get(target).copied().unwrap_or_default()
    }

    /// How many responses have been made.
    pub fn serial(&self) -> usize {
        self.made.lock().len()
    }

    pub fn made_at(&self, serial: usize) -> Instant {
        self.made.lock()[serial].0
    }

    pub fn made_for(&self, serial: usize) -> String {
        self.made.lock()[serial].1.clone()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(head) = read_head(&mut stream, &mut buffer).await {
            let body = read_body(&mut stream, &mut buffer, &head).await;
            self.requests.fetch_add(1, Ordering::SeqCst);
            let mood = *self.mood.lock();
            if mood == Mood::Closing {
                return;
            }
            let response = if mood == Mood::Failing {
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned()
            } else {
                self.response(&head, body.len())
            };
            let gate = if head.starts_with("GET") { self.hold.lock().take() } else { None };
            if let Some(gate) = gate {
                self.held.fetch_add(1, Ordering::SeqCst);
                let serial = self.serial() - 1;
                gate.passed().await;
                // Freshness counts from the time when the response comes.
                self.made.lock()[serial].0 = Instant::now();
            }
            if stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn response(&self, head: &str, body: usize) -> String {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        if !matches!(method, "GET" | "HEAD") {
            *self.versions.lock().entry(target.to_owned()).or_default() += 1;
            return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned();
        }
        let kind = Kind::of(path);
        let seen = Seen::of(head, target, kind, body);
        let version = self.version(target);
        let etag = format!("{version}-{}", seen.replace(|letter: char| !letter.is_ascii_alphanumeric(), "."));
        let mut made = self.made.lock();
        let serial = made.len();
        made.push((Instant::now(), head.replace("\r\n", " | ")));
        drop(made);
        let fields = kind.fields(&etag);
        if field(head, "if-none-match") == Some(format!("\"{etag}\"").as_str()) {
            return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
        }
        let text = format!("{version} {serial} {seen}");
        let text_sent = if method == "HEAD" { "" } else { &text };
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{text_sent}", text.len())
    }
}

/// A request field.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let is_it = |line: &&str| line.split(':').next().is_some_and(|other| other.eq_ignore_ascii_case(name));
    head.lines().skip(1).find(is_it).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
}

/// What the backend was told, as a lenient program reads it.
pub struct Seen;

impl Seen {
    fn of(head: &str, target: &str, kind: Kind, body: usize) -> String {
        let none = || "-".to_owned();
        let text = |name: &str| field(head, name).map_or_else(none, str::to_owned);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let cookies = field(head, "cookie").unwrap_or_default();
        let lang = pairs(cookies, [';', ',']).into_iter().find(|(name, _)| name == "lang");
        let page = pairs(query, ['&', ';']).into_iter().find(|(name, _)| name == "page_id");
        let value = |pair: Option<(String, String)>| pair.map_or_else(none, |(_, value)| value);
        let mut seen = vec![
            format!("host={}", text("host")),
            format!("shown={}", text("x-forwarded-host")),
            format!("proto={}", text("x-forwarded-proto")),
            format!("prefix={}", text("x-forwarded-prefix")),
            format!("claim={}", text("x-host")),
            format!("lang={}", value(lang)),
            format!("page={}", value(page)),
            format!("body={body}"),
            format!("sides={}", u8::from(cookies.contains("side"))),
        ];
        match kind {
            Kind::Vary => seen.push(format!("speaks={}", text("accept-language"))),
            Kind::Address => {
                seen.push(format!("from={}", text("x-forwarded-for").replace(", ", ",")));
                seen.push(format!("cert={}", text("client-cert")));
            }
            Kind::Own => {
                let session = pairs(cookies, [';', ',']).into_iter().find(|(name, _)| name == "session");
                seen.push(format!("session={}", value(session)));
                seen.push(format!("login={}", text("authorization").replace(' ', "_")));
                seen.push(format!("cert={}", text("client-cert")));
            }
            Kind::Open | Kind::Short | Kind::Checked => {}
        }
        seen.join(" ")
    }
}

/// Names and values; white space and case of names do not matter, and a dot is an underscore.
fn pairs(text: &str, separators: [char; 2]) -> Vec<(String, String)> {
    let pairs = text.split(separators).filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim().to_ascii_lowercase().replace('.', "_"), value.trim().to_owned()))
        .collect()
}
