//! Push notifications: the configurations of A2A 1.0, and the older ones that stand for them.
//!
//! A2A 1.0 has one flat object, `{taskId, id, url, token, authentication: {scheme, credentials}}`. Before, the parts of a
//! push notification stood in an object of their own, `pushNotificationConfig`, a task was named `id`, a configuration
//! `pushNotificationConfigId`, and there was a list of `schemes`.

use serde_json::Value;

use super::Error;
use super::fields::{Fields, Walk};

/// Fields of a configuration itself.
const CONFIG: [&str; 4] = ["id", "url", "token", "authentication"];

/// `CreateTaskPushNotificationConfig`.
pub(super) fn create(walk: Walk, given: &Value) -> Result<Value, Error> {
    let is_old = given.get("pushNotificationConfig").is_some();
    if is_old {
        let mut fields = Fields::of(walk, given, "", &["taskId", "pushNotificationConfig"])?;
        fields.require("taskId")?;
        fields.copy_text("taskId")?;
        let nested = fields.require("pushNotificationConfig")?;
        if walk.passes_over(nested) {
            return Ok(fields.done());
        }
        let mut config = Fields::of(walk, nested, "/pushNotificationConfig", &CONFIG)?;
        config_into(walk, &mut config)?;
        if let Value::Object(made) = config.done() {
            made.into_iter()
                .for_each(|(name, value)| fields.put(&name, value));
        }
        return Ok(fields.done());
    }
    let mut allowed = vec!["taskId"];
    allowed.extend(CONFIG);
    let mut fields = Fields::of(walk, given, "", &allowed)?;
    fields.require("taskId")?;
    fields.copy_text("taskId")?;
    config_into(walk, &mut fields)?;
    Ok(fields.done())
}

/// `Get…` and `Delete…`.
pub(super) fn one(walk: Walk, given: &Value) -> Result<Value, Error> {
    if given.get("taskId").is_some() {
        let mut fields = Fields::of(walk, given, "", &["taskId", "id"])?;
        for name in ["taskId", "id"] {
            fields.require(name)?;
            fields.copy_text(name)?;
        }
        return Ok(fields.done());
    }
    let mut fields = Fields::of(walk, given, "", &["id", "pushNotificationConfigId"])?;
    for (old, new) in [("id", "taskId"), ("pushNotificationConfigId", "id")] {
        let value = fields.require(old)?;
        walk.text(value, &fields.at(old))?;
        fields.put(new, value.clone());
    }
    Ok(fields.done())
}

/// `List…`.
pub(super) fn list(walk: Walk, given: &Value) -> Result<Value, Error> {
    let mut fields = Fields::of(walk, given, "", &["taskId", "id", "pageSize", "pageToken"])?;
    let task = match (fields.get("taskId"), fields.get("id")) {
        (Some(task), None) => ("taskId", task),
        (None, Some(task)) => ("id", task),
        (None, None) => return Err(fields.error("the field 'taskId' is missing")),
        (Some(_), Some(_)) => {
            return Err(fields.error("'id' is the older name of 'taskId'; give one of them"));
        }
    };
    walk.text(task.1, &fields.at(task.0))?;
    fields.put("taskId", task.1.clone());
    fields.copy_integer("pageSize")?;
    fields.copy_text("pageToken")?;
    Ok(fields.done())
}

/// The configuration that comes with a message.
pub(super) fn of_message(walk: Walk, fields: &mut Fields<'_>) -> Result<(), Error> {
    const NAMES: [&str; 2] = ["taskPushNotificationConfig", "pushNotificationConfig"];
    let given: Vec<&str> = NAMES
        .into_iter()
        .filter(|name| fields.get(name).is_some())
        .collect();
    let name = match given.as_slice() {
        [] => return Ok(()),
        [name] => *name,
        _ => {
            let message = "'pushNotificationConfig' is the older name of 'taskPushNotificationConfig'; give one of them";
            return Err(fields.error(message));
        }
    };
    let nested = fields.require(name)?;
    let config = if walk.passes_over(nested) {
        nested.clone()
    } else {
        let mut config = Fields::of(walk, nested, &fields.at(name), &CONFIG)?;
        config_into(walk, &mut config)?;
        config.done()
    };
    fields.put("taskPushNotificationConfig", config);
    Ok(())
}

