//! Pages that pass for something else, so that a cache keeps them.
//!
//! Who gets somebody to open `/account/x.css` on a site that answers it with the account page has that page under an
//! address that he can ask for himself. No cache can tell whose page it is; but that a style sheet is no page, it can.

use http::header;
use pingora_http::ResponseHeader;

/// Whether the path promises a file of a kind that is the same for everybody, and a page or data came. The ending
/// counts however the path goes on before it, escaped or with parameters.
pub fn is_deceptive(path: &str, response: &ResponseHeader) -> bool {
    response.status.is_success() && has_static_ending(path) && is_page_or_data(response)
}

const ENDINGS: [&str; 38] = [
    "7z", "avi", "avif", "bmp", "bz2", "css", "eot", "exe", "flac", "gif", "gz", "ico", "jar", "jpeg", "jpg",
    "js", "mid", "mjs", "mkv", "mp3", "mp4", "ogg", "otf", "pdf", "png", "rar", "svg", "swf", "tar", "tif",
    "tiff", "ttf", "webm", "webp", "woff", "woff2", "zip", "zst",
];

fn has_static_ending(path: &str) -> bool {
    let Some((_, ending)) = path.rsplit_once('.') else {
        return false;
    };
    // Parameters may follow the ending: `/a.css;x=1`.
    let end = ending.find([';', '%', '/']).unwrap_or(ending.len());
    let ending = ending.get(..end).unwrap_or_default();
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

fn is_page_or_data(response: &ResponseHeader) -> bool {
    let kinds: [&[u8]; 4] =
        [b"text/html", b"application/xhtml+xml", b"application/json", b"application/ld+json"];
    response.headers.get_all(header::CONTENT_TYPE).iter().any(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        kinds.iter().any(|kind| essence.eq_ignore_ascii_case(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::response;

    #[test]
    fn a_page_under_the_name_of_a_file_deceives() {
        let of = |path: &str, kind: &str| is_deceptive(path, &response(200, &[("content-type", kind)]));
        for path in ["/a/x.css", "/a/x.JS", "/a%2Fx.png", "/a;x.css", "/x.css;y=1", "/a.css%3Fx", "/a%00.gif"]
        {
            assert!(of(path, "text/html; charset=utf-8"), "{path}");
            assert!(of(path, "Application/JSON"), "{path}");
            assert!(!of(path, "text/css"), "{path}");
        }
        for path in ["/", "/a", "/a.html", "/css", "/a.cssx", "/a.json"] {
            assert!(!of(path, "text/html"), "{path}");
        }
        assert!(!is_deceptive("/x.css", &response(404, &[("content-type", "text/html")])));
        assert!(!is_deceptive("/x.css", &response(200, &[])));
    }
}
