#!/usr/bin/env python3
"""Looks for secrets in the files of the repository, and with --history in every version of them that was ever committed.

    tests/manifests/secrets.py [--history]

Known forms: private keys, tokens of the great services, passwords in URLs. What is meant as an example says so in its own text:
a line with a word of EXAMPLES is one.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMS = {
    "a private key": rb"-----BEGIN (?:RSA |EC |OPENSSH |DSA |ENCRYPTED )?PRIVATE KEY-----\s*[A-Za-z0-9+/=]{40}",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a token of Slack": rb"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "a key of Google": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a key of a model's provider": rb"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
    "a token of crates.io, npm or PyPI": rb"\b(?:cio[A-Za-z0-9]{32}|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,})",
    "a signed token": rb"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{32,}",
    "a password in a URL": rb"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'`{}$<>]+:[^\s/:@\"'`{}$<>*]{6,}@[a-z0-9.-]+",
}
EXAMPLES = re.compile(rb"(?i)example|secret|password|planted|test|user:|canary|hunter|s3cr3t|127\.0\.0\.1|localhost")
PATTERNS = {what: re.compile(pattern) for what, pattern in FORMS.items()}


def findings(where, content):
    if b"\0" in content[:8000]:
        return
    for what, pattern in PATTERNS.items():
        for match in pattern.finditer(content):
            start = content.rfind(b"\n", 0, match.start()) + 1
            line = content[start : content.find(b"\n", match.end()) % (len(content) + 1)]
            if not EXAMPLES.search(line):
                yield f"{where}:{content.count(bytes([10]), 0, match.start()) + 1}: looks like {what}"


def git(*arguments, **options):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, **options).stdout


def files():
    for name in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0"):
        path = ROOT / name.decode()
        if name and path.is_file():
            yield name.decode(), path.read_bytes()


def history():
    """Every file of every commit, each content once."""
    named = [line.split(b" ", 1) for line in git("rev-list", "--objects", "--all").splitlines()]
    names = {entry[0]: entry[1].decode(errors="replace") for entry in named if len(entry) == 2}
    listed = git("cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", input=b"\n".join(names) + b"\n")
    for line in listed.splitlines():
        object_name, kind, size = line.split()
        if kind == b"blob" and int(size) < 2 << 20:
            yield f"{names[object_name]} ({object_name[:10].decode()})", git("cat-file", "blob", object_name.decode())


def main(arguments):
    if arguments not in ([], ["--history"]):
        print(__doc__, file=sys.stderr)
        return 2
    found = [finding for where, content in (history() if arguments else files()) for finding in findings(where, content)]
    print("\n".join(found) if found else "no secrets")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
