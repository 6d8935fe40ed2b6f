//! TLS to backends: who proves what.

use crate::harness::dns::{Dns, Zone};
use crate::harness::tls::{Authority, in_front_of, valid};
use crate::harness::{Act, Backend, Connection, Gateway, eventually};

/// A file with the authority's certificate, and its folder.
fn file(authority: &Authority) -> (std::path::PathBuf, std::path::PathBuf) {
    let folder = crate::harness::gateway::folder();
    let file = folder.join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    (file, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_proves_its_name_is_used_and_its_connections_kept() {
    let backend = Backend::start(Act::Answer(200)).await;
    let authority = Authority::new();
    let (ca, folder) = file(&authority);
    let front = in_front_of(backend.address, authority.server(valid("app.test"))).await;
    let dns = Dns::start(Zone::Addresses(vec!["127.0.0.1".parse().unwrap()], 60)).await;
    let config = format!(
        "server: {{ resolver: ['{}'] }}\nupstreams:\n  \
         named: {{ backends: ['https://app.test:{}'], tls: {{ ca: {} }}, health_check: {{ http: {{ path: /health }}, interval: 50ms }} }}\n  \
         numbered: {{ backends: ['{front}'], tls: {{ ca: {}, sni: app.test }} }}\nroutes:\n  \
         - {{ match: {{ path: /named }}, upstream: named }}\n  - {{ upstream: numbered }}\n",
        dns.address,
        front.port(),
        ca.display(),
        ca.display()
    );
    backend.set_on("/health", Act::Answer(200));
    let gateway = Gateway::start(&config).await;
    // On one connection, whose requests come one after the other: the last one has let go of its backend.
    let mut client = Connection::open(gateway.address).await.unwrap();
    let first = client.get("/named").await.unwrap();
    assert_eq!(first.status, 200, "{first:?}");
    let attempt = gateway.record(&first).await["attempts"][0].clone();
    assert!(attempt["tls_ms"].as_f64().unwrap() > 0.0, "{attempt}");
    assert!(attempt["tls_ms"].as_f64() < attempt["connect_ms"].as_f64(), "{attempt}");
    // Proven with the same name to the same authority at the same address: one pool. A connection is back in it a
    // moment after its answer.
    for path in ["/named", "/numbered"] {
        eventually("a kept connection is used", || async {
            let mut client = Connection::open(gateway.address).await.unwrap();
            let again = client.get(path).await.unwrap();
            assert_eq!(again.status, 200, "{again:?}");
            let attempt = gateway.record(&again).await["attempts"][0].clone();
            attempt["reused"] == true && attempt["connect_ms"] == 0.0
        })
        .await;
    }
    let checks = || gateway.metric("goodgate_health_checks_total{result=\"ok\"}");
    eventually("checks go over TLS", || async { checks().await >= 2.0 }).await;
    assert_eq!(gateway.state(front).await, "up");
    // Each backend is asked for its certificate, which ends in the year 4096.
    for upstream in ["named", "numbered"] {
        let expiry =
            format!("goodgate_backend_certificate_expiry_timestamp_seconds{{upstream=\"{upstream}\"}}");
        eventually("its end is known", || async { gateway.metric(&expiry).await > 4e9 }).await;
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused_unless_it_is_not_to_be_verified() {
    let backend = Backend::start(Act::Answer(200)).await;
    let front = in_front_of(backend.address, Authority::new().server(valid("other.test"))).await;
    let health = "    health_check: { tcp: {}, interval: 50ms, interval_down: 50ms, fall: 1 }\n";
    for (verify, status, state) in [("full", 502, "down"), ("off", 200, "up")] {
        let config = format!(
            "upstreams:\n  web:\n    backends: ['https://{front}']\n    tls: {{ verify: {verify} }}\n{health}routes:\n  - upstream: web\n"
        );
        let gateway = Gateway::start(&config).await;
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, status, "{verify}");
        eventually("the checks say the same", || async { gateway.state(front).await == state }).await;
        let record = gateway.record(&answer).await;
        if status == 502 {
            assert_eq!(record["cause"], "tls_certificate_error", "{record}");
            let detail = record["attempts"][0]["detail"].as_str().unwrap();
            assert!(detail.contains("UnknownIssuer"), "{detail}");
            let checks = "goodgate_health_checks_total{result=\"tls_certificate_error\"}";
            assert!(gateway.metric(checks).await >= 1.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_trusts_another_authority_reuses_no_connection_of_the_old() {
    let backend = Backend::start(Act::Answer(200)).await;
    let (good, other) = (Authority::new(), Authority::new());
    let ((good_ca, one), (other_ca, two)) = (file(&good), file(&other));
    let front = in_front_of(backend.address, good.server(valid("app.test"))).await;
    let config = |ca: &std::path::Path| {
        format!(
            "upstreams:\n  web: {{ backends: ['{front}'], tls: {{ ca: {}, sni: app.test }} }}\nroutes:\n  - upstream: web\n",
            ca.display()
        )
    };
    let gateway = Gateway::start(&config(&good_ca)).await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.write_config(&config(&other_ca));
    gateway.reload("ok").await;
    assert_eq!(gateway.get("/").await.status, 502, "what was kept was trusted by the old configuration");
    for folder in [one, two] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_asks_who_we_are_is_shown_a_certificate() {
    let backend = Backend::start(Act::Answer(200)).await;
    let authority = Authority::new();
    let (ca, folder) = file(&authority);
    let front = in_front_of(backend.address, authority.server_for_known_clients(valid("app.test"))).await;
    let write = |name: &str, text: String| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).display().to_string()
    };
    let identity = |of: &Authority, name: &str| {
        let (certificate, key) = of.pem_of(valid("gateway.test"));
        (write(&format!("{name}.crt"), certificate), write(&format!("{name}.key"), key))
    };
    let (good, stranger) = (identity(&authority, "good"), identity(&Authority::new(), "stranger"));
    let config = |(certificate, key): (&str, &str)| {
        format!(
            "upstreams:\n  web:\n    backends: ['https://{front}']\n    tls: {{ ca: {}, sni: app.test, client_cert: {certificate}, client_key: {key} }}\n    \
             health_check: {{ http: {{ path: / }}, interval: 50ms }}\nroutes:\n  - upstream: web\n",
            ca.display()
        )
    };
    let gateway = Gateway::start(&config((&good.0, &good.1))).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let checks = || gateway.metric("goodgate_health_checks_total{result=\"ok\"}");
    eventually("checks show it too", || async { checks().await >= 2.0 }).await;
    gateway.write_config(&config((&stranger.0, &stranger.1)));
    gateway.reload("ok").await;
    assert_eq!(gateway.get("/").await.status, 502, "no connection of the old identity is reused");
    gateway.write_config(&config((&good.0, &stranger.1)));
    gateway.reload("failed").await;
    let told = || async { gateway.errors().contains("does not belong to the certificate") };
    eventually("it is told why", told).await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_that_tls_ca_names_is_accepted_for_its_name_alone() {
    let backend = Backend::start(Act::Answer(200)).await;
    let folder = crate::harness::gateway::folder();
    let (server, pem) = Authority::self_signed("app.test");
    let ca = folder.join("app.pem");
    std::fs::write(&ca, pem).unwrap();
    let front = in_front_of(backend.address, server).await;
    // Another certificate for the same name.
    let impostor = in_front_of(backend.address, Authority::self_signed("app.test").0).await;
    let upstream = |name: &str, address, sni: &str| {
        format!(
            "  {name}: {{ backends: ['{address}'], tls: {{ ca: {}, sni: {sni} }}, max_fails: 0, health_check: {{ http: {{ path: / }}, interval: 50ms, fall: 1 }} }}\n",
            ca.display()
        )
    };
    let config = format!(
        "upstreams:\n{}{}{}routes:\n  - {{ match: {{ path: /other }}, upstream: other }}\n  - {{ match: {{ path: /impostor }}, upstream: impostor }}\n  - {{ upstream: good }}\n",
        upstream("good", front, "app.test"),
        upstream("other", front, "other.test"),
        upstream("impostor", impostor, "app.test"),
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    for path in ["/other", "/impostor"] {
        let refused = gateway.get(path).await;
        assert_eq!(refused.status, 502, "{path}");
        assert!(refused.header("proxy-status").unwrap().contains("tls_certificate_error"), "{refused:?}");
    }
    let checks = |result: &str| {
        let selector = format!("goodgate_health_checks_total{{result=\"{result}\"}}");
        let gateway = &gateway;
        async move { gateway.metric(&selector).await }
    };
    eventually("checks hold to the same", || async {
        checks("ok").await >= 2.0 && checks("tls_certificate_error").await >= 4.0
    })
    .await;
    let _ = std::fs::remove_dir_all(folder);
}
