use std::fs;

use jiff::tz::TimeZone;

use super::*;
use crate::stats::Measure;

const NOON: u64 = 1_795_176_000_000_000_000;

fn settings(file: PathBuf, buffer_max: usize) -> Settings {
    Settings { file, sync: false, buffer_max }
}

#[test]
fn the_prefix_is_that_of_syslogd() {
    let mut prefix = Prefix::new("vm.example.org");
    prefix.text = PerSecond::fixed(TimeZone::UTC.into());
    let text = |prefix: &mut Prefix, second: u64| {
        String::from_utf8(prefix.at(second * 1_000_000_000).to_vec()).unwrap()
    };
    assert_eq!(text(&mut prefix, 1_795_301_190), "Nov 21 22:46:30 vm ");
    assert_eq!(text(&mut prefix, 1_793_577_600), "Nov  2 00:00:00 vm ");
    prefix.text = PerSecond::fixed(TimeZone::fixed(jiff::tz::offset(5)).into());
    assert_eq!(text(&mut prefix, 1_793_577_601), "Nov  2 05:00:01 vm ");
}

#[test]
fn lines_reach_the_file_at_the_end_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let stats = SinkStats::default();
    let mut sink = LogEmu::open(&settings(path.clone(), 4096), "vm", stats.clone()).unwrap();
    sink.push(NOON, b"one \n");
    sink.push(NOON, b"two \n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    sink.output.flush();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.ends_with(" vm two \n"));
    assert_eq!(stats.get(Measure::Records), 2);
}

#[test]
fn a_full_disk_loses_only_what_does_not_fit_the_buffer_and_counts_it() {
    let stats = SinkStats::default();
    let mut sink = LogEmu::open(&settings("/dev/full".into(), 4096), "vm", stats.clone()).unwrap();
    sink.push(NOON, b"first \n");
    sink.output.flush();
    assert_eq!(stats.get(Measure::Errors), 1);
    let line = [&[b'x'; 1000][..], b"\n"].concat();
    for _ in 0..9 {
        sink.push(NOON, &line);
    }
    let Output::File(file) = &sink.output else { panic!() };
    let kept = file.waiting();
    assert_eq!(kept + stats.get(Measure::Lost), 10);
    assert_eq!(kept, 4, "as many as 4096 bytes hold");
    sink.output.close();
    assert_eq!(stats.get(Measure::Lost), 10);
    assert_eq!(stats.get(Measure::Records), 0);
}

#[test]
fn a_line_that_was_torn_by_a_crash_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "whole\ntorn").unwrap();
    let mut sink = LogEmu::open(&settings(path.clone(), 4096), "vm", SinkStats::default()).unwrap();
    sink.push(NOON, b"next \n");
    sink.output.flush();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("whole\ntorn\n"), "{text}");
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn reopening_keeps_the_old_file_when_the_new_one_cannot_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut sink = LogEmu::open(&settings(path.clone(), 4096), "vm", SinkStats::default()).unwrap();
    let moved = dir.path().join("log.1");
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    sink.output.reopen();
    sink.push(NOON, b"old \n");
    sink.output.flush();
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);
    fs::remove_dir(&path).unwrap();
    sink.output.reopen();
    sink.push(NOON, b"new \n");
    sink.output.flush();
    assert!(fs::read_to_string(&path).unwrap().ends_with("new \n"));
}
