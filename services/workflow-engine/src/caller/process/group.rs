//! A process under way, with everything that it has started: one group, which ends as a whole.

use std::process::ExitStatus;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use crate::caller::{Failure, Kind};

/// What a process has come to.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// See the module. Whatever of it runs when this is dropped is killed.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// The leader's id, which is the group's.
    id: Option<u32>,
}

impl Group {
    pub(super) fn new(child: Child) -> Self {
        let id = child.id();
        Self { child, id }
    }

    /// Feeds it and reads what it writes until its leader ends; what the leader has left behind ends then, too.
    pub(super) async fn finish(mut self, stdin: Option<String>, most: usize) -> Result<Ended, Failure> {
        let (input, output, errors) = (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        );
        let feed = async {
            if let (Some(mut input), Some(text)) = (input, stdin) {
                // One that does not read its input has a right to.
                let _ = input.write_all(text.as_bytes()).await;
            }
            Ok::<(), Failure>(())
        };
        let wait = async {
            let status = self.child.wait().await.map_err(|error| unknown(&error))?;
            kill(self.id.take());
            Ok::<_, Failure>(status)
        };
        let (status, (), stdout, stderr) = tokio::try_join!(
            wait,
            feed,
            read(output, most, "standard output"),
            read(errors, most, "standard error"),
        )?;
        Ok(Ended {
            status,
            stdout,
            stderr,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.id.take());
    }
}

/// Kills all processes of a group, if there are any.
fn kill(group: Option<u32>) {
    #[cfg(unix)]
    if let Some(group) = group.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
        // It may be empty.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = group;
}

async fn read(stream: Option<impl AsyncRead + Unpin>, most: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let mut stream = stream.take(most as u64 + 1);
        stream
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| unknown(&error))?;
    }
    if bytes.len() > most {
        let detail = format!(
            "it wrote more than {most} bytes to its {what} ('engine.run.max_output_bytes'), and was ended; let it write \
             less, or to a file"
        );
        return Err(Failure::new(Kind::Runtime, 413, detail));
    }
    Ok(bytes)
}

fn unknown(error: &std::io::Error) -> Failure {
    Failure::new(
        Kind::Runtime,
        500,
        format!("what became of it is not known: {error}"),
    )
}
