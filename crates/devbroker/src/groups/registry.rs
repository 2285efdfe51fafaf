//! The groups of the broker by their ids.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::Group;

/// Groups that can be listed, described and deleted.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_id: BTreeMap<String, Group>,
    initial_delay: Duration,
}

impl Groups {
    pub(crate) fn new(initial_delay: Duration) -> Self {
        let by_id = BTreeMap::new();
        Self { by_id, initial_delay }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Group> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Group> {
        self.by_id.get_mut(id)
    }

    /// The group, made if there is none.
    pub(crate) fn get_or_create(&mut self, id: &str) -> &mut Group {
        let delay = self.initial_delay;
        self.by_id.entry(id.to_owned()).or_insert_with(|| Group::new(delay))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.by_id.iter().map(|(id, group)| (id.as_str(), group))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.by_id.values_mut()
    }

    pub(crate) fn delete(&mut self, id: &str) -> Result<(), ResponseError> {
        let group = self.by_id.get(id).ok_or(ResponseError::GroupIdNotFound)?;
        if !group.is_empty() {
            return Err(ResponseError::NonEmptyGroup);
        }
        self.by_id.remove(id);
        Ok(())
    }
}
