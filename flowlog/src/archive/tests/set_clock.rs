//! Archives while the clock is set: forward, back, and back again.

use super::super::origin::Origin;
use super::*;

/// A clock that goes on with the steady one, until it is set.
struct Clock {
    now: Moment,
    archive: Archive,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: u64 = 60 * MINUTE;
const HOLD: Duration = Duration::from_secs(3);

impl Clock {
    fn new(settings: Settings) -> Self {
        Self { now: Moment { wall: RUN, steady: 7 }, archive: open_at(settings) }
    }

    /// A second passes: the archive hears what it hears each second, and gets a
    /// record each minute.
    fn tick(&mut self) {
        self.now = self.now.after(SECOND);
        let Self { now, archive } = self;
        archive.look(*now).unwrap();
        if now.steady / 1_000_000_000 % 60 == 0 {
            push(archive, &loss(now.wall, 1));
        }
        archive.learn(Some(now.wall - HOLD.as_nanos() as u64));
        if archive.due() <= now.steady {
            archive.close(*now).unwrap();
        }
        archive.tidy(*now);
    }

    fn run(&mut self, minutes: u64) {
        (0..minutes * 60).for_each(|_| self.tick());
    }

    fn set(&mut self, by: i64) {
        self.now.wall = self.now.wall.saturating_add_signed(by);
    }
}

fn open_at(settings: Settings) -> Archive {
    let host = Host { name: "gate".to_owned(), hash: 0xab, origin: Default::default() };
    Archive::open(settings, host, RUN, RUN, Moment { wall: RUN, steady: 7 }).unwrap()
}

fn covers(directory: &TempDir) -> Vec<(u64, u64)> {
    let about = |file: &Read| (file.about(schema::FROM), file.about(schema::TO));
    files(directory).iter().map(about).collect()
}

/// Rows of a file, in the order of names.
fn all_times(directory: &TempDir) -> Vec<u64> {
    files(directory).iter().flat_map(Read::times).collect()
}

#[test]
fn a_clock_that_was_set_back_stops_no_rotation() {
    let directory = TempDir::new().unwrap();
    let interval = Duration::from_mins(15);
    let mut clock = Clock::new(Settings { rotate_interval: interval, ..settings(&directory) });
    clock.run(60);
    assert_eq!(files(&directory).len(), 4);
    clock.set(-(HOUR as i64));
    clock.run(60);
    let names: Vec<_> = files(&directory).into_iter().map(|file| file.name).collect();
    // One that ends where the clock was set, and four of the hour behind it.
    assert!((8..=9).contains(&names.len()), "{names:?}");
    assert!(clock.archive.take_closed().clock_was_set);
    // In the order in which they were closed: the times in them begin anew once.
    let times = all_times(&directory);
    assert_eq!(times.len(), 120 - clock.archive.held() as usize);
    assert_eq!(times.windows(2).filter(|pair| pair[0] > pair[1]).count(), 1, "{names:?}");
    // The hour that was twice is covered twice.
    let covers = covers(&directory);
    let again = covers.windows(2).position(|pair| pair[1].0 < pair[0].0).unwrap();
    assert_eq!(covers.windows(2).filter(|pair| pair[1].0 < pair[0].0).count(), 1);
    assert!(covers[again + 1].0.abs_diff(RUN) <= 2 * SECOND.as_nanos() as u64);
    for (from, to) in covers {
        assert!(from <= to && to <= RUN + HOUR, "{from} to {to}");
    }
}

#[test]
fn a_clock_that_was_set_forward_covers_no_time_between_and_removes_nothing() {
    let directory = TempDir::new().unwrap();
    let keep = Settings { keep_for: Some(Duration::from_hours(24)), ..settings(&directory) };
    let mut clock = Clock::new(keep.clone());
    clock.run(60);
    let days = 48 * HOUR;
    clock.set(days as i64);
    clock.run(20);
    // As HUP does.
    clock.archive.close(clock.now).unwrap();
    let all = covers(&directory);
    let ahead = all.iter().position(|(from, _)| *from > RUN + 2 * HOUR).unwrap();
    assert!(all[ahead - 1].1 <= RUN + HOUR && all[ahead].0 >= RUN + HOUR + days, "{all:?}");
    assert_eq!(clock.archive.take_closed().removed, Removed::default());
    let before = all.len();
    // Another run begins with that clock, and it is put right again.
    let Clock { now, archive } = clock;
    drop(archive);
    let host = Host { name: "gate".to_owned(), hash: 0xab, origin: Default::default() };
    let archive = Archive::open(keep, host, now.wall, now.wall, now).unwrap();
    let mut clock = Clock { now, archive };
    clock.run(20);
    clock.set(-(days as i64));
    clock.run(20);
    let closed = clock.archive.take_closed();
    assert_eq!((closed.removed, closed.crowd), (Removed::default(), 0));
    assert!(files(&directory).len() > before);
}

#[test]
fn after_a_day_with_that_clock_old_files_go_one_by_one() {
    let directory = TempDir::new().unwrap();
    let interval = Duration::from_hours(6);
    let keep = Settings {
        keep_for: Some(Duration::from_hours(48)),
        rotate_interval: interval,
        ..settings(&directory)
    };
    let mut clock = Clock::new(keep);
    clock.run(12 * 60);
    clock.archive.close(clock.now).unwrap();
    let old = files(&directory).len();
    clock.set(30 * 24 * HOUR as i64);
    clock.run(23 * 60);
    assert_eq!(clock.archive.take_closed().removed.files, 0);
    let minutes: Vec<Closed> = (0..6 * 60 + 30)
        .map(|_| {
            clock.run(1);
            clock.archive.take_closed()
        })
        .collect();
    let removed: u64 = minutes.iter().map(|minute| minute.removed.files).sum();
    assert!(removed > 1 && removed <= old as u64 + 1, "{removed} of {old}");
    assert!(minutes.iter().all(|minute| minute.removed.files <= 1 + minute.files), "too fast");
    // It is said once.
    assert_eq!(minutes.iter().filter(|minute| minute.crowd > 0).count(), 1);
}

/// Two files are closed each minute, and many more than are to be kept are there.
#[test]
fn slow_removal_catches_up_with_an_archive_that_makes_many_files() {
    let directory = TempDir::new().unwrap();
    let interval = Duration::from_secs(30);
    let many = Settings { rotate_interval: interval, ..settings(&directory) };
    let mut clock = Clock::new(many.clone());
    clock.run(25);
    let Clock { now, archive } = clock;
    drop(archive);
    let keep = Settings { keep_for: Some(Duration::from_mins(5)), ..many };
    let host = Host { name: "gate".to_owned(), hash: 0xab, origin: Origin::default() };
    let archive = Archive::open(keep, host, now.wall, now.wall, now).unwrap();
    let mut clock = Clock { now, archive };
    let there = || fs::read_dir(directory.path().join("archive")).unwrap().count();
    let begin = there();
    assert!(begin >= 45, "{begin} files");
    let (mut crowd, mut at_once) = (0, 0);
    for _ in 0..50 {
        clock.run(1);
        let Closed { removed, crowd: more, .. } = clock.archive.take_closed();
        (crowd, at_once) = (crowd + u64::from(more > 0), at_once.max(removed.files));
    }
    // Ten are of the time that is kept; one ends before, one is open.
    assert!(there() <= 14, "{} of {begin} files are left", there());
    assert!(crowd == 1 && at_once <= 4, "{crowd} times many, {at_once} at once");
}
