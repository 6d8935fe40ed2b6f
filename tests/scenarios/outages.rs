//! Backends that are lost in other ways than by refusing: nothing comes back, there is no way there, the process stands
//! still, hundreds come and go.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::harness::programs::{Network, Nginx};
use crate::harness::{Act, Backend, Gateway, Load, eventually};

/// Short limits, and trials soon.
const SETTINGS: &str = "    fail_timeout: 300ms\n    timeouts: { connect: 300ms, first_byte: 300ms }\n";

async fn two(a: &Nginx, b: &Nginx) -> (Gateway, Load) {
    let config = format!(
        "upstreams:\n  web:\n{SETTINGS}    backends: [{}, {}]\nroutes:\n  - upstream: web\n",
        a.address, b.address
    );
    let gateway = Gateway::start(&config).await;
    let load = Load::start(
        gateway.address,
        8,
        |client, at| format!("/{client}/{at}"),
        |_, answer| answer.status == 200 && answer.text() == "hello",
    );
    load.more(100).await;
    (gateway, load)
}

async fn becomes(gateway: &Gateway, nginx: &Nginx, states: &[&str]) {
    eventually(&format!("{} is {}", nginx.address, states.join(" or ")), || async {
        states.contains(&gateway.state(nginx.address).await.as_str())
    })
    .await;
}

async fn failures(gateway: &Gateway, cause: &str) -> f64 {
    gateway.metric(&format!("goodgate_attempt_failures_total{{cause=\"{cause}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_packets_costs_no_request() {
    let Some(network) = Network::new().await else { return };
    let (far, near) = (Nginx::start_in("hello", &network).await, Nginx::start("hello").await);
    let (gateway, load) = two(&far, &near).await;
    for _ in 0..3 {
        network.swallow();
        becomes(&gateway, &far, &["ejected", "trial"]).await;
        load.more(200).await;
        network.give_back();
        becomes(&gateway, &far, &["up"]).await;
        load.more(50).await;
    }
    let lost =
        failures(&gateway, "connection_timeout").await + failures(&gateway, "http_response_timeout").await;
    assert!(lost >= 3.0, "{lost}");
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_there_is_no_way_to_costs_no_request() {
    let Some(network) = Network::new().await else { return };
    let (far, near) = (Nginx::start_in("hello", &network).await, Nginx::start("hello").await);
    let (gateway, load) = two(&far, &near).await;
    network.forbid();
    // Kept connections go on until they are needed anew.
    far.signal(Signal::SIGHUP);
    eventually("it is noticed", || async { failures(&gateway, "destination_ip_unroutable").await >= 1.0 })
        .await;
    becomes(&gateway, &far, &["ejected", "trial"]).await;
    load.more(200).await;
    network.allow();
    becomes(&gateway, &far, &["up"]).await;
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_costs_no_request() {
    let (a, b) = (Nginx::start("hello").await, Nginx::start("hello").await);
    let (gateway, load) = two(&a, &b).await;
    for nginx in [&a, &b, &a] {
        nginx.signal(Signal::SIGSTOP);
        becomes(&gateway, nginx, &["ejected", "trial"]).await;
        load.more(200).await;
        nginx.signal(Signal::SIGCONT);
        becomes(&gateway, nginx, &["up"]).await;
        load.more(50).await;
    }
    assert!(failures(&gateway, "http_response_timeout").await >= 3.0, "it accepts, and says nothing");
    load.stop().await.assert_good();
}

async fn revived(backends: Vec<Backend>) -> Vec<Backend> {
    let mut reviving = JoinSet::new();
    for mut backend in backends {
        reviving.spawn(async move {
            backend.revive().await;
            backend
        });
    }
    reviving.join_all().await
}

/// As long as `GOODGATE_FLAP_SECONDS` says: five minutes show what ten seconds do.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_backends_come_and_go_and_memory_does_not_grow() {
    let seconds =
        std::env::var("GOODGATE_FLAP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let length = Duration::from_secs(seconds);
    let mut backends = Vec::new();
    for _ in 0..500 {
        backends.push(Backend::start(Act::Answer(200)).await);
    }
    let all: Vec<&Backend> = backends.iter().collect();
    let gateway = Gateway::start(&crate::site(&all, "    fail_timeout: 500ms\n", "")).await;
    let load = Load::start(gateway.address, 8, |_, at| format!("/{at}"), |_, answer| answer.status == 200);
    let (begun, mut rounds, mut early) = (Instant::now(), 0, None);
    // Every backend has had its connections before memory is measured for the first time, however slow the machine.
    while begun.elapsed() < length || rounds < 12 {
        let dying: Vec<Backend> = backends.drain(..250).collect();
        dying.iter().for_each(Backend::kill);
        load.more(300).await;
        backends.extend(revived(dying).await);
        load.more(100).await;
        rounds += 1;
        if begun.elapsed() > length / 3 && rounds >= 6 && early.is_none() {
            early = Some(gateway.resident_bytes());
        }
    }
    let (early, late) = (early.unwrap(), gateway.resident_bytes());
    load.stop().await.assert_good();
    eprintln!("{rounds} rounds, {} MiB after a third, {} MiB at the end", early >> 20, late >> 20);
    assert!(late < early + (8 << 20), "{} MiB, then {} MiB", early >> 20, late >> 20);
}
