//! Files that are removed, renamed and replaced beneath the daemon.

use std::fs;

use super::super::Output;
use super::*;
use crate::stats::SinkStats;

fn open(path: &Path, sync: bool) -> (Output, SinkStats) {
    let stats = SinkStats::default();
    let counted = Counted { noun: "lines", stats: stats.clone() };
    (Output::at(path, sync, 1 << 20, counted).unwrap(), stats)
}

fn line(output: &mut Output, text: &str) {
    output.push(text.as_bytes(), b"\n");
    output.flush();
}

/// Waits until it is time to look at the file again.
fn wait(output: &mut Output) {
    std::thread::sleep(output.retry_in().unwrap());
    output.flush();
}

#[test]
fn a_file_that_was_removed_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flow.log");
    let (mut output, stats) = open(&path, false);
    line(&mut output, "one");
    wait(&mut output);
    line(&mut output, "two");
    fs::remove_file(&path).unwrap();
    line(&mut output, "three");
    assert!(output.retry_in().unwrap() <= LOOK, "an idle daemon looks too");
    wait(&mut output);
    line(&mut output, "four");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\nfour\n");
    assert_eq!(stats.get(Measure::Replaced), 1);
    assert_eq!(stats.get(Measure::Repeated), 1, "three went into the removed file first");
    assert_eq!((stats.get(Measure::Records), stats.get(Measure::Unsure)), (4, 0));
}

#[test]
fn what_was_written_to_a_removed_file_alone_is_unsure_at_exit() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("log");
    fs::create_dir(&place).unwrap();
    let (mut output, stats) = open(&place.join("flow.log"), false);
    line(&mut output, "one");
    fs::remove_dir_all(&place).unwrap();
    line(&mut output, "two");
    output.close();
    assert_eq!((stats.get(Measure::Records), stats.get(Measure::Unsure)), (1, 1));
    assert_eq!(stats.get(Measure::Lost), 0);
}

#[test]
fn a_file_that_was_renamed_has_lost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("flow.log"), directory.path().join("old"));
    let (mut output, stats) = open(&path, false);
    line(&mut output, "one");
    fs::rename(&path, &old).unwrap();
    line(&mut output, "two");
    wait(&mut output);
    line(&mut output, "three");
    assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    assert_eq!((stats.get(Measure::Replaced), stats.get(Measure::Unsure)), (1, 0));
}

#[test]
fn lines_wait_for_a_directory_that_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("log");
    fs::create_dir(&place).unwrap();
    let path = place.join("flow.log");
    let (mut output, stats) = open(&path, true);
    line(&mut output, "one");
    wait(&mut output);
    fs::remove_dir_all(&place).unwrap();
    wait(&mut output);
    assert!(output.is_failing());
    line(&mut output, "two");
    assert_eq!(stats.get(Measure::Records), 1, "two waits");
    fs::create_dir(&place).unwrap();
    let begin = Instant::now();
    while output.is_failing() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        wait(&mut output);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    assert_eq!((stats.get(Measure::Records), stats.get(Measure::Lost)), (2, 0));
}

/// Where no line waits it is looked for once a second, and made anew without one.
#[test]
fn an_idle_file_waits_for_its_directory_without_haste() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("log");
    fs::create_dir(&place).unwrap();
    let path = place.join("flow.log");
    let (mut output, _) = open(&path, false);
    fs::remove_dir_all(&place).unwrap();
    for _ in 0..2 {
        wait(&mut output);
        assert!(output.is_failing());
        let due = output.retry_in().unwrap();
        assert!(due > LOOK / 2, "{due:?}");
    }
    fs::create_dir(&place).unwrap();
    wait(&mut output);
    assert!(!output.is_failing() && path.exists());
}

/// Standard output may be a file: it can be synced, and nobody looks for its name.
#[test]
fn a_file_that_was_inherited_is_synced_and_not_looked_for() {
    let file = tempfile::tempfile().unwrap();
    let file = LogFile::inherited(file).unwrap();
    assert!(file.syncs() && !file.is_regular() && !file.is_removed());
}

#[test]
fn standard_output_and_devices_are_never_replaced() {
    let (mut output, stats) = open(Path::new("/dev/null"), true);
    line(&mut output, "one");
    assert_eq!(output.retry_in(), None);
    assert_eq!((stats.get(Measure::Records), stats.get(Measure::Replaced)), (1, 0));
}
