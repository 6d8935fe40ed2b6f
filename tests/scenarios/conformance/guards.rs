//! What this cache does otherwise than it might, on purpose: each with its reason.

use super::case::{Case, case, reused};

pub(super) fn cases() -> Vec<Case> {
    let refused =
        |claim: &'static str, fields: &str| case("9111 7", claim).get().answered(fields).get().asked();
    let of_session = |claim: &'static str, fields: &str| {
        case("9111 7.3", claim).get().with("Cookie: session=1").answered(fields).get().asked()
    };
    let named = |claim: &'static str, path: &'static str, kind: &str| {
        case("9111 7.1", claim)
            .get()
            .at(path)
            .answered(format!("Cache-Control: max-age=60|Content-Type: {kind}"))
            .get()
            .at(path)
    };
    vec![
        // Whom a cookie is set for is one person, and the body may be theirs.
        refused("a response with Set-Cookie is not stored", "Cache-Control: max-age=60|Set-Cookie: a=b"),
        refused("not even if it is public", "Cache-Control: public, max-age=60|Set-Cookie: a=b"),
        case("9111 7.3", "unless the route drops the cookie: who asked gets it, and nobody else")
            .on("dropping")
            .get()
            .answered("Cache-Control: max-age=60|Set-Cookie: a=b|Set-Cookie: c=d")
            .has("Set-Cookie: a=b")
            .has("Set-Cookie: c=d")
            .get()
            .hit()
            .lacks("Set-Cookie"),
        // A browser's cookies are many; variants by them would be one copy for each visitor.
        reused(
            "9111 4.1",
            "what varies by Cookie is reused without one",
            "Cache-Control: max-age=60|Vary: Cookie",
        ),
        case("9111 4.1", "and not with one")
            .get()
            .answered("Cache-Control: max-age=60|Vary: Cookie")
            .get()
            .with("Cookie: a=1")
            .asked(),
        case("9111 4.1", "what varies by Cookie is not stored with one")
            .get()
            .with("Cookie: a=1")
            .answered("Cache-Control: public, max-age=60|Vary: Cookie")
            .get()
            .with("Cookie: a=1")
            .asked(),
        case("9111 4.1", "what varies by Authorization is not reused with it")
            .get()
            .answered("Cache-Control: public, max-age=60|Vary: Authorization")
            .get()
            .with("Authorization: x")
            .asked(),
        // The fields that private names may be all that is personal, or all that somebody thought of.
        refused(
            "private with names keeps the whole from being stored",
            "Cache-Control: private=\"X-A\", max-age=60|X-A: 1",
        ),
        // must-revalidate is in many a framework's default, and nobody thinks of passwords there.
        case("9111 3.5", "must-revalidate alone does not make the answer to a password everybody's")
            .get()
            .with("Authorization: Basic eDp5")
            .answered("Cache-Control: max-age=60, must-revalidate")
            .get()
            .asked(),
        // An answer that asks for credentials is not for those who have them.
        case("9110 15.5.2", "a 401 is not stored")
            .get()
            .answered_by(401, "Cache-Control: max-age=60|WWW-Authenticate: Basic")
            .get()
            .asked(),
        case("9110 15.5.8", "a 407 is not stored")
            .get()
            .answered_by(407, "Cache-Control: max-age=60|Proxy-Authenticate: Basic")
            .get()
            .asked(),
        // What is wrong with one message or connection says nothing about the next.
        case("9110 15.5.9", "a 408 is not stored")
            .get()
            .answered_by(408, "Cache-Control: max-age=60")
            .get()
            .asked(),
        case("9110 15.5.20", "a 421 is not stored")
            .get()
            .answered_by(421, "Cache-Control: max-age=60")
            .get()
            .asked(),
        case("8470 5.2", "a 425 is not stored")
            .get()
            .answered_by(425, "Cache-Control: max-age=60")
            .get()
            .asked(),
        // It has no end.
        refused(
            "a stream of events is not stored",
            "Cache-Control: max-age=60|Content-Type: text/event-stream",
        ),
        of_session(
            "without a word the answer to a cookie is nobody else's",
            "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        ),
        of_session("nor one that is asked about", "Cache-Control: no-cache|ETag: \"a\""),
        case("9111 7.3", "an explicit lifetime makes the answer to a cookie everybody's")
            .get()
            .with("Cookie: session=1")
            .answered("Cache-Control: max-age=60")
            .get()
            .hit(),
        // A page under the name of a picture is how caches are deceived into keeping somebody's account.
        named(
            "a page under the name of a style sheet is not stored",
            "/account/x.css",
            "text/html; charset=utf-8",
        )
        .asked(),
        named("a page under the name of a script is not stored", "/account/x.JS", "Text/HTML").asked(),
        named("data under the name of a picture is not stored", "/account/x.png", "application/json").asked(),
        named("a page behind an escaped slash is not stored", "/account%2Fx.css", "text/html").asked(),
        named("a page behind a semicolon is not stored", "/account;x.css", "text/html").asked(),
        named("a style sheet under its own name is", "/site.css", "text/css").hit(),
        named("a picture under its own name is", "/site.png", "image/png").hit(),
        named("a page under the name of a page is", "/page.html", "text/html").hit(),
        named("a page without an ending is", "/page", "text/html").hit(),
        case("9111 7.1", "a missing page under the name of a picture is")
            .get()
            .at("/none.png")
            .answered_by(404, "Cache-Control: max-age=60|Content-Type: text/html")
            .get()
            .at("/none.png")
            .hit()
            .status(404),
    ]
}
