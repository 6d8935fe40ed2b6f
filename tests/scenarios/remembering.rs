//! What is known of backends survives a restart: nobody is sent to those that are known to be dead.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::backend::backends_on_one_port;
use crate::harness::dns::{Dns, Zone};
use crate::harness::gateway::folder;
use crate::harness::{Act, Answer, Backend, Gateway, Load, backends, eventually};
use crate::upstream;

/// Who hangs is out for an hour.
const SETTINGS: &str = "    max_fails: 1\n    fail_timeout: 1h\n    timeouts: { first_byte: 200ms }\n";

struct State(PathBuf);

impl State {
    fn new() -> Self {
        Self(folder())
    }

    fn server(&self) -> String {
        format!("server: {{ state_dir: '{}' }}\n", self.0.display())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.0.join("upstreams.state")).unwrap_or_default()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn becomes(gateway: &Gateway, backend: &Backend, state: &str) {
    eventually(&format!("{} is {state}", backend.address), || async {
        gateway.state(backend.address).await == state
    })
    .await;
}

fn load(gateway: &Gateway) -> Load {
    Load::start(gateway.address, 4, |_, at| format!("/{at}"), |_: &str, answer: &Answer| answer.status == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_an_outage_sends_nothing_to_who_is_known_to_be_dead() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let state = State::new();
        let [dead, well] = backends([Act::Hang, Act::Answer(200)]).await;
        let config = format!(
            "{}{}routes: [{{ upstream: web }}]\n",
            state.server(),
            upstream(&[&dead, &well], SETTINGS)
        );
        let mut gateway = Gateway::start(&config).await;
        let before = load(&gateway);
        becomes(&gateway, &dead, "ejected").await;
        before.stop().await.assert_good();
        eventually("it is written down", || async { state.text().contains("http_response_timeout") }).await;
        gateway.signal(signal);
        gateway.ends(Duration::from_secs(20)).await;
        let asked = dead.requests();
        let gateway = Gateway::start(&config).await;
        assert_eq!(gateway.state(dead.address).await, "ejected", "{signal}");
        let after = load(&gateway);
        after.more(200).await;
        after.stop().await.assert_good();
        assert_eq!(dead.requests(), asked, "{signal}: it was known");
        eventually("it says so", || async {
            gateway.errors().contains("what was known of backends is recalled")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_in_an_outage_sends_nothing_to_who_is_known_to_be_dead() {
    let [dead, well] = backends([Act::Hang, Act::Answer(200)]).await;
    let gateway = Gateway::start(&crate::site(&[&dead, &well], SETTINGS, "")).await;
    let load = load(&gateway);
    becomes(&gateway, &dead, "ejected").await;
    let asked = dead.requests();
    for weight in 2..6 {
        let settings = format!("{SETTINGS}    slow_start: {weight}s\n");
        gateway.write_config(&crate::site(&[&dead, &well], &settings, ""));
        gateway.reload("ok").await;
        load.more(50).await;
    }
    load.stop().await.assert_good();
    assert_eq!(dead.requests(), asked);
    assert_eq!(gateway.state(dead.address).await, "ejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_name_led_is_known_when_it_cannot_be_looked_up() {
    let state = State::new();
    let [a, b] = backends_on_one_port([Act::Answer(200), Act::Answer(200)]).await;
    let ips = [&a, &b].map(|backend| match backend.address.ip() {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(ip) => panic!("{ip}"),
    });
    let dns = Dns::start(Zone::Addresses(ips.to_vec(), 1)).await;
    let config = format!(
        "server: {{ state_dir: '{}', resolver: [\"{}\"] }}\nupstreams:\n  web: ['app.test:{}']\nroutes:\n  - upstream: web\n",
        state.0.display(),
        dns.address,
        a.address.port()
    );
    let mut gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.status, 200);
    eventually("it is written down", || async { state.text().contains("app.test") }).await;
    gateway.signal(Signal::SIGTERM);
    gateway.ends(Duration::from_secs(20)).await;
    dns.set(Zone::NoSuchName);
    let gateway = Gateway::start(&config).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    eventually("it is told", || async { gateway.metric("goodgate_dns_stale").await > 0.5 }).await;
    assert!(a.requests() > 5 && b.requests() > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_and_the_gateway_starts() {
    let state = State::new();
    let backend = Backend::start(Act::Answer(200)).await;
    std::fs::write(state.0.join("upstreams.state"), "goodgate-upstreams 1 00\n{}").unwrap();
    let config = format!("{}{}routes: [{{ upstream: web }}]\n", state.server(), upstream(&[&backend], ""));
    let gateway = Gateway::start(&config).await;
    assert_eq!(gateway.get("/").await.status, 200);
    eventually("it is told", || async { gateway.errors().contains("cannot be recalled") }).await;
    eventually("a good one takes its place", || async { state.text().contains("\"web\"") }).await;
    assert!(gateway.metric("goodgate_state_writes_total{result=\"ok\"}").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_told_once_and_changes_nothing_else() {
    let state = State::new();
    let backend = Backend::start(Act::Answer(200)).await;
    let file = state.0.join("no-folder");
    std::fs::write(&file, "").unwrap();
    let config = format!(
        "server: {{ state_dir: '{}' }}\n{}routes: [{{ upstream: web }}]\n",
        file.display(),
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start(&config).await;
    let failed = || async { gateway.metric("goodgate_state_writes_total{result=\"failed\"}").await };
    eventually("it has failed twice", || async { failed().await >= 2.0 }).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.errors().matches("cannot be written down").count(), 1);
}
