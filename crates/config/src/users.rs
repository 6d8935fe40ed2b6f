//! Who has a password: a file of `name:hash` lines as `htpasswd` writes them. Only slow hashes are taken, and none
//! so slow that checking one is a burden. Neither names, hashes nor passwords are ever shown.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use sha_crypt::{PasswordVerifier, ShaCrypt};

use crate::file::read_bounded;

const FILE_BYTES_MAX: usize = 1 << 20;
/// The cost of bcrypt is a power of two: 15 takes seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=15;
const ROUNDS: std::ops::RangeInclusive<u32> = 1000..=1_000_000;

const ALLOWED: &str = "allowed: bcrypt (`htpasswd -B`) of a cost from 4 to 15, or SHA-crypt (`htpasswd -5`, \
    `openssl passwd -6`) of 1000 to 1000000 rounds";

/// Users and the hashes of their passwords; at least one.
#[derive(Clone)]
pub struct Users {
    by_name: HashMap<Vec<u8>, Arc<PasswordHash>>,
    all: Vec<Arc<PasswordHash>>,
    chooser: RandomState,
}

/// The hash of one user's password.
pub struct PasswordHash {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Bcrypt,
    ShaCrypt,
}

impl Users {
    /// Reads a file. The error names it, and the line.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let named = path.display();
        let bytes = read_bounded(path, FILE_BYTES_MAX, "a line for each user is expected in it")?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{named} is not UTF-8"))?;
        Self::parse(&text).map_err(|(line, what)| match line {
            0 => format!("{named} {what}"),
            line => format!("{named}, line {line}: {what}"),
        })
    }

    /// The error is the line, from 1, or 0 for the whole, and what is wrong with it.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut by_name = HashMap::new();
        let mut all = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = user(line).map_err(|what| (number, what))?;
            let Entry::Vacant(place) = by_name.entry(name.as_bytes().to_owned()) else {
                return Err((number, "this user has a line above already".to_owned()));
            };
            let hash = Arc::new(hash);
            place.insert(Arc::clone(&hash));
            all.push(hash);
        }
        if all.is_empty() {
            return Err((0, "holds no user; allowed: lines like `name:hash`".to_owned()));
        }
        Ok(Self { by_name, all, chooser: RandomState::new() })
    }

    /// The hash to compare a password of this user with, and whether there is such a user. A name that is not
    /// there gets the hash of another, always the same, so that it takes as long as one that is.
    pub fn find(&self, name: &[u8]) -> Option<(&Arc<PasswordHash>, bool)> {
        if let Some(hash) = self.by_name.get(name) {
            return Some((hash, true));
        }
        let count = u64::try_from(self.all.len()).unwrap_or(1);
        let chosen = self.chooser.hash_one(name).checked_rem(count)?;
        Some((self.all.get(usize::try_from(chosen).ok()?)?, false))
    }
}

/// `name:hash`, and what stands behind another colon is a comment.
fn user(line: &str) -> Result<(&str, PasswordHash), String> {
    let (name, rest) = line.split_once(':').ok_or("no colon is in it; allowed: `name:hash`")?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("no name stands before the colon".to_owned());
    }
    let text = rest.split(':').next().unwrap_or_default();
    let kind = kind(text).ok_or_else(|| format!("the hash of the password is none of those; {ALLOWED}"))?;
    Ok((name, PasswordHash { kind, text: text.to_owned() }))
}

fn kind(text: &str) -> Option<Kind> {
    match text.split('$').nth(1)? {
        "2a" | "2b" | "2y" => {
            let parts: bcrypt::HashParts = text.parse().ok()?;
            COSTS.contains(&parts.get_cost()).then_some(Kind::Bcrypt)
        }
        "5" => is_sha_crypt(text, 43).then_some(Kind::ShaCrypt),
        "6" => is_sha_crypt(text, 86).then_some(Kind::ShaCrypt),
        _ => None,
    }
}

