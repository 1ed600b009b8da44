//! Places for requests under way.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
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

/// A place that is taken until this is dropped.
pub(crate) struct Place<'a> {
    places: &'a Places,
    client: &'a Client,
}

impl Places {
    pub(crate) fn new(all: u32) -> Self {
        Self {
            all,
            taken: Mutex::default(),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the client, if there is one.
    pub(crate) fn take<'a>(&'a self, client: &'a Client) -> Option<Place<'a>> {
        let mut taken = self.taken();
        let own = taken.by_client.get(client).copied().unwrap_or(0);
        if taken.count >= self.all || own >= self.all.div_ceil(2) {
            return None;
        }
        taken.count += 1;
        taken.by_client.insert(client.clone(), own + 1);
        drop(taken);
        Some(Place {
            places: self,
            client,
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count -= 1;
        match taken.by_client.get_mut(self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_client.remove(self.client)),
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
        let _third = places.take(&b).expect("a place for somebody else");
        assert!(places.take(&c).is_none(), "there are no more");
        drop(first);
        assert!(places.take(&c).is_some());
        assert_eq!(
            places.taken().by_client.len(),
            2,
            "who has none is forgotten"
        );
    }
}
