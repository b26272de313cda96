//! Whether a workload is what was asked for: pure functions over the workload and its pods, by the rules of `kubectl rollout status`.
//!
//! A workload that makes no progress says so where it can (a Deployment, by its deadline; a Job, a Rollout); for the others only time
//! tells. What a pod complains of is shown while it is waited for, and decides nothing: a service that waits for another is in
//! `CrashLoopBackOff` too, and gets well.

use serde_json::Value;

/// How far a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is what was asked for.
    Done,
    /// Not yet, and why.
    Going(String),
    /// It will not be, and why.
    Failed(String),
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A condition of an object by its type.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// How far a workload is. `template` is the Deployment that a Rollout takes its pods from.
pub fn progress(workload: &Value, template: Option<&Value>) -> Progress {
    match text(workload, "/kind") {
        "Deployment" => deployment(workload),
        "StatefulSet" => stateful_set(workload),
        "DaemonSet" => daemon_set(workload),
        "Job" => job(workload),
        "Rollout" => rollout(workload, template),
        _ => Progress::Done,
    }
}

fn unseen(workload: &Value) -> Option<Progress> {
    (number(workload, "/status/observedGeneration") < number(workload, "/metadata/generation"))
        .then(|| Progress::Going("the change has not been taken up yet".to_owned()))
}

fn wanted(workload: &Value) -> i64 {
    workload
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1)
}

fn deployment(workload: &Value) -> Progress {
    if let Some(unseen) = unseen(workload) {
        return unseen;
    }
    if let Some(condition) = condition(workload, "Progressing")
        && condition["reason"] == "ProgressDeadlineExceeded"
    {
        return Progress::Failed(format!(
            "it has exceeded its progress deadline: {}",
            text(condition, "/message")
        ));
    }
    let (wanted, updated) = (wanted(workload), number(workload, "/status/updatedReplicas"));
    let (all, available) = (
        number(workload, "/status/replicas"),
        number(workload, "/status/availableReplicas"),
    );
    if updated < wanted {
        return Progress::Going(format!("{updated} of {wanted} pods are new"));
    }
    if all > updated {
        return Progress::Going(format!("{} old pods have yet to end", all - updated));
    }
    if available < updated {
        return Progress::Going(format!("{available} of {updated} pods are ready"));
    }
    Progress::Done
}

fn stateful_set(workload: &Value) -> Progress {
    if let Some(unseen) = unseen(workload) {
        return unseen;
    }
    let wanted = wanted(workload);
    let (ready, updated) = (
        number(workload, "/status/readyReplicas"),
        number(workload, "/status/updatedReplicas"),
    );
    let (current, update) = (
        text(workload, "/status/currentRevision"),
        text(workload, "/status/updateRevision"),
    );
    if ready < wanted {
        return Progress::Going(format!("{ready} of {wanted} pods are ready"));
    }
    if text(workload, "/spec/updateStrategy/type") != "OnDelete" && current != update && updated < wanted {
        return Progress::Going(format!("{updated} of {wanted} pods are new"));
    }
    Progress::Done
}

fn daemon_set(workload: &Value) -> Progress {
    if let Some(unseen) = unseen(workload) {
        return unseen;
    }
    let wanted = number(workload, "/status/desiredNumberScheduled");
    let (updated, available) = (
        number(workload, "/status/updatedNumberScheduled"),
        number(workload, "/status/numberAvailable"),
    );
    if updated < wanted || available < wanted {
        return Progress::Going(format!("{} of {wanted} pods are ready", updated.min(available)));
    }
    Progress::Done
}

fn job(workload: &Value) -> Progress {
    if holds(workload, "Complete") {
        return Progress::Done;
    }
    match condition(workload, "Failed").filter(|_| holds(workload, "Failed")) {
        Some(failed) => Progress::Failed(format!(
            "it has failed: {} {}",
            text(failed, "/reason"),
            text(failed, "/message")
        )),
        None => Progress::Going("it has not ended yet".to_owned()),
    }
}

