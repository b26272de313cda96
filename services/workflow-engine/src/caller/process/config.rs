//! What the operator allows.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `engine.run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether documents may run commands of the shell.
    pub shell: bool,
    /// Whether documents may run scripts.
    pub script: bool,
    /// Whether documents may run containers.
    pub container: bool,
    /// Processes at once; more wait for their turn.
    pub max_processes: usize,
    /// Most that a process may write to standard output, and to standard error.
    pub max_output_bytes: usize,
    /// The shell.
    pub shell_program: String,
    /// What runs JavaScript: takes a file and arguments.
    pub javascript_program: String,
    /// What runs Python: takes a file and arguments.
    pub python_program: String,
    /// What runs containers: the command line of Docker, or of Podman.
    pub container_program: String,
    /// Arguments of `run` for each container, such as `--network=none` and `--memory=512m`.
    pub container_arguments: Vec<String>,
    /// Directories of this machine that containers may be given as volumes, with all that is below them.
    pub container_volumes: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shell: false,
            script: false,
            container: false,
            max_processes: 16,
            max_output_bytes: 1024 * 1024,
            shell_program: "sh".to_owned(),
            javascript_program: "node".to_owned(),
            python_program: "python3".to_owned(),
            container_program: "docker".to_owned(),
            container_arguments: vec!["--security-opt=no-new-privileges".to_owned()],
            container_volumes: Vec::new(),
        }
    }
}
