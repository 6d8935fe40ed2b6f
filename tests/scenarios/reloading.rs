//! Configurations come and go, and so does the process; requests in flight and clients must not notice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{
    Act, Answer, Backend, Connection, Gateway, Load, backends, eventually, failing_start, get, get_admin,
};
use crate::site;

fn is_good(path: &str, answer: &Answer) -> bool {
    answer.status == 200 && answer.text().ends_with(&format!(" for {path}\n"))
}

async fn load(gateway: &Gateway, clients: usize) -> Load {
    Load::start(gateway.address, clients, |client, at| format!("/{client}/{at}"), is_good)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_request() {
    let act = Act::Slow(Duration::from_millis(5), Box::new(Act::Answer(200)));
    let [a, b, c] = backends([act.clone(), act.clone(), act]).await;
    let gateway = Gateway::start(&site(&[&a], "", "")).await;
    let load = load(&gateway, 16).await;
    for at in 0..100 {
        let pair = [[&a, &b], [&b, &c], [&c, &a]][at % 3];
        let text =
            format!("{}  - {{ upstream: web, match: {{ path: /{} }} }}\n", site(&pair, "", ""), at % 16);
        gateway.write_config(&text);
        gateway.reload("ok").await;
        if at % 20 == 10 {
            gateway.write_config("upstreams: { web: [] }\n");
            gateway.reload("failed").await;
        }
    }
    load.more(100).await;
    load.stop().await.assert_good();
    for backend in [&a, &b, &c] {
        assert!(backend.requests() > 0, "each had its time");
    }
    assert_eq!(gateway.metric("goodgate_config_reloads_total{result=\"ok\"}").await, 100.0);
    assert_eq!(gateway.metric("goodgate_gateway_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_says_why() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let gateway = Gateway::start(&site(&[&a], "", "")).await;
    let hash = || async {
        gateway
            .metrics()
            .await
            .lines()
            .find(|line| line.starts_with("goodgate_config_hash{"))
            .unwrap()
            .to_owned()
    };
    let before = hash().await;
    let successful = || async { gateway.metric("goodgate_config_last_reload_successful").await };
    assert_eq!(successful().await, 1.0, "nothing has failed yet");
    let bad = [
        (
            site(&[&b], "    max_fail: 3\n", ""),
            "upstreams.web.max_fail: unknown key, did you mean `max_fails`?",
        ),
        (
            site(&[&b], "", "").replace("upstream: web", "upstream: wob"),
            "routes[0].upstream: found \"wob\" (did you mean `web`?)",
        ),
        ("upstreams: [\n".to_owned(), "goodgate.yaml:"),
    ];
    for (text, why) in bad {
        gateway.write_config(&text);
        gateway.reload("failed").await;
        assert_eq!(successful().await, 0.0);
        let lines = gateway.errors();
        let line = lines.lines().last().unwrap_or_default();
        assert!(line.contains("ERROR") && line.contains(why), "{line}");
        assert_eq!(gateway.get("/").await.status, 200);
    }
    std::fs::remove_file(gateway.folder.join("goodgate.yaml")).unwrap();
    gateway.reload("failed").await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(hash().await, before);
    assert_eq!(b.requests(), 0);
    gateway.write_config(&site(&[&b], "", ""));
    gateway.reload("ok").await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(b.requests(), 1, "and a good one is loaded as ever");
    assert_eq!(successful().await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_keeps_its_backend_over_a_reload() {
    let slow = Backend::start(Act::Slow(Duration::from_millis(800), Box::new(Act::Answer(200)))).await;
    let other = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&slow], "", "")).await;
    let address = gateway.address;
    let under_way = tokio::spawn(async move { get(address, "/slow").await.unwrap() });
    eventually("it is under way", || async { slow.requests() == 1 }).await;
    gateway.write_config(&site(&[&other], "", ""));
    gateway.reload("ok").await;
    assert!(gateway.get("/new").await.text().contains(&other.address.to_string()));
    assert!(under_way.await.unwrap().text().contains(&slow.address.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_known_dead_before_the_reload_is_known_dead_after_it() {
    let [mut dead, good, new] = backends([Act::Answer(200), Act::Answer(200), Act::Answer(200)]).await;
    let settings = "    max_fails: 1\n    fail_timeout: 3s\n";
    let gateway = Gateway::start(&site(&[&dead, &good], settings, "")).await;
    dead.die().await;
    let ejected =
        || async { gateway.get("/").await.status == 200 && gateway.state(dead.address).await == "ejected" };
    eventually("it is ejected", ejected).await;
    let since = Instant::now();
    dead.revive().await;
    let failures = || async { gateway.metric("goodgate_attempts_total{outcome=\"failed\"}").await };
    assert_eq!(failures().await, 1.0);
    gateway.write_config(&site(&[&new, &dead, &good], settings, ""));
    gateway.reload("ok").await;
    assert_eq!(gateway.state(dead.address).await, "ejected", "{:?} after the ejection", since.elapsed());
    assert_eq!(failures().await, 1.0, "what was seen of it is kept");
    for _ in 0..30 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(
        since.elapsed() < Duration::from_millis(2800),
        "the trial may be due: the machine is too slow for this scenario"
    );
    assert_eq!(dead.requests(), 0, "no request before its trial is due");
    assert!(new.requests() > 0, "the reload is in force");
    let back = || async { gateway.get("/").await.status == 200 && gateway.state(dead.address).await == "up" };
    eventually("the trial brings it back", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_survive_a_reload() {
    let backend =
        Backend::start(crate::harness::backend::page("Cache-Control: max-age=60\r\n", "page")).await;
    let gateway = Gateway::start(&site(&[&backend], "", "    cache: standard\n")).await;
    assert_eq!(gateway.get("/page").await.text(), "page");
    gateway.write_config(&site(&[&backend], "    max_fails: 9\n", "    cache: standard\n    timeout: 9s\n"));
    gateway.reload("ok").await;
    assert_eq!(gateway.get("/page").await.text(), "page");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let file = gateway.folder.join("goodgate.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text.replacen(
        "listeners: [{ address: \"127.0.0.1:0\" }]",
        "listeners: [{ address: \"127.0.0.2:0\" }]",
        1,
    );
    assert_ne!(text, changed);
    std::fs::write(&file, changed + "server: { threads: 1 }\n").unwrap();
    gateway.reload("ok").await;
    for setting in ["listeners", "server.threads"] {
        let is_told = |line: &str| {
            line.contains(&format!("setting={setting}")) && line.contains("only after a restart")
        };
        eventually(setting, || async { gateway.errors().lines().any(is_told) }).await;
    }
    assert!(!gateway.errors().contains("setting=admin.address"));
    assert_eq!(gateway.get("/").await.status, 200, "and the old ones stay in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reload_command_waits_until_the_file_is_in_force() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let mut gateway = Gateway::start_listening(&site(&[&a], "", "")).await;
    gateway.rewrite(&site(&[&b], "", ""));
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    let loaded = format!("process {} has loaded goodgate.yaml\n", gateway.pid());
    assert!(code == 0 && said.starts_with(&loaded), "{said}");
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!((a.requests(), b.requests()), (0, 1));
    gateway.rewrite("upstreams: { web: [] }\nroutes: [{ upstream: web }]\n");
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("upstreams.web: found an empty list; allowed: at least one backend"), "{said}");
    assert_eq!(gateway.get("/").await.status, 200, "the running configuration stays");
    gateway.rewrite(&site(&[&b], "", ""));
    assert_eq!(gateway.command(&["health", "--config"]).await, (0, String::new()));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("no running goodgate has"), "{said}");
    assert_eq!(gateway.command(&["health", "--config"]).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_good_or_every_problem() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let (code, said) = gateway.command(&["check"]).await;
    assert!(code == 0 && said.starts_with("goodgate.yaml: good\n"), "{said}");
    let text =
        "upstreams:\n  web:\n    max_fial: 1\n    backends: ['10.0.0.1']\nroutes:\n  - upstream: wob\n";
    std::fs::write(gateway.folder.join("goodgate.yaml"), text).unwrap();
    let (code, said) = gateway.command(&["check"]).await;
    let problems = "goodgate.yaml:3:5: upstreams.web.max_fial: unknown key, did you mean `max_fails`?\n\
                    goodgate.yaml:4:16: upstreams.web.backends[0]: found \"10.0.0.1\"; allowed: a port behind the address, like `10.0.0.1:8080`\n\
                    goodgate.yaml:6:15: routes[0].upstream: found \"wob\" (did you mean `web`?); allowed: web\n";
    assert_eq!((code, said.as_str()), (1, problems));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_fails_no_request_and_ends_with_the_last_one() {
    let act = Act::Slow(Duration::from_millis(3), Box::new(Act::Answer(200)));
    let backend = Backend::start(act).await;
    let slow = Backend::start(Act::Slow(Duration::from_millis(1500), Box::new(Act::Answer(200)))).await;
    let slowly =
        format!("  slow: [{}]\nroutes:\n  - {{ upstream: slow, match: {{ path: /slow }} }}\n", slow.address);
    let config = site(&[&backend], "", "").replacen("routes:\n", &slowly, 1);
    let mut gateway = Gateway::start(&config).await;
    let load = load(&gateway, 16).await;
    load.more(200).await;
    let address = gateway.address;
    let last = tokio::spawn(async move { (get(address, "/slow").await.unwrap(), Instant::now()) });
    eventually("the slow request is under way", || async { slow.requests() == 1 }).await;
    load.leave_when_told();
    gateway.signal(Signal::SIGTERM);
    let ready = || async { get_admin(gateway.admin, "/readyz").await.map_or(0, |answer| answer.status) };
    eventually("readiness goes false", || async { ready().await == 503 }).await;
    load.all_left().await.assert_good();
    let (answer, answered) = last.await.unwrap();
    assert!(is_good("/slow", &answer), "{answer:?}");
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
    assert!(answered.elapsed() < Duration::from_secs(1), "{:?} after the last answer", answered.elapsed());
    let slow_one = gateway.records().into_iter().filter(|record| record["path"] == "/slow").count();
    assert_eq!(slow_one, 1, "the log is written to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_delay_is_over_new_connections_are_welcome() {
    let backend = Backend::start(Act::Answer(200)).await;
    let mut gateway =
        Gateway::start(&("server: { shutdown: { delay: 1s } }\n".to_owned() + &site(&[&backend], "", "")))
            .await;
    gateway.signal(Signal::SIGTERM);
    let ready = || async { get_admin(gateway.admin, "/readyz").await.map_or(0, |answer| answer.status) };
    eventually("readiness goes false", || async { ready().await == 503 }).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
    assert!(Connection::open(gateway.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_gateway_stops_at_once() {
    let backend = Backend::start(Act::Answer(200)).await;
    let mut gateway = Gateway::start(&site(&[&backend], "", "")).await;
    let mut idle = Connection::open(gateway.address).await.unwrap();
    idle.get("/").await.unwrap();
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(idle.closes(Duration::from_secs(2)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_cut_when_the_drain_time_is_over() {
    let backend = Backend::start(Act::Hang).await;
    let config = "server: { shutdown: { drain: 1s } }\n".to_owned() + &site(&[&backend], "", "");
    let mut gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    connection.send("GET /hangs HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    eventually("it is under way", || async { backend.requests() == 1 }).await;
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0));
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(3000)).contains(&took), "{took:?}");
    assert!(connection.closes(Duration::from_secs(2)).await);
    assert!(
        gateway.errors().contains("the drain time is over with requests under way"),
        "{}",
        gateway.errors()
    );
}

/// One line, without the words of a panic.
fn assert_one_clear_line(what: &str, (code, said): (i32, String), wanted: &[&str]) {
    assert_eq!(code, 1, "{what}: {said}");
    for word in ["panicked", "backtrace", "RUST_BACKTRACE", "unwrap"] {
        assert!(!said.contains(word), "{what}: {said}");
    }
    for part in wanted {
        assert!(said.contains(part), "{what}: {part:?} in {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_be_is_one_clear_line() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (site, taken) = (site(&[&backend], "", ""), backend.address);
    let with = |head: &str| failing_start(&format!("{head}{site}"));
    let in_use =
        with(&format!("listeners: [{{ address: \"{taken}\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\n"));
    assert_eq!(
        in_use.1,
        format!(
            "goodgate: listeners[0].address: cannot listen on {taken}: Address already in use (os error 98)\n"
        )
    );
    assert_one_clear_line("port in use", in_use, &[]);
    let admin =
        with(&format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"{taken}\" }}\n"));
    assert_eq!(
        admin.1,
        format!("goodgate: admin.address: cannot listen on {taken}: Address already in use (os error 98)\n")
    );
    assert_one_clear_line("admin port in use", admin, &[]);
    let log = with(
        "listeners: [{ address: \"127.0.0.1:0\" }]\nadmin: { address: \"127.0.0.1:0\" }\naccess_log: { path: /no/such/folder/access.log }\n",
    );
    assert_one_clear_line(
        "access log",
        log,
        &["goodgate: access_log.path: cannot write to", "No such file or directory"],
    );
    let wrong = failing_start(&site.replace("upstream: web", "upstream: [web]"));
    assert_one_clear_line(
        "wrong type",
        wrong,
        &["goodgate.yaml:5:15: routes[0].upstream: found a list; allowed: "],
    );
    let none = std::process::Command::new(crate::harness::gateway::BINARY)
        .args(["run", "--config", "/no/such/goodgate.yaml"])
        .output()
        .unwrap();
    let none = (none.status.code().unwrap(), String::from_utf8(none.stderr).unwrap());
    assert_one_clear_line("no file", none, &["/no/such/goodgate.yaml", "No such file or directory"]);
}