/// Argo Rollouts counts generations as text.
fn rollout(workload: &Value, template: Option<&Value>) -> Progress {
    let seen = |status: &str, generation: i64| {
        let seen = text(workload, status).parse::<i64>().unwrap_or(0);
        seen >= generation
    };
    let own = seen(
        "/status/observedGeneration",
        number(workload, "/metadata/generation"),
    );
    let of_template = template.is_none_or(|template| {
        seen(
            "/status/workloadObservedGeneration",
            number(template, "/metadata/generation"),
        )
    });
    if !own || !of_template {
        return Progress::Going("the change has not been taken up yet".to_owned());
    }
    let message = text(workload, "/status/message");
    match text(workload, "/status/phase") {
        "Healthy" => Progress::Done,
        "Degraded" => Progress::Failed(format!("its canary was not good: {message}")),
        phase => {
            let step = number(workload, "/status/currentStepIndex");
            let steps = workload
                .pointer("/spec/strategy/canary/steps")
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            Progress::Going(
                format!("{phase}, step {step} of {steps} {message}")
                    .trim()
                    .to_owned(),
            )
        }
    }
}

/// What a pod that is not ready complains of: which pod, and why.
pub fn complaint(pods: &[Value]) -> Option<String> {
    pods.iter()
        .filter(|pod| !holds(pod, "Ready"))
        .filter_map(|pod| Some(format!("pod {}: {}", text(pod, "/metadata/name"), reason(pod)?)))
        .next()
}

fn reason(pod: &Value) -> Option<String> {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers = statuses
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten();
    for container in containers {
        let waiting = text(container, "/state/waiting/reason");
        if waiting.is_empty() || waiting == "PodInitializing" || waiting == "ContainerCreating" {
            continue;
        }
        let mut said = format!("container {} is in {waiting}", text(container, "/name"));
        let message = text(container, "/state/waiting/message");
        if !message.is_empty() {
            said.push_str(&format!(": {message}"));
        }
        if let Some(ended) = container.pointer("/lastState/terminated") {
            said.push_str(&format!("; it ended with {}", number(ended, "/exitCode")));
            let last = text(ended, "/message").trim();
            if !last.is_empty() {
                said.push_str(&format!(": {last}"));
            }
        }
        return Some(said);
    }
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition["status"] == "False");
    if let Some(scheduled) = scheduled {
        return Some(format!("no node takes it: {}", text(scheduled, "/message")));
    }
    let ready = condition(pod, "Ready")?;
    let message = text(ready, "/message");
    (!message.is_empty()).then(|| message.to_owned())
}

