//! Whether the nodes have room for what pods ask for: pure functions over nodes and pods.
//!
//! A scheduler knows much more; this finds what no scheduler can do: more than is there in sum, or a pod that no node could take. What
//! runs already in the namespace counts as room, because it is what is replaced. A cluster that adds nodes when there is work for them
//! fails this check and works: `--ignore capacity`.

use serde_json::Value;

use super::{Check, Object, Subject, pods_wanted};

/// Processor time in thousandths, and memory in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Amount {
    cpu: u64,
    memory: u64,
}

impl Amount {
    fn of(resources: Option<&Value>) -> Self {
        let quantity = |key: &str| {
            resources
                .and_then(|resources| resources.get(key))
                .and_then(quantity)
        };
        Self {
            cpu: quantity("cpu").unwrap_or(0),
            memory: quantity("memory").unwrap_or(0) / 1_000,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn times(self, count: u64) -> Self {
        Self {
            cpu: self.cpu.saturating_mul(count),
            memory: self.memory.saturating_mul(count),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }

    fn fits_into(self, other: Self) -> bool {
        self.cpu <= other.cpu && self.memory <= other.memory
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}m of processors and {} Mi of memory",
            self.cpu,
            self.memory >> 20
        )
    }
}

/// A quantity of Kubernetes in thousandths: `1`, `500m`, `1.5`, `2Gi`, `1e3`.
fn quantity(value: &Value) -> Option<u64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1_024e3),
        ("Mi", 1_048_576e3),
        ("Gi", 1_073_741_824e3),
        ("Ti", 1_099_511_627_776e3),
        ("Pi", 1_125_899_906_842_624e3),
        ("m", 1.0),
        ("u", 1e-3),
        ("n", 1e-6),
        ("k", 1e6),
        ("M", 1e9),
        ("G", 1e12),
        ("T", 1e15),
        ("P", 1e18),
    ];
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((&text, 1e3));
    let number: f64 = digits.parse().ok()?;
    let thousandths = (number * factor).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is negative or too much ends at the bound"
    )]
    (number.is_finite() && number >= 0.0).then_some(thousandths as u64)
}

/// What a pod asks for: the sum of its containers, or its greediest first one.
fn request(pod: &Value) -> Amount {
    let list = |key: &str| pod.get(key).and_then(Value::as_array).into_iter().flatten();
    let of = |container: &Value| Amount::of(container.pointer("/resources/requests"));
    let beside = |container: &&Value| container["restartPolicy"] == "Always";
    let running = list("containers")
        .chain(list("initContainers").filter(beside))
        .fold(Amount::default(), |sum, container| sum.plus(of(container)));
    list("initContainers")
        .filter(|container| !beside(container))
        .fold(running, |most, container| most.most(of(container)))
}

/// Whether what is wanted has room.
pub fn judge(objects: &[Object], namespace: &str, nodes: &[Value], pods: &[Value]) -> Check {
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let open: Vec<Amount> = nodes
        .iter()
        .filter(|node| node.pointer("/spec/unschedulable") != Some(&Value::Bool(true)))
        .map(|node| Amount::of(node.pointer("/status/allocatable")))
        .collect();
    let all = open.iter().fold(Amount::default(), |sum, node| sum.plus(*node));
    let taken = pods
        .iter()
        .filter(|pod| text(pod, "/metadata/namespace") != namespace)
        .filter(|pod| !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed"))
        .filter_map(|pod| pod.get("spec"))
        .fold(Amount::default(), |sum, pod| sum.plus(request(pod)));
    let free = all.minus(taken);
    let mut wanted = Amount::default();
    for (object, count) in pods_wanted(objects) {
        let Some(pod) = object.value().pointer("/spec/template/spec") else {
            continue;
        };
        let one = request(pod);
        wanted = wanted.plus(one.times(count));
        if !open.iter().any(|node| one.fits_into(*node)) {
            return Check::failed(
                Subject::Capacity,
                format!(
                    "no node is large enough for a pod of {}, which asks for {one}",
                    object.id()
                ),
                "add a larger node, or ask for less in the overlay",
            );
        }
    }
    if wanted.fits_into(free) {
        return Check::passed(Subject::Capacity, format!("{wanted} are wanted, {free} are free"));
    }
    Check::failed(
        Subject::Capacity,
        format!("{wanted} are wanted, and {free} are free on {} nodes", open.len()),
        "add nodes, or lower `deploy.replicas`; where nodes come by themselves, --ignore capacity",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::manifest;
    use crate::deploy::preflight::Outcome;
    use serde_json::json;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, thousandths) in [
            ("500m", 500),
            ("1", 1_000),
            ("1.5", 1_500),
            ("1Ki", 1_024_000),
            ("2Gi", 2_147_483_648_000),
            ("1e3", 1_000_000),
            ("1k", 1_000_000),
            ("100n", 1),
        ] {
            assert_eq!(quantity(&json!(text)), Some(thousandths), "{text}");
        }
        assert_eq!(quantity(&json!(2)), Some(2_000));
        for wrong in ["", "x", "-1", "NaN"] {
            assert_eq!(quantity(&json!(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn what_others_run_is_taken_and_what_we_run_is_replaced() {
        let objects = manifest::parse(
            r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: router}
spec: {template: {spec: {containers: [{resources: {requests: {cpu: 500m, memory: 1Gi}}}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: router}
spec: {minReplicas: 3, scaleTargetRef: {kind: Rollout, name: router}}
",
        )
        .unwrap();
        let node = |cpu: &str| json!({"status": {"allocatable": {"cpu": cpu, "memory": "8Gi"}}});
        let pod = |namespace: &str, phase: &str| {
            json!({"metadata": {"namespace": namespace}, "status": {"phase": phase},
                "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}})
        };
        let of = |nodes: &[Value], pods: &[Value]| judge(&objects, "ours", nodes, pods).outcome;
        assert!(matches!(of(&[node("2")], &[]), Outcome::Passed(_)));
        let full = of(&[node("2")], &[pod("theirs", "Running")]);
        assert!(matches!(full, Outcome::Failed { found, .. } if found.starts_with("1500m")));
        let free = [pod("ours", "Running"), pod("theirs", "Succeeded")];
        assert!(matches!(of(&[node("2")], &free), Outcome::Passed(_)));
        let small = of(&[node("250m"), node("250m")], &[]);
        assert!(
            matches!(small, Outcome::Failed { found, .. } if found.starts_with("no node is large enough"))
        );
    }
}