/// The fields of a configuration.
fn config_into(walk: Walk, fields: &mut Fields<'_>) -> Result<(), Error> {
    fields.require("url")?;
    for name in ["id", "url", "token"] {
        fields.copy_text(name)?;
    }
    let Some(given) = fields.get("authentication") else {
        return Ok(());
    };
    if walk.passes_over(given) {
        fields.copy("authentication");
        return Ok(());
    }
    let pointer = fields.at("authentication");
    let mut nested = Fields::of(walk, given, &pointer, &["scheme", "schemes", "credentials"])?;
    match (nested.get("scheme"), nested.get("schemes")) {
        (Some(_), None) => nested.copy_text("scheme")?,
        (None, Some(Value::Array(schemes))) if schemes.len() == 1 => {
            walk.text(&schemes[0], &nested.at("schemes"))?;
            nested.put("scheme", schemes[0].clone());
        }
        (None, Some(schemes)) if walk.passes_over(schemes) => {}
        _ => return Err(nested.error("must have one 'scheme', such as 'Bearer'")),
    }
    nested.copy_text("credentials")?;
    fields.put("authentication", nested.done());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::a2a::{check, translate};
    use crate::document::Method;

    #[test]
    fn old_and_new_forms_say_the_same() {
        let expected = json!({
            "taskId": "t", "id": "c", "url": "https://x.test/", "token": "k",
            "authentication": {"scheme": "Bearer", "credentials": "z"},
        });
        let old = json!({"taskId": "t", "pushNotificationConfig": {
            "id": "c", "url": "https://x.test/", "token": "k", "authentication": {"schemes": ["Bearer"], "credentials": "z"},
        }});
        let create = Method::CreateTaskPushNotificationConfig;
        assert_eq!(translate(create, &old).unwrap(), expected);
        assert_eq!(translate(create, &expected).unwrap(), expected);

        for method in [
            Method::GetTaskPushNotificationConfig,
            Method::DeleteTaskPushNotificationConfig,
        ] {
            let expected = json!({"taskId": "t", "id": "c"});
            assert_eq!(translate(method, &expected).unwrap(), expected);
            let old = json!({"id": "t", "pushNotificationConfigId": "c"});
            assert_eq!(translate(method, &old).unwrap(), expected);
        }
        let list = Method::ListTaskPushNotificationConfigs;
        assert_eq!(
            translate(list, &json!({"id": "t"})).unwrap(),
            json!({"taskId": "t"})
        );

        let message = |name: &str| json!({"message": {"parts": [{"text": "x"}]}, "configuration": {name: {"url": "https://x.test/"}}});
        let made = translate(Method::SendMessage, &message("pushNotificationConfig")).unwrap();
        assert_eq!(
            made,
            translate(Method::SendMessage, &message("taskPushNotificationConfig")).unwrap()
        );
        assert_eq!(
            made["configuration"]["taskPushNotificationConfig"]["url"],
            "https://x.test/"
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (method, given, place) in [
            (
                Method::CreateTaskPushNotificationConfig,
                json!({"taskId": "t"}),
                "",
            ),
            (
                Method::CreateTaskPushNotificationConfig,
                json!({"taskId": "t", "url": 5}),
                "/url",
            ),
            (
                Method::CreateTaskPushNotificationConfig,
                json!({"taskId": "t", "pushNotificationConfig": {"uri": "x"}}),
                "/pushNotificationConfig/uri",
            ),
            (
                Method::CreateTaskPushNotificationConfig,
                json!({"taskId": "t", "url": "x", "authentication": {"schemes": ["a", "b"]}}),
                "/authentication",
            ),
            (Method::GetTaskPushNotificationConfig, json!({"id": "t"}), ""),
            (
                Method::ListTaskPushNotificationConfigs,
                json!({"id": "t", "taskId": "t"}),
                "",
            ),
            (Method::GetExtendedAgentCard, json!({"x": 1}), "/x"),
            (Method::SubscribeToTask, json!({}), ""),
        ] {
            let error = translate(method, &given).unwrap_err();
            assert_eq!(error.pointer, place, "{given}: {error}");
        }
        let opaque = json!({"taskId": "${ .t }", "pushNotificationConfig": "${ .c }"});
        assert!(check(Method::CreateTaskPushNotificationConfig, &opaque).is_ok());
    }
}
