//! Server-side apply as it is documented: each manager owns the fields that it has set; who sets a field of another to another value is
//! in conflict, unless it forces; who leaves out a field of its own removes it, unless another owns it too.
//!
//! Lists whose items all have a name are merged by it, as those of containers, variables and ports are; other lists are one field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::world::{Asked, Refusal, World};

/// One step of the way to a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Named(String),
}

type Way = Vec<Step>;

/// An object with the owners of its fields.
pub struct Stored {
    /// As it is.
    pub value: Value,
    owners: BTreeMap<String, BTreeSet<Way>>,
}

impl Stored {
    /// An object whose fields nobody owns.
    pub fn new(value: Value) -> Self {
        Self {
            value,
            owners: BTreeMap::new(),
        }
    }

    /// Sets a field for a manager, who owns it from then on alone.
    pub fn set_as(&mut self, manager: &str, pointer: &str, to: &str) {
        let mut way = Vec::new();
        let mut here = &self.value;
        for key in pointer.split('/').skip(1) {
            way.push(match here {
                Value::Array(items) => {
                    let item = &items[key.parse::<usize>().unwrap()];
                    here = item;
                    Step::Named(item["name"].as_str().unwrap().to_owned())
                }
                other => {
                    here = &other[key];
                    Step::Key(key.to_owned())
                }
            });
        }
        for fields in self.owners.values_mut() {
            fields.remove(&way);
        }
        put(&mut self.value, &way, to.into());
        self.owners.entry(manager.to_owned()).or_default().insert(way);
    }

    /// Without what the server writes.
    pub fn essence(&self) -> Value {
        let mut value = self.value.clone();
        value.as_object_mut().unwrap().remove("status");
        for key in [
            "resourceVersion",
            "generation",
            "managedFields",
            "creationTimestamp",
            "uid",
        ] {
            value["metadata"].as_object_mut().unwrap().remove(key);
        }
        value
    }
}

impl World {
    pub(super) fn apply(&mut self, asked: &Asked, config: Value, dry: bool) -> Result<Value, Refusal> {
        let key = asked.key();
        let query = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
        let (manager, force) = (query("fieldManager"), query("force") == "true");
        if manager.is_empty() {
            return Err(Refusal::new(
                400,
                "BadRequest",
                "fieldManager is required for apply patch",
            ));
        }
        let before = self.objects.get(&key);
        let mut owners = before.map(|stored| stored.owners.clone()).unwrap_or_default();
        let mut value = before.map_or_else(
            || json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {"name": key.2}}),
            |stored| stored.value.clone(),
        );
        let mut set = BTreeMap::new();
        leaves(&config, &mut Vec::new(), &mut set);
        let mut causes = Vec::new();
        for (other, fields) in owners.iter_mut().filter(|(other, _)| *other != manager) {
            let taken: Vec<Way> = fields
                .iter()
                .filter(|way| set.get(*way).is_some_and(|new| at(&value, way) != Some(new)))
                .cloned()
                .collect();
            for way in taken {
                causes.push(json!({"reason": "FieldManagerConflict", "field": shown(&way),
                    "message": format!("conflict with \"{other}\"")}));
                fields.remove(&way);
            }
        }
        if !causes.is_empty() && !force {
            let message = format!("Apply failed with {} conflict(s)", causes.len());
            let mut refusal = Refusal::new(409, "Conflict", message);
            refusal.causes = causes;
            return Err(refusal);
        }
        let own = owners
            .insert(manager.to_owned(), set.keys().cloned().collect())
            .unwrap_or_default();
        for way in own.iter().filter(|way| !set.contains_key(*way)) {
            if !owners.values().any(|fields| fields.contains(way)) {
                remove(&mut value, way);
            }
        }
        for (way, new) in &set {
            put(&mut value, way, new.clone());
        }
        if !asked.namespace.is_empty() {
            value["metadata"]["namespace"] = asked.namespace.clone().into();
        }
        defaults(&mut value);
        immutable(before.map(|stored| &stored.value), &value)?;
        let entries: Vec<Value> = owners
            .keys()
            .map(|manager| json!({"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}))
            .collect();
        let next = Stored { value, owners };
        let same =
            before.is_some_and(|before| before.essence() == next.essence() && before.owners == next.owners);
        let spec_changed = before.is_none_or(|before| before.value.get("spec") != next.value.get("spec"));
        let Stored { mut value, owners } = next;
        value["metadata"]["managedFields"] = entries.into();
        if !same && spec_changed {
            let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
            value["metadata"]["generation"] = (generation + 1).into();
        }
        if dry {
            return Ok(value);
        }
        if !same {
            self.changes
                .push(format!("apply {}/{}", key.0.to_lowercase(), key.2));
            value["metadata"]["resourceVersion"] = self.next_version().into();
        }
        let answer = value.clone();
        self.objects.insert(key, Stored { value, owners });
        Ok(answer)
    }
}

/// What the server fills in.
fn defaults(value: &mut Value) {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let mut default = |pointer: [&str; 2], to: Value| {
        let field = &mut value[pointer[0]][pointer[1]];
        if field.is_null() {
            *field = to;
        }
    };
    match kind.as_str() {
        "Deployment" | "StatefulSet" => {
            default(["spec", "replicas"], 1.into());
            default(["spec", "revisionHistoryLimit"], 10.into());
        }
        "Service" => {
            default(["spec", "type"], "ClusterIP".into());
            default(["spec", "clusterIP"], "10.0.0.9".into());
        }
        _ => {}
    }
}

fn immutable(before: Option<&Value>, after: &Value) -> Result<(), Refusal> {
    let fields: &[&str] = match after["kind"].as_str() {
        Some("Job") => &["/spec/template"],
        Some("StatefulSet") => &[
            "/spec/serviceName",
            "/spec/volumeClaimTemplates",
            "/spec/selector",
        ],
        Some("Deployment") => &["/spec/selector"],
        _ => &[],
    };
    let changed = fields
        .iter()
        .find(|field| before.is_some_and(|before| before.pointer(field) != after.pointer(field)));
    match changed {
        Some(field) => Err(Refusal::new(
            422,
            "Invalid",
            format!("{field}: Invalid value: field is immutable"),
        )),
        None => Ok(()),
    }
}

fn named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item["name"].is_string())
}

