//! What would change: pure functions over what a cluster has and what it says it would have.
//!
//! What it would have comes of a dry run in the cluster itself, with its defaults and its admission, so that an object which is
//! applied twice differs in nothing. What the cluster writes (`status`, versions, owners of fields) is no difference.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cluster::MANAGER;
use super::manifest::{Id, Object};

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It is there, and differs.
    Update,
    /// It differs in what cannot be changed: it goes and comes again.
    Replace,
    /// Nothing.
    Keep,
    /// It was applied before, and is no longer wanted.
    Prune,
}

impl Action {
    /// For people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Keep => "unchanged",
            Self::Prune => "prune",
        }
    }
}

/// One object, before and after.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub object: Object,
    /// What is to be done.
    pub action: Action,
    /// As it is.
    pub live: Option<Value>,
    /// As it would be.
    pub next: Option<Value>,
}

impl Change {
    /// Out of what is there and what the dry run says.
    pub fn of(object: Object, live: Option<Value>, next: Value) -> Self {
        let action = match &live {
            None => Action::Create,
            Some(live) if owned(live) && essence(live) == essence(&next) => Action::Keep,
            Some(_) => Action::Update,
        };
        Self {
            object,
            action,
            live,
            next: Some(next),
        }
    }
}

/// What was applied and is no longer wanted. Never a namespace or a volume: with them goes what nobody can bring back.
pub fn superfluous(before: &[Object], wanted: &[Object]) -> Vec<Object> {
    let wanted: BTreeSet<Id> = wanted.iter().map(Object::id).collect();
    before
        .iter()
        .filter(|object| !wanted.contains(&object.id()) && !is_kept(object))
        .cloned()
        .collect()
}

/// Whether an object outlives what is deployed into it.
pub fn is_kept(object: &Object) -> bool {
    matches!(
        object.kind(),
        "Namespace" | "PersistentVolumeClaim" | "CustomResourceDefinition"
    )
}

/// An object without what the cluster writes into it.
pub fn essence(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in [
            "managedFields",
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "generation",
            "selfLink",
        ] {
            metadata.remove(key);
        }
    }
    value
}

/// Whether we have applied it before; without that, what we leave out later would stay for ever.
fn owned(live: &Value) -> bool {
    let fields = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    fields.is_some_and(|fields| {
        fields
            .iter()
            .any(|entry| entry["manager"] == MANAGER && entry["operation"] == "Apply")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(kind: &str, name: &str) -> Object {
        Object::new(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})).unwrap()
    }

    #[test]
    fn what_the_cluster_writes_is_no_difference() {
        let wanted = object("Service", "x");
        let mut live = wanted.value().clone();
        live["metadata"]["managedFields"] = json!([{"manager": "muster", "operation": "Apply"}]);
        live["metadata"]["resourceVersion"] = "7".into();
        live["status"] = json!({"loadBalancer": {}});
        let next = wanted.value().clone();
        let action = |live: Option<&Value>, next: &Value| {
            Change::of(wanted.clone(), live.cloned(), next.clone()).action
        };
        assert_eq!(action(None, &next), Action::Create);
        assert_eq!(action(Some(&live), &next), Action::Keep);
        let mut other = next.clone();
        other["spec"] = json!({"ports": [{"port": 1}]});
        assert_eq!(action(Some(&live), &other), Action::Update);
        // Somebody else has made it just so.
        live["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
        assert_eq!(action(Some(&live), &next), Action::Update);
    }

    proptest! {
        #[test]
        fn what_is_pruned_was_there_and_is_not_wanted(
            before in proptest::collection::btree_set(0u8..20, 0..20),
            wanted in proptest::collection::btree_set(0u8..20, 0..20),
        ) {
            let named = |numbers: &BTreeSet<u8>| -> Vec<Object> {
                numbers.iter().map(|number| object("ConfigMap", &number.to_string())).collect()
            };
            let pruned: BTreeSet<u8> = superfluous(&named(&before), &named(&wanted))
                .iter()
                .map(|object| object.name().parse().unwrap())
                .collect();
            prop_assert_eq!(pruned, before.difference(&wanted).copied().collect::<BTreeSet<u8>>());
        }
    }

    #[test]
    fn what_cannot_be_brought_back_is_kept() {
        let before = ["Namespace", "PersistentVolumeClaim", "Service"].map(|kind| object(kind, "x"));
        let pruned = superfluous(&before, &[]);
        assert_eq!(pruned, [object("Service", "x")]);
    }
}
