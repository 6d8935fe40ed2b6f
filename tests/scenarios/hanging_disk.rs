//! A disk that hangs: writes below a folder do not return. It is staged by a library in front of the system's, which
//! waits in `pwrite` and `write` for files of which the path contains a word.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::gateway::folder;
use crate::harness::{Act, Backend, Gateway, eventually};

/// Files below a folder of this name hang.
const HANGS: &str = "hanging-disk";

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
static int hangs(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "hanging-disk") != 0;
}
#define HANG(fd) if (hangs(fd)) for (;;) pause()
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    HANG(fd);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, bytes, count, offset);
}
ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    HANG(fd);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return real(fd, bytes, count);
}
"#;

fn library(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("hang.c"), folder.join("hang.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("a C compiler is installed").success());
    library
}

async fn start(log: &str, backend: &Backend) -> Gateway {
    let folder = folder();
    let disk = folder.join(HANGS);
    std::fs::create_dir_all(&disk).unwrap();
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {log} }}\n\
         server: {{ spool: {{ path: {HANGS} }}, state_dir: {HANGS}, shutdown: {{ drain: 1s }} }}\n\
         caches: {{ main: {{ disk: {{ path: {HANGS}, size: 64MiB }} }} }}\n\
         upstreams: {{ web: ['{}', '127.0.0.1:9'] }}\nroutes:\n\
         \x20 - {{ upstream: web, cache: fallback, max_body_bytes: 8MiB, retry: {{ max_body_bytes: 4MiB }} }}\n",
        backend.address
    );
    let library = library(&folder);
    Gateway::start_with(folder, &text, &[("LD_PRELOAD", library.as_os_str())], Stdio::null()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_on_and_what_they_have_queued_for_the_disk_is_counted_and_given_back() {
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = start("off", &backend).await;
    let body = vec![b'x'; 600 << 10];
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (address, bytes) = (gateway.address, [head.as_bytes(), &body].concat());
        uploads.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            crate::harness::Connection::of(stream).answer(false).await.unwrap().status
        });
    }
    let spooled = || async { gateway.metric("goodgate_spool_bytes").await };
    eventually("what waits is counted", || async { spooled().await > 0.0 }).await;
    while let Some(status) = uploads.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    // Eight threads hang with a piece each, and nothing else is held.
    eventually("the rest is given back", || async { spooled().await <= f64::from(8 * (64 << 10)) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_with_its_drain_time() {
    let backend = Backend::start(Act::Answer(200)).await;
    let mut gateway = start(&format!("{HANGS}/access.log"), &backend).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/page").await.status, 200);
    }
    let start = Instant::now();
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.ends(Duration::from_secs(10)).await, Some(0), "{}", gateway.errors());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
