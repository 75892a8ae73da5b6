//! What librdkafka says when something fails → what is wrong, and the remedy.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::{BUILD, Far, HAS_TLS};
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
            KafkaError::ClientConfig(_, why, name, value) => {
                let lacks_tls = why.contains("OpenSSL not available");
                let remedy = if lacks_tls { BUILD } else { "see the list of its properties" };
                let secret = ["password", "secret", "pem"].iter().any(|word| name.contains(word));
                let value = if secret { "…" } else { value };
                format!("librdkafka does not take `{name}={value}`: {}; {remedy}", why.trim())
            }
            error => format!("librdkafka does not take its properties: {error}"),
        })
    }

    /// The clock was set.
    pub(super) fn stale(&self) -> Trouble {
        Trouble::passing(format!(
            "{}: the clock of this host was set, and librdkafka waits by it: a new producer takes \
             over",
            self.at
        ))
    }

    /// Something failed with this code, for the reason that was told before.
    pub(super) fn code(&self, code: Code, reason: Option<String>) -> Trouble {
        let reason = reason.filter(|reason| !reason.is_empty());
        let why = reason.clone().unwrap_or_else(|| code.to_string());
        self.answer(code, &why).or_else(|| self.tls(code, &why)).unwrap_or_else(|| {
            let at = &self.at;
            match code {
                _ if why.contains("Invalid response size") => Trouble::refused(format!(
                    "{at}: what listens there is no Kafka, or wants TLS ({why}); name the brokers' \
                     own port, usually 9092; if they speak TLS there, {SPEAK}"
                )),
                Code::MessageTimedOut => Trouble::passing(format!(
                    "{at} has not acknowledged a record in time ({}); see to its brokers",
                    reason.as_deref().unwrap_or("nobody says why")
                )),
                _ => Trouble::passing(format!(
                    "{at} cannot be reached: {why}; start its brokers, or name them with \
                     `brokers=`{}",
                    hint(&why)
                )),
            }
        })
    }

    /// What the brokers themselves have answered, if they have.
    fn answer(&self, code: Code, why: &str) -> Option<Trouble> {
        let Self { at, topic } = self;
        Some(match code {
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
                "{at} does not let flowlog in ({why}): see `user=`, `pass=` and `mechanism=`"
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
            Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => Trouble::passing(
                format!("{topic} of {at} has too few replicas in sync: see to its brokers"),
            ),
            _ => return None,
        })
    }

    /// What is wrong with TLS, if something is: OpenSSL and librdkafka tell it in words only.
    fn tls(&self, code: Code, why: &str) -> Option<Trouble> {
        let at = &self.at;
        if is_alert(why) {
            return Some(Trouble::refused(format!("{at} speaks TLS: {SPEAK}")));
        }
        let known = REMEDIES.iter().find(|(words, _)| why.contains(words));
        let remedy = match known {
            Some((_, remedy)) => remedy,
            None if code == Code::SSL => "see what its own log says",
            None => return None,
        };
        Some(Trouble::refused(format!("no TLS with {at}: {why}; {remedy}")))
    }
}

/// What else to try where a broker has hung up at once: it may want something else of flowlog. Or it
/// goes down, or a proxy stands before it.
fn hint(why: &str) -> String {
    let after = why.split_once("Disconnected: ").and_then(|(_, rest)| rest.split_once(" (after "));
    let Some((age, state)) = after.and_then(|(_, rest)| rest.split_once("ms in state ")) else {
        return String::new();
    };
    let young = age.parse::<u32>().is_ok_and(|age| age < 2000);
    // It stands before the broker's name.
    let (tls, sasl) = (why.contains("ssl://"), why.contains("sasl_"));
    match state.split([',', ')']).next() {
        Some("SSL_HANDSHAKE") => {
            "; if they do not speak TLS there, name their port for TLS, or set tls=0".to_owned()
        }
        Some("APIVERSION_QUERY") if tls => "; if they want a certificate of flowlog, name one \
                                            with `tls_cert=` and `tls_key=`"
            .to_owned(),
        Some("APIVERSION_QUERY") => format!("; if they speak TLS there, {SPEAK}"),
        Some("UP") if young && !sasl => "; if they want a user, name one with `user=`".to_owned(),
        _ => String::new(),
    }
}

/// How flowlog speaks TLS, too.
const SPEAK: &str = if HAS_TLS { "set tls=1" } else { BUILD };
const UNTRUSTED: &str = "its certificate is of an unknown authority (name its file with `tls_ca=`), for \
                         another name (name the brokers as their certificates do), or has expired";
const PLAIN: &str = "it does not speak TLS there: name its port for TLS, or set tls=0";
const UNKNOWN: &str = "it wants a certificate of flowlog that it trusts: name one with `tls_cert=` \
                       and `tls_key=`";
const OLD: &str = "flowlog speaks TLS 1.2 and 1.3: allow one of them there";

/// Words of OpenSSL or librdkafka, and the remedy.
const REMEDIES: [(&str, &str); 16] = [
    ("certificate verify failed", UNTRUSTED),
    ("wrong version number", PLAIN),
    ("packet length too long", PLAIN),
    ("http request", PLAIN),
    ("alert certificate required", UNKNOWN),
    ("alert handshake failure", UNKNOWN),
    ("alert bad certificate", UNKNOWN),
    ("alert unknown ca", UNKNOWN),
    ("alert certificate unknown", UNKNOWN),
    ("alert certificate expired", UNKNOWN),
    ("alert certificate revoked", UNKNOWN),
    ("alert unsupported certificate", UNKNOWN),
    ("alert access denied", UNKNOWN),
    ("alert decrypt error", UNKNOWN),
    ("alert protocol version", OLD),
    ("unsupported protocol", OLD),
];

/// What was taken for the length of an answer begins as an alert of TLS does: its kind (21) and
/// version (3, and 0 to 4).
fn is_alert(why: &str) -> bool {
    let size = why.split("Invalid response size ").nth(1);
    let digits = size.and_then(|rest| rest.split(' ').next());
    digits.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|size| size >> 16 == 0x1503)
}
