//! Brokers of Kafka as librdkafka mocks them, in a process of their own: one line with their
//! address, then what standard input says, a line each, until it ends. Each is answered by a line.
//!
//! | line | |
//! |---|---|
//! | `topic NAME PARTITIONS` | makes a topic |
//! | `down`, `up` | all brokers hang up and refuse connections, and take them again |
//! | `forbid`, `allow` | nobody may write to the topics, and everybody again |
//! | `unknown NAME`, `known NAME` | there is no such topic, and there is again |

use std::io::{BufRead as _, Write as _, stdin, stdout};

use anyhow::{Result, bail};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// How many requests are refused while nobody may write.
const REFUSALS: usize = 10_000;

fn main() -> Result<()> {
    let mock = MockCluster::new(1)?;
    answer(&mock.bootstrap_servers())?;
    for line in stdin().lock().lines() {
        obey(&mock, &line?)?;
        answer("done")?;
    }
    Ok(())
}

fn answer(text: &str) -> Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

fn obey(mock: &MockCluster<'_, DefaultProducerContext>, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["topic", name, partitions] => mock.create_topic(name, partitions.parse()?, 1)?,
        ["down"] => mock.broker_down(-1)?,
        ["up"] => mock.broker_up(-1)?,
        ["forbid"] => {
            let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
            mock.request_errors(RDKafkaApiKey::Produce, &vec![error; REFUSALS]);
        }
        ["allow"] => mock.clear_request_errors(RDKafkaApiKey::Produce),
        ["unknown", name] => {
            let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            mock.topic_error(name, error)?;
        }
        ["known", name] => {
            mock.topic_error(name, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)?;
        }
        _ => bail!("{line:?} is no command"),
    }
    Ok(())
}
