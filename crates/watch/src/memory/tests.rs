//! What is written down is read again, as far as it is good and the configuration has it.

use std::fs;

use goodgate_failure::Cause;
use goodgate_telemetry::BuildInfo;
use goodgate_upstream::{BackendSpec, Mode, Order, Probed, State, Timeouts, UpstreamSpec};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR_MS: i64 = 3_600_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("goodgate-memory-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn memory(&self) -> Memory {
        let metrics = Metrics::new(BuildInfo { version: "0", revision: "0" }).unwrap();
        Memory::new(&self.0, Arc::new(metrics))
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(upstreams: &str) -> Vec<Arc<Upstream>> {
    let text = format!("upstreams: {upstreams}\nroutes: [{{ upstream: web }}]\n");
    let config = goodgate_config::parse("/c.yaml", &text, &|_| None).unwrap();
    config.upstreams.into_iter().map(|spec| Upstream::new(spec, None, Instant::now())).collect()
}

const THREE: &str = "{ web: { max_fails: 1, health_check: { tcp: {}, fall: 1, rise: 2 }, \
                     backends: ['10.0.0.1:80', '10.0.0.2:80', 'app.test:80'] } }";

fn state(upstream: &Upstream, address: &str) -> Option<State> {
    let views = upstream.views();
    views.iter().find(|view| view.address.to_string() == address).map(|view| view.state)
}

/// One that is ejected, one that is down, a name with an address, and an order.
fn eventful() -> Vec<Arc<Upstream>> {
    let upstreams = config(THREE);
    let (upstream, now) = (&upstreams[0], Instant::now());
    let wish = goodgate_upstream::Wish { is_retry: false, may_be_trial: true };
    let other = |address: goodgate_upstream::Address| address.to_string() != "10.0.0.1:80";
    upstream.select(other, wish, now).unwrap().failed(Cause::ConnectionRefused, now);
    let second = "10.0.0.2:80".parse().map(goodgate_upstream::Address::Ip).unwrap();
    upstream.probed(second, Probed::Failed(Cause::ConnectionTimeout), now);
    let found = goodgate_upstream::FoundAddress::plain(goodgate_upstream::Address::Ip(
        "10.0.0.3:80".parse().unwrap(),
    ));
    upstream.resolved(&upstream.names()[0], &[found], now);
    upstream.backends()[2].hinted_idle_close(SECOND * 5, now);
    upstream.order("app.test:80", Order::Mode(Mode::Drain), now).unwrap();
    let added = goodgate_config::added_backend("https://10.0.0.9:443", &upstream.spec().added).unwrap();
    upstream.order("", Order::Add(Box::new(added)), now).unwrap();
    upstreams
}

fn recall(folder: &Folder, upstreams: &[Arc<Upstream>]) {
    let recalled = folder.memory().read();
    recalled.orders(upstreams);
    recalled.health(upstreams);
}

#[test]
fn all_of_it_comes_back() {
    let folder = Folder::new("all");
    let before = eventful();
    folder.memory().write(&before);
    let after = config(THREE);
    recall(&folder, &after);
    let states = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.9:443"].map(|at| state(&after[0], at));
    assert_eq!(states, [State::Ejected, State::Down, State::Draining, State::Up].map(Some));
    let backends = after[0].backends();
    assert_eq!(backends[0].view().why, before[0].backends()[0].view().why);
    let due = |upstreams: &[Arc<Upstream>]| upstreams[0].backends()[0].trial_due().unwrap();
    let (old, new) = (due(&before), due(&after));
    assert!(new.max(old) - new.min(old) < SECOND, "the trial is due when it was");
    let of = |address: &str| backends.iter().find(|backend| backend.address.to_string() == address).unwrap();
    assert_eq!(of("10.0.0.3:80").idle_close(Instant::now()).believed, Some(SECOND * 5));
    assert!(of("10.0.0.9:443").tls_name.is_some());
    assert!(!after[0].has_unresolved_names());
    assert_eq!(after[0].in_rotation(), 1);
}

#[test]
fn the_configuration_wins() {
    let folder = Folder::new("wins");
    folder.memory().write(&eventful());
    let plain = config("{ web: { max_fails: 0, backends: ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.9:443'] } }");
    recall(&folder, &plain);
    let states = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:443"].map(|at| state(&plain[0], at));
    assert_eq!(states, [Some(State::Up); 3], "nobody ejects, nobody probes, nobody drains");
    assert_eq!(plain[0].backends().len(), 3);
    assert_eq!(plain[0].orders().added().len(), 0, "the file has it");
    let other = config("{ web: ['10.0.1.1:80'], more: ['10.0.0.1:80'] }");
    recall(&folder, &other);
    assert!(other[1].views().iter().all(|view| view.state == State::Up), "that was another upstream's");
}

#[test]
fn a_damaged_file_is_left_out_of_account_whatever_is_wrong_with_it() {
    let folder = Folder::new("damaged");
    folder.memory().write(&eventful());
    let good = fs::read(folder.file()).unwrap();
    let whole = String::from_utf8(good.clone()).unwrap();
    let body = whole.split_once('\n').unwrap().1.to_owned();
    let mut bad: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|at| good[..at].to_vec()).collect();
    for at in (0..good.len()).step_by(5) {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        bad.push(flipped);
    }
    bad.extend([body.clone().into_bytes(), vec![0; 1000], vec![0xff; 1000], sealed("").into_bytes()]);
    bad.extend(
        [sealed("[]"), sealed("{\"written_ms\":-1}"), sealed(&body.replace('[', "{"))]
            .map(String::into_bytes),
    );
    for bytes in bad {
        fs::write(folder.file(), &bytes).unwrap();
        let upstreams = config(THREE);
        recall(&folder, &upstreams);
        let views = upstreams[0].views();
        assert_eq!(views.len(), 2, "{}", String::from_utf8_lossy(&bytes));
        assert!(views.iter().all(|view| view.state == State::Up), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_cannot_be_is_left_out_and_the_rest_is_taken() {
    let folder = Folder::new("hostile");
    let memory = folder.memory();
    memory.write(&[]);
    let now = Clock::now();
    let text = format!(
        r#"[{{"name":"web","backends":[
        {{"address":"nonsense","state":"down","why":"connection_refused","since_ms":0}},
        {{"address":"10.0.0.1:80","state":"flying","since_ms":0}},
        {{"address":"10.0.0.2:80","state":"ejected","why":"connection_refused","since_ms":{max},"until_ms":{max},"strikes":{strikes}}}],
        "names":[{{"name":"app.test:80","found":[{{"address":"x"}},{{"address":"10.0.0.3:80","weight":60000}}]}},{{"name":"::","found":[]}}],
        "changed":[{{"entry":"10.0.0.1:80","mode":"fly","since_ms":0}}],
        "added":["","10.0.0.1","unix:x"],"removed":["?"]}}]"#,
        max = u64::MAX,
        strikes = u32::MAX
    );
    fs::write(folder.file(), sealed(&now.form(&text))).unwrap();
    let upstreams = config(THREE);
    recall(&folder, &upstreams);
    let states = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|at| state(&upstreams[0], at));
    assert_eq!(states, [State::Up, State::Ejected, State::Up].map(Some));
    assert_eq!(upstreams[0].backends()[2].weight, 1);
    let due = upstreams[0].backends()[1].trial_due().unwrap();
    assert!(due <= Instant::now() + Duration::from_hours(24), "a time beyond reason is bounded");
}

