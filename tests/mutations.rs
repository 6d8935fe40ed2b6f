//! The fuzz targets of `tests/fuzz` without a fuzzer: over their seeds, and over mutations of them that are the
//! same each time. `GOODGATE_ROUNDS` makes it go on for longer, `GOODGATE_SEED` elsewhere.

#![allow(
    clippy::pedantic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may fail loudly"
)]
#![allow(unreachable_pub, reason = "the bodies are a module of this program")]
#![allow(missing_docs, reason = "the names of tests are claims")]

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Bytes that mean something to one of the parsers.
const PIECES: [&[u8]; 32] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"%2e",
    b"%2F",
    b"%00",
    b"%",
    b"..",
    b"/",
    b"//",
    b"?",
    b"#",
    b"{",
    b"}",
    b"chunked",
    b"Content-Length: 5\r\n",
    b"Host: a\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"no-cache",
    b"\xff",
    b"${A:-",
    b"- ",
];

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let start = self.below(bytes.len() + 1);
        let end = (start + self.below(16)).min(bytes.len());
        match self.below(5) {
            0 => drop(bytes.splice(start..start, PIECES[self.below(PIECES.len())].iter().copied())),
            1 => drop(bytes.drain(start..end)),
            2 => {
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
            3 => {
                let from = self.below(other.len());
                let until = (from + self.below(32)).min(other.len());
                bytes.splice(start..end, other[from..until].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(start) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
    }
}

fn run(name: &str, rounds: usize, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() > 2, "{name} has seeds");
    seeds.iter().for_each(|seed| body(seed));
    let told = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = told("GOODGATE_SEED").unwrap_or(0x00c0_ffee);
    let rounds = rounds * told("GOODGATE_ROUNDS").unwrap_or(1) as usize;
    let mut random = Random(seed.max(1));
    for round in 0..rounds {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            let other = random.below(seeds.len());
            random.mutate(&mut bytes, &seeds[other]);
        }
        let outcome = catch_unwind(|| body(&bytes));
        assert!(outcome.is_ok(), "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_head_that_passes_has_one_reading() {
    run("head", 50_000, bodies::head);
}

#[test]
fn a_chunked_body_ends_where_others_find_its_end() {
    run("chunks", 50_000, bodies::chunks);
}

#[test]
fn the_normal_form_of_a_target_is_normal() {
    run("target", 50_000, bodies::target);
}

#[test]
fn a_configuration_is_refused_in_its_place() {
    run("config", 2_000, bodies::config);
}

#[test]
fn a_filled_template_is_a_field_value() {
    run("template", 4_000, bodies::template);
}

#[test]
fn what_is_stored_may_be() {
    run("caching", 50_000, bodies::caching);
}
