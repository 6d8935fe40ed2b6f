//! Responses that memory does not take: they stream to the disk and from it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Directory, stop};
use crate::harness::{Connection, Gateway, eventually};

const MIB: usize = 1 << 20;

/// The size of the body: as large as it should be where there is time for it.
fn len() -> usize {
    let mib = std::env::var("GOODGATE_LARGE_MIB").ok().and_then(|mib| mib.parse().ok());
    mib.unwrap_or(96_usize) * MIB
}

/// The byte at a place of the body.
fn byte(at: usize) -> u8 {
    u8::try_from((at ^ at >> 9 ^ at >> 17) & 0xff).unwrap()
}

fn bytes(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(byte).collect()
}

/// A backend that answers once with a large body, without holding it in memory.
async fn answers_once() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nETag: \"1\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for start in (0..len()).step_by(MIB) {
            stream.write_all(&bytes(start..start + MIB)).await.unwrap();
        }
    });
    (address, task)
}

/// Reads a large answer and compares it on the way; the most memory that the gateway had meanwhile.
async fn read_all(gateway: &Gateway, path: &str) -> u64 {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
    let (mut buffer, mut head) = (vec![0; MIB], Vec::new());
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let (mut at, mut most) = (0, 0);
    while at < len() {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "cut off after {at} bytes");
        assert!(buffer[..read] == bytes(at..at + read), "between {at} and {}", at + read);
        at += read;
        most = most.max(gateway.resident_bytes());
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_response_streams_through_the_disk_in_little_memory() {
    let (address, backend) = answers_once().await;
    let directory = Directory::new();
    let config = format!(
        "caches:\n  main:\n    memory: 8MiB\n    disk: {{ path: {}, size: 4GiB, max_object: 1GiB }}\nupstreams:\n  web:\n    max_fails: 1\n    backends: [{address}]\nroutes:\n  - upstream: web\n    cache: standard\n",
        directory.0.display()
    );
    let gateway = Gateway::start(&config).await;
    let before = gateway.resident_bytes();
    let while_written = read_all(&gateway, "/large").await;
    backend.await.unwrap();
    let held = || gateway.metric("goodgate_cache_objects{cache=\"main\",tier=\"disk\"}");
    eventually("it is on disk", || async { held().await == 1.0 }).await;
    let while_read = read_all(&gateway, "/large").await;
    for most in [while_written, while_read] {
        assert!(most < before + (32 << 20), "{before} bytes of memory became {most}");
    }
    eprintln!("{before} bytes of memory, {while_written} while written, {while_read} while read");
    stop(gateway).await;

    let gateway = Gateway::start(&config).await;
    let mut connection = Connection::open(gateway.address).await.unwrap();
    let (last, block) = (len() - 1, 65_536);
    for (start, end) in [(0, 0), (block - 1, block), (block, 3 * block + 7), (last - 10, last)] {
        let range = format!("Range: bytes={start}-{end}\r\n");
        let answer = connection.get_with("/large", &range).await.unwrap();
        assert_eq!(answer.status, 206);
        let content_range = format!("bytes {start}-{end}/{}", len());
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()));
        assert!(answer.body == bytes(start..end + 1), "{start} to {end}");
    }
    read_all(&gateway, "/large").await;
}
