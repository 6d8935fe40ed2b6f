//! Files of the gateway's own and files that a configuration names: no link leads a write elsewhere, and nothing
//! that is no regular file makes the gateway wait or grow.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::gateway::{BINARY, failing_start, folder};
use crate::harness::tls::{Authority, valid};
use crate::harness::{Act, Backend, Gateway, eventually};

const STATE: &str = "goodgate_cache_disk_state";
/// A start takes a second at most; waiting for a pipe takes ten, or for ever.
const SOON: Duration = Duration::from_secs(8);

/// A folder with `in`, which the gateway uses, and a file beside it that it must leave alone.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let folder = folder();
        std::fs::create_dir(folder.join("in")).unwrap();
        chmod(&folder.join("in"), 0o755);
        std::fs::write(folder.join("victim"), "precious").unwrap();
        Self(folder)
    }

    /// The folder of copies as the gateway makes it.
    fn copies(&self) -> PathBuf {
        let copies = self.0.join("in/copies");
        std::fs::create_dir(&copies).unwrap();
        chmod(&copies, 0o700);
        copies
    }

    fn config(&self, backend: &Backend) -> String {
        format!(
            "caches:\n  main:\n    memory: 1MiB\n    disk: {{ path: {}, size: 64MiB }}\n{}",
            self.0.join("in").display(),
            crate::site(&[backend], "", "    cache: standard\n")
        )
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(std::fs::read_to_string(self.0.join("victim")).unwrap(), "precious", "{what}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

fn pages(_: &str) -> String {
    let body = "x".repeat(20_000);
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 20000\r\n\r\n{body}")
}

/// Files that a disk cache opens when it starts.
const OF_A_CACHE: [&str; 7] = [
    "lock",
    "probe",
    "version",
    "purges",
    "0000000000000001.data",
    "0000000000000001.journal",
    "0000000000000001.body",
];

/// Serves with what was put in the place of a file, at once, and says this of it.
async fn serves_and_says(place: &Place, says: &str) {
    let backend = Backend::start(Act::Reply(pages)).await;
    let start = Instant::now();
    let gateway = Gateway::start(&place.config(&backend)).await;
    assert!(start.elapsed() < SOON, "{says}: {:?}", start.elapsed());
    for _ in 0..2 {
        assert_eq!(gateway.get("/a").await.status, 200, "{says}");
    }
    assert!(gateway.resident_bytes() < 1 << 30, "{says}");
    eventually(says, || async { gateway.errors().contains(says) }).await;
    place.assert_untouched(says);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_cache_folder_is_not_followed() {
    for name in OF_A_CACHE {
        let place = Place::new();
        let link = place.copies().join(name);
        symlink("../../victim", &link).unwrap();
        serves_and_says(&place, name).await;
        assert!(link.is_symlink(), "{name}: it is not ours to remove");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_or_device_in_the_cache_folder_neither_delays_the_start_nor_takes_memory() {
    for name in OF_A_CACHE {
        let place = Place::new();
        let file = place.copies().join(name);
        if name.ends_with("data") || name.ends_with("journal") {
            std::fs::write(file.with_extension("data"), "").unwrap();
            std::fs::write(file.with_extension("journal"), "").unwrap();
            std::fs::remove_file(&file).unwrap();
        }
        pipe(&file);
        serves_and_says(&place, name).await;
    }
    let place = Place::new();
    symlink("/dev/zero", place.copies().join("purges")).unwrap();
    serves_and_says(&place, "purges is a symbolic link").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_folder_that_others_can_write_to_is_refused_with_its_name() {
    let place = Place::new();
    chmod(&place.0.join("in"), 0o777);
    serves_and_says(&place, "in has mode 0777, so other users can write to it").await;
    let place = Place::new();
    chmod(&place.copies(), 0o770);
    serves_and_says(&place, "in/copies has mode 0770").await;
    let place = Place::new();
    std::fs::create_dir(place.0.join("elsewhere")).unwrap();
    symlink("../elsewhere", place.0.join("in/copies")).unwrap();
    serves_and_says(&place, "in/copies").await;
    assert_eq!(std::fs::read_dir(place.0.join("elsewhere")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_configured_cache_folder_is_followed() {
    let place = Place::new();
    std::fs::rename(place.0.join("in"), place.0.join("real")).unwrap();
    symlink("real", place.0.join("in")).unwrap();
    let backend = Backend::start(Act::Reply(pages)).await;
    let gateway = Gateway::start(&place.config(&backend)).await;
    eventually("the disk is in use", || async {
        gateway.metric(&format!("{STATE}{{state=\"working\"}}")).await == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_file_is_neither_read_nor_written_through_a_link_or_pipe() {
    for name in ["upstreams.state", "upstreams.state.new"] {
        for is_pipe in [false, true] {
            let place = Place::new();
            let file = place.0.join("in").join(name);
            if is_pipe {
                pipe(&file)
            } else {
                symlink("../victim", &file).unwrap()
            }
            let backend = Backend::start(Act::Answer(200)).await;
            let config = format!(
                "server: {{ state_dir: '{}' }}\n{}",
                place.0.join("in").display(),
                crate::site(&[&backend], "", "")
            );
            let start = Instant::now();
            let gateway = Gateway::start(&config).await;
            assert!(start.elapsed() < SOON, "{name}");
            let failed = "goodgate_state_writes_total{result=\"failed\"}";
            eventually("it is refused", || async { gateway.metric(failed).await >= 1.0 }).await;
            eventually("the log names it", || async { gateway.errors().contains(name) }).await;
            assert!(file.symlink_metadata().is_ok(), "it stays");
            place.assert_untouched(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_is_not_written_through_a_link() {
    let place = Place::new();
    let log = place.0.join("in/access.log");
    symlink("../victim", &log).unwrap();
    let backend = Backend::start(Act::Answer(200)).await;
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\naccess_log: {{ path: {} }}\n{}",
        log.display(),
        crate::site(&[&backend], "", "")
    );
    let (code, said) = failing_start(&config);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("access_log.path") && said.contains("is a symbolic link"), "{said}");
    place.assert_untouched("at the start");

    std::fs::remove_file(&log).unwrap();
    let gateway = Gateway::start_in(folder(), &config).await;
    std::fs::rename(&log, place.0.join("in/access.log.1")).unwrap();
    symlink("../victim", &log).unwrap();
    gateway.signal(Signal::SIGUSR1);
    eventually("it is refused", || async { gateway.errors().contains("is a symbolic link") }).await;
    assert_eq!(gateway.get("/still-logged").await.status, 200);
    let moved = || std::fs::read_to_string(place.0.join("in/access.log.1")).unwrap();
    eventually("the open file is used on", || async { moved().contains("/still-logged") }).await;
    place.assert_untouched("when it is opened again");
}

/// Runs `check`; kills it if it waits.
async fn check(arguments: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.unwrap();
    drop(stdin);
    tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it does not wait").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_in_the_place_of_a_file_that_is_read_is_a_problem_with_its_place() {
    let place = Place::new();
    let authority = Authority::new();
    let (cert, key) = authority.pem_of(valid("localhost"));
    for (name, text) in [("cert", cert), ("key", key), ("ca", authority.pem()), ("page", "<p>".to_owned())] {
        std::fs::write(place.0.join(name), text).unwrap();
    }
    std::fs::write(place.0.join("token"), "0123456789").unwrap();
    std::fs::write(place.0.join("users"), USER).unwrap();
    std::fs::write(place.0.join("good.yaml"), CONFIG).unwrap();
    let good = place.0.join("good.yaml").display().to_string();
    let output = check(&["check", &good], "").await;
    assert!(output.status.success(), "{output:?}");
    for (name, setting) in [
        ("cert", "listeners[0].tls.certificates[0].cert"),
        ("key", "listeners[0].tls.certificates[0].key"),
        ("ca", "upstreams.web.tls.ca"),
        ("page", "routes[0].errors.html"),
        ("token", "admin.token_file"),
        ("users", "routes[0].basic_auth.users_file"),
    ] {
        let file = place.0.join(name);
        let before = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        pipe(&file);
        for command in [&["check", &good][..], &["run", "--config", &good]] {
            let output = check(command, "").await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(
                said.contains(setting) && said.contains("is a named pipe; allowed: a regular file"),
                "{said}"
            );
        }
        // A secret that Kubernetes mounts is a link.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir_all(place.0.join("..data")).unwrap();
        std::fs::write(place.0.join("..data").join(name), before).unwrap();
        symlink(Path::new("..data").join(name), &file).unwrap();
    }
    let output = check(&["check", &good], "").await;
    assert!(output.status.success(), "{output:?}");
}

const USER: &str = "me:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";
const CONFIG: &str = "\
listeners: [{ address: '127.0.0.1:0', tls: { certificates: [{ cert: cert, key: key }] } }]
admin: { address: '127.0.0.1:0', token_file: token }
access_log: { path: off }
upstreams:
  web:
    tls: { ca: ca }
    backends: ['https://localhost:9']
routes:
  - upstream: web
    basic_auth: { users_file: users }
    errors: { html: page }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_a_regular_file_or_what_the_caller_pipes_in() {
    let place = Place::new();
    let named = place.0.join("pipe.yaml");
    pipe(&named);
    for file in [named.to_str().unwrap(), "/dev/zero", "/"] {
        let output = check(&["check", file], "").await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file}: {said}");
        assert!(said.contains("allowed: a regular file"), "{file}: {said}");
    }
    let text = "upstreams: { web: ['127.0.0.1:9'] }\nroutes: [{ upstream: web }]\n";
    for file in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        assert!(check(&["check", file], text).await.status.success(), "{file}");
    }
    let mut file = std::fs::File::create(place.0.join("plain.yaml")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    assert!(check(&["check", place.0.join("plain.yaml").to_str().unwrap()], "").await.status.success());
}
