use std::os::unix::net::UnixDatagram;

use super::*;

fn message(text: &str) -> Message {
    Message::new(level::WARNING, text)
}

#[test]
fn a_warning_has_a_level_of_its_own_in_a_file_and_is_one_for_syslog() {
    let dated = String::from_utf8(dated(&message("lost"))).unwrap();
    assert!(dated.ends_with(" <6> lost\n"), "{dated}");
    let datagram = String::from_utf8(datagram(&message("lost"))).unwrap();
    assert!(datagram.starts_with("<28>"), "daemon.warning is 3 * 8 + 4: {datagram}");
    assert!(datagram.ends_with(&format!(" flowlog[{}]: lost", std::process::id())));
    assert_eq!(line(Form::Journal, &message("lost")), b"<4>lost\n");
}

#[test]
fn a_stream_is_the_journal_s_only_if_device_and_inode_are() {
    assert!(names("9:4711", 9, 4711));
    for other in ["", "9", "9:", "9:4712", "8:4711", "9:4711:1", "x:4711"] {
        assert!(!names(other, 9, 4711), "{other}");
    }
}

#[test]
fn without_a_syslog_daemon_messages_go_to_standard_error_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut syslog = Syslog::new(&path);
    // The test's standard error takes it.
    assert_eq!(syslog.write(&message("one"), &mut 0), Outcome::Done);
    assert!(syslog.remark.take().unwrap().contains("standard error"));
    assert_eq!(syslog.write(&message("two"), &mut 0), Outcome::Done);
    assert!(syslog.remark.is_none(), "it is said once");
    let daemon = UnixDatagram::bind(&path).unwrap();
    assert_eq!(syslog.write(&message("three"), &mut 0), Outcome::Done);
    let mut bytes = [0; 200];
    let length = daemon.recv(&mut bytes).unwrap();
    assert!(bytes[..length].ends_with(b"]: three"));
    drop(daemon);
    syslog.stderr = None;
    assert_eq!(syslog.write(&message("four"), &mut 0), Outcome::Away);
}
