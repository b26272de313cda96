//! What sshd, sudo, su and the account tools say, as fields that rules can match.
//!
//! The texts are a stranger's in part: whoever logs in chooses the user name. The address is therefore taken from the
//! **last** `from`, which sshd writes itself, so that a user called `x from 192.0.2.1 port 22` blames nobody.
//!
//! Fields: `event` (one of the constants below), and as known `user`, `source_ip`, `source_port`, `method`,
//! `target_user`, `command`, `group`.

use serde_json::{Map, Value};

/// A login was refused.
pub const LOGIN_FAILED: &str = "login_failed";
/// A login was accepted.
pub const LOGIN_SUCCEEDED: &str = "login_succeeded";
/// A login named a user that does not exist.
pub const INVALID_USER: &str = "invalid_user";

type Fields = Map<String, Value>;

/// Adds the fields of a message of `program`; nothing when the message is of no kind that is known here.
pub fn describe(program: &str, message: &str, fields: &mut Fields) {
    let message = message.trim();
    if program.starts_with("sshd") {
        sshd(message, fields);
    } else {
        match program {
            "sudo" => sudo(message, fields),
            "su" => su(message, fields),
            "useradd" | "adduser" => useradd(message, fields),
            "usermod" | "gpasswd" | "groupmod" => group_change(message, fields),
            "passwd" | "chpasswd" => password(message, fields),
            _ => {}
        }
    }
}

/// The message inside `message repeated N times: [ … ]`, and N.
#[must_use]
pub fn unrepeated(message: &str) -> (&str, u32) {
    let repeated = || {
        let rest = message.strip_prefix("message repeated ")?;
        let (count, rest) = rest.split_once(" times: [")?;
        Some((rest.trim().strip_suffix(']')?.trim(), count.parse().ok()?))
    };
    repeated().unwrap_or((message, 1))
}

fn set(fields: &mut Fields, key: &str, value: &str) {
    if !value.is_empty() {
        fields.insert(key.to_owned(), Value::from(value));
    }
}

fn sshd(message: &str, fields: &mut Fields) {
    if let Some(rest) = message.strip_prefix("Failed ") {
        login(LOGIN_FAILED, rest, fields);
    } else if let Some(rest) = message.strip_prefix("Accepted ") {
        login(LOGIN_SUCCEEDED, rest, fields);
    } else if let Some(rest) = message.strip_prefix("Invalid user ") {
        let user = address(rest, fields).unwrap_or(rest);
        set(fields, "event", INVALID_USER);
        set(fields, "user", user);
    } else if let Some(rest) = message.strip_prefix("error: maximum authentication attempts exceeded for ") {
        let user = address(rest, fields).unwrap_or(rest);
        set(fields, "event", "too_many_attempts");
        set(fields, "user", user.strip_prefix("invalid user ").unwrap_or(user));
    } else if let Some(rest) = message.strip_prefix("Disconnected from user ") {
        set(fields, "event", "disconnected");
        set(fields, "user", rest.split(' ').next().unwrap_or_default());
    }
}

/// `METHOD for [invalid user ]USER from ADDRESS port PORT …`
fn login(event: &str, rest: &str, fields: &mut Fields) {
    let Some((method, rest)) = rest.split_once(" for ") else {
        return;
    };
    let Some(user) = address(rest, fields) else { return };
    set(fields, "event", event);
    set(fields, "method", method);
    match user.strip_prefix("invalid user ") {
        Some(user) => {
            set(fields, "user", user);
            fields.insert("user_exists".to_owned(), Value::from(false));
        }
        None => set(fields, "user", user),
    }
}

/// Reads `… from ADDRESS port PORT`, and gives what stands before it.
fn address<'a>(text: &'a str, fields: &mut Fields) -> Option<&'a str> {
    let (before, after) = text.rsplit_once(" from ")?;
    let mut words = after.split(' ');
    set(fields, "source_ip", words.next().unwrap_or_default());
    if words.next() == Some("port") {
        let port: Option<u16> = words
            .next()
            .and_then(|port| port.trim_end_matches(':').parse().ok());
        if let Some(port) = port {
            fields.insert("source_port".to_owned(), Value::from(port));
        }
    }
    Some(before)
}

/// `USER : [REFUSAL ; ]TTY=… ; PWD=… ; USER=TARGET ; COMMAND=…`
fn sudo(message: &str, fields: &mut Fields) {
    let Some((user, rest)) = message.split_once(" : ") else {
        return;
    };
    let (head, command) = match rest.split_once("COMMAND=") {
        Some((head, command)) => (head, command),
        None => (rest, ""),
    };
    let refused = [
        "incorrect password attempt",
        "NOT in sudoers",
        "command not allowed",
        "authentication failure",
    ];
    let event = if refused.iter().any(|text| head.contains(text)) {
        "sudo_failed"
    } else if command.is_empty() {
        return;
    } else {
        "sudo_command"
    };
    set(fields, "event", event);
    set(fields, "user", user.trim());
    set(fields, "command", command.trim());
    let target = head
        .split(';')
        .find_map(|field| field.trim().strip_prefix("USER="));
    set(fields, "target_user", target.unwrap_or_default().trim());
}

