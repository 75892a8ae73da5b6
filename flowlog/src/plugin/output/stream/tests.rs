//! Readers that are away, slow, and gone.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::Output;
use super::*;
use crate::stats::SinkStats;

struct Fifo {
    directory: tempfile::TempDir,
    stats: SinkStats,
    made: u64,
}

impl Fifo {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mkfifo(&directory.path().join("fifo"), Mode::S_IRWXU).unwrap();
        Self { directory, stats: SinkStats::default(), made: 0 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("fifo")
    }

    fn output(&self, buffer_max: usize) -> Output {
        let counted = Counted { noun: "lines", stats: self.stats.clone() };
        Output::at(&self.path(), false, buffer_max, counted).unwrap()
    }

    /// Lines of 100 bytes.
    fn send(&mut self, output: &mut Output, lines: u64) {
        for _ in 0..lines {
            output
                .push(format!("{:08} ", self.made).as_bytes(), &[&[b'x'; 90][..], b"\n"].concat());
            self.made += 1;
        }
        output.flush();
    }

    fn reader(&self) -> std::fs::File {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.path()).unwrap()
    }

    /// Goes on as the engine does until `lines` were read; returns their numbers.
    fn read(&self, output: &mut Output, reader: &mut std::fs::File, lines: usize) -> Vec<u64> {
        let begin = Instant::now();
        let mut text = Vec::new();
        while text.iter().filter(|b| **b == b'\n').count() < lines {
            assert!(begin.elapsed() < Duration::from_secs(20), "{} bytes read", text.len());
            output.flush();
            let mut some = [0; 16384];
            match reader.read(&mut some) {
                Ok(count) => text.extend_from_slice(&some[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            std::thread::sleep(output.retry_in().unwrap_or_default().min(SOON));
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.len() == 99), "whole lines only");
        text.lines().map(|line| line[..8].parse().unwrap()).collect()
    }

    fn get(&self, measure: Measure) -> u64 {
        self.stats.get(measure)
    }
}

#[test]
fn a_reader_is_awaited_and_gets_what_waits() {
    let mut fifo = Fifo::new();
    let mut output = fifo.output(1 << 20);
    assert!(output.is_failing());
    fifo.send(&mut output, 100);
    assert!(output.retry_in().unwrap() <= RETRY);
    output.reopen();
    let mut reader = fifo.reader();
    assert_eq!(fifo.read(&mut output, &mut reader, 100), (0..100).collect::<Vec<_>>());
    output.flush();
    assert!(!output.is_failing());
    assert_eq!((fifo.get(Measure::Records), fifo.get(Measure::Lost)), (100, 0));
    assert_eq!(output.retry_in(), None);
}

#[test]
fn a_reader_that_stands_still_costs_lines_but_no_time() {
    let mut fifo = Fifo::new();
    let mut reader = fifo.reader();
    let mut output = fifo.output(200_000);
    let begin = Instant::now();
    fifo.send(&mut output, 10_000);
    output.reopen();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let lost = fifo.get(Measure::Lost);
    assert!(lost >= 10_000 - 2000 - 700, "{lost}");
    assert!(!output.is_failing(), "there is a reader");
    let kept = (10_000 - lost) as usize;
    let read = fifo.read(&mut output, &mut reader, kept);
    assert!(read.is_sorted_by(|one, next| one < next));
    output.close();
    assert_eq!(fifo.get(Measure::Records) + fifo.get(Measure::Lost), 10_000);
}

#[test]
fn the_next_reader_goes_on_where_the_first_has_left() {
    let mut fifo = Fifo::new();
    let mut reader = fifo.reader();
    fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut output = fifo.output(1 << 20);
    fifo.send(&mut output, 500);
    let mut read = fifo.read(&mut output, &mut reader, 100);
    drop(reader);
    fifo.send(&mut output, 10);
    let begin = Instant::now();
    while !output.is_failing() {
        assert!(begin.elapsed() < Duration::from_secs(5));
        output.flush();
    }
    let mut reader = fifo.reader();
    let left = 510 - read.len();
    read.extend(fifo.read(&mut output, &mut reader, left));
    assert_eq!(read, (0..510).collect::<Vec<_>>());
    output.close();
    assert_eq!((fifo.get(Measure::Records), fifo.get(Measure::Lost)), (510, 0));
}

#[test]
fn what_nobody_has_read_is_lost_at_the_end() {
    let mut fifo = Fifo::new();
    let reader = fifo.reader();
    let mut output = fifo.output(1 << 20);
    fifo.send(&mut output, 50);
    drop(reader);
    let begin = Instant::now();
    output.close();
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!((fifo.get(Measure::Records), fifo.get(Measure::Lost)), (0, 50));
}

#[test]
fn a_fifo_that_was_made_anew_is_found() {
    let mut fifo = Fifo::new();
    let reader = fifo.reader();
    let mut output = fifo.output(1 << 20);
    fifo.send(&mut output, 5);
    std::fs::remove_file(fifo.path()).unwrap();
    drop(reader);
    mkfifo(&fifo.path(), Mode::S_IRWXU).unwrap();
    output.reopen();
    let mut reader = fifo.reader();
    assert_eq!(fifo.read(&mut output, &mut reader, 5), (0..5).collect::<Vec<_>>());
    assert_eq!((fifo.get(Measure::Replaced), fifo.get(Measure::Repeated)), (1, 5));
}
