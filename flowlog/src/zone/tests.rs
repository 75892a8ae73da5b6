use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

/// Seconds in winter, in summer, around a change, before a leap second and far ahead.
const SECONDS: [i64; 6] =
    [0, 1_483_228_799, 1_764_000_000, 1_782_000_000, 1_774_746_000, 4_102_444_800];

fn place(tz: &str) -> Place {
    Place::new(Some(tz.into()), None)
}

fn text((time, offset): (DateTime, i32)) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.abs() / 60;
    format!("{} {sign}{:02}{:02}", time.strftime("%F %T"), minutes / 60, minutes % 60)
}

/// What libc makes of it.
fn date(tz: &str, second: i64) -> String {
    let output = Command::new("date")
        .args([&format!("-d@{second}"), "+%F %T %z"])
        .env("TZ", tz)
        .env_remove("TZDIR")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn tz_means_what_libc_takes_it_for() {
    let zones = [
        "",
        ":",
        "UTC",
        "Asia/Tokyo",
        ":Asia/Tokyo",
        "posix/Asia/Tokyo",
        ":posix/Asia/Tokyo",
        "right/Asia/Tokyo",
        "right/Europe/Berlin",
        "right/UTC",
        "/usr/share/zoneinfo/America/New_York",
        ":/usr/share/zoneinfo/America/New_York",
        "Europe/Berlin",
        "America/St_Johns",
        "JST-9",
        ":JST-9",
        "<-03>3",
        "<+0530>-5:30",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "EST5EDT",
        "NZST-12NZDT,M9.5.0,M4.1.0/3",
        "Nowhere/Zone",
        "nonsense",
        "/nonexistent/zone",
        "/dev/null",
        "/usr/share",
    ];
    for tz in zones {
        let zone = place(tz).read().zone;
        for second in SECONDS {
            assert_eq!(text(zone.civil(second)), date(tz, second), "TZ={tz} at {second}");
        }
    }
}

/// glibc takes the rule of its file `posixrules` then, and forgets the offset behind its end.
#[test]
fn summer_time_without_a_rule_is_that_of_libc() {
    let zone = place("AAA3BBB").read().zone;
    for second in SECONDS.into_iter().filter(|second| *second < 2_000_000_000) {
        assert_eq!(text(zone.civil(second)), date("AAA3BBB", second), "at {second}");
    }
}

#[test]
fn an_unknown_zone_is_reported_with_its_remedy() {
    for tz in ["Nowhere/Zone", "nonsense", "/nonexistent/zone", ":/dev/null", "JST"] {
        let problem = place(tz).read().problem.unwrap_or_default();
        let name = tz.trim_start_matches(':');
        assert!(problem.contains(&format!("TZ={name} is not known, and UTC is used")), "{problem}");
        assert!(problem.contains("name a file below /usr/share/zoneinfo"), "{problem}");
    }
    for tz in ["", ":", "UTC", "JST-9", "<-03>3", "Europe/Berlin", "right/UTC"] {
        assert_eq!(place(tz).read().problem, None, "{tz}");
    }
    let without_files = Place::new(Some("UTC".into()), Some("/nonexistent".into()));
    assert_eq!(without_files.read().problem, None);
}

#[test]
fn tzdir_is_where_files_of_zones_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy("/usr/share/zoneinfo/Asia/Tokyo", dir.path().join("Home")).unwrap();
    let place = Place::new(Some("Home".into()), Some(dir.path().into()));
    assert_eq!(place.read().zone.civil(0).1, 9 * 3600);
}

#[test]
fn a_fifo_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let problem = place(&path.to_string_lossy()).read().problem.unwrap();
    assert!(problem.contains("it is not a regular file"), "{problem}");
}

#[test]
fn a_changed_link_is_another_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("localtime");
    symlink("/usr/share/zoneinfo/Asia/Tokyo", &path).unwrap();
    let place = Place::new(Some(OsString::from(&path)), None);
    let before = place.read();
    assert_eq!(before.identity, place.identity());
    fs::remove_file(&path).unwrap();
    assert_eq!(place.identity(), None);
    // The same file by another way.
    symlink("/usr/share/zoneinfo/posix/../Asia/Tokyo", &path).unwrap();
    assert_ne!(before.identity, place.identity());
    fs::remove_file(&path).unwrap();
    fs::copy("/usr/share/zoneinfo/Europe/Berlin", &path).unwrap();
    let after = place.read();
    assert_ne!(before.identity, after.identity);
    assert_eq!(after.zone.civil(0).1, 3600);
}

/// The one test that changes the zone of this process: others must not read it.
#[test]
fn a_zone_that_changes_is_followed_when_asked_and_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("localtime");
    let link = |zone: &str| {
        let new = dir.path().join("new");
        symlink(format!("/usr/share/zoneinfo/{zone}"), &new).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    let place = Place::new(Some(OsString::from(&path)), None);
    let until = |offset: i32| {
        for _ in 0..1000 {
            if local().civil(0).1 == offset {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it is {:?}", local());
    };
    link("Asia/Tokyo");
    let (ask, asked) = sync_channel(1);
    let before = GENERATION.load(Ordering::Acquire);
    let theirs = place.clone();
    let slow = std::thread::spawn(move || watch(&theirs, &asked, Duration::from_secs(3600)));
    ask.send(()).unwrap();
    until(9 * 3600);
    assert_ne!(GENERATION.load(Ordering::Acquire), before);
    // A moment without the file changes nothing.
    fs::remove_file(&path).unwrap();
    ask.send(()).unwrap();
    link("Etc/GMT-5");
    until(5 * 3600);
    drop(ask);
    slow.join().unwrap();
    let (ask, asked) = sync_channel(1);
    let quick = std::thread::spawn(move || watch(&place, &asked, Duration::from_millis(10)));
    link("Etc/GMT+3");
    until(-3 * 3600);
    fs::remove_file(&path).unwrap();
    until(0);
    assert!(problem().unwrap().contains("is not known, and UTC is used"));
    drop(ask);
    quick.join().unwrap();
}