/// `[FAILED SU ](to TARGET) USER on TTY`
fn su(message: &str, fields: &mut Fields) {
    let (event, rest) = match message.strip_prefix("FAILED SU ") {
        Some(rest) => ("su_failed", rest),
        None => ("su_succeeded", message),
    };
    let Some((target, rest)) = rest.strip_prefix("(to ").and_then(|rest| rest.split_once(") ")) else {
        return;
    };
    set(fields, "event", event);
    set(fields, "target_user", target);
    set(fields, "user", rest.split(' ').next().unwrap_or_default());
}

/// `new user: name=NAME, UID=…`
fn useradd(message: &str, fields: &mut Fields) {
    let Some(rest) = message.strip_prefix("new user: name=") else {
        return;
    };
    set(fields, "event", "user_added");
    set(fields, "user", rest.split(',').next().unwrap_or_default());
}

/// `add 'USER' to group 'GROUP'`
fn group_change(message: &str, fields: &mut Fields) {
    let mut quoted = message.split('\'');
    let (Some("add "), Some(user), Some(" to group "), Some(group)) =
        (quoted.next(), quoted.next(), quoted.next(), quoted.next())
    else {
        return;
    };
    set(fields, "event", "group_changed");
    set(fields, "user", user);
    set(fields, "group", group);
}

/// `pam_unix(passwd:chauthtok): password changed for USER`
fn password(message: &str, fields: &mut Fields) {
    let Some((_, user)) = message.split_once("password changed for ") else {
        return;
    };
    set(fields, "event", "password_changed");
    set(fields, "user", user.trim());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn described(program: &str, message: &str) -> Value {
        let mut fields = Map::new();
        describe(program, message, &mut fields);
        Value::Object(fields)
    }

    #[test]
    fn messages_become_fields() {
        for (program, message, expected) in [
            (
                "sshd",
                "Failed password for invalid user admin from 192.0.2.1 port 4022 ssh2",
                json!({"event": "login_failed", "user": "admin", "user_exists": false, "method": "password",
                    "source_ip": "192.0.2.1", "source_port": 4022}),
            ),
            (
                "sshd-session",
                "Accepted publickey for alice from 2001:db8::7 port 22 ssh2: ED25519 SHA256:x",
                json!({"event": "login_succeeded", "user": "alice", "method": "publickey", "source_ip": "2001:db8::7",
                    "source_port": 22}),
            ),
            (
                "sshd",
                "Invalid user  from 192.0.2.1 port 1",
                json!({"event": "invalid_user", "source_ip": "192.0.2.1", "source_port": 1}),
            ),
            (
                "sudo",
                "   eve : user NOT in sudoers ; TTY=pts/1 ; PWD=/ ; USER=root ; COMMAND=/bin/cat /etc/shadow",
                json!({"event": "sudo_failed", "user": "eve", "target_user": "root", "command": "/bin/cat /etc/shadow"}),
            ),
            (
                "sudo",
                "alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/bash",
                json!({"event": "sudo_command", "user": "alice", "target_user": "root", "command": "/bin/bash"}),
            ),
            (
                "sudo",
                "pam_unix(sudo:session): session closed for user root",
                json!({}),
            ),
            (
                "su",
                "FAILED SU (to root) eve on pts/1",
                json!({"event": "su_failed", "target_user": "root", "user": "eve"}),
            ),
            (
                "useradd",
                "new user: name=eve, UID=1002, GID=1002",
                json!({"event": "user_added", "user": "eve"}),
            ),
            (
                "usermod",
                "add 'eve' to group 'sudo'",
                json!({"event": "group_changed", "user": "eve", "group": "sudo"}),
            ),
            ("usermod", "add 'eve' to shadow group 'sudo'", json!({})),
            (
                "passwd",
                "pam_unix(passwd:chauthtok): password changed for root",
                json!({"event": "password_changed", "user": "root"}),
            ),
            (
                "cron",
                "Failed password for root from 192.0.2.1 port 1",
                json!({}),
            ),
        ] {
            assert_eq!(described(program, message), expected, "{message}");
        }
    }

    #[test]
    fn a_user_name_cannot_blame_another_address() {
        let message =
            "Failed password for invalid user x from 198.51.100.1 port 22 ssh2 from 203.0.113.9 port 55 ssh2";
        let fields = described("sshd", message);
        assert_eq!(fields["source_ip"], "203.0.113.9");
        assert_eq!(fields["user"], "x from 198.51.100.1 port 22 ssh2");
    }

    #[test]
    fn repetitions_are_unfolded() {
        assert_eq!(
            unrepeated("message repeated 5 times: [ Failed password for a]"),
            ("Failed password for a", 5)
        );
        assert_eq!(
            unrepeated("message repeated x times: [ a]"),
            ("message repeated x times: [ a]", 1)
        );
        assert_eq!(unrepeated("plain"), ("plain", 1));
    }

    proptest! {
        #[test]
        fn no_message_panics(program in "(sshd|sudo|su|useradd|usermod|passwd)", message in "(Failed |Accepted |for | from |port | : |COMMAND=|'|\\(to |\\) |x|é){0,12}") {
            described(&program, &message);
        }
    }
}