/// A file written with the system clock this far from now, with one backend ejected for this long then.
fn ejected(folder: &Folder, clock_ahead_ms: i64, left: Duration, strikes: u32) -> Option<Instant> {
    let now = Clock::now();
    let written = now.millis(now.now).checked_add_signed(clock_ahead_ms).unwrap();
    let until = written + u64::try_from(left.as_millis()).unwrap();
    let text = format!(
        r#"{{"written_ms":{written},"upstreams":[{{"name":"web","backends":[{{"address":"10.0.0.1:80","state":"ejected",
        "why":"connection_refused","since_ms":{written},"until_ms":{until},"strikes":{strikes}}}]}}]}}"#
    );
    folder.memory().write(&[]);
    fs::write(folder.file(), sealed(&text)).unwrap();
    let upstreams =
        config("{ web: { max_fails: 1, fail_timeout: 2s, backends: ['10.0.0.1:80', '10.0.0.2:80'] } }");
    recall(folder, &upstreams);
    upstreams[0].backends()[0].trial_due()
}

#[test]
fn a_wrong_clock_at_the_writing_ejects_for_no_longer_than_the_policy() {
    let folder = Folder::new("clocks");
    for (ahead, left) in
        [(HOUR_MS, SECOND * 2), (24 * HOUR_MS, SECOND), (0, SECOND * 3600), (HOUR_MS, SECOND * 7200)]
    {
        let due = ejected(&folder, ahead, left, 1).expect("it is ejected");
        let limit = Instant::now() + left.min(SECOND * 2);
        assert!(due <= limit, "{ahead} ms ahead, {left:?} left: {:?} too long", due - limit);
    }
    let due = ejected(&folder, -1000, SECOND * 2, 1).expect("it is ejected");
    assert!(due + Duration::from_millis(900) <= Instant::now() + SECOND * 2, "a second of it has passed");
    assert_eq!(ejected(&folder, -HOUR_MS, SECOND * 2, 1), None, "that was long ago");
    assert!(ejected(&folder, 1 << 60, SECOND, 20).is_some(), "no time is too far ahead to be read");
}

