//! The book of all merchants, in memory and, when asked for, in an append-only
//! file that a restarted simulator reads again.
//!
//! The file survives the death of the process, not of the machine: lines are
//! handed to the operating system before the answer goes out, and never synced.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    context::{ServiceName, ServiceSettings},
    mode::MerchantSettings,
    redemption::Redemption,
};

/// Why the book file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file cannot be opened, read or cut.
    #[error("the book {} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A complete line in it cannot be understood.
    #[error("line {line} of the book {} cannot be read", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// One line of the file: the newest state of one thing.
#[derive(Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "camelCase")]
enum Record {
    Redemption {
        merchant: String,
        redemption: Redemption,
    },
    Merchant {
        merchant: String,
        settings: MerchantSettings,
    },
    Service {
        service: ServiceName,
        settings: ServiceSettings,
    },
}

#[derive(Default)]
pub(crate) struct Book {
    redemptions: BTreeMap<String, BTreeMap<String, Redemption>>,
    merchants: BTreeMap<String, MerchantSettings>,
    services: BTreeMap<ServiceName, ServiceSettings>,
    file: Option<File>,
}

impl Book {
    /// Opens the file, reads what it has and continues it. A last line that was
    /// cut short by the end of the process is dropped: nothing was answered on it.
    pub(crate) fn open(path: &Path) -> Result<Self, BookError> {
        let unopened = |source| BookError::Open {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(unopened)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unopened)?;
        let complete = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if complete < bytes.len() {
            let length = u64::try_from(complete).expect("a file length fits into 64 bits");
            file.set_len(length).map_err(unopened)?;
        }

        let mut book = Self::default();
        for (index, line) in bytes[..complete].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let record = serde_json::from_slice(line).map_err(|source| BookError::Corrupt {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
            book.apply(record);
        }
        book.file = Some(file);
        Ok(book)
    }

    /// Changes one redemption, which is created when the merchant has never heard
    /// of it. The change counts only once it is in the file.
    pub(crate) fn change<T>(
        &mut self,
        merchant: &str,
        redeem_request_id: &str,
        change: impl FnOnce(&mut Redemption) -> T,
    ) -> io::Result<(T, Redemption)> {
        let mut redemption = self
            .redemption(merchant, redeem_request_id)
            .cloned()
            .unwrap_or_else(|| Redemption::unbooked(redeem_request_id));
        let result = change(&mut redemption);
        self.write(Record::Redemption {
            merchant: merchant.to_owned(),
            redemption: redemption.clone(),
        })?;
        Ok((result, redemption))
    }

    pub(crate) fn redemption(&self, merchant: &str, id: &str) -> Option<&Redemption> {
        self.redemptions.get(merchant)?.get(id)
    }

    /// Every redemption of every merchant, booked or only asked about.
    pub(crate) fn redemptions(&self) -> impl Iterator<Item = (&str, &Redemption)> {
        self.redemptions
            .iter()
            .flat_map(|(merchant, by_id)| by_id.values().map(move |r| (merchant.as_str(), r)))
    }

    /// The redemptions that a merchant has booked.
    pub(crate) fn booked(&self, merchant: &str) -> Vec<Redemption> {
        let known = self.redemptions.get(merchant).into_iter();
        known
            .flat_map(BTreeMap::values)
            .filter(|redemption| redemption.status.is_some())
            .cloned()
            .collect()
    }

    pub(crate) fn merchant(&self, merchant: &str) -> MerchantSettings {
        self.merchants
            .get(merchant)
            .copied()
            .unwrap_or_else(|| MerchantSettings::default_for(merchant))
    }

    pub(crate) fn set_merchant(
        &mut self,
        merchant: String,
        settings: MerchantSettings,
    ) -> io::Result<()> {
        self.write(Record::Merchant { merchant, settings })
    }

    pub(crate) fn service(&self, service: ServiceName) -> ServiceSettings {
        self.services.get(&service).copied().unwrap_or_default()
    }

    pub(crate) fn set_service(
        &mut self,
        service: ServiceName,
        settings: ServiceSettings,
    ) -> io::Result<()> {
        self.write(Record::Service { service, settings })
    }

    /// Forgets every redemption and every setting, in the file too.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        let file = self.file.take();
        if let Some(file) = &file {
            file.set_len(0)?;
        }
        *self = Self {
            file,
            ..Self::default()
        };
        Ok(())
    }

    fn write(&mut self, record: Record) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        self.apply(record);
        Ok(())
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Redemption {
                merchant,
                redemption,
            } => {
                self.redemptions
                    .entry(merchant)
                    .or_default()
                    .insert(redemption.redeem_request_id.clone(), redemption);
            }
            Record::Merchant { merchant, settings } => {
                self.merchants.insert(merchant, settings);
            }
            Record::Service { service, settings } => {
                self.services.insert(service, settings);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::{mode::MerchantMode, redemption::RedemptionStatus};

    fn fresh_path() -> PathBuf {
        std::env::temp_dir().join(format!("book-{}.jsonl", Uuid::new_v4()))
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_the_book_goes_on() -> anyhow::Result<()> {
        let path = fresh_path();
        let void = |r: &mut Redemption| r.void(MerchantMode::Confirm, Utc::now());
        Book::open(&path)?.change("M1", "R-1", void)?;
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(br#"{"record":"redemption","merch"#)?;

        Book::open(&path)?.change("M1", "R-2", void)?;
        let book = Book::open(&path)?;
        let statuses: Vec<_> = book.booked("M1").iter().map(|r| r.status).collect();
        assert_eq!(statuses, [Some(RedemptionStatus::Voided); 2]);
        std::fs::remove_file(&path)?;
        Ok(())
    }

    #[test]
    fn a_broken_line_is_named() -> anyhow::Result<()> {
        let path = fresh_path();
        std::fs::write(&path, "\nnonsense\n")?;
        let error = Book::open(&path).err().context("the book opened")?;
        assert!(
            matches!(error, BookError::Corrupt { line: 2, .. }),
            "{error}"
        );
        std::fs::remove_file(&path)?;
        Ok(())
    }

    #[test]
    fn a_reset_empties_the_file() -> anyhow::Result<()> {
        let path = fresh_path();
        let mut book = Book::open(&path)?;
        let settings = MerchantSettings::of(MerchantMode::Error);
        book.set_merchant("M1".to_owned(), settings)?;
        book.reset()?;
        book.change("M1", "R-1", |r| r.void(MerchantMode::Confirm, Utc::now()))?;
        let book = Book::open(&path)?;
        assert_eq!(book.merchant("M1").mode, MerchantMode::Confirm);
        assert_eq!(book.booked("M1").len(), 1);
        std::fs::remove_file(&path)?;
        Ok(())
    }
}
