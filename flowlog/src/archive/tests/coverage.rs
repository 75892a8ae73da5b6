//! What a file says that it does not have, and directories that are gone.

use super::super::coverage::{Gap, Gaps, Reason};
use super::super::origin::Origin;
use super::*;

#[test]
fn what_was_lost_is_named_with_its_time() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    let dropped = Gap::new(Reason::Dropped, (NOON + 20 * MINUTE, NOON + 21 * MINUTE), 7);
    let buffer = Gap::new(Reason::Lost, (NOON + 40 * MINUTE, NOON + 41 * MINUTE), 9);
    push(&mut archive, &items::connection(NOON + MINUTE, 1));
    // The source was read dry a minute before it reported that events are lost.
    push(&mut archive, &loss(NOON + 2 * MINUTE, 3));
    push(&mut archive, &items::connection(NOON + 2 * MINUTE + 5, 1));
    push(&mut archive, &loss(NOON + 2 * MINUTE + 9, 4));
    archive.push(NOON + 3 * MINUTE, b"\xff\xff").unwrap();
    archive.lose(vec![dropped.clone()]);
    close(&mut archive, NOON + 15 * MINUTE, true);
    assert_eq!(archive.losses(), 0);
    // Also where there is nothing else to say.
    archive.lose(vec![buffer.clone()]);
    archive.learn(None);
    archive.close(Moment::at(NOON + 30 * MINUTE)).unwrap();
    let files = files(&directory);
    let gaps = |file: &Read| Gaps::parse(&file.about[schema::GAPS]).unwrap();
    let kernel = Gap::new(Reason::Lost, (NOON + MINUTE, NOON + 2 * MINUTE + 9), 7).at("netlink");
    let refused = Gap::new(Reason::Refused, (NOON + 3 * MINUTE, NOON + 3 * MINUTE), 1);
    let mut named = gaps(&files[0]);
    named.sort();
    assert_eq!(named, [kernel, refused, dropped]);
    assert_eq!(gaps(&files[1]), [buffer]);
    assert_eq!(files[1].about(schema::FROM), files[1].about(schema::TO));
}

#[test]
fn a_file_states_its_sink_and_whether_beginnings_are_recorded() {
    let directory = TempDir::new().unwrap();
    let origin = Origin { sink: "gate netns=self ct1/arc1".to_owned(), beginnings: true };
    let host = Host { name: "gate".to_owned(), hash: 0, origin: origin.clone() };
    let mut archive = Archive::open(settings(&directory), host, RUN, RUN, Moment::at(RUN)).unwrap();
    // What an earlier run had recorded is not known.
    archive.begin(RUN - 60 * MINUTE).unwrap();
    push(&mut archive, &loss(NOON - 30 * MINUTE, 1));
    archive.end_row(1, NOON - 30 * MINUTE);
    close(&mut archive, NOON + MINUTE, true);
    close(&mut archive, NOON + 2 * MINUTE, true);
    let files = files(&directory);
    let stated: Vec<_> = files.iter().map(|file| &*file.about[schema::BEGINNINGS]).collect();
    assert_eq!(stated, ["0", "1"]);
    assert!(files.iter().all(|file| file.about[schema::SINK] == origin.sink));
}

#[test]
fn no_more_is_covered_than_rows_say() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    push(&mut archive, &loss(NOON + 10 * MINUTE, 1));
    archive.end_row(1, NOON + 8 * MINUTE);
    archive.learn(None);
    archive.close(Moment::at(NOON + 15 * MINUTE)).unwrap();
    push(&mut archive, &loss(NOON + 20 * MINUTE, 1));
    archive.end_row(2, NOON + 18 * MINUTE);
    archive.learn(Some(NOON + 25 * MINUTE));
    archive.close(Moment::at(NOON + 30 * MINUTE)).unwrap();
    let files = files(&directory);
    let to: Vec<_> = files.iter().map(|file| file.about(schema::TO)).collect();
    assert_eq!(to, [NOON + 8 * MINUTE, NOON + 25 * MINUTE]);
}

#[test]
fn a_directory_that_was_removed_or_replaced_is_noticed_and_made_again() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("archive");
    let now = Moment::at(NOON + MINUTE);
    for replace in [false, true] {
        let mut archive = open(settings(&directory), RUN);
        archive.look(now).unwrap();
        push(&mut archive, &loss(NOON, 1));
        archive.look(now).unwrap();
        fs::remove_dir_all(&path).unwrap();
        if replace {
            fs::create_dir(&path).unwrap();
        }
        let gone = archive.look(now).unwrap_err();
        assert!(matches!(gone, Error::Gone) && gone.may_pass(), "{gone}");
        drop(archive);
    }
    let mut archive = open(settings(&directory), RUN);
    push(&mut archive, &loss(NOON, 1));
    fs::remove_file(path.join(".flowlog.parquet.tmp")).unwrap();
    assert!(matches!(archive.look(now), Err(Error::Gone)));
    drop(archive);
    let mut archive = open(settings(&directory), RUN);
    push(&mut archive, &loss(NOON, 1));
    close(&mut archive, NOON + MINUTE, true);
    assert_eq!(files(&directory).len(), 1);
}
