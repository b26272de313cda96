use std::net::IpAddr;

use url::Url;

use super::{Config, Failure, Outbound, Policy};

fn admits(allow: &[&str], host: &str, address: &str) -> bool {
    let allow: Vec<String> = allow.iter().map(|&entry| entry.to_owned()).collect();
    let address: IpAddr = address.parse().unwrap();
    Policy::new(&allow, "outbound.allow")
        .unwrap()
        .admits(host, address)
        .is_ok()
}

#[test]
fn what_leads_to_metadata_or_nowhere_is_never_admitted() {
    let everything = [
        "*",
        "0.0.0.0/0",
        "::/0",
        "metadata.google.internal",
        "169.254.169.254",
    ];
    for address in [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "168.63.129.16",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "ff02::1",
    ] {
        assert!(
            !admits(&everything, "metadata.google.internal", address),
            "{address}"
        );
    }
}

#[test]
fn a_star_admits_public_addresses_only() {
    assert!(admits(&["*"], "api.example.com", "93.184.216.34"));
    assert!(admits(&["*"], "api.example.com", "2606:2800:220:1::1"));
    for address in [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "fd12::1",
        "127.0.0.1",
        "::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(!admits(&["*"], "api.example.com", address), "{address}");
    }
}

#[test]
fn names_admit_private_addresses_but_never_loopback() {
    let allow = ["orders.shop", "*.svc.cluster.local"];
    assert!(admits(&allow, "orders.shop", "10.0.0.1"));
    assert!(admits(&allow, "Orders.Shop.", "10.0.0.1"));
    assert!(admits(&allow, "a.b.svc.cluster.local", "10.0.0.1"));
    assert!(!admits(&allow, "svc.cluster.local", "10.0.0.1"));
    assert!(!admits(&allow, "notorders.shop", "10.0.0.1"));
    assert!(!admits(&allow, "evil.example", "93.184.216.34"));
    assert!(
        !admits(&allow, "orders.shop", "127.0.0.1"),
        "a name that was pointed at this machine"
    );
}

#[test]
fn loopback_needs_its_address_or_its_name() {
    assert!(admits(&["127.0.0.0/8"], "127.0.0.1", "127.0.0.1"));
    assert!(admits(&["127.0.0.0/8"], "127.0.0.1", "::ffff:127.0.0.1"));
    assert!(admits(&["localhost"], "localhost", "127.0.0.1"));
    assert!(admits(&["localhost"], "localhost", "::1"));
    assert!(!admits(&["localhost"], "evil.example", "127.0.0.1"));
    assert!(admits(&["10.1.0.0/16"], "10.1.2.3", "10.1.2.3"));
    assert!(!admits(&["10.1.0.0/16"], "10.2.2.3", "10.2.2.3"));
}

#[test]
fn an_entry_that_is_none_says_what_one_is() {
    for entry in ["", "https://example.com", "*.", "exa mple", "*example.com"] {
        let error = Policy::new(&[entry.to_owned()], "outbound.allow").unwrap_err();
        assert!(error.contains("10.0.0.0/8"), "{entry}: {error}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_setting_before_and_after_names_are_resolved() {
    let outbound = Outbound::new(&Config::default(), "engine.outbound.allow").unwrap();
    for address in ["http://127.0.0.1:1/", "http://localhost:1/"] {
        let url: Url = address.parse().unwrap();
        let request = outbound.request(reqwest::Method::GET, url).build().unwrap();
        let failure = outbound.send(request).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{failure}");
        assert!(failure.to_string().contains("engine.outbound.allow"), "{failure}");
    }
    let failure = outbound.connect("localhost", 1).await.unwrap_err();
    assert!(matches!(failure, Failure::Refused(_)), "{failure}");
}