/// All fields of a configuration that have no fields below them.
fn leaves(value: &Value, way: &mut Way, found: &mut BTreeMap<Way, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, item) in map {
                if way.is_empty() && (key == "apiVersion" || key == "kind") {
                    continue;
                }
                way.push(Step::Key(key.clone()));
                leaves(item, way, found);
                way.pop();
            }
        }
        Value::Array(items) if named(items) => {
            for item in items {
                way.push(Step::Named(item["name"].as_str().unwrap().to_owned()));
                leaves(item, way, found);
                way.pop();
            }
        }
        // An explicit null says nothing.
        Value::Null => {}
        other => {
            found.insert(way.clone(), other.clone());
        }
    }
}

fn item<'a>(value: &'a Value, step: &Step) -> Option<&'a Value> {
    match step {
        Step::Key(key) => value.get(key),
        Step::Named(name) => value
            .as_array()?
            .iter()
            .find(|item| item["name"] == name.as_str()),
    }
}

fn at<'a>(value: &'a Value, way: &Way) -> Option<&'a Value> {
    way.iter().try_fold(value, item)
}

fn put(value: &mut Value, way: &[Step], new: Value) {
    let Some((first, rest)) = way.split_first() else {
        *value = new;
        return;
    };
    match first {
        Step::Key(key) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            put(&mut value[key.as_str()], rest, new);
        }
        Step::Named(name) => {
            if !value.is_array() {
                *value = json!([]);
            }
            let items = value.as_array_mut().unwrap();
            let index = items.iter().position(|item| item["name"] == name.as_str());
            let index = index.unwrap_or_else(|| {
                items.push(json!({"name": name}));
                items.len() - 1
            });
            put(&mut items[index], rest, new);
        }
    }
}

/// Removes a field, and what is empty without it.
fn remove(value: &mut Value, way: &[Step]) {
    let Some((first, rest)) = way.split_first() else {
        return;
    };
    match first {
        Step::Key(key) => {
            let Some(map) = value.as_object_mut() else { return };
            let empty = map.get_mut(key).is_none_or(|inner| {
                remove(inner, rest);
                rest.is_empty() || inner.as_object().is_some_and(Map::is_empty) || inner == &json!([])
            });
            if empty {
                map.remove(key);
            }
        }
        Step::Named(name) => {
            let Some(items) = value.as_array_mut() else { return };
            for inner in items.iter_mut().filter(|item| item["name"] == name.as_str()) {
                remove(inner, rest);
            }
            items.retain(|item| item.as_object().is_none_or(|map| !map.is_empty()));
        }
    }
}

fn shown(way: &Way) -> String {
    way.iter()
        .map(|step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Named(name) => format!("[name=\"{name}\"]"),
        })
        .collect()
}
