//! Backends that are services: SRV records with ports, priorities and weights (RFC 2782). And which family of addresses
//! is asked first.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::harness::backend::backends;
use crate::harness::dns::{Dns, Record, Zone};
use crate::harness::programs::Dnsmasq;
use crate::harness::{Act, Backend, Gateway, Load, eventually, get_admin};

fn site(resolver: impl std::fmt::Display, backend: &str, settings: &str) -> String {
    format!(
        "upstreams:\n  web:\n    dns: {{ resolver: ['{resolver}']{settings} }}\n    timeouts: {{ connect: 200ms }}\n    \
         backends: ['{backend}']\nroutes:\n  - upstream: web\n"
    )
}

fn port(backend: &Backend) -> u16 {
    backend.address.port()
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_has_ports_weights_and_priorities() {
    let [a, b, c, d] = backends([const { Act::Answer(200) }; 4]).await;
    let target = |backend: &Backend, priority: u16, weight: u16| {
        format!("--srv-host=_http._tcp.app.test,app.test,{},{priority},{weight}", port(backend))
    };
    let records = [target(&a, 10, 30), target(&b, 10, 10), target(&c, 20, 0), target(&d, 30, 0)];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let dnsmasq = Dnsmasq::start("127.0.0.1 app.test\n", &records).await;
    let gateway = Gateway::start(&site(dnsmasq.address, "srv:_http._tcp.app.test", "")).await;
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!([&a, &b, &c, &d].map(Backend::requests), [30, 10, 0, 0]);
    let rows = get_admin(gateway.admin, "/api/v1/backends").await.unwrap().text();
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    for (backend, level, weight) in [(&a, 0, 3), (&b, 0, 1), (&c, 1, 1), (&d, 2, 1)] {
        let address = backend.address.to_string();
        let row = rows.as_array().unwrap().iter().find(|row| row["address"] == address.as_str()).unwrap();
        assert_eq!((row["level"].as_u64(), row["weight"].as_u64()), (Some(level), Some(weight)), "{row}");
    }
    for (gone, next) in [([&a, &b], &c), ([&c, &c], &d)] {
        for backend in gone {
            backend.die().await;
        }
        for _ in 0..5 {
            assert_eq!(gateway.get("/").await.status, 200);
        }
        assert_eq!(next.requests(), 5, "the next priority takes over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_targets_change_loses_no_request() {
    let [a, b] = backends([const { Act::Answer(200) }; 2]).await;
    let records = |backends: &[&Backend]| {
        let targets = backends.iter().map(|backend| Record::srv(1, 1, port(backend), "a.test"));
        Zone::Records(targets.chain([Record::a(HERE)]).collect(), 1)
    };
    let dns = Dns::start(records(&[&a])).await;
    let gateway = Gateway::start(&site(dns.address, "srv:_http._tcp.app.test", "")).await;
    let load = Load::start(gateway.address, 4, |_, at| format!("/{at}"), |_, answer| answer.status == 200);
    load.more(50).await;
    dns.set(records(&[&a, &b]));
    eventually("the second joins", || async { b.requests() > 0 }).await;
    dns.set(records(&[&b]));
    eventually("the first leaves", || async { gateway.state(a.address).await == "absent" }).await;
    let mut without_address = records(&[&b]);
    if let Zone::Records(records, _) = &mut without_address {
        records.pop();
    }
    dns.set(without_address);
    eventually("the log tells", || async {
        gateway.errors().contains("targets of a service do not resolve")
    })
    .await;
    eventually("so does the metric", || async { gateway.metric("goodgate_dns_stale").await == 1.0 }).await;
    load.more(50).await;
    dns.set(records(&[&b]));
    eventually("it is well again", || async { gateway.metric("goodgate_dns_stale").await == 0.0 }).await;
    dns.set(Zone::Silence);
    eventually("it is told", || async { gateway.metric("goodgate_dns_stale").await == 1.0 }).await;
    load.more(50).await;
    load.stop().await.assert_good();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_offer_is_an_error_that_the_log_explains() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(Zone::Records(vec![Record::srv(0, 0, 0, "")], 1)).await;
    let gateway = Gateway::start(&site(dns.address, "srv:_http._tcp.app.test", "")).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, gateway.record(&answer).await["cause"].as_str()), (502, Some("dns_error")));
    let said = |what: &'static str| {
        let gateway = &gateway;
        eventually(what, move || async move { gateway.errors().contains(what) })
    };
    said("the service is not offered").await;
    let good = Record::srv(1, 1, port(&backend), "a.test");
    dns.set(Zone::Records(vec![good.clone(), Record::srv(1, 1, 0, "a.test"), Record::a(HERE)], u32::MAX));
    eventually("one good record is enough", || async { gateway.get("/").await.status == 200 }).await;
    assert_eq!(gateway.metric("goodgate_upstream_backends_in_rotation").await, 1.0);
    said("addresses of a name are not used").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_errors_and_nothing_else() {
    let backend = Backend::start(Act::Answer(200)).await;
    let circle = || vec![Record::circle()];
    let dns = Dns::start(Zone::Records(circle(), 1)).await;
    for written in [format!("app.test:{}", port(&backend)), "srv:_http._tcp.app.test".to_owned()] {
        dns.set(Zone::Records(circle(), 1));
        let gateway = Gateway::start(&site(dns.address, &written, "")).await;
        let answer = gateway.get("/").await;
        assert!([502, 504].contains(&answer.status), "{written}: {answer:?}");
        let garbage = (0..40).map(|at| Record::srv(at, u16::MAX - at, at, "a.test"));
        let garbage = garbage.chain([Record::a(Ipv4Addr::UNSPECIFIED), Record::a(Ipv4Addr::BROADCAST)]);
        dns.set(Zone::Records(garbage.collect(), 0));
        let failed = "goodgate_dns_lookups_total{result=\"dns_error\"}";
        let before = gateway.metric(failed).await;
        eventually("that is an error, too", || async { gateway.metric(failed).await >= before + 2.0 }).await;
        let target = Record::srv(1, 1, port(&backend), "a.test");
        dns.set(Zone::Records(vec![target, Record::a(HERE)], u32::MAX));
        eventually("and then it works", || async { gateway.get("/").await.status == 200 }).await;
        assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    }
}

/// Two addresses of IPv6 that lead nowhere, and one of IPv4 that is good.
fn half_dead() -> Zone {
    let nowhere = |host| Record::aaaa(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host));
    Zone::Records(vec![nowhere(1), nowhere(2), Record::a(HERE)], 60)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_address_that_is_not_reached_comes_one_of_the_other_family() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(half_dead()).await;
    let config = site(dns.address, &format!("app.test:{}", port(&backend)), "");
    let gateway = Gateway::start(&config.replace("    timeouts", "    max_fails: 0\n    timeouts")).await;
    let mut rescued = 0;
    for _ in 0..12 {
        let answer = gateway.get("/").await;
        assert_eq!(answer.status, 200);
        let record = gateway.record(&answer).await;
        let attempts = record["attempts"].as_array().unwrap();
        assert!(attempts.len() <= 2, "never two of the family that is dead: {record}");
        rescued += attempts.len() - 1;
    }
    assert_eq!(rescued, 8, "two of three begin at a dead one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_may_come_first_or_alone() {
    let backend = Backend::start(Act::Answer(200)).await;
    let dns = Dns::start(half_dead()).await;
    let name = format!("app.test:{}", port(&backend));
    for (family, backends) in [("ipv4_first", 3.0), ("ipv4_only", 1.0)] {
        let gateway = Gateway::start(&site(dns.address, &name, &format!(", family: {family}"))).await;
        for _ in 0..6 {
            let answer = gateway.get("/").await;
            let record = gateway.record(&answer).await;
            assert_eq!(record["attempts"].as_array().unwrap().len(), 1, "{family}: {record}");
        }
        assert_eq!(gateway.metric("goodgate_upstream_backends_in_rotation").await, backends, "{family}");
    }
    dns.set(Zone::Addresses(vec![HERE], 1));
    let gateway = Gateway::start(&site(dns.address, &name, ", family: ipv6_first")).await;
    assert_eq!(gateway.get("/").await.status, 200, "the other family is better than none");
    let gateway = Gateway::start(&site(dns.address, &name, ", family: ipv6_only")).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, gateway.record(&answer).await["cause"].as_str()), (502, Some("dns_error")));
}
