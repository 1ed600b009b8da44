//! The way from Kafka to the calls.

use futures::StreamExt;
use rdkafka::{
    ClientConfig, Message,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tracing::{info, warn};

use super::{Acknowledger, AcknowledgerError, GROUP, TOPIC, TierUpgraded};

/// How many messages may be in work at a time. It is generous because a late
/// acknowledgement is in work for minutes.
const IN_WORK: usize = 256;

/// Reads tier upgrades and answers them until `shutdown` completes. A message
/// counts as read when it and all before it are answered; one that is still in
/// work at the end comes again with the next start. Brokers, the topic and the API
/// may all come up later than this.
///
/// # Errors
/// When the consumer cannot be made from its configuration.
pub async fn run(
    brokers: &str,
    acknowledger: &Acknowledger,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AcknowledgerError> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", GROUP)
        .set("client.id", GROUP)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "1000")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("reconnect.backoff.max.ms", "2000")
        // A member that was killed makes room soon, and one that waits for the API
        // is not thrown out.
        .set("session.timeout.ms", "6000")
        .set("max.poll.interval.ms", "86400000")
        .create()?;
    consumer.subscribe(&[TOPIC])?;
    info!(brokers, topic = TOPIC, "waiting for tier upgrades");

    let work = consumer
        .stream()
        .filter_map(async |received| match received {
            Ok(message) => Some(message),
            Err(error) => {
                warn!(%error, "Kafka is out of reach, or the topic does not exist yet");
                None
            }
        })
        .map(async |message| {
            process(acknowledger, &message).await;
            message
        })
        .buffered(IN_WORK)
        .for_each(async |message| {
            if let Err(error) = consumer.store_offset_from_message(&message) {
                // The partition went to another member, which answers it again;
                // the API takes the same answer twice.
                warn!(%error, "an offset could not be kept");
            }
        });
    tokio::select! {
        () = work => {}
        () = shutdown => {}
    }
    match consumer.commit_consumer_state(CommitMode::Sync) {
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => warn!(%error, "the last answers could not be committed and come again"),
    }
    info!("acknowledger has stopped");
    Ok(())
}

async fn process(acknowledger: &Acknowledger, message: &BorrowedMessage<'_>) {
    let payload = message.payload().unwrap_or_default();
    match serde_json::from_slice::<TierUpgraded>(payload) {
        Ok(upgrade) => {
            acknowledger.answer(&upgrade).await;
        }
        Err(error) => warn!(
            %error,
            partition = message.partition(),
            offset = message.offset(),
            "an unreadable message was passed over"
        ),
    }
}
