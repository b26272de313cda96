//! What is said of calls over HTTP, of authentications and of secrets.

use super::*;

/// A call over HTTP with these arguments, which begin in column 27 of line 3.
fn http(with: &str) -> String {
    format!("  - a: {{call: http, with: {{{with}}}}}\n")
}

/// A document with this authentication of its call.
fn authenticated(authentication: &str) -> String {
    http(&format!(
        "method: get, endpoint: {{uri: 'http://x', authentication: {authentication}}}"
    ))
}

/// One thing wrong among the tasks, at this pointer.
fn refused(tasks: &str, pointer: &str, words: &[&str]) {
    refused_text(&with_tasks(tasks), pointer, words);
}

fn refused_text(text: &str, pointer: &str, words: &[&str]) {
    let complaints = complaints(text);
    let [(place, message)] = complaints.as_slice() else {
        panic!("{complaints:#?} in {text}");
    };
    assert_eq!(
        place.split_once(' ').map(|(_, pointer)| pointer),
        Some(pointer),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "{word} is not in {message}");
    }
}

fn fits(text: &str) {
    assert_eq!(complaints(text), []);
}

#[test]
fn requests() {
    fits(&with_tasks(&http(
        "method: get, endpoint: 'https://x/{id}', headers: {a: '${ .b }'}, query: '${ . }', body: [1], output: raw, redirect: true",
    )));
    fits(&with_tasks(&http("method: PATCH, endpoint: '${ .url }'")));
    fits(&with_tasks(&http("method: get, endpoint: {uri: '{base}/x'}")));
    let at = "method: get, endpoint: ";
    for (with, place, words) in [
        (
            "endpoint: 'http://x'",
            "/do/0/a/with",
            &["the field 'method'"] as &[&str],
        ),
        (
            "method: pst, endpoint: 'http://x'",
            "/do/0/a/with/method",
            &["did you mean 'POST'"],
        ),
        (
            &format!("{at}'ftp://x'"),
            "/do/0/a/with/endpoint",
            &["must begin with http:// or https://"],
        ),
        (
            &format!("{at}'http://x/{{'"),
            "/do/0/a/with/endpoint",
            &["a brace stands alone"],
        ),
        (
            &format!("{at}'http://x/${{ .a }}'"),
            "/do/0/a/with/endpoint",
            &["one expression from end to end"],
        ),
        (
            &format!("{at}x, headers: {{}}"),
            "/do/0/a/with/endpoint",
            &["must begin with"],
        ),
        (
            &format!("{at}'http://x', headers: [a]"),
            "/do/0/a/with/headers",
            &["must be an object"],
        ),
        (
            &format!("{at}'http://x', headers: {{Host: y}}"),
            "/do/0/a/with/headers/Host",
            &["is set by the client"],
        ),
        (
            &format!("{at}'http://x', headers: {{a b: y}}"),
            "/do/0/a/with/headers/a b",
            &["is not the name of"],
        ),
        (
            &format!("{at}'http://x', output: contents"),
            "/do/0/a/with/output",
            &["did you mean 'content'"],
        ),
        (
            &format!("{at}'http://x', redirect: 'yes'"),
            "/do/0/a/with/redirect",
            &["true or false"],
        ),
        (
            &format!("{at}'http://x', bdy: 1"),
            "/do/0/a/with/bdy",
            &["did you mean 'body'"],
        ),
    ] {
        refused(&http(with), place, words);
    }
}

