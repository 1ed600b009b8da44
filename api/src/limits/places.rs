//! Places for requests under way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Client;

/// So many places, of which no client has more than half: whoever asks for too much sheds nobody
/// else.
pub(crate) struct Places {
    all: u32,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    count: u32,
    by_client: HashMap<Client, u32>,
}

impl Taken {
    fn by(&self, client: &Client) -> u32 {
        self.by_client.get(client).copied().unwrap_or(0)
    }
}

/// A place that is taken until this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    client: Client,
}

impl Places {
    pub(crate) fn new(all: u32) -> Arc<Self> {
        Arc::new(Self {
            all,
            taken: Mutex::default(),
        })
    }

    /// These, if they are so many; otherwise others.
    pub(crate) fn or_so_many(self: &Arc<Self>, all: u32) -> Arc<Self> {
        if self.all == all {
            Arc::clone(self)
        } else {
            Self::new(all)
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn have_one(&self, taken: &Taken, client: &Client) -> bool {
        taken.count < self.all && taken.by(client) < self.all.div_ceil(2)
    }

    /// Whether there is a place for the client now.
    pub(crate) fn have_one_for(&self, client: &Client) -> bool {
        self.have_one(&self.taken(), client)
    }

    /// A place for the client, if there is one.
    pub(crate) fn take(self: &Arc<Self>, client: &Client) -> Option<Place> {
        let mut taken = self.taken();
        if !self.have_one(&taken, client) {
            return None;
        }
        taken.count += 1;
        *taken.by_client.entry(client.clone()).or_default() += 1;
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            client: client.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count -= 1;
        match taken.by_client.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_client.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_has_more_than_half() {
        let places = Places::new(3);
        let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
        let first = places.take(&a).expect("a place");
        let _second = places.take(&a).expect("another one");
        assert!(places.take(&a).is_none(), "more than half");
        assert!(!places.have_one_for(&a) && places.have_one_for(&b));
        let _third = places.take(&b).expect("a place for somebody else");
        assert!(places.take(&c).is_none(), "there are no more");
        assert!(!places.have_one_for(&c));
        drop(first);
        assert!(places.take(&c).is_some());
        assert_eq!(
            places.taken().by_client.len(),
            2,
            "who has none is forgotten"
        );
    }
}
