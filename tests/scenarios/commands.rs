//! The commands of the operator against a gateway that runs: reload, check, backends, explain.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::harness::gateway::{BINARY, folder};
use crate::harness::{Act, Backend, Gateway, backends, eventually, get_admin};
use crate::site;

/// Runs a command; its exit code and all it says.
async fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(BINARY).args(arguments).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_reaches_the_running_gateway_whatever_the_file_says_now() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let gateway = Gateway::start_listening(&site(&[&a], "", "")).await;
    let text = std::fs::read_to_string(gateway.folder.join("goodgate.yaml")).unwrap();
    let elsewhere = text.replace(&gateway.admin.to_string(), "127.0.0.1:1");
    let file = gateway.folder.join("goodgate.yaml");
    std::fs::write(&file, elsewhere.replace(&a.address.to_string(), &b.address.to_string())).unwrap();
    for _ in 0..2 {
        let (code, said) = gateway.command(&["reload", "--config"]).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("has loaded goodgate.yaml\n"), "{said}");
        assert!(said.contains("admin.address: differs from the running setting"), "{said}");
    }
    assert_eq!((gateway.get("/").await.status, b.requests()), (200, 1));
    let hash = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("goodgate_config_hash{")).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert_eq!(hash(&gateway.metrics().await), sum[..16], "the hash is that of the text");
    std::fs::write(&file, &text).unwrap();
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    assert_eq!((code, said.lines().any(|line| line.contains("restart"))), (0, false), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_judged_by_the_running_gateway_and_printed_by_the_command() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start_listening(&site(&[&backend], "", "")).await;
    gateway.rewrite("upstreams: { web: [] }\nroutes: [{ upstream: web }]\n");
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    assert_eq!(code, 1);
    let why = "upstreams.web: found an empty list; allowed: at least one backend";
    assert!(said.contains(why) && said.contains("keeps its configuration"), "{said}");
    eventually("it is logged", || async { gateway.errors().contains(why) }).await;
    assert_eq!(gateway.metric("goodgate_config_reloads_total{result=\"failed\"}").await, 1.0);
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(
        gateway.command(&["health", "--config"]).await,
        (0, String::new()),
        "a bad file is no bad gateway"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_waits_for_a_file_holds_up_neither_health_nor_the_end() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (mut gateway, pipe) = Gateway::start_from_pipe(&site(&[&backend], "", "")).await;
    // The gateway finds a writer that says nothing.
    let writer = OpenOptions::new().write(true).open(&pipe).unwrap();
    gateway.signal(Signal::SIGHUP);
    let start = Instant::now();
    let failed = "goodgate_config_reloads_total{result=\"failed\"}";
    while start.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        assert_eq!(get_admin(gateway.admin, "/livez").await.unwrap().status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1));
        assert_eq!(gateway.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.metric(failed).await, 0.0, "it still waits");
    eventually("the load has a deadline", || async { gateway.metric(failed).await == 1.0 }).await;
    assert!(gateway.errors().contains("load waits for a file for more than 5 s"), "{}", gateway.errors());
    gateway.signal(Signal::SIGHUP);
    eventually("the next one fails at once", || async { gateway.metric(failed).await == 2.0 }).await;
    let told = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(5)).await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    drop(writer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_while_a_reload_waits() {
    let backend = Backend::start(Act::Hang).await;
    let (mut gateway, pipe) = Gateway::start_from_pipe(&site(&[&backend], "", "")).await;
    let writer = OpenOptions::new().write(true).open(&pipe).unwrap();
    let address = gateway.address;
    let _hanging = tokio::spawn(async move { crate::harness::get(address, "/").await.map(|_| ()) });
    eventually("a request hangs", || async { backend.requests() == 1 }).await;
    gateway.signal(Signal::SIGHUP);
    gateway.signal(Signal::SIGTERM);
    eventually("it stops", || async { gateway.errors().contains("goodgate stops") }).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(5)).await, Some(1));
    drop(writer);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_takes_several_files_a_flag_and_standard_input() {
    let folder = folder();
    let good = folder.join("good.yaml");
    let bad = folder.join("bad.yaml");
    let text = "upstreams: { a: [\"127.0.0.1:1\", \"127.0.0.1:2\"] }\nroutes: [{ upstream: a }]\n";
    std::fs::write(&good, text).unwrap();
    std::fs::write(&bad, "upstreams: { a: [] }\nroutes: [{ upstream: b }]\n").unwrap();
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    assert_eq!(run(&["check", &good, &good]).await, (0, format!("{good}: good\n{good}: good\n")));
    assert_eq!(run(&["check", "--config", &good]).await, (0, format!("{good}: good\n")));
    let (code, said) = run(&["check", &bad, &good]).await;
    assert_eq!(code, 1);
    assert!(said.contains("good.yaml: good") && said.contains("bad.yaml:1:17: upstreams.a:"), "{said}");
    let mut child = Command::new(BINARY);
    child.args(["check", "-"]).stdin(std::fs::File::open(&good).unwrap());
    let output = child.output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), "-: good\n".as_bytes()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_printed_and_logged_and_fail_nothing() {
    let backend = Backend::start(Act::Answer(200)).await;
    let config = format!(
        "{}  unused: [\"127.0.0.1:1\"]\n{}",
        crate::upstream(&[&backend], ""),
        "routes:\n  - upstream: web\n"
    );
    let gateway = Gateway::start(&config).await;
    let warned = "upstreams.unused: warning: no route uses this upstream";
    eventually("it is logged at the start", || async { gateway.errors().contains(warned) }).await;
    let (code, said) = gateway.command(&["check"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(warned) && said.contains("goodgate.yaml: good\n"), "{said}");
    let (code, said) = gateway.command(&["reload", "--config"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(warned), "{said}");
    assert_eq!(gateway.errors().matches(warned).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_filtered_by_upstream_and_an_unknown_one_is_an_error() {
    let [a, b] = backends([Act::Answer(200), Act::Answer(200)]).await;
    let config = format!(
        "upstreams:\n  app: ['{}']\n  api: ['{}']\nroutes:\n  - {{ upstream: app, match: {{ path: /app }} }}\n  - upstream: api\n",
        a.address, b.address
    );
    let gateway = Gateway::start(&config).await;
    let ask =
        async |query: &str| get_admin(gateway.admin, &format!("/api/v1/backends{query}")).await.unwrap();
    let only = ask("?upstream=api").await.text();
    assert!(only.contains(&b.address.to_string()) && !only.contains(&a.address.to_string()), "{only}");
    let unknown = ask("?upstream=nope").await;
    assert_eq!(
        (unknown.status, unknown.text().as_str()),
        (400, "400: there is no upstream nope; there are: app, api\n")
    );
    assert_eq!(ask("?upstrm=api").await.status, 400);
    let (code, said) = gateway.command(&["backends", "-u", "nope", "--config"]).await;
    assert_eq!((code, said.as_str()), (1, "goodgate: there is no upstream nope; there are: app, api\n"));
    let (code, said) = gateway.command(&["backends", "-u", "api", "--config"]).await;
    assert_eq!(
        (code, said.contains(&b.address.to_string()), said.contains(&a.address.to_string())),
        (0, true, false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_where_the_admin_listener_is_open_to_a_network_without_a_token() {
    let backend = Backend::start(Act::Answer(503)).await;
    let folder = folder();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"0.0.0.0:0\" }}\naccess_log: {{ path: off }}\n{}",
        site(&[&backend], "", "")
    );
    let gateway = Gateway::start_in(folder, &text).await;
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], gateway.admin.port()));
    assert_eq!(get_admin(admin, "/api/v1/backends").await.unwrap().status, 403, "not for the network");
    let answer = gateway.get("/").await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    let (code, said) = gateway.command(&["backends", "--config"]).await;
    assert!(code == 0 && said.contains(&backend.address.to_string()), "{said}");
    let known = || async { gateway.command(&["explain", &id, "--config"]).await.0 == 0 };
    eventually("the story is told", known).await;
    assert_eq!(gateway.command(&["survival", "--config"]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_without_a_file_asks_the_default_address() {
    let (code, said) = run(&["explain", "x", "--config", "/no/such/file.yaml"]).await;
    assert!(code == 1 && said.contains("/no/such/file.yaml"), "{said}");
    if !std::path::Path::new("/etc/goodgate/goodgate.yaml").exists() {
        let (code, said) = run(&["explain", "x"]).await;
        assert!(code == 1 && said.contains("127.0.0.1:9180"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_a_large_configuration_are_few_and_compressed() {
    let mut config = "upstreams:\n".to_owned();
    for at in 0..100 {
        config += &format!("  up-{at}: [\"127.0.0.1:{}\", \"127.0.0.2:{}\"]\n", 20_000 + at, 20_000 + at);
    }
    config += "routes:\n";
    for at in 0..500 {
        config += &format!("  - {{ upstream: up-{}, match: {{ path: /r{at} }} }}\n", at % 100);
    }
    let gateway = Gateway::start(&config).await;
    let text = gateway.metrics().await;
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    eprintln!("{series} series, {} bytes", text.len());
    assert!(series < 40_000, "{series} series");
    assert!(text.contains("goodgate_rescues_by_cause_total{by=\"retry\",cause=\"connection_refused\"} 0"));
    let request =
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::request(gateway.admin, request).await.unwrap();
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    eprintln!("{} bytes in gzip", answer.body.len());
    assert!(
        answer.body.starts_with(&[0x1f, 0x8b]) && answer.body.len() * 8 < text.len(),
        "{}",
        answer.body.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_limit_and_the_nearest_route() {
    let backend = Backend::start(Act::Answer(200)).await;
    let config = format!(
        "{}routes:\n  - {{ name: api, upstream: web, match: {{ path: /api }}, max_body_bytes: 1KiB, rate_limit: {{ rate: 1/h, burst: 2 }} }}\n",
        crate::upstream(&[&backend], "")
    );
    let gateway = Gateway::start(&config).await;
    let told = async |request: &str| {
        let answer = crate::harness::request(gateway.address, request).await.unwrap();
        let id = answer.header("x-request-id").unwrap().to_owned();
        let known = || async { gateway.command(&["explain", &id, "--config"]).await.0 == 0 };
        eventually("it is known", known).await;
        let (_, story) = gateway.command(&["explain", &id, "--config"]).await;
        (answer.status, story.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (request, status, part) in [
        (
            "GET /apis HTTP/1.1\r\nHost: a\r\n\r\n",
            404,
            "The nearest route is `api`, which wants a path below `/api`.",
        ),
        (
            "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n",
            413,
            "`max_body_bytes` is 1024 bytes here.",
        ),
        (
            "GET /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "The request was refused for this:",
        ),
    ] {
        let (answered, story) = told(request).await;
        assert!(answered == status && story.contains(part), "{answered}: {story}");
    }
    for _ in 0..2 {
        gateway.get("/api").await;
    }
    let (status, story) = told("GET /api HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status, 429);
    assert!(
        story.contains("`client_ip 1/h` with a burst of 2; the client is counted as 127.0.0.1"),
        "{story}"
    );
}
