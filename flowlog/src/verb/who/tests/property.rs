//! Archives of flows that are made up at random: readers find what one finds that
//! looks at every record, and no damage ends a reader.

use std::net::IpAddr;

use proptest::prelude::*;

use super::times::AHEAD;
use super::*;

/// Addresses that meet often.
const HOSTS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "203.0.113.7", "2001:db8::1", "2001:db8::2"];

pub(super) fn tuple() -> impl Strategy<Value = Flow> {
    let host = || prop_oneof![0..3_usize];
    let port = || 1..4_u16;
    let ends = proptest::array::uniform4((host(), port()));
    (ends, 0..8_u8, prop_oneof![Just(proto::TCP), Just(proto::UDP)], any::<bool>()).prop_map(
        |(ends, how, protocol, v6)| {
            let text = |(host, port): (usize, u16)| match v6 {
                true => format!("[{}]:{port}", HOSTS[3 + host % 2]),
                false => format!("{}:{port}", HOSTS[host]),
            };
            let [src, dst, snat, dnat] = ends.map(text);
            // NAT changes neither end, one, or both.
            let snat = if how & 1 == 0 { &src } else { &snat };
            let dnat = if how & 2 == 0 { &dst } else { &dnat };
            flow(protocol, [&src, &dst, snat, dnat])
        },
    )
}

/// A flow: since when and until when it has its tuple, and the records that there
/// are of it.
#[derive(Clone, Debug)]
struct Life {
    held: Option<(Tuple, u64, u64)>,
    records: Vec<Made>,
}

impl Life {
    /// The kernel has one entry for a tuple at a time.
    fn is_beside(&self, other: &Self) -> bool {
        let Some((one, (tuple, begin, over))) = self.held.zip(other.held) else { return true };
        one.0 != tuple || one.2 < begin || over < one.1
    }
}

fn life(ends_only: bool) -> impl Strategy<Value = Life> {
    let known = prop_oneof![1 => Just(false), 4 => Just(true)];
    // What is told of a beginning may be older than the start.
    let ahead = prop_oneof![Just(0), Just(AHEAD)];
    (tuple(), 0..90_u64, 0..60_u64, known, 0..16_u8, ahead).prop_map(
        move |(flow, start, length, known, told, ahead)| {
            let (begin, over) = (at(start), at(start + length) + 7);
            let made = |tag, at, end| {
                let start = match tag {
                    Kinds::NEW => Some(begin),
                    _ => known.then_some(begin + ahead),
                };
                Made::Flow { tag, at, flow: flow.clone().into(), start, end, how: None }
            };
            let mut records = Vec::new();
            if !ends_only && told & 1 == 0 {
                records.push(made(Kinds::NEW, begin, None));
            }
            if !ends_only && told & 2 == 0 {
                records.push(made(Kinds::UPDATE, (begin + over) / 2, None));
            }
            if ends_only || told & 12 != 0 {
                records.push(made(Kinds::DESTROY, over, Some(over)));
            }
            Life { held: Some((flow.orig, begin, over)), records }
        },
    )
}

/// All records, in order.
fn day() -> impl Strategy<Value = Vec<Made>> {
    any::<bool>().prop_flat_map(|ends_only| {
        let lost = (0..100_u64).prop_map(|second| {
            let lost = Lost::noticed("ebpf", 1, at(second));
            Life { held: None, records: vec![Made::Lost(lost)] }
        });
        let part = prop_oneof![20 => life(ends_only), 1 => lost];
        prop::collection::vec(part, 0..40).prop_map(|parts| {
            let mut lives: Vec<Life> = Vec::new();
            for part in parts {
                if lives.iter().all(|life| life.is_beside(&part)) {
                    lives.push(part);
                }
            }
            let mut made: Vec<Made> = lives.into_iter().flat_map(|life| life.records).collect();
            made.sort_by_key(Made::at);
            made
        })
    })
}

pub(super) fn asked() -> impl Strategy<Value = Question> {
    let port = prop_oneof![1 => Just(None), 4 => (1..4_u16).prop_map(Some)];
    let protocol = prop_oneof![3 => Just(None), 1 => Just(Some(proto::TCP))];
    (0..HOSTS.len(), port, protocol, 0..160_u64, 0..20_u64).prop_map(
        |(host, port, protocol, first, length)| {
            let address: IpAddr = HOSTS[host].parse().unwrap();
            let span = Span { first: at(first), last: at(first + length) };
            Question { wanted: Wanted { address, port }, protocol, span }
        },
    )
}

/// Looks at every record.
fn naive(question: &Question, made: &[Made]) -> Answer {
    let room = Room::new(usize::MAX);
    let mut answers = Answers::new(&room);
    for made in made {
        if let Some(record) = made.record().filter(|made| !question.ends(&made.flow).is_empty()) {
            let _ = answers.record(record);
        }
        let Span { first, last } = question.span;
        if let Made::Lost(Lost { source, events, at, .. }) = *made
            && (first..=last).contains(&at)
        {
            answers.loss(asked::Loss { at, source: source.to_owned(), events });
        }
    }
    Answer::new(question, answers, Vec::new())
}

/// Fewer than usual, as each makes files: a quarter of a second, where nobody hurries it.
const MOST: u32 = 400;

pub(super) fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.div_ceil(8).min(MOST), ..usual }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever is passed over has nothing that belongs to the answer.
    #[test]
    fn archives_answer_as_one_that_looks_at_every_record(
        made in day(),
        questions in prop::collection::vec(asked(), 8),
        group in 1..9_usize,
        page in 1..4_usize,
        files in 1..4_usize,
    ) {
        let place = Place::new();
        let size = Size { group, page };
        let parts = made.chunks(made.len().div_ceil(files).max(1)).enumerate();
        let parquet: Vec<PathBuf> = parts
            .map(|(number, made)| place.parquet(&format!("{number}.parquet"), made, size))
            .collect();
        let sqlite = [place.sqlite("all.db", &made)];
        for question in questions {
            let expected = naive(&question, &made);
            for places in [&parquet[..], &sqlite[..]] {
                let answer = ask_at(places, question);
                prop_assert_eq!(&answer.connections, &expected.connections, "{:?}", places);
                prop_assert_eq!(&answer.losses, &expected.losses);
                prop_assert_eq!(&answer.problems, &Vec::<String>::new());
            }
        }
    }

    /// Wherever a file is damaged it is told, or does not matter; nothing panics.
    #[test]
    fn a_damaged_file_ends_nothing(
        made in day(),
        question in asked(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let place = Place::new();
        let file = place.parquet("a.parquet", &made, SMALL);
        let whole = ask_at(std::slice::from_ref(&file), question);
        let mut bytes = fs::read(&file).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&file, bytes).unwrap();
        let answer = ask_at(&[file], question);
        prop_assert!(!is_cut || answer.problems.len() == 1);
        if answer.problems.is_empty() {
            prop_assert_eq!(answer.connections, whole.connections);
            prop_assert_eq!(answer.losses, whole.losses);
        }
    }
}
