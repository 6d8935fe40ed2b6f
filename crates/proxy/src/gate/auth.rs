//! Passwords (RFC 7617). Hashes that are worth something take long to check, so that it is done beside the
//! workers, a few at a time, and what was found good is remembered for some minutes: by a keyed hash of the
//! password and the hash it belongs to, so that nothing is remembered that could be read, and a new password
//! makes the old one worthless at once. What was wrong is checked anew each time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use goodgate_config::{BasicAuth, PasswordHash, Users};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::RwLock;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

/// Credentials of more bytes are wrong without a look.
const CREDENTIALS_BYTES_MAX: usize = 1024;
/// Requests that may wait for their password to be checked.
const WAITING_MAX: usize = 128;
/// Passwords remembered in each of two generations, and for how long one of them lasts.
const KNOWN_MAX: usize = 2048;
const GENERATION: Duration = Duration::from_mins(5);

/// Who is asked for a password, and for which.
#[derive(Debug)]
pub(super) struct Auth {
    users: Arc<Users>,
    pub(super) challenge: HeaderValue,
    verifier: Arc<Verifier>,
}

/// What came of looking at the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Wrong,
    /// Too many wait to be checked.
    Busy,
}

/// Checks passwords, for all routes together.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// None if there is no randomness to make it of: then nothing is remembered.
    key: Option<hmac::Key>,
    known: RwLock<Known>,
    places: Semaphore,
    waiting: AtomicUsize,
}

/// The names of good passwords, the new ones and those of the generation before.
#[derive(Debug)]
struct Known {
    young: HashSet<Name>,
    old: HashSet<Name>,
    since: Instant,
}

type Name = [u8; 32];

impl Auth {
    pub(super) fn new(spec: &BasicAuth, verifier: &Arc<Verifier>) -> Self {
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{}\", charset=\"UTF-8\"", spec.realm));
        // The configuration allows nothing in a realm that a field value may not have.
        let challenge = challenge.unwrap_or(HeaderValue::from_static("Basic"));
        Self { users: Arc::clone(&spec.users), challenge, verifier: Arc::clone(verifier) }
    }

    /// Looks at the credentials of a request.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Verdict {
        let Some(credentials) = credentials(headers) else {
            return Verdict::Wrong;
        };
        let (name, password) = split(&credentials);
        let Some((hash, is_there)) = self.users.find(name) else {
            return Verdict::Wrong;
        };
        let verdict = self.verifier.check(hash, password).await;
        if verdict == Verdict::Good && !is_there { Verdict::Wrong } else { verdict }
    }
}

impl Verifier {
    /// At most half of the cores check passwords at a time.
    pub(crate) fn new(now: Instant) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            known: RwLock::new(Known { young: HashSet::new(), old: HashSet::new(), since: now }),
            places: Semaphore::new((cores / 2).max(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    async fn check(&self, hash: &Arc<PasswordHash>, password: &[u8]) -> Verdict {
        let name = self.name(hash, password);
        if self.knows(name.as_ref(), Instant::now()) {
            return Verdict::Good;
        }
        let Some(_waiting) = Waiting::begin(&self.waiting) else {
            return Verdict::Busy;
        };
        let Ok(place) = self.places.acquire().await else {
            return Verdict::Busy;
        };
        // A browser asks for many things at once with the same password: the first has found out meanwhile.
        if self.knows(name.as_ref(), Instant::now()) {
            return Verdict::Good;
        }
        let (hash, password) = (Arc::clone(hash), password.to_owned());
        let is_good = tokio::task::spawn_blocking(move || hash.is_of(&password)).await.unwrap_or(false);
        drop(place);
        if !is_good {
            return Verdict::Wrong;
        }
        if let Some(name) = name {
            self.known.write().add(name, Instant::now());
        }
        Verdict::Good
    }

    /// What a good password is remembered by.
    fn name(&self, hash: &PasswordHash, password: &[u8]) -> Option<Name> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        context.update(hash.as_bytes());
        context.update(&[0]);
        context.update(password);
        context.sign().as_ref().try_into().ok()
    }

    fn knows(&self, name: Option<&Name>, now: Instant) -> bool {
        name.is_some_and(|name| self.known.read().has(name, now))
    }
}

impl Known {
    fn has(&self, name: &Name, now: Instant) -> bool {
        match now.saturating_duration_since(self.since) {
            age if age < GENERATION => self.young.contains(name) || self.old.contains(name),
            age if age < GENERATION * 2 => self.young.contains(name),
            _ => false,
        }
    }

    fn add(&mut self, name: Name, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= GENERATION || self.young.len() >= KNOWN_MAX {
            let young = std::mem::take(&mut self.young);
            self.old = if age < GENERATION * 2 { young } else { HashSet::new() };
            self.since = now;
        }
        self.young.insert(name);
    }
}

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let one = Self(count);
        (before < WAITING_MAX).then_some(one)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The credentials of the scheme `Basic`, if the request has just these.
fn credentials(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (field, None) = (fields.next()?.as_bytes(), fields.next()) else {
        return None;
    };
    let (scheme, rest) = field.split_at_checked(b"Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let encoded = rest.trim_ascii();
    if encoded.len() > CREDENTIALS_BYTES_MAX {
        return None;
    }
    STANDARD.decode(encoded).ok().filter(|credentials| credentials.contains(&b':'))
}

/// A name has no colon; a password may.
fn split(credentials: &[u8]) -> (&[u8], &[u8]) {
    let colon = credentials.iter().position(|byte| *byte == b':').unwrap_or(credentials.len());
    let (name, rest) = credentials.split_at_checked(colon).unwrap_or((credentials, &[]));
    (name, rest.strip_prefix(b":").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        credentials(&headers)
    }

    #[test]
    fn credentials_are_read_from_one_field_of_the_scheme() {
        let good = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(read(&[good]).unwrap(), b"Aladdin:open sesame");
        assert_eq!(read(&["bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]).unwrap(), b"Aladdin:open sesame");
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Bearer QQ==",
            "BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QQ==",
            "Basic ???",
        ] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!((read(&[]), read(&[good, good])), (None, None));
        assert_eq!(read(&[&format!("Basic {}", STANDARD.encode([b':'; 800]))]), None);
    }

    #[test]
    fn a_password_may_have_colons() {
        assert_eq!(split(b"ann:a:b"), (&b"ann"[..], &b"a:b"[..]));
        assert_eq!(split(b":"), (&b""[..], &b""[..]));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let start = Instant::now();
        let mut known = Known { young: HashSet::new(), old: HashSet::new(), since: start };
        let name = |number: usize| {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&number.to_le_bytes());
            name
        };
        for number in 0..10 * KNOWN_MAX {
            known.add(name(number), start);
        }
        assert!(known.young.len() + known.old.len() <= 2 * KNOWN_MAX);
        let last = name(10 * KNOWN_MAX - 1);
        assert!(known.has(&last, start + GENERATION) && !known.has(&name(0), start));
        assert!(!known.has(&last, start + 2 * GENERATION));
        known.add(name(1), start + GENERATION);
        assert!(known.has(&last, start + GENERATION), "of the generation before");
        assert!(!known.has(&last, start + 2 * GENERATION));
        known.add(name(2), start + 4 * GENERATION);
        assert!(!known.has(&name(1), start + 4 * GENERATION), "after a pause nothing is left");
    }
}
