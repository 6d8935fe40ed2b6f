//! A purge of many copies at once takes no longer than one of a few, and all of them are purged by it. With
//! `GOODGATE_PURGE_OBJECTS=100000` there are as many.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Connection, Gateway};
use crate::purging::purge;
use crate::upstream;

/// How many copies there are. Without optimisation the gateway fills a thousand in a second.
fn objects() -> usize {
    let usual = if cfg!(debug_assertions) { 5_000 } else { 20_000 };
    std::env::var("GOODGATE_PURGE_OBJECTS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// However many they are, and though the binary is built for tests.
const LIMIT: Duration = Duration::from_millis(10);
const CLIENTS: usize = 8;
/// Requests that a client sends before it reads the answers.
const AT_ONCE: usize = 50;
/// Tags that all of them have.
const TAGS: [&str; 5] = ["many-0", "many-1", "many-2", "many-3", "many-4"];

fn reply(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nCache-Tag: {}\r\nContent-Length: {length}\r\n\r\n{body}",
        TAGS.join(", ")
    )
}

fn old(_: &str) -> String {
    reply("old")
}

fn new(_: &str) -> String {
    reply("new")
}

/// Asks for each page once; how many answers had this text.
async fn ask_all(gateway: &Gateway, text: &'static str) -> usize {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let address = gateway.address;
        clients.spawn(async move {
            let mut connection = Connection::open(address).await.unwrap();
            let paths: Vec<usize> = (0..objects()).skip(client).step_by(CLIENTS).collect();
            let mut fitting = 0;
            for paths in paths.chunks(AT_ONCE) {
                let requests = paths.iter().map(|path| format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n"));
                connection.send(requests.collect::<String>()).await.unwrap();
                for path in paths {
                    let answer = connection.answer(false).await.unwrap();
                    assert_eq!((answer.status, answer.complete), (200, true), "/{path}");
                    fitting += usize::from(answer.text() == text);
                }
            }
            fitting
        });
    }
    clients.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_tag_of_very_many_copies_takes_no_time_and_covers_them_all() {
    let backend = Backend::start(Act::Reply(old)).await;
    let folder = folder();
    std::fs::write(folder.join("token"), "s3cret\n").unwrap();
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0', token_file: token }}\n\
         access_log: {{ path: off }}\nlimits: {{ max_requests_per_connection: 1000000 }}\ncaches: {{ main: {{ memory: 1GiB }} }}\n{}\
         routes: [{{ upstream: web, cache: standard }}]\n",
        upstream(&[&backend], "")
    );
    let gateway = Gateway::start_in(folder, &config).await;
    let began = Instant::now();
    assert_eq!(ask_all(&gateway, "old").await, objects());
    let filled = began.elapsed();
    assert_eq!(gateway.metric("goodgate_cache_objects{tier=\"memory\"}").await, objects() as f64);
    backend.set(Act::Reply(new));
    assert_eq!(gateway.get("/0").await.text(), "old", "they are served from memory");
    let mut took = Vec::new();
    for tag in TAGS {
        let began = Instant::now();
        assert_eq!(purge(&gateway, &format!("tag={tag}&mode=hard")).await.status, 200);
        took.push(began.elapsed());
    }
    took.sort();
    eprintln!("{} copies filled in {filled:?}; purges of all of them took {took:?}", objects());
    assert!(took[TAGS.len() / 2] < LIMIT, "{took:?}");
    assert_eq!(ask_all(&gateway, "new").await, objects(), "nothing is served from before the purge");
    assert_eq!(ask_all(&gateway, "new").await, objects(), "and it is kept again");
    assert_eq!(backend.requests(), 2 * objects() as u64);
}