/// Pods of a StatefulSet that keep it from going on: broken, and of another template than the present one. It waits for them to become
/// ready, which they do not.
pub fn stuck<'a>(set: &Value, pods: &'a [Value]) -> Vec<&'a str> {
    const BROKEN: [&str; 8] = [
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "ErrImageNeverPull",
    ];
    let update = text(set, "/status/updateRevision");
    if unseen(set).is_some() || update.is_empty() {
        return Vec::new();
    }
    let is_broken = |pod: &Value| {
        ["/status/initContainerStatuses", "/status/containerStatuses"]
            .iter()
            .filter_map(|pointer| pod.pointer(pointer)?.as_array())
            .flatten()
            .any(|container| BROKEN.contains(&text(container, "/state/waiting/reason")))
    };
    pods.iter()
        .filter(|pod| text(pod, "/metadata/labels/controller-revision-hash") != update)
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none() && is_broken(pod))
        .map(|pod| text(pod, "/metadata/name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(status: Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status})
    }

    #[test]
    fn a_deployment_is_done_when_all_pods_are_new_and_ready_and_no_old_one_is_left() {
        let going = [
            (json!({"observedGeneration": 1, "updatedReplicas": 3}), "taken up"),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 4}),
                "1 of 3 pods are new",
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}),
                "1 old pods",
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
                "2 of 3 pods are ready",
            ),
        ];
        for (status, expected) in going {
            let Progress::Going(why) = progress(&deployment(status.clone()), None) else {
                panic!("{status}");
            };
            assert!(why.contains(expected), "{why}");
        }
        let done =
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3});
        assert_eq!(progress(&deployment(done), None), Progress::Done);
        let late = json!({"observedGeneration": 2, "conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}]});
        assert!(
            matches!(progress(&deployment(late), None), Progress::Failed(why) if why.contains("timed out"))
        );
    }

    #[test]
    fn a_canary_is_done_when_it_has_seen_the_template_and_is_healthy() {
        let rollout = |seen: &str, phase: &str| {
            json!({"kind": "Rollout", "metadata": {"generation": 1}, "spec": {"strategy": {"canary": {"steps": [{}, {}]}}},
                "status": {"observedGeneration": "1", "workloadObservedGeneration": seen, "phase": phase,
                    "message": "m", "currentStepIndex": 1}})
        };
        let template = json!({"metadata": {"generation": 5}});
        let of = |seen, phase| progress(&rollout(seen, phase), Some(&template));
        assert!(matches!(of("4", "Healthy"), Progress::Going(_)));
        assert_eq!(of("5", "Healthy"), Progress::Done);
        assert_eq!(
            of("5", "Paused"),
            Progress::Going("Paused, step 1 of 2 m".to_owned())
        );
        assert!(matches!(of("5", "Degraded"), Progress::Failed(_)));
    }

    #[test]
    fn a_stateful_set_is_done_when_its_pods_are_ready_and_of_one_revision() {
        let set = |status: Value| json!({"kind": "StatefulSet", "metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status});
        let new = json!({"observedGeneration": 1, "readyReplicas": 2, "updatedReplicas": 2,
            "currentRevision": "a", "updateRevision": "b"});
        assert_eq!(progress(&set(new.clone()), None), Progress::Done);
        for (key, value) in [
            ("readyReplicas", 1),
            ("updatedReplicas", 1),
            ("observedGeneration", 0),
        ] {
            let mut other = new.clone();
            other[key] = value.into();
            assert!(matches!(progress(&set(other), None), Progress::Going(_)), "{key}");
        }
    }

    #[test]
    fn a_pod_says_which_container_and_why() {
        let pod = json!({"metadata": {"name": "weather-1"}, "status": {
            "conditions": [{"type": "Ready", "status": "False", "message": "containers with unready status: [service]"}],
            "containerStatuses": [{"name": "service", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 2, "message": "configuration: agent.node: is empty"}}}]}});
        let said = complaint(&[pod]).unwrap();
        assert_eq!(
            said,
            "pod weather-1: container service is in CrashLoopBackOff; it ended with 2: configuration: agent.node: is empty"
        );
        let homeless = json!({"metadata": {"name": "x"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}});
        assert_eq!(
            complaint(&[homeless]).unwrap(),
            "pod x: no node takes it: 0/3 nodes are available"
        );
        let well = json!({"metadata": {"name": "x"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(complaint(&[well]), None);
    }

    #[test]
    fn only_broken_pods_of_another_template_are_in_the_way() {
        let pod = |name: &str, revision: &str, reason: &str| {
            json!({"metadata": {"name": name, "labels": {"controller-revision-hash": revision}}, "status": {
                "containerStatuses": [{"name": "service", "state": {"waiting": {"reason": reason}}}]}})
        };
        let pods = [
            pod("old-and-broken", "a", "ImagePullBackOff"),
            pod("new-and-broken", "b", "ImagePullBackOff"),
            pod("old-and-starting", "a", "ContainerCreating"),
        ];
        let set = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "updateRevision": "b"}});
        assert_eq!(stuck(&set, &pods), ["old-and-broken"]);
        let unseen = json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 2, "updateRevision": "b"}});
        assert!(stuck(&unseen, &pods).is_empty());
    }
}
