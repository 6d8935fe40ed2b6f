//! `access_log` and `tracing`: what is told of requests.

use std::path::Path;

use crate::address::parse_collector;
use crate::kind::{fraction, one_of, text, text_as, wrong};
use crate::tree::Node;
use crate::view::Map;
use crate::{AccessLog, LogFormat, LogMask, LogTarget, Tracing, defaults, keys};

/// The longest name of a query parameter, and how many can be masked.
const PARAMETER_BYTES_MAX: usize = 100;
const PARAMETERS_MAX: usize = 100;

pub(super) fn access_log(top: &Map<'_>, folder: &Path) -> AccessLog {
    let map = top.section("access_log", &keys::ACCESS_LOG);
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    AccessLog {
        target: target(&map, folder),
        format: map.read("format", one_of(&formats)).unwrap_or(defaults::LOG_FORMAT),
        sample_ok: map.read("sample_ok", fraction).unwrap_or(defaults::SAMPLE_OK),
        mask: mask(&map),
    }
}

pub(super) fn tracing(top: &Map<'_>) -> Option<Tracing> {
    let map = top.get("tracing")?.map(&keys::TRACING)?;
    let sample = map.read("sample", fraction).unwrap_or(defaults::TRACE_SAMPLE);
    let otlp = map.required("otlp")?.read(text_as(parse_collector))?;
    Some(Tracing { otlp, sample })
}

fn target(map: &Map<'_>, folder: &Path) -> LogTarget {
    match map.read("path", text).as_deref() {
        None | Some("stdout") => LogTarget::Stdout,
        Some("stderr") => LogTarget::Stderr,
        Some("off") => LogTarget::Off,
        Some(file) => LogTarget::File(folder.join(file)),
    }
}

fn mask(map: &Map<'_>) -> LogMask {
    let map = map.section("mask", &keys::MASK);
    let query = map.get("query").and_then(|view| {
        let names = view.list_of(parameter)?;
        if names.len() > PARAMETERS_MAX {
            view.problem(format!("found {} names; allowed: at most {PARAMETERS_MAX}", names.len()));
        }
        Some(names)
    });
    let cuts_client = map.read("client_ip", one_of(&[("none", false), ("/24", true)]));
    LogMask {
        query: query.unwrap_or_else(|| defaults::MASK_QUERY.map(str::to_owned).to_vec()),
        cuts_client: cuts_client.unwrap_or(defaults::MASK_CUTS_CLIENT),
    }
}

fn parameter(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    let has_pattern_within = name.strip_suffix('*').unwrap_or(&name).contains('*');
    if name.len() > PARAMETER_BYTES_MAX || name.contains(['=', '&', ';']) || has_pattern_within {
        let allowed = format!(
            "the name of a query parameter, or how names begin, like `token*`, at most {PARAMETER_BYTES_MAX} bytes, without `=`, `&` and `;`"
        );
        return Err(wrong(node, &allowed));
    }
    Ok(name)
}
