use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use super::{Config, Failure, Outbound, Policy, Unresolved, admitted};

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

#[tokio::test]
async fn an_address_in_another_notation_is_the_same_address() {
    let outbound = Outbound::new(&Config::default(), "engine.outbound.allow").unwrap();
    for host in [
        "2130706433", // 127.0.0.1 as one number
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "\u{2460}\u{2461}\u{2466}.0.0.1", // digits in circles
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[64:ff9b::7f00:1]",
        "2852039166", // 169.254.169.254
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:a9fe:a9fe]",
    ] {
        let url: Url = format!("http://{host}:1/").parse().unwrap();
        let request = outbound.request(reqwest::Method::GET, url).build().unwrap();
        let failure = outbound.send(request).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{host}: {failure}");
    }
    // What is no URL is resolved as it stands.
    for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "2852039166"] {
        let failure = outbound.connect(host, 1).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{host}: {failure}");
    }
}

#[test]
fn a_name_that_leads_elsewhere_the_next_time_is_asked_about_again() {
    let policy = Policy::new(&["*".to_owned()], "outbound.allow").unwrap();
    let ask = |found: &[&str]| {
        let found = found
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), 80));
        admitted(&policy, "rebound.example", found)
    };
    let public: SocketAddr = "93.184.216.34:80".parse().unwrap();
    assert!(matches!(ask(&["93.184.216.34"]), Ok(found) if found == [public]));
    // Beside an address that may be connected to, the others are left out.
    let mixed = ask(&["127.0.0.1", "93.184.216.34", "169.254.169.254", "::1"]);
    assert!(matches!(mixed, Ok(found) if found == [public]));
    for inside in [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        "fd12::1",
    ] {
        assert!(matches!(ask(&[inside]), Err(Unresolved::Refused(_))), "{inside}");
    }
    assert!(matches!(ask(&[]), Err(Unresolved::Unknown(_))));
}

/// Answers everything with this head; how often it was asked.
async fn answering(head: String, running: &mut JoinSet<()>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&asked);
    running.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let _asked = stream.read(&mut [0; 1_024]).await;
            let _answered = stream.write_all(head.as_bytes()).await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn nobody_is_led_on_by_a_redirect() {
    let config = Config {
        allow: vec!["127.0.0.0/8".to_owned()],
        ..Config::default()
    };
    let outbound = Outbound::new(&config, "engine.outbound.allow").unwrap();
    let mut running = JoinSet::new();
    let rest = "content-length: 0\r\nconnection: close\r\n\r\n";
    let (inside, reached) = answering(format!("HTTP/1.1 200 OK\r\n{rest}"), &mut running).await;
    let metadata = "http://169.254.169.254/latest/meta-data/".to_owned();
    for (status, place) in [
        (301, metadata.clone()),
        (302, format!("http://{inside}/")),
        (307, metadata),
        (308, format!("http://{inside}/")),
    ] {
        let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {place}\r\n{rest}");
        let (leading, _) = answering(head, &mut running).await;
        let url: Url = format!("http://{leading}/").parse().unwrap();
        let request = outbound.request(reqwest::Method::GET, url).build().unwrap();
        let answer = outbound.send(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "it is the answer");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}