/// `$6$salt$hash` or `$6$rounds=5000$salt$hash`.
fn is_sha_crypt(text: &str, length: usize) -> bool {
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    let mut fields: Vec<&str> = text.split('$').skip(2).collect();
    if let [rounds, _, _] = fields.as_slice() {
        let rounds = rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse().ok());
        if !rounds.is_some_and(|rounds| ROUNDS.contains(&rounds)) {
            return false;
        }
        fields.remove(0);
    }
    let [salt, hash] = fields.as_slice() else {
        return false;
    };
    (1..=16).contains(&salt.len()) && hash.len() == length && is_plain(salt) && is_plain(hash)
}

impl PasswordHash {
    /// Whether it is the hash of this password. Takes milliseconds to seconds, wherever the two differ.
    pub fn is_of(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::ShaCrypt => ShaCrypt::default().verify_password(password, self.text.as_str()).is_ok(),
        }
    }

    /// The hash as it was written: for a name that changes with it.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users(…)")
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by libxcrypt and `openssl passwd`.
    const FILE: &str = "# staff
ann:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy
bob:$6$Pj4dPq9sX$Ho0RC1.nQXKhkbBPDVGBQPJqrFH1xwnMwZipyS3OCpeHmabWdtcNQ0kAekSZxHWUm2XLWKmwJn8K21YAJv5Fh/

cleo:$5$Pj4dPq9sX$l8eTkHm2DKM7s3TalHwtn2aG3mcfZejqqGoQBYbkmbB:who left a comment
dan:$6$rounds=1000$saltsalt$/IiX/CoEcxCZ9SksEXnbjfCT1LGvD4z5OpJkaFYl/T37OAwuKZ8I8BixDhruhPLkw6lS7dw/6wQWgQnGo7lLg/
";

    fn check(users: &Users, name: &str, password: &str) -> bool {
        let (hash, is_there) = users.find(name.as_bytes()).unwrap();
        hash.is_of(password.as_bytes()) && is_there
    }

    #[test]
    fn a_user_has_one_password() {
        let users = Users::parse(FILE).unwrap();
        for name in ["ann", "bob", "cleo", "dan"] {
            assert!(check(&users, name, "open sesame"), "{name}");
            for wrong in ["", "open sesam", "open sesame ", "Open sesame"] {
                assert!(!check(&users, name, wrong), "{name} {wrong:?}");
            }
        }
        for name in ["", "eve", "Ann", "ann:", "# staff"] {
            assert!(!check(&users, name, "open sesame"), "{name:?}");
            let hash = |users: &Users| users.find(name.as_bytes()).unwrap().0.text.clone();
            assert_eq!(hash(&users), hash(&users), "always the same one");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_nothing_of_it_is_shown() {
        let good = "a:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";
        let bad = [
            ("secret", 1),
            (":$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy", 1),
            ("\n\na:secret", 3),
            ("a:", 1),
            ("a:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", 1),
            ("a:$apr1$Rz7JJOgC$y0wlMoa7nxSqp/iT6k.Gh/", 1),
            ("a:$2y$16$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy", 1),
            ("a:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/c", 1),
            ("a:$2y$04$", 1),
            ("a:$6$salt$short", 1),
            ("a:$6$", 1),
            ("# nobody\n", 0),
            ("", 0),
        ];
        for (text, line) in bad {
            let (told, what) = Users::parse(text).err().unwrap();
            assert_eq!(told, line, "{text:?}");
            assert!(!what.contains("secret"), "{what}");
        }
        let rounds = format!("a:$6$rounds=1000001$salt${}", "x".repeat(86));
        assert!(Users::parse(&rounds).is_err());
        assert_eq!(Users::parse(&format!("{good}\n{good}\n")).err().unwrap().0, 2);
        assert_eq!(format!("{:?}", Users::parse(good).unwrap()), "Users(…)");
    }
}
