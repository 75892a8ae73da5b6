//! Random lives of connections, told by random witnesses: whatever is lost and
//! in whatever order the two streams are read, each event is logged once or
//! counted as lost once, and nothing is found that has not happened.

use proptest::prelude::*;

use super::*;

/// What happens to a connection, and who hears of it.
#[derive(Clone, Debug)]
struct Happening {
    port: u16,
    /// Which of the connections of that port.
    life: u16,
    at: u64,
    kind: CheckKind,
    ebpf: bool,
    notice: bool,
    netlink: bool,
}

/// A word in the ring.
#[derive(Clone, Copy)]
enum Word {
    Event,
    Notice,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let heard = || prop::bool::weighted(0.8);
    let one = (0..6u16, 0..3u8, heard(), heard(), heard());
    prop::collection::vec(one, 1..60).prop_map(|raw| {
        let (mut alive, mut lives) = ([false; 6], [0; 6]);
        let mut happenings = Vec::new();
        for (port, what, ebpf, notice, netlink) in raw {
            let place = usize::from(port);
            let kind = match (alive[place], what) {
                (false, _) => New,
                (true, 0) => Destroy,
                (true, _) => Update,
            };
            alive[place] = kind != Destroy;
            lives[place] += u16::from(kind == New);
            let (life, at) = (lives[place], T + 1_000_000 * happenings.len() as u64);
            happenings.push(Happening { port, life, at, kind, ebpf, notice, netlink });
        }
        happenings
    })
}

/// The ring's words in the kernel's order.
fn ring(happenings: &[Happening]) -> Vec<(Word, &Happening)> {
    let mut words = Vec::new();
    for happening in happenings {
        let event = happening.ebpf.then_some((Word::Event, happening));
        let notice = happening.notice.then_some((Word::Notice, happening));
        let order = if happening.kind == Destroy { [notice, event] } else { [event, notice] };
        words.extend(order.into_iter().flatten());
    }
    words
}

proptest! {
    #[test]
    fn each_event_is_logged_once_or_lost(
        happenings in happenings(),
        turns in prop::collection::vec((0..8usize, 0..5usize, 0..400u64), 0..30),
        max_pending in prop::sample::select(vec![3usize, 1000]),
        behind in any::<bool>(),
    ) {
        let mut scene = Scene::with(max_pending);
        let mut ring = ring(&happenings).into_iter().peekable();
        let mut netlink = happenings.iter().filter(|h| h.netlink).peekable();
        tell_losses(&mut scene, &happenings);
        for (words, messages, millis) in turns {
            for word in ring.by_ref().take(words) {
                hear(&mut scene, word);
            }
            // Messages are made after the words before them are in the ring, but it
            // may be read late.
            let next = ring.peek().map_or(u64::MAX, |(_, happening)| happening.at);
            for _ in 0..messages {
                let told = netlink.next_if(|happening| behind || happening.at < next);
                told.into_iter().for_each(|happening| deliver(&mut scene, happening));
            }
            scene.now += Duration::from_millis(millis);
            scene.release();
        }
        ring.for_each(|word| hear(&mut scene, word));
        netlink.for_each(|happening| deliver(&mut scene, happening));
        scene.at = T + 1_000_000_000;
        scene.wait();
        scene.matcher.flush(&mut scene.log);

        for kind in [New, Update, Destroy] {
            for port in 0..6 {
                let of = |h: &&Happening| h.kind == kind && h.port == port;
                // A message may be taken for one of which there is a notice only.
                let known = |h: &&Happening| h.ebpf || h.netlink || h.notice;
                let known = happenings.iter().filter(of).filter(known).count();
                let logged = scene.log.events.iter().filter(|e| (e.0, e.1) == (kind, port)).count();
                prop_assert!(logged <= known, "{kind:?} {port}: {logged} of {known}");
            }
        }
        let unexplained = scene.sum(Check::OnlyEbpfUnexplained)
            + scene.sum(Check::OnlyNetlinkUnexplained)
            + scene.sum(Check::UnseenUnexplained);
        prop_assert!(unexplained == 0 || behind, "{unexplained} unexplained");
        prop_assert_eq!(scene.sum(Check::Differing), 0);
        prop_assert!(scene.matcher.is_empty());
        if max_pending == 1000 {
            let (logged, made) = (scene.log.events.len() as u64, happenings.len() as u64);
            prop_assert_eq!(logged + scene.log.lost, made);
        }
    }
}

fn hear(scene: &mut Scene, (word, happening): (Word, &Happening)) {
    (scene.at, scene.life) = (happening.at, happening.life);
    match word {
        Word::Event => scene.ebpf(happening.kind, happening.port),
        Word::Notice => scene.notice(happening.kind, happening.port),
    }
}

fn deliver(scene: &mut Scene, happening: &Happening) {
    scene.life = happening.life;
    scene.netlink(happening.kind, happening.port);
}

fn tell_losses(scene: &mut Scene, happenings: &[Happening]) {
    let lost = |kind| happenings.iter().filter(|h| h.kind == kind && !h.ebpf).count() as u64;
    let notices = happenings.iter().filter(|h| !h.notice).count() as u64;
    let losses = Losses {
        new: lost(New),
        update: lost(Update),
        destroy: lost(Destroy),
        notices,
        ..Losses::default()
    };
    scene.matcher.ebpf_lost(losses, T);
    scene.matcher.netlink_lost(happenings.iter().filter(|h| !h.netlink).count() as u64);
}
