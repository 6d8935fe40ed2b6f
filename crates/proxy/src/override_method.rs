//! A POST that says that it means another method (`X-HTTP-Method-Override`): some clients and proxies on their way know no
//! other methods, and frameworks obey it. To drop the field would change what the request means, so it is passed on, or
//! the request is refused: where the route says so, where the other method would take another route, or where a
//! method other than POST is to be overridden, which nothing needs and a cache could be deceived by.

use goodgate_failure::Cause;
use http::{HeaderMap, HeaderName, Method};
use pingora_http::RequestHeader;

use crate::answer::ErrorAnswer;
use crate::hygiene::METHODS;
use crate::route::Route;

const fn refused(details: &'static str) -> ErrorAnswer {
    ErrorAnswer { details, ..ErrorAnswer::of(Cause::HttpRequestDenied) }
}

const BY_ROUTE: ErrorAnswer =
    refused("The route refuses fields that override the method (routes[].method_override).");
const OTHER_ROUTE: ErrorAnswer = refused("The method in the overriding field would take another route.");
const NOT_POST: ErrorAnswer = refused("A field overrides the method of a request other than POST.");
const UNREADABLE: ErrorAnswer =
    refused("The fields that override the method do not agree, or cannot be read.");

/// The method that the backend is to take the request for, if that is another one. `is_of_route` says of a method whether
/// it takes the same route. Fields that the route passes on (`pass_headers`) pass with any method.
pub(crate) fn judge(
    request: &RequestHeader,
    route: &Route,
    is_of_route: impl FnOnce(&Method) -> bool,
) -> Result<Option<Method>, ErrorAnswer> {
    let Some(wanted) = wanted(&request.headers)? else {
        return Ok(None);
    };
    if wanted == request.method {
        return Ok(None);
    }
    if !is_of_route(&wanted) {
        return Err(OTHER_ROUTE);
    }
    let are_passed =
        METHODS.iter().all(|name| !request.headers.contains_key(name) || route.pass_headers.contains(name));
    match (are_passed, request.method == Method::POST, route.passes_method_override) {
        (true, _, _) | (false, true, true) => Ok(Some(wanted)),
        (false, true, false) => Err(BY_ROUTE),
        (false, false, _) => Err(NOT_POST),
    }
}

/// What the fields say, if there are any. Fields that do not agree or cannot be read are refused.
fn wanted(headers: &HeaderMap) -> Result<Option<Method>, ErrorAnswer> {
    // One look at the ends of names, since nearly all requests have none of them.
    let may_be = |name: &&HeaderName| {
        matches!(name.as_str().as_bytes(), [.., b'r', b'i', b'd', b'e'] | [.., b't', b'h', b'o', b'd'])
    };
    let names = headers.keys().filter(may_be).filter(|name| METHODS.contains(name));
    let mut methods = names.flat_map(|name| headers.get_all(name)).map(|value| {
        let upper = value.as_bytes().trim_ascii().to_ascii_uppercase();
        Method::from_bytes(&upper).ok()
    });
    let Some(first) = methods.next() else {
        return Ok(None);
    };
    let do_agree = methods.all(|other| other == first);
    first.filter(|_| do_agree).map(Some).ok_or(UNREADABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &str)]) -> Result<Option<Method>, ()> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        wanted(&headers).map_err(drop)
    }

    #[test]
    fn fields_that_agree_name_a_method_and_others_none() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("x-http-method-override", " delete ")]), Ok(Some(Method::DELETE)));
        let two = [("x-http-method-override", "PUT"), ("x-method-override", "put")];
        assert_eq!(read(&two), Ok(Some(Method::PUT)));
        for odd in ["", "PUT, DELETE", "P T", "\u{e9}"] {
            assert_eq!(read(&[("x-http-method", odd)]), Err(()), "{odd}");
        }
        assert_eq!(read(&[("x-http-method", "PUT"), ("x-http-method", "DELETE")]), Err(()));
    }
}
