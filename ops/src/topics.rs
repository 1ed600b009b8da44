//! `meed topics apply`: Kafka's topics as they are declared.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use boot::settings::KafkaSettings;
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
    metadata::Metadata,
};
use serde::Deserialize;

use crate::kafka::{self, ANSWER_WITHIN};

/// The declaration that comes with this program.
const BUILT_IN: &str = include_str!("../../deploy/kafka/topics.toml");
/// From so many replicas on, one of them may be away while messages are acknowledged by the rest.
const REPLICAS_FOR_SPARE: i32 = 3;

/// The declaration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    topics: Vec<Topic>,
}

/// One topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    name: String,
    partitions: i32,
    replication: i32,
    retention_hours: u64,
    max_message_bytes: u64,
    cleanup_policy: String,
}

impl Topic {
    /// How many replicas a cluster of so many brokers can give.
    fn replicas(&self, brokers: usize) -> i32 {
        self.replication
            .min(i32::try_from(brokers).unwrap_or(i32::MAX))
            .max(1)
    }

    fn config(&self, replicas: i32) -> BTreeMap<&'static str, String> {
        let in_sync = if replicas >= REPLICAS_FOR_SPARE {
            replicas - 1
        } else {
            1
        };
        BTreeMap::from([
            ("cleanup.policy", self.cleanup_policy.clone()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
            ("min.insync.replicas", in_sync.to_string()),
            (
                "retention.ms",
                (self.retention_hours * 3_600_000).to_string(),
            ),
        ])
    }
}

/// A topic as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Existing {
    partitions: i32,
    replicas: i32,
}

/// What to do about the partitions of a topic that exists.
#[derive(Debug, PartialEq, Eq)]
enum Partitions {
    AsDeclared,
    Grow,
    TooFew,
    TooMany,
}

fn partitions(topic: &Topic, existing: Existing, grow: bool) -> Partitions {
    match existing.partitions.cmp(&topic.partitions) {
        std::cmp::Ordering::Equal => Partitions::AsDeclared,
        std::cmp::Ordering::Greater => Partitions::TooMany,
        std::cmp::Ordering::Less if grow => Partitions::Grow,
        std::cmp::Ordering::Less => Partitions::TooFew,
    }
}

fn read(file: Option<&Path>) -> Result<Vec<Topic>> {
    let (name, text) = match file {
        None => ("the built-in declaration".to_owned(), BUILT_IN.to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            let text =
                std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
            (name, text)
        }
    };
    let declaration: Declaration =
        toml::from_str(&text).map_err(|fault| anyhow!("{name}: {fault}"))?;
    Ok(declaration.topics)
}

/// Creates what is missing and sets right what differs.
///
/// # Errors
/// When Kafka cannot be reached or refuses, or something differs that cannot be set right.
pub async fn apply(kafka: &KafkaSettings, file: Option<&Path>, grow: bool) -> Result<()> {
    let topics = read(file)?;
    let metadata = tokio::task::block_in_place(|| kafka::reach(kafka))?;
    let (existing, brokers_count) = (existing(&metadata), metadata.brokers().len());
    let admin: AdminClient<DefaultClientContext> =
        kafka::client(kafka)?.create().context(kafka::UNUSABLE)?;
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER_WITHIN))
        .operation_timeout(Some(ANSWER_WITHIN));

    let (mut created, mut changed, mut wrong) = (0, 0, Vec::new());
    for topic in &topics {
        let replicas = topic.replicas(brokers_count);
        let Some(found) = existing.get(&topic.name).copied() else {
            create(&admin, &options, topic, replicas).await?;
            println!(
                "created {}: {} partitions, {replicas} replicas, kept {} hours",
                topic.name, topic.partitions, topic.retention_hours
            );
            created += 1;
            continue;
        };
        match partitions(topic, found, grow) {
            Partitions::AsDeclared => {}
            Partitions::Grow => {
                let count = usize::try_from(topic.partitions).unwrap_or_default();
                let grown = NewPartitions::new(&topic.name, count);
                said(
                    &topic.name,
                    admin.create_partitions([&grown], &options).await?,
                )?;
                println!(
                    "changed {}: {} partitions, was {}",
                    topic.name, topic.partitions, found.partitions
                );
                changed += 1;
            }
            Partitions::TooFew => wrong.push(format!(
                "{} has {} partitions instead of {} (--grow-partitions adds them)",
                topic.name, found.partitions, topic.partitions
            )),
            Partitions::TooMany => wrong.push(format!(
                "{} has {} partitions instead of {}; Kafka cannot take any away",
                topic.name, found.partitions, topic.partitions
            )),
        }
        if found.replicas < replicas {
            wrong.push(format!(
                "{} has {} replicas instead of {replicas}; reassign its partitions",
                topic.name, found.replicas
            ));
        }
        changed += configure(&admin, &options, topic, found.replicas).await?;
    }
    println!(
        "{} topics are declared: {created} created, {changed} settings changed, {} wrong.",
        topics.len(),
        wrong.len()
    );
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

