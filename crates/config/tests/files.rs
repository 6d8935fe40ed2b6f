//! The configuration files that ship with the gateway load, and say what the defaults are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use goodgate_cache::Mode;
use goodgate_config::{load, parse};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

#[test]
fn every_shipped_file_loads() {
    let loaded = std::fs::read_dir(file("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| load(&path).map(|loaded| loaded.warnings))
        .collect::<Result<Vec<_>, _>>();
    assert!(loaded.as_ref().is_ok_and(|files| files.len() >= 2), "{loaded:?}");
    assert_eq!(loaded.unwrap().concat(), [], "shipped files have no warnings");
}

#[test]
fn the_complete_file_says_nothing_but_the_defaults() {
    let complete = load(&file("conf/goodgate.yaml")).unwrap().config;
    let text = "
upstreams:
  app: { backends: ['127.0.0.1:9001', '127.0.0.1:9002'], health_check: { http: { path: /health } } }
routes: [{ name: site, upstream: app, cache: standard }]
";
    let needed = parse("test.yaml", text, &|_| None).unwrap();
    assert_eq!(format!("{complete:#?}"), format!("{needed:#?}"));
}

#[test]
fn the_demo_has_three_backends_and_two_ways_to_cache() {
    let demo = load(&file("conf/demo.yaml")).unwrap().config;
    assert_eq!(demo.upstreams[0].backends.len(), 3);
    let modes: Vec<_> = demo.routes.iter().map(|route| route.cache.as_ref().unwrap().mode).collect();
    assert_eq!(modes, [Mode::Fallback, Mode::Standard]);
    assert_eq!(demo.routes[1].cache.as_ref().unwrap().ttl, [(200, Duration::from_secs(10))]);
}
