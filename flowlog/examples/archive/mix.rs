//! A realistic mix of flows, the same again for the same seed: what a gateway of
//! an office or of a small provider sees. One record for each flow, at its end,
//! as eBPF tells it with flowlog's defaults.
//!
//! | | |
//! |---|---|
//! | clients | 1,000 in four /24, one in five flows over IPv6; busy ones by Zipf's law (s = 0.8) |
//! | NAT | the clients of two /24 share two public addresses; nine of ten keep their port |
//! | what | 45 % HTTPS and 5 % other TCP, 30 % DNS, 12 % QUIC, 4 % other UDP, 4 % ICMP |
//! | servers | 50,000 by Zipf's law (s = 1.0); two resolvers |
//! | source ports | from 32768 to 60999, all alike |
//! | times | ends as they come by chance (Poisson); durations log-normal: the median of TCP is 2 s, of DNS 20 ms, behind which stands the kernel's timeout |
//! | counters | packets log-normal, median 12 of a TCP connection; bytes of a packet by direction |

use flowlog::event::{Cause, End, Kinds, Witness};
use flowlog::flow::{Counters, Family, Flow, Netns, Status, Tuple, proto};
use flowlog::plugin::{Body, Item};

/// When the first flows end: 2026-11-22T00:00:00Z.
pub(crate) const BEGIN: u64 = 1_795_305_600_000_000_000;

/// Clients, `NATTED` of which are behind NAT.
const CLIENTS: usize = 1000;
const NATTED: u32 = 500;
const SERVERS: usize = 50_000;
const SECOND: f64 = 1e9;

/// The mix.
pub(crate) struct Mix {
    random: Random,
    clients: Zipf,
    servers: Zipf,
    /// Nanoseconds between two ends, on average.
    gap: f64,
    now: u64,
    flow: Flow,
    start: u64,
    how: End,
}

/// What a flow is for.
struct Kind {
    protocol: u8,
    port: u16,
    server: Option<u32>,
    /// Median and spread of its duration, seconds.
    duration: (f64, f64),
    /// Seconds that the kernel keeps it for after that.
    timeout: f64,
    packets: (f64, f64),
    status: Status,
}

impl Mix {
    /// That of a seed: flows end from [`BEGIN`] on, so many a second.
    pub(crate) fn new(seed: u64, per_second: f64) -> Self {
        Self {
            random: Random(seed),
            clients: Zipf::new(CLIENTS, 0.8),
            servers: Zipf::new(SERVERS, 1.0),
            gap: SECOND / per_second,
            now: BEGIN,
            flow: Flow {
                netns: Some(Netns { cookie: Some(1), inum: 4_026_531_840 }),
                ..Flow::default()
            },
            start: BEGIN,
            how: End { cause: Cause::ExpiredGc, portid: None, process: None },
        }
    }