fn existing(metadata: &Metadata) -> BTreeMap<String, Existing> {
    metadata
        .topics()
        .iter()
        .map(|topic| {
            let replicas = topic.partitions().iter().map(|p| p.replicas().len()).min();
            let existing = Existing {
                partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                replicas: replicas
                    .and_then(|r| i32::try_from(r).ok())
                    .unwrap_or_default(),
            };
            (topic.name().to_owned(), existing)
        })
        .collect()
}

async fn create(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topic: &Topic,
    replicas: i32,
) -> Result<()> {
    let config = topic.config(replicas);
    let new = config.iter().fold(
        NewTopic::new(
            &topic.name,
            topic.partitions,
            TopicReplication::Fixed(replicas),
        ),
        |new, (name, value)| new.set(name, value),
    );
    let results = admin.create_topics([&new], options).await?;
    match results.into_iter().next() {
        // Somebody else created it since.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err(error)) => said(&topic.name, vec![Err(error)]),
        _ => Ok(()),
    }
}

/// Sets right what differs in a topic's configuration: how many settings.
async fn configure(
    admin: &AdminClient<DefaultClientContext>,
    options: &AdminOptions,
    topic: &Topic,
    replicas: i32,
) -> Result<usize> {
    let wanted = topic.config(replicas);
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(&topic.name)], options)
        .await?;
    let Some(described) = described.into_iter().next() else {
        bail!("Kafka does not describe {}", topic.name);
    };
    let described =
        described.map_err(|code| anyhow!("Kafka does not describe {}: {code}", topic.name))?;
    let differing: Vec<(&str, String, &String)> = wanted
        .iter()
        .filter_map(|(name, value)| {
            let found = described.get(name)?.value.clone().unwrap_or_default();
            (found != *value).then_some((*name, found, value))
        })
        .collect();
    if differing.is_empty() {
        return Ok(0);
    }
    // This replaces all settings of the topic, so those that nobody declared come along.
    let mut settings: BTreeMap<&str, &str> = described
        .entries
        .iter()
        .filter(|entry| entry.source == ConfigSource::DynamicTopic)
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
        .collect();
    settings.extend(wanted.iter().map(|(name, value)| (*name, value.as_str())));
    let alter = settings.iter().fold(
        AlterConfig::new(ResourceSpecifier::Topic(&topic.name)),
        |alter, (name, value)| alter.set(name, value),
    );
    for result in admin.alter_configs([&alter], options).await? {
        if let Err((_, code)) = result {
            bail!("Kafka refuses the settings of {}: {code}", topic.name);
        }
    }
    for (name, found, value) in &differing {
        println!("changed {}: {name} is {value}, was {found}", topic.name);
    }
    Ok(differing.len())
}

fn said(topic: &str, results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<()> {
    for result in results {
        if let Err((_, code)) = result {
            bail!("Kafka refuses {topic}: {code}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Topic {
        read(None).expect("the built-in declaration").swap_remove(0)
    }

    #[test]
    fn the_built_in_declaration_has_every_topic_once() {
        let topics = read(None).expect("the built-in declaration");
        let mut names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), topics.len());
        for name in domain::inbound::topic::ALL {
            assert!(names.contains(&name), "{name} is read and not declared");
        }
        let published = [
            domain::message::topic::REWARD_CONFIRMED,
            domain::message::topic::REDEEM_CONFIRMED,
            domain::message::topic::POINTS_ADDED,
            domain::message::topic::TIER_UPGRADED,
            domain::message::topic::DEAD_LETTER,
        ];
        for name in published {
            assert!(
                names.contains(&name),
                "{name} is published and not declared"
            );
        }
    }

    #[test]
    fn a_small_cluster_gets_as_many_replicas_as_it_has_brokers() {
        let topic = topic();
        assert_eq!(topic.replicas(1), 1);
        assert_eq!(topic.replicas(2), 2);
        assert_eq!(topic.replicas(9), 3);
        assert_eq!(topic.config(1)["min.insync.replicas"], "1");
        assert_eq!(topic.config(3)["min.insync.replicas"], "2");
        assert_eq!(
            topic.config(1)["retention.ms"],
            (720_u64 * 3_600_000).to_string()
        );
    }

    #[test]
    fn partitions_are_added_only_when_asked_and_never_taken_away() {
        let topic = topic();
        let with = |partitions| Existing {
            partitions,
            replicas: 1,
        };
        assert_eq!(partitions(&topic, with(6), false), Partitions::AsDeclared);
        assert_eq!(partitions(&topic, with(3), false), Partitions::TooFew);
        assert_eq!(partitions(&topic, with(3), true), Partitions::Grow);
        assert_eq!(partitions(&topic, with(9), true), Partitions::TooMany);
    }
}