#[test]
fn authentications() {
    for good in [
        "{basic: {username: a, password: '${ .p }'}}",
        "{digest: {username: a, password: '${ .p }'}}",
        "{bearer: {token: '${ .t }'}}",
        "{oauth2: {authority: 'https://a/{realm}', grant: client_credentials, client: {id: a, secret: '${ .s }'}, endpoints: {token: /t}, scopes: [a], audiences: [b], issuers: [c], request: {encoding: application/json}}}",
        "{oidc: {authority: 'https://a', grant: password, client: {id: a}, username: a, password: '${ .p }'}}",
        "{oauth2: {authority: 'https://a', grant: '${ .g }', client: {id: a}}}",
        "{oauth2: {authority: 'https://a', grant: client_credentials, client: {authentication: none}}}",
        "{oauth2: {authority: 'https://a', grant: client_credentials, client: {authentication: '${ .how }'}}}",
    ] {
        fits(&with_tasks(&authenticated(good)));
    }
    for (authentication, words) in [
        ("{}", &["exactly one of 'basic'"] as &[&str]),
        (
            "{basic: {username: a, password: '${ .p }'}, bearer: {token: '${ .t }'}}",
            &["exactly one of"],
        ),
        ("{basic: {username: a}}", &["the field 'password'"]),
        ("{certificate: {}}", &["'certificate' is not supported"]),
        ("{bearr: {}}", &["did you mean 'bearer'"]),
        (
            "{use: mine}",
            &["no such authentication 'mine'", "'use' defines none"],
        ),
        ("mine", &["no such authentication 'mine'"]),
        (
            "{bearer: {use: token}}",
            &["no such secret 'token'", "'use.secrets' lists none"],
        ),
        (
            "{oauth2: {grant: client_credentials, client: {id: a}}}",
            &["the field 'authority'"],
        ),
        (
            "{oauth2: {authority: 'https://a', grant: authorization_code, client: {id: a}}}",
            &["needs a person at a browser"],
        ),
        (
            "{oauth2: {authority: 'https://a', grant: clientcredentials, client: {id: a}}}",
            &["did you mean 'client_credentials'"],
        ),
        (
            "{oauth2: {authority: 'https://a', grant: refresh_token, client: {id: a}}}",
            &["needs 'subject'", "'subject.token'"],
        ),
        (
            "{oidc: {authority: 'https://a', grant: client_credentials, client: {id: a}, endpoints: {}}}",
            &["no such field 'endpoints'"],
        ),
        (
            "{oauth2: {authority: 'https://a', grant: client_credentials, client: {id: a, authentication: private_key_jwt}}}",
            &["needs 'client.assertion'"],
        ),
        (
            "{oauth2: {authority: 'https://a', grant: client_credentials}}",
            &["add 'client.id'", "{authentication: none}"],
        ),
        (
            "{oidc: {authority: 'https://a', grant: client_credentials, client: {}}}",
            &["add 'client.id'"],
        ),
    ] {
        let complaints = complaints(&with_tasks(&authenticated(authentication)));
        let [(_, message)] = complaints.as_slice() else {
            panic!("{authentication}: {complaints:#?}");
        };
        for word in words {
            assert!(message.contains(word), "{authentication}: {message}");
        }
    }
}

#[test]
fn what_a_document_should_not_hold_is_doubted() {
    for (authentication, pointer) in [
        ("{basic: {username: a, password: p}}", "basic/password"),
        ("{bearer: {token: t}}", "bearer/token"),
        (
            "{oauth2: {authority: 'https://a', grant: client_credentials, client: {id: a, secret: s}}}",
            "oauth2/client/secret",
        ),
    ] {
        let complaints = complaints(&with_tasks(&authenticated(authentication)));
        let [(place, message)] = complaints.as_slice() else {
            panic!("{complaints:#?}");
        };
        assert!(
            place.starts_with("warning ") && place.ends_with(pointer),
            "{place}"
        );
        assert!(message.contains("use.secrets"), "{message}");
    }
}

#[test]
fn secrets() {
    let listed = |section: &str, tasks: &str| format!("use: {section}\n{}", with_tasks(tasks));
    let token = "{secrets: [token], authentications: {mine: {bearer: {use: token}}}}";
    fits(&listed(token, &authenticated("{use: mine}")));
    fits(&listed(token, &authenticated("mine")));
    fits(&listed(
        "{secrets: [a.b]}",
        "  - a: {input: {from: '{x: $secrets[\"a.b\"]}'}, set: {x: 1}}\n",
    ));
    refused_text(
        &listed("{secrets: [token]}", "  - a: {set: {x: '${ $secrets.tokn }'}}\n"),
        "/do/0/a/set/x",
        &["no such secret 'tokn'", "did you mean 'token'"],
    );
    refused_text(
        &listed(
            "{secrets: [token]}",
            "  - a: {if: '$secrets.token != null', set: {x: 1}}\n",
        ),
        "/do/0/a/if",
        &["'$secrets' is not available in a task's if"],
    );
    refused_text(
        &listed("{secrets: [../x]}", "  - a: {set: {x: 1}}\n"),
        "/use/secrets/0",
        &["1 to 128 letters"],
    );
    refused_text(
        &listed("{secrets: [a, a]}", "  - a: {set: {x: 1}}\n"),
        "/use/secrets/1",
        &["listed twice"],
    );
}
