//! A request, and what the backend would be told if it were sent there: the reference for every response.

use super::world::{Kind, PAGES};

/// What a client says. Each choice is one that the cache must heed, or must take out before the backend sees it.
#[derive(Clone, Debug)]
pub struct Visit {
    pub method: &'static str,
    pub path: String,
    pub kind: Kind,
    pub is_trusted: bool,
    host: &'static str,
    page: Option<&'static str>,
    lang: Option<&'static str>,
    session: Option<&'static str>,
    login: Option<&'static str>,
    cert: Option<&'static str>,
    from: Option<&'static str>,
    shown: Option<&'static str>,
    proto: Option<&'static str>,
    prefix: Option<&'static str>,
    claim: Option<&'static str>,
    speaks: Option<&'static str>,
    nominated: Option<&'static str>,
    sides: Vec<String>,
    has_body: bool,
    is_no_cache: bool,
}

fn maybe(random: &mut fastrand::Rng, percent: u32, values: &[&'static str]) -> Option<&'static str> {
    (random.u32(..100) < percent).then(|| *random.choice(values).unwrap())
}

impl Visit {
    pub fn random(random: &mut fastrand::Rng, method: &'static str, sides: &[String]) -> Self {
        let kind = *random.choice(Kind::ALL.iter()).unwrap();
        let folder = random.choice(["", "/f"]).unwrap();
        let path = format!("{folder}/{}/{}", kind.name(), random.usize(..PAGES));
        let is_trusted = random.bool();
        let visit = Self {
            method,
            path,
            kind,
            is_trusted,
            host: random.choice(["test", "test", "test", "test:80", "TEST.", "Test.:80"]).unwrap(),
            page: maybe(
                random,
                10,
                &["page_id=1", "page_id=2", "page.id=evil", "PAGE_ID=3", "x=1;page_id=evil"],
            ),
            lang: maybe(random, 15, &["lang=de", "lang=fr", "lang =evil", "LANG=evil", "ga=1, lang=evil"]),
            session: maybe(random, 20, &["alice", "bob"]),
            login: maybe(random, 8, &["Basic alice", "Basic bob"]),
            cert: maybe(random, 10, &[":alice:", ":bob:"]),
            from: maybe(random, 60, &["10.0.0.1", "10.0.0.2"]),
            shown: maybe(random, 6, &["shop.test", "evil.test"]),
            proto: maybe(random, 10, &["http", "https", "evil"]),
            prefix: maybe(random, 4, &["/a", "/b"]),
            claim: maybe(random, 8, &["evil.test"]),
            speaks: maybe(random, 50, &["de", "fr", "en"]),
            nominated: maybe(random, 6, &["accept-language", "cookie", "authorization", "x-host"]),
            sides: if random.u32(..100) < 30 { sides.to_vec() } else { Vec::new() },
            has_body: method != "GET" && method != "HEAD" && method != "PURGE"
                || random.u32(..100) < 4 && method == "GET",
            is_no_cache: random.u32(..100) < 5,
        };
        // With https the port 80 is that of another site.
        let is_https = visit.is_trusted && visit.proto == Some("https");
        if is_https { Self { host: "Test.", ..visit } } else { visit }
    }

    /// The same request as one that changes the page.
    pub fn as_change(&self) -> Self {
        Self { method: "PUT", has_body: true, ..self.clone() }
    }

    /// The same address with another method, from a client that says nothing else.
    pub fn bare(&self, method: &'static str) -> String {
        let length = if method == "PURGE" { "" } else { "Content-Length: 0\r\n" };
        format!("{method} {} HTTP/1.1\r\nHost: {}\r\n{length}\r\n", self.target(), self.host)
    }

    /// Path and query.
    pub fn target(&self) -> String {
        self.page.map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    pub fn head(&self) -> String {
        let mut lines =
            vec![format!("{} {} HTTP/1.1", self.method, self.target()), format!("Host: {}", self.host)];
        let mut cookies: Vec<String> = self.lang.iter().map(|lang| (*lang).to_owned()).collect();
        cookies.extend(self.session.map(|session| format!("session={session}")));
        cookies.extend(self.sides.iter().cloned());
        let mut add =
            |name: &str, value: Option<&str>| lines.extend(value.map(|value| format!("{name}: {value}")));
        add("Cookie", (!cookies.is_empty()).then(|| cookies.join("; ")).as_deref());
        add("Authorization", self.login);
        add("Client-Cert", self.cert);
        add("X-Forwarded-For", self.from);
        add("X-Forwarded-Host", self.shown);
        add("X-Forwarded-Proto", self.proto);
        add("X-Forwarded-Prefix", self.prefix);
        add("X-Host", self.claim);
        add("Accept-Language", self.speaks);
        add("Connection", self.nominated);
        add("Cache-Control", self.is_no_cache.then_some("no-cache"));
        add("Content-Length", self.has_body.then_some("4"));
        lines.join("\r\n") + "\r\n\r\n" + if self.has_body { "evil" } else { "" }
    }

    /// What the backend would say that it was told: by a route without a cache the host as it was sent.
    pub fn expected(&self, is_cached: bool) -> String {
        let host = if is_cached { "test" } else { self.host };
        let text = |value: Option<&str>| value.unwrap_or("-").to_owned();
        let believed = |value: Option<&'static str>| value.filter(|_| self.is_trusted);
        let is_sent = |name: &str| self.nominated != Some(name);
        let cookie = |value: Option<&'static str>| value.filter(|_| is_sent("cookie"));
        let lang = cookie(self.lang).map(|lang| lang.rsplit('=').next().unwrap());
        let page = self.page.map(|page| page.rsplit('=').next().unwrap());
        let proto = believed(self.proto).filter(|proto| *proto == "https").unwrap_or("http");
        let mut expected = vec![
            format!("host={host}"),
            format!("shown={}", believed(self.shown).unwrap_or(host)),
            format!("proto={proto}"),
            format!("prefix={}", text(believed(self.prefix))),
            format!("claim={}", text(believed(self.claim).filter(|_| is_sent("x-host")))),
            format!("lang={}", text(lang)),
            format!("page={}", text(page)),
            format!("body={}", if self.has_body { 4 } else { 0 }),
            "sides=0".to_owned(),
        ];
        let cert = text(believed(self.cert));
        match self.kind {
            Kind::Vary => {
                let speaks = self.speaks.filter(|_| is_sent("accept-language"));
                expected.push(format!("speaks={}", text(speaks)));
            }
            Kind::Address => {
                let peer = if self.is_trusted { "127.0.0.1" } else { "127.0.0.2" };
                let chain =
                    believed(self.from).map_or_else(|| peer.to_owned(), |from| format!("{from},{peer}"));
                expected.push(format!("from={chain}"));
                expected.push(format!("cert={cert}"));
            }
            Kind::Own => {
                let login = self.login.filter(|_| is_sent("authorization"));
                expected.push(format!("session={}", text(cookie(self.session))));
                expected.push(format!("login={}", text(login).replace(' ', "_")));
                expected.push(format!("cert={cert}"));
            }
            Kind::Open | Kind::Short | Kind::Checked => {}
        }
        expected.join(" ")
    }
}
