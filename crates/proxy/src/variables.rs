//! What request variables are worth in one request.

use std::borrow::Cow;
use std::fmt::Write;

use goodgate_config::{FieldValue, Variable};
use http::HeaderValue;
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;

use crate::client_address::ClientAddress;
use crate::context::Context;
use crate::forward;
use crate::route::bare;

/// The value of a field for this request. One without variables is only copied.
pub(crate) fn value(value: &FieldValue, request: &RequestHeader, context: &Context) -> Result<HeaderValue> {
    match value {
        FieldValue::Constant(value) => Ok(value.clone()),
        FieldValue::Filled(template) => {
            let text = template.fill(|variable, text| write(variable, request, context, text));
            // A request that could bring more than visible ASCII into it was refused or escaped before.
            HeaderValue::try_from(text).or_err(ErrorType::InternalError, "a variable is no field value")
        }
    }
}

fn write(variable: Variable, request: &RequestHeader, context: &Context, text: &mut String) {
    let target = request.uri.path_and_query();
    match variable {
        Variable::Host => text.push_str(&host(request)),
        Variable::Path => text.push_str(request.uri.path()),
        Variable::Query => text.push_str(request.uri.query().unwrap_or_default()),
        Variable::PathAndQuery => text.push_str(target.map_or("/", http::uri::PathAndQuery::as_str)),
        Variable::Scheme => text.push_str(context.scheme()),
        Variable::RequestId => text.push_str(context.request_id.as_str()),
        Variable::ClientCertSubject => {
            let identity = context.client.as_ref().and_then(|client| client.identity.as_ref());
            text.push_str(identity.map(|identity| identity.subject.as_str()).unwrap_or_default());
        }
        Variable::ClientIp => {
            // Writing to a text does not fail.
            let _ = match context.client_address {
                Some(ClientAddress::Known(ip)) => write!(text, "{ip}"),
                Some(ClientAddress::Unknown { .. }) => write!(text, "unknown"),
                None => Ok(()),
            };
        }
    }
}

/// The host asked for, in lower case and without a port; empty if there is none.
pub(crate) fn host(request: &RequestHeader) -> Cow<'_, str> {
    let host = forward::asked_host(request).unwrap_or_default();
    bare(std::str::from_utf8(host).unwrap_or_default())
}
