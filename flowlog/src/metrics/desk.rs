//! Answers within a bound, whatever the engine does: it is asked once for all who ask at the same
//! time, and what it does not answer in time is answered without it.

use std::sync::{Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::family::Family;
use super::page::Page;
use super::{Answer, Question, Topic, counters, process};
use crate::stats::Readings;

/// How long the engine may take.
const ENGINE_TIMEOUT: Duration = Duration::from_millis(500);
/// How old an answer of the engine may be: it is not asked more often, however many scrape.
const FRESH: Duration = Duration::from_millis(10);
/// How old an answer without the engine may be, so that those who wait are not kept waiting
/// one after the other.
const FRESH_WITHOUT: Duration = Duration::from_millis(250);

/// Where connections ask.
#[derive(Debug)]
pub(super) struct Desk {
    engine: mpsc::Sender<Question>,
    readings: Readings,
    /// The last answer to each question, and until when it is good.
    latest: [Mutex<Option<(Answer, Instant)>>; 2],
    /// Since when the engine has not answered.
    unanswered: Lock<Option<Instant>>,
}

impl Desk {
    pub(super) fn new(engine: mpsc::Sender<Question>, readings: Readings) -> Self {
        Self {
            engine,
            readings,
            latest: [const { Mutex::const_new(None) }; 2],
            unanswered: Lock::new(None),
        }
    }

    /// An answer.
    pub(super) async fn answer(&self, topic: Topic) -> Answer {
        // Others wait here for the same answer.
        let mut latest = self.latest[topic as usize].lock().await;
        if let Some((answer, until)) = &*latest
            && Instant::now() < *until
        {
            return answer.clone();
        }
        let (answer, fresh) = self.ask(topic).await;
        *latest = Some((answer.clone(), Instant::now() + fresh));
        answer
    }

    /// Asks the engine; returns an answer, and how long it is good for.
    async fn ask(&self, topic: Topic) -> (Answer, Duration) {
        let begin = Instant::now();
        let since = *self.unanswered().get_or_insert(begin);
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.engine.send(Question { topic, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(ENGINE_TIMEOUT, asked).await {
            Ok(Some(answer)) => {
                *self.unanswered() = None;
                (with_process(answer), FRESH)
            }
            Ok(None) => (self.without_engine(topic, "flowlog is shutting down"), FRESH),
            Err(_) => {
                let waited = since.elapsed().as_millis();
                let why = format!("the engine has not answered for {waited} ms");
                (self.without_engine(topic, &why), FRESH_WITHOUT)
            }
        }
    }

    fn unanswered(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said without the engine.
    fn without_engine(&self, topic: Topic, why: &str) -> Answer {
        match topic {
            Topic::Health => Answer::Unfit(format!("{why}\n")),
            Topic::Metrics => {
                let mut page = Page::default();
                page.add(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
                page.add(Family::Health, &[], 0);
                counters::add(&self.readings, &mut page);
                process::add(&mut page);
                Answer::Page(page.finish())
            }
        }
    }
}

/// The page of the engine with the metrics of the process behind it.
fn with_process(answer: Answer) -> Answer {
    match answer {
        Answer::Page(text) => {
            let mut page = Page::default();
            process::add(&mut page);
            Answer::Page(text + &page.finish())
        }
        health => health,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Instance, Measure, SinkPlugin, Stats};

    fn text(answer: Answer) -> String {
        match answer {
            Answer::Page(text) | Answer::Fit(text) | Answer::Unfit(text) => text,
        }
    }

    /// A desk whose engine counts to a sink that has dropped 7 records.
    fn desk() -> (Desk, mpsc::Receiver<Question>) {
        let stats = Stats::default();
        let plugin = SinkPlugin::Nats;
        let instance =
            Instance { source: "ct1".to_owned(), stack: 1, sink: "nats1".to_owned(), plugin };
        stats.sink(instance).add(Measure::Dropped, 7);
        let (asking, questions) = mpsc::channel(2);
        (Desk::new(asking, stats.readings()), questions)
    }

    /// Blocked means: it takes no question at all, and there is no room for further ones.
    #[tokio::test]
    async fn a_blocked_engine_is_told_of_in_time_with_what_is_known() {
        let (desk, _questions) = desk();
        for _ in 0..3 {
            let begin = Instant::now();
            let health = desk.answer(Topic::Health).await;
            let page = text(desk.answer(Topic::Metrics).await);
            assert!(begin.elapsed() < 2 * Duration::from_secs(1), "{:?}", begin.elapsed());
            let Answer::Unfit(why) = health else { panic!("{health:?}") };
            let waited = why.strip_prefix("the engine has not answered for ").unwrap();
            assert!(waited.ends_with(" ms\n"), "{why}");
            assert!(page.contains("\nflowlog_health 0\n"), "{page}");
            assert!(page.contains("\nprocess_open_fds "), "{page}");
            let dropped = "flowlog_sink_dropped_records_total{source=\"ct1\",stack=\"1\",\
                           sink=\"nats1\",plugin=\"nats\"} 7\n";
            assert!(page.contains(dropped), "{page}");
            tokio::time::sleep(FRESH_WITHOUT).await;
        }
        let since = desk.unanswered().unwrap();
        assert!(since.elapsed() > 2 * ENGINE_TIMEOUT, "since the first question");
    }

    #[tokio::test]
    async fn all_who_ask_at_the_same_time_get_one_answer() {
        let (desk, mut questions) = desk();
        let engine = tokio::spawn(async move {
            let mut asked = 0;
            while let Some(Question { answer, .. }) = questions.recv().await {
                asked += 1;
                let _ = answer.send(Answer::Page(format!("asked {asked}\n")));
            }
            asked
        });
        let all = futures_util::future::join_all((0..50).map(|_| desk.answer(Topic::Metrics)));
        for answer in all.await {
            let answer = text(answer);
            assert!(answer.starts_with("asked 1\n"), "{answer}");
            assert!(answer.contains("\nprocess_open_fds "), "{answer}");
        }
        assert_eq!(*desk.unanswered(), None);
        drop(desk);
        assert_eq!(engine.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn an_engine_that_ends_says_so() {
        let (desk, questions) = desk();
        drop(questions);
        let health = desk.answer(Topic::Health).await;
        assert_eq!(health, Answer::Unfit("flowlog is shutting down\n".to_owned()));
    }
}