    /// The next flow.
    pub(crate) fn next(&mut self) -> Item<'_> {
        let random = &mut self.random;
        self.now += (-random.unit().ln() * self.gap) as u64 + 1;
        let kind = kind(random);
        let lasted = random.log_normal(kind.duration) * SECOND;
        let waited = (kind.timeout + random.unit() * 0.5) * SECOND;
        self.start = self.now - lasted.min(5e12) as u64 - waited as u64;
        let client = self.clients.pick(random);
        let server = kind.server.unwrap_or_else(|| self.servers.pick(random) + 16);
        self.tuples(client, server, &kind);
        let random = &mut self.random;
        let packets = random.log_normal(kind.packets).clamp(1.0, 1e7);
        let answers = packets * random.log_normal((1.0, 0.3));
        let size = |packets: f64, size: f64| Counters {
            packets: packets as u64,
            bytes: (packets * size) as u64,
        };
        let sizes = (
            random.log_normal((90.0, 0.4)).clamp(40.0, 1500.0),
            random.log_normal((400.0, 0.7)).clamp(40.0, 1500.0),
        );
        self.flow.counters = Some([size(packets, sizes.0), size(answers.max(1.0), sizes.1)]);
        self.flow.status = kind.status;
        self.flow.l4_state =
            (kind.protocol == proto::TCP).then_some(if random.unit() < 0.9 { 7 } else { 8 });
        self.how.cause = if random.unit() < 0.97 { Cause::ExpiredGc } else { Cause::ExpiredLookup };
        self.item()
    }

    fn item(&self) -> Item<'_> {
        let gc = if self.how.cause == Cause::ExpiredGc { Kinds::GC } else { Kinds::empty() };
        let body = Body::Flow {
            flow: &self.flow,
            start: Some(self.start),
            end: Some(self.now),
            how: Some(&self.how),
            counted: true,
            witness: Witness::Single,
        };
        Item { tag: Kinds::DESTROY | gc, at: self.now, body }
    }

    fn tuples(&mut self, client: u32, server: u32, kind: &Kind) {
        let Self { random, flow, .. } = self;
        let family = if random.unit() < 0.2 { Family::V6 } else { Family::V4 };
        let port = 32768 + random.below(28232) as u16;
        let ping = matches!(kind.protocol, proto::ICMP);
        let protocol = if ping && family == Family::V6 { proto::ICMPV6 } else { kind.protocol };
        let asked = if family == Family::V6 { 128 << 8 } else { 8 << 8 };
        let orig = Tuple {
            family,
            proto: protocol,
            src: address(family, true, client),
            dst: address(family, false, server),
            src_l4: port,
            dst_l4: if ping { asked } else { kind.port },
        };
        let mut reply = orig.inverse();
        if ping {
            (reply.src_l4, reply.dst_l4) = (port, if family == Family::V6 { 129 << 8 } else { 0 });
        }
        let natted = family == Family::V4 && client % 1000 < NATTED;
        if natted {
            reply.dst[..4].copy_from_slice(&[203, 0, 113, 7 + (client & 1) as u8]);
            if random.unit() < 0.1 {
                let to = if ping { &mut reply.src_l4 } else { &mut reply.dst_l4 };
                *to = 1024 + random.below(64000) as u16;
            }
        }
        (flow.orig, flow.reply) = (orig, reply);
    }
}

fn kind(random: &mut Random) -> Kind {
    let tcp = |port| Kind {
        protocol: proto::TCP,
        port,
        server: None,
        duration: (2.0, 2.0),
        timeout: 120.0,
        packets: (12.0, 1.2),
        status: Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED,
    };
    let udp = |port, server, duration, packets| Kind {
        protocol: proto::UDP,
        port,
        server,
        duration: (duration, 1.0),
        timeout: 30.0,
        packets,
        status: Status::SEEN_REPLY | Status::CONFIRMED,
    };
    match random.below(100) {
        0..45 => tcp(443),
        45..48 => tcp(80),
        48..50 => tcp([22, 25, 587, 993, 5222][random.below(5) as usize]),
        50..80 => udp(53, Some(random.below(2)), 0.02, (1.0, 0.1)),
        80..92 => udp(443, None, 3.0, (20.0, 1.2)),
        92..96 => udp([123, 3478, 4500, 6881][random.below(4) as usize], None, 0.1, (2.0, 0.6)),
        _ => Kind { protocol: proto::ICMP, ..udp(0, None, 1.0, (2.0, 0.5)) },
    }
}

/// A client's address, or a server's. Those of servers are spread by a
/// multiplication that is one to one.
fn address(family: Family, client: bool, number: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    let spread = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
    match (family, client) {
        (Family::V4, true) => {
            bytes[..4].copy_from_slice(&[10, 1, (number / 250) as u8, (number % 250 + 2) as u8])
        }
        (Family::V4, false) => bytes[..4].copy_from_slice(&spread),
        (Family::V6, true) => {
            bytes[..8].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, (number / 250) as u8]);
            let random = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bytes[8..].copy_from_slice(&random.to_be_bytes());
        }
        (Family::V6, false) => {
            bytes[..4].copy_from_slice(&[0x2a, 0, spread[0], spread[1]]);
            bytes[12..].copy_from_slice(&spread);
        }
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// With this median, and this standard deviation of the logarithm.
    fn log_normal(&mut self, (median, spread): (f64, f64)) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (spread * normal).exp()
    }
}

/// Numbers of which the nth is picked in proportion to 1 / n^s.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(numbers: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=numbers).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(weights.collect())
    }

    fn pick(&self, random: &mut Random) -> u32 {
        let Self(sums) = self;
        let at = random.unit() * sums.last().copied().unwrap_or_default();
        sums.partition_point(|sum| *sum < at).min(sums.len() - 1) as u32
    }
}
