//! `mirror` of a route: who gets copies of its requests.

use super::action;
use super::split::whole_percent;
use crate::kind::size;
use crate::view::View;
use crate::{Mirror, defaults, keys};

/// So many copies with bodies of this length fit into memory.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// None if it cannot be read. `own` is the upstream that answers.
pub(super) fn mirror(view: &View<'_>, own: usize, upstreams: &[&str]) -> Option<Mirror> {
    let map = view.map(&keys::MIRROR)?;
    let share = map.read("share", whole_percent).unwrap_or(defaults::MIRROR_SHARE_PERCENT);
    let body_bytes_max = map.read("max_body_bytes", size(0..=BODY_BYTES_MAX));
    let body_bytes_max = usize::try_from(body_bytes_max.unwrap_or(defaults::MIRROR_BODY_BYTES_MAX)).ok()?;
    let name = map.required("upstream")?;
    let upstream = name.read(|node| action::upstream(node, upstreams))?;
    if upstream == own {
        name.problem("is the upstream that answers: it would get those requests twice");
    }
    Some(Mirror { upstream, share, body_bytes_max })
}
