//! What librdkafka says when something fails → what is wrong, and the remedy.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Far;
use crate::plugin::ship::Trouble;

/// What remedies speak of.
#[derive(Clone, Debug)]
pub(super) struct Remedies {
    /// Kafka, and its brokers.
    at: String,
    topic: String,
}

impl Remedies {
    pub(super) fn of(far: &Far) -> Self {
        Self { at: far.to_string(), topic: far.topic.clone() }
    }

    /// No producer could be made.
    pub(super) fn property(&self, error: &KafkaError) -> Trouble {
        Trouble::refused(match error {
            KafkaError::ClientConfig(_, why, name, value) => format!(
                "librdkafka does not take `{name}={value}`: {}; see the list of its properties",
                why.trim()
            ),
            error => format!("librdkafka does not take its properties: {error}"),
        })
    }

    /// Something failed with this code, for the reason that was told before.
    pub(super) fn code(&self, code: Code, reason: Option<String>) -> Trouble {
        let Self { at, topic } = self;
        let reason = reason.filter(|reason| !reason.is_empty());
        let why = reason.clone().unwrap_or_else(|| code.to_string());
        match code {
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                Trouble::refused(format!(
                    "{at} has no topic {topic}: make it (`kafka-topics.sh --create --topic \
                     {topic}`), or name another one with `topic=`"
                ))
            }
            Code::InvalidTopic => Trouble::refused(format!(
                "{at} takes no topic of the name {topic}: name another one with `topic=`"
            )),
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Trouble::refused(format!(
                    "{at} does not let flowlog write to {topic} ({why}): allow its user Write and \
                     Describe on it, and IdempotentWrite"
                ))
            }
            Code::Authentication | Code::SaslAuthenticationFailed => Trouble::refused(format!(
                "{at} does not let flowlog in ({why}): see property=\"sasl.username=…\" and \
                 property=\"sasl.password=…\""
            )),
            Code::MessageSizeTooLarge => Trouble::refused(format!(
                "a record is too large for {topic} of {at}: raise max.message.bytes there"
            )),
            Code::UnsupportedCompressionType => Trouble::refused(format!(
                "{at} does not know this compression: write another one with `compression=`"
            )),
            Code::UnsupportedFeature => Trouble::refused(format!(
                "{at} is too old ({why}): flowlog needs Kafka 0.11 or later"
            )),
            _ if foreign(&why) => Trouble::refused(format!(
                "{at}: what listens there is no Kafka, or wants TLS ({why}); name the brokers' own \
                 port, usually 9092"
            )),
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Trouble::passing(
                format!("{topic} of {at} has too few replicas in sync: see to its brokers"),
            ),
            Code::MessageTimedOut => Trouble::passing(format!(
                "{at} has not acknowledged a record in time ({}); see to its brokers",
                reason.as_deref().unwrap_or("nobody says why")
            )),
            _ => Trouble::passing(format!(
                "{at} cannot be reached: {why}; start its brokers, or name them with `brokers=`"
            )),
        }
    }
}

/// Whoever answers does not speak as Kafka does: what it takes for a length is text,
/// or it hangs up at once.
fn foreign(why: &str) -> bool {
    why.contains("Invalid response size") || why.contains("incorrect security.protocol")
}
