//! Input that nobody wrote for us: it is refused with a problem, in good time, and never by a panic.

use std::path::Path;
use std::time::{Duration, Instant};

use goodgate_config::{FILE_BYTES_MAX, load, parse};

fn told(text: &str) -> String {
    parse("c.yaml", text, &|_| None).map_or_else(|problems| problems.to_string(), |_| "nothing".to_owned())
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = std::env::temp_dir().join(format!("goodgate-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("c.yaml");
    let told = |path: &Path| load(path).unwrap_err().to_string();
    assert_eq!(
        told(&file),
        format!("{}: cannot be read: No such file or directory (os error 2)", file.display())
    );
    let is_folder = "is a directory; allowed: a regular file, or /dev/stdin";
    assert_eq!(told(&folder), format!("{}: {is_folder}", folder.display()));
    std::fs::write(&file, b"a: 1\nb: \xff\n").unwrap();
    let message = "is not UTF-8: line 2 has a byte that belongs to no character";
    assert_eq!(told(&file), format!("{}: {message}", file.display()));
    std::fs::write(&file, vec![b'#'; FILE_BYTES_MAX + 1]).unwrap();
    assert_eq!(told(&file), format!("{}: the file is larger than 1MiB", file.display()));
    assert!(load(Path::new("/dev/zero")).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn large_defaults_under_many_upstreams_end_in_good_time() {
    let keys: Vec<_> = (0..20_000).map(|key| format!("k{key}: 1")).collect();
    let upstreams: Vec<_> = (0..5_000).map(|name| format!("u{name}: ['a:1']")).collect();
    let text = format!(
        "defaults: {{ upstream: {{ {} }} }}\nupstreams: {{ {} }}\nroutes: [{{ upstream: u1 }}]\n",
        keys.join(", "),
        upstreams.join(", ")
    );
    let start = Instant::now();
    assert!(told(&text).starts_with("c.yaml:1:25: defaults.upstream.k0: unknown key"));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn long_and_odd_texts_are_shown_short_and_visible() {
    let text =
        format!("upstreams: {{ a: [\"{}\\e[2J\"] }}\nroutes: [{{ upstream: a }}]\n", "x".repeat(100_000));
    assert!(told(&text).len() < 300);
    let text = "upstreams: { a: [\"\\e[2J:1\"] }\nroutes: [{ upstream: a }]\n";
    assert!(told(text).contains("found \"\\u{1b}[2J:1\""), "{}", told(text));
}

/// Pieces that mean something to YAML or to us.
const PIECES: [&str; 30] = [
    "\t",
    "\r",
    "\n",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "|\n",
    ">\n",
    "'",
    "\"",
    "#",
    "!!str ",
    "%YAML 1.1\n",
    "\u{feff}",
    "\u{2028}",
    "\0",
    "💥",
    "\\",
    "${",
    "${A:-}",
    "1e999",
];

/// xorshift64: the same texts each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or_default()
    }
}

fn mutate(text: &mut String, random: &mut Random) {
    let boundary = |text: &str, at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = boundary(text, random.below(text.len() + 1));
    let end = boundary(text, (start + random.below(30)).min(text.len())).max(start);
    match random.below(3) {
        0 => text.insert_str(start, PIECES.get(random.below(PIECES.len())).copied().unwrap_or_default()),
        1 => text.replace_range(start..end, ""),
        _ => {
            let piece = text.get(start..end).unwrap_or_default().to_owned();
            text.insert_str(start, &piece);
        }
    }
}

#[test]
fn no_mutation_of_a_good_file_panics() {
    let good = include_str!("../../../conf/demo.yaml");
    let seed = 0x00c0_ffee;
    eprintln!("seed {seed:#x}");
    let mut random = Random(seed);
    for _ in 0..2_000 {
        let mut text = good.to_owned();
        for _ in 0..=random.below(4) {
            mutate(&mut text, &mut random);
        }
        if let Err(problems) = parse("c.yaml", &text, &|_| None) {
            assert!(problems.iter().count() > 0);
        }
    }
}
