//! Names of workloads, and the header in which proxies tell them: any text is answered without a panic; what is read as a name is
//! printed as it was; and whatever a client sends before, the element that the proxy appends is the last, or nothing is read.

use muster_runtime::trust::{SpiffeId, mesh};

const APPENDED: &str =
    "By=spiffe://d/ns/a/sa/weather;Hash=0;Subject=\"CN=router\";URI=spiffe://d/ns/a/sa/router";

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    }
    if let Ok(elements) = mesh::parse(text) {
        assert!(!elements.is_empty());
        for element in &elements {
            let _ = element.workload();
        }
    }
    let forwarded = format!("{text},{APPENDED}");
    if let Ok(elements) = mesh::parse(&forwarded) {
        let last = elements.last().expect("at least one element");
        assert_eq!(last.workload().expect("it names one").path(), "/ns/a/sa/router");
    }
}
