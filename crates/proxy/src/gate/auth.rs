//! Passwords (RFC 7617). Hashes that are worth something take long to check, so that it is done beside the
//! workers, a few at a time, and what was found good is remembered for some minutes: by a keyed hash of the
//! password and the hash it belongs to, so that nothing is remembered that could be read, and a new password
//! makes the old one worthless at once. What was wrong is checked anew each time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use goodgate_config::{BasicAuth, PasswordHash, Users};
use http::{HeaderMap, HeaderValue, header};
use parking_lot::RwLock;
use ring::hmac;
use ring::rand::SystemRandom;

use super::checks::{Busy, Checks};

/// Credentials of more bytes are wrong without a look.
const CREDENTIALS_BYTES_MAX: usize = 1024;
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
    Busy(Busy),
}

/// Credentials that must be checked.
pub(super) struct Unchecked<'a> {
    verifier: &'a Verifier,
    hash: Arc<PasswordHash>,
    /// Whether the user exists. For others a hash is checked that takes as long.
    is_there: bool,
    password: Vec<u8>,
    name: Option<Name>,
}

/// Checks passwords, for all routes together.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// None if there is no randomness to make it of: then nothing is remembered.
    key: Option<hmac::Key>,
    known: RwLock<Known>,
    checks: Checks,
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

    /// Looks at the credentials of a request: a verdict at once, or what must be checked for it.
    pub(super) fn look(&self, headers: &HeaderMap) -> Result<Unchecked<'_>, Verdict> {
        let credentials = credentials(headers).ok_or(Verdict::Wrong)?;
        let (name, password) = split(&credentials);
        let (hash, is_there) = self.users.find(name).ok_or(Verdict::Wrong)?;
        let name = self.verifier.name(hash, password);
        if self.verifier.knows(name.as_ref(), Instant::now()) {
            return Err(if is_there { Verdict::Good } else { Verdict::Wrong });
        }
        let (hash, password) = (Arc::clone(hash), password.to_owned());
        Ok(Unchecked { verifier: &self.verifier, hash, is_there, password, name })
    }
}

impl Unchecked<'_> {
    /// Checks the password for this client, once it is its turn. Dropped before, it leaves the queue; a check that
    /// runs keeps its place until its end.
    pub(super) async fn check(self, client: u64) -> Verdict {
        let waiter = match self.verifier.checks.enter(client, Instant::now()) {
            Ok(waiter) => waiter,
            Err(busy) => return Verdict::Busy(busy),
        };
        let place = match waiter.place().await {
            Ok(place) => place,
            Err(busy) => return Verdict::Busy(busy),
        };
        // A browser asks for many things at once with the same password: the first has found out meanwhile.
        let is_good = self.verifier.knows(self.name.as_ref(), Instant::now()) || {
            let check = move || (self.hash.is_of(&self.password), place).0;
            let is_good = tokio::task::spawn_blocking(check).await.unwrap_or(false);
            if is_good && let Some(name) = self.name {
                self.verifier.known.write().add(name, Instant::now());
            }
            is_good
        };
        if is_good && self.is_there { Verdict::Good } else { Verdict::Wrong }
    }
}

impl Verifier {
    /// At most half of the cores check passwords at a time.
    pub(crate) fn new(now: Instant) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            known: RwLock::new(Known { young: HashSet::new(), old: HashSet::new(), since: now }),
            checks: Checks::new((cores / 2).max(1)),
        }
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
