//! Questions about flows that are there, and about some that are not.

use flowlog::flow::proto;

use super::generate::Sample;

const MINUTE: u64 = 60_000_000_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// What is asked for: `nat`, the address and port that a flow has outside;
    /// `client`, those of who opened it; `server`; `none`, which nobody had.
    pub(crate) kind: &'static str,
    /// As on the command line.
    pub(crate) wanted: String,
    /// The address.
    pub(crate) address: String,
    /// The port.
    pub(crate) port: u16,
    /// The first moment, nanoseconds since the epoch.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
    /// `--from`
    pub(crate) from: String,
    /// `--to`
    pub(crate) to: String,
}

/// So many questions, each about a minute of the day.
pub(crate) fn ask_for(samples: &[Sample], count: usize) -> Vec<Question> {
    let has_port =
        |sample: &&Sample| sample.flow.orig.has_ports() || sample.flow.orig.proto == proto::ICMP;
    let samples: Vec<&Sample> = samples.iter().filter(has_port).collect();
    let mut random = 42_u64;
    let mut next = |end: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % end.max(1)
    };
    let mut questions = Vec::new();
    while questions.len() < count {
        let sample = samples[next(samples.len() as u64) as usize];
        let Sample { flow, start, end } = sample;
        let natted = flow.orig.src != flow.reply.dst;
        let (orig, reply) = (&flow.orig, &flow.reply);
        let kind = match questions.len() % 10 {
            0..6 if natted => "nat",
            0..6 => continue,
            6..8 => "client",
            8 if orig.has_ports() => "server",
            8 => continue,
            _ => "none",
        };
        let (address, port) = match kind {
            // A ping has its identifier with the source.
            "nat" if orig.has_ports() => (reply.dst_ip(), reply.dst_l4),
            "nat" => (reply.dst_ip(), reply.src_l4),
            "client" => (orig.src_ip(), orig.src_l4),
            "server" => (orig.dst_ip(), orig.dst_l4),
            _ => (orig.src_ip(), 1 + next(1000) as u16),
        };
        // A minute of its life, or of the day.
        let within = (*end - *start) / MINUTE + 1;
        let minute = match next(4) {
            0 => end - end % DAY + next(DAY / MINUTE) * MINUTE,
            _ => (start / MINUTE + next(within)) * MINUTE,
        };
        // Before that day there is nothing.
        let minute = minute.max(end - end % DAY);
        questions.push(question(kind, address.to_string(), port, minute));
    }
    questions
}

fn question(kind: &'static str, address: String, port: u16, first: u64) -> Question {
    let wanted = match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    };
    let minute = jiff::Timestamp::from_nanosecond(first.into()).unwrap_or_default();
    let time = minute.strftime("%Y-%m-%dT%H:%MZ").to_string();
    let last = first + MINUTE - 1;
    Question { kind, wanted, address, port, first, last, from: time.clone(), to: time }
}
