//! What is no HTTP at all. Nothing of it may cost more than its own connection.

use std::time::Duration;

use super::{CLOSES, Case, LIMITS, run};
use crate::harness::{Act, Backend, Connection, Gateway, eventually};
use crate::site;

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_told_that_this_is_http() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 random random random random \x00\x20\x13\x02";
    let cases = vec![
        Case::refused("TLS on a plain port, at once", hello.as_slice(), 400),
        Case::refused("SSLv2", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".as_slice(), 400),
        Case::refused("an SSH banner waits for more", "SSH-2.0-OpenSSH_9.6\r\n", 408),
        Case::refused(
            "PROXY protocol, version 1",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
        Case::refused("PROXY protocol, version 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), 400),
        Case::refused(
            "the preface of HTTP/2 as it is",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            505,
        ),
        Case::refused("SMTP", "EHLO a\r\n\r\n", 400),
        Case::refused("Redis", "*1\r\n$4\r\nPING\r\n\r\n", 400),
        Case::refused("memcached", "stats\r\n\r\n", 400),
        Case::refused("one NUL", "\0", 400),
        Case::refused("1 MiB of NUL", vec![0; 1 << 20], 400),
        Case::refused("a byte order mark", "\u{feff}GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        Case::refused("only line ends, without end", "\r\n".repeat(100_000), 400),
    ];
    run(LIMITS, cases).await;
}

/// Numbers that look random and are the same again for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

const PIECES: [&[u8]; 16] = [
    b"GET / HTTP/1.1\r\n",
    b"POST /x HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"hello",
    b": ",
    b"\0",
    b"\xff",
    b"Expect: 100-continue\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
];

/// Bytes at random, or pieces of requests in a random order, some of them damaged.
fn noise(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    if numbers.below(4) == 0 {
        bytes.extend((0..numbers.below(300)).map(|_| numbers.next() as u8));
        return bytes;
    }
    if numbers.below(2) == 0 {
        bytes.extend_from_slice(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
    for _ in 0..=numbers.below(12) {
        bytes.extend_from_slice(PIECES[numbers.below(PIECES.len())]);
    }
    if numbers.below(2) == 0 {
        let at = numbers.below(bytes.len());
        bytes[at] = numbers.next() as u8;
    }
    bytes
}

fn open_files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_leaves_nothing_behind() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed}");
    let backend = Backend::start(Act::Answer(200)).await;
    let gateway = Gateway::start(&(LIMITS.to_owned() + &site(&[&backend], "", ""))).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let before = open_files(&gateway);
    let mut numbers = Numbers(seed);
    for _ in 0..10 {
        let clients = (0..40).map(|_| {
            let (address, bytes, leaves) = (gateway.address, noise(&mut numbers), numbers.below(3));
            tokio::spawn(async move {
                let mut client = Connection::open(address).await.unwrap();
                let _ = client.send(&bytes).await;
                match leaves {
                    0 => client.reset(),
                    1 => drop(client),
                    _ => {
                        let _ = client.half_close().await;
                        client
                            .rest(CLOSES)
                            .await
                            .unwrap_or_else(|_| panic!("open after {}", bytes.escape_ascii()));
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    }
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.metric("goodgate_panics_total").await, 0.0);
    eventually("all connections are gone", || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The last answer's connection to the backend may be kept, and a few more.
        gateway.metric("goodgate_client_connections").await == 0.0 && open_files(&gateway) <= before + 40
    })
    .await;
}
