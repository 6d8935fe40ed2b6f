//! What a purge is asked for: the parameters of `/api/v1/cache/purge`, in its query or its form, as scopes.

use goodgate_cache::{Key, PurgeMode, PurgeScope, canonical_host};
use goodgate_config::normal_target;
use http::Uri;

use crate::query::Query;

/// The parameters; those of scopes may be repeated.
const PARAMETERS: [&str; 7] = ["url", "prefix", "host", "tag", "all", "mode", "store"];
/// How many scopes one order may name.
const SCOPES_MAX: usize = 10_000;

/// A purge as it was ordered.
#[derive(Debug)]
pub(crate) struct Order {
    /// One store; else all.
    pub(crate) store: Option<String>,
    pub(crate) scopes: Vec<PurgeScope>,
    pub(crate) mode: PurgeMode,
}

impl Order {
    /// Reads the parameters. The error is a sentence for the one who asked.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let query = Query::read_repeated(text, &PARAMETERS)?;
        let mut scopes = Vec::new();
        for (name, value) in query.values() {
            match name {
                "url" => scopes.push(url(value)?),
                "prefix" => scopes.push(prefix(value)?),
                "host" => scopes.extend(hosts(value)?),
                "tag" => scopes.push(PurgeScope::Tag(value.to_owned())),
                "all" if value == "true" => scopes.push(PurgeScope::Everything),
                "all" => return Err("all is true or absent".to_owned()),
                _ => {}
            }
        }
        if scopes.is_empty() {
            return Err("nothing to purge: url=, prefix=, host=, tag=, or all=true".to_owned());
        }
        if scopes.len() > SCOPES_MAX {
            return Err(format!("more than {SCOPES_MAX} scopes"));
        }
        let mode = match query.value("mode") {
            None | Some("soft") => PurgeMode::Soft,
            Some("hard") => PurgeMode::Hard,
            Some(_) => return Err("mode is soft (the default) or hard".to_owned()),
        };
        Ok(Self { store: query.value("store").map(str::to_owned), scopes, mode })
    }
}

fn url(text: &str) -> Result<PurgeScope, String> {
    let (host, target) = address(text, "url")?;
    Ok(PurgeScope::Url { host, target })
}

fn prefix(text: &str) -> Result<PurgeScope, String> {
    let (host, path) = address(text, "prefix")?;
    if path.contains('?') {
        return Err("prefix has no query".to_owned());
    }
    Ok(PurgeScope::Prefix { host, path })
}

/// Host and target of an address, as the key of a request for it has them.
fn address(text: &str, name: &str) -> Result<(String, String), String> {
    let what = || format!("{name} is an address such as https://www.example.com/path");
    let uri: Uri = text.parse().map_err(|_| what())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(what());
    };
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let normal = normal_target(target.as_bytes()).map_err(|bad| format!("{name}: {}", bad.sentence()))?;
    let target = normal.as_deref().unwrap_or(target);
    Ok(Key::new(scheme, authority.as_str().as_bytes(), target.as_bytes()).address())
}

/// The host as keys have it: a default port of one scheme says something with the other.
fn hosts(text: &str) -> Result<Vec<PurgeScope>, String> {
    let is_host = text.parse::<http::uri::Authority>().is_ok() && !text.contains('@');
    if !is_host {
        return Err("host is a name such as www.example.com".to_owned());
    }
    let host = |scheme| String::from_utf8_lossy(&canonical_host(scheme, text.as_bytes())).into_owned();
    let mut hosts = vec![host("http"), host("https")];
    hosts.dedup();
    Ok(hosts.into_iter().map(PurgeScope::Host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_with_all_its_scopes() {
        let order = Order::read(
            "url=https%3A%2F%2FWWW.Example.com:443%2Fa%2F..%2Fb%3Fq%3D1&prefix=http://a.example/x/&host=B.example:8080\
             &tag=news&tag=a%20b&all=true&mode=hard&store=main",
        )
        .unwrap();
        assert_eq!((order.store.as_deref(), order.mode), (Some("main"), PurgeMode::Hard));
        let said: Vec<String> = order.scopes.iter().map(ToString::to_string).collect();
        let expected = [
            "url www.example.com/b?q=1",
            "prefix a.example/x/",
            "host b.example:8080",
            "tag news",
            "tag a b",
            "everything",
        ];
        assert_eq!(said, expected);
        assert_eq!(Order::read("tag=x").unwrap().mode, PurgeMode::Soft);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("", "nothing to purge"),
            ("mode=hard", "nothing to purge"),
            ("url=/x", "url is an address"),
            ("url=x", "url is an address"),
            ("prefix=http://a/x?y", "prefix has no query"),
            ("url=http://a/%2500", "url:"),
            ("host=a/b", "host is a name"),
            ("host=u@a", "host is a name"),
            ("all=1", "all is true"),
            ("tag=x&mode=gone", "mode is soft"),
            ("tags=x", "there is no parameter tags"),
        ] {
            let said = Order::read(text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
        assert!(Order::read(&"tag=x&".repeat(SCOPES_MAX + 1)).unwrap_err().contains("more than"));
    }
}
