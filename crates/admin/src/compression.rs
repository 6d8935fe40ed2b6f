//! gzip for answers of the operator's side, when the scraper asks for it (RFC 9110 section 12.5.3).

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};

/// The response in gzip if the request accepts that.
pub(crate) fn compressed(mut response: Response<Vec<u8>>, request: &HeaderMap) -> Response<Vec<u8>> {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if !accepts_gzip(request) {
        return response;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let Ok(body) = encoder.write_all(response.body()).and_then(|()| encoder.finish()) else {
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    *response.body_mut() = body;
    response
}

fn accepts_gzip(request: &HeaderMap) -> bool {
    let lines = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let mut any = false;
    for coding in lines.flat_map(|line| line.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_accepted = weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0));
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return is_accepted;
        }
        any |= name == "*" && is_accepted;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_when_named_or_meant_and_not_refused() {
        let accepts = |line: &'static str| {
            let headers = [(header::ACCEPT_ENCODING, HeaderValue::from_static(line))];
            accepts_gzip(&headers.into_iter().collect())
        };
        for yes in ["gzip", "GZIP;q=0.5, br", "br , x-gzip", "*", "identity, *;q=0.1"] {
            assert!(accepts(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "gzip;q=x"] {
            assert!(!accepts(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