#[test]
fn what_is_old_says_nothing_of_health_and_much_of_orders() {
    let folder = Folder::new("old");
    folder.memory().write(&eventful());
    let text = fs::read_to_string(folder.file()).unwrap();
    let body = text.split_once('\n').unwrap().1;
    let written: u64 = body.split(&[':', ','][..]).nth(1).unwrap().parse().unwrap();
    let aged =
        |hours: u64| body.replacen(&written.to_string(), &(written - hours * 3_600_000).to_string(), 1);
    let states = |hours: u64| {
        fs::write(folder.file(), sealed(&aged(hours))).unwrap();
        let upstreams = config(THREE);
        recall(&folder, &upstreams);
        ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.9:443"].map(|at| state(&upstreams[0], at))
    };
    assert_eq!(states(0), [State::Ejected, State::Draining, State::Up].map(Some));
    assert_eq!(
        states(1),
        [State::Up, State::Draining, State::Up].map(Some),
        "the name is still worth something"
    );
    assert_eq!(states(25), [Some(State::Up), None, Some(State::Up)]);
}

#[test]
fn only_news_are_written_and_a_folder_that_cannot_be_written_changes_nothing_else() {
    let folder = Folder::new("news");
    let memory = folder.memory();
    let upstreams = eventful();
    memory.write(&upstreams);
    let first = fs::metadata(folder.file()).unwrap().modified().unwrap();
    memory.write(&upstreams);
    assert_eq!(fs::metadata(folder.file()).unwrap().modified().unwrap(), first);
    upstreams[0].order("10.0.0.9:443", Order::Remove, Instant::now()).unwrap();
    memory.write(&upstreams);
    assert!(!fs::read_to_string(folder.file()).unwrap().contains("10.0.0.9"));
    fs::remove_dir_all(&folder.0).unwrap();
    fs::write(&folder.0, "no folder").unwrap();
    upstreams[0].order("10.0.0.1:80", Order::Remove, Instant::now()).unwrap();
    memory.write(&upstreams);
    let failed = memory.metrics.text(&[], std::iter::empty(), &[]).unwrap();
    assert!(failed.contains("goodgate_state_writes_total{result=\"failed\"} 1"));
    fs::remove_file(&folder.0).unwrap();
}

#[test]
fn it_stays_small() {
    let folder = Folder::new("small");
    let entry = |port: u16| {
        let text = format!("10.0.0.1:{port}");
        let added = goodgate_upstream::UpstreamSpec::plain("x", timeouts()).added;
        BackendSpec { ..goodgate_config::added_backend(&text, &added).unwrap() }
    };
    let backends = (1..=10_000).map(entry).collect();
    let spec = UpstreamSpec { backends, ..UpstreamSpec::plain("many", timeouts()) };
    let upstream = Upstream::new(spec, None, Instant::now());
    folder.memory().write(&[upstream]);
    assert!(fs::metadata(folder.file()).unwrap().len() < 200, "of who is well nothing is written");
}

fn timeouts() -> Timeouts {
    Timeouts {
        connect: SECOND,
        first_byte: SECOND,
        read: SECOND,
        write: SECOND,
        idle: SECOND,
        tunnel: SECOND,
    }
}
