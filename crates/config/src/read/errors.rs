//! `routes[].errors`: what clients of a route get to see when it fails.

use std::path::Path;
use std::sync::Arc;

use goodgate_failure::{Word, Words};

use crate::file::read_bounded;
use crate::kind::{boolean, one_of, text, wrong};
use crate::page::ErrorPage;
use crate::tree::Node;
use crate::view::Map;
use crate::{ErrorSpec, keys};

/// The largest page: it is sent just when things are bad.
const PAGE_BYTES_MAX: usize = 256 << 10;
const CONTACT_CHARS_MAX: usize = 200;

/// Statuses of a backend that can be replaced.
const REPLACEABLE: [(&str, Word); 7] = [
    ("http_500", Word::Http500),
    ("http_502", Word::Http502),
    ("http_503", Word::Http503),
    ("http_504", Word::Http504),
    ("http_429", Word::Http429),
    ("http_403", Word::Http403),
    ("http_404", Word::Http404),
];

pub(super) fn errors(map: &Map<'_>, folder: &Path) -> ErrorSpec {
    let map = map.section("errors", &keys::ERRORS);
    let replace = map.get("replace").and_then(|view| view.list_of(one_of(&REPLACEABLE)));
    ErrorSpec {
        page: page(&map, "html", folder),
        contact: map.read("contact", contact),
        replace: replace.map_or(Words::NONE, Words::from_iter),
        next_hop: map.read("next_hop", boolean).unwrap_or_default(),
    }
}

/// The page in the file that a key names.
pub(super) fn page(map: &Map<'_>, key: &str, folder: &Path) -> Option<Arc<ErrorPage>> {
    let view = map.get(key)?;
    let path = folder.join(view.read(text)?);
    read_page(&path).map_err(|message| view.problem(message)).map(Arc::new).ok()
}

fn read_page(path: &Path) -> Result<ErrorPage, String> {
    let bytes = read_bounded(path, PAGE_BYTES_MAX, "an error page is small")?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", path.display()))?;
    Ok(ErrorPage::parse(&text))
}

/// Text that needs no escaping in HTML and JSON.
fn contact(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    let is_plain = |c: char| !c.is_control() && !"<>&\"'\\".contains(c);
    if text.chars().count() <= CONTACT_CHARS_MAX && text.chars().all(is_plain) {
        return Ok(text);
    }
    Err(wrong(node, "an address or a sentence of at most 200 characters, none of them one of <>&\"'\\"))
}
