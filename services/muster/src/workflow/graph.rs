//! `muster workflow graph`: a document as a picture.

use std::path::Path;

use clap::ValueEnum;
use muster_workflow_dsl::graph;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// The form of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Picture {
    /// Text that GitHub, editors and documentation tools draw.
    Mermaid,
    /// An image that any browser shows.
    Svg,
}

impl Picture {
    fn name(self) -> &'static str {
        match self {
            Self::Mermaid => "mermaid",
            Self::Svg => "svg",
        }
    }
}

/// `muster workflow graph FILE`
pub fn draw(
    file: &Path,
    format: Option<Picture>,
    save: Option<&Path>,
    output: &Output,
) -> Result<(), Failure> {
    let definition = super::definition(file, output)?;
    let image = save
        .and_then(Path::extension)
        .is_some_and(|ending| ending == "svg");
    let format = format.unwrap_or(if image { Picture::Svg } else { Picture::Mermaid });
    let picture = match format {
        Picture::Mermaid => graph::mermaid(&definition.workflow),
        Picture::Svg => graph::svg(&definition.workflow),
    };
    let name = file.display().to_string();
    if let Some(path) = save {
        std::fs::write(path, &picture)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        if output.is_json() {
            output.json(&json!({"file": name, "format": format.name(), "saved": path.display().to_string()}));
        } else {
            output.line(&format!("saved {}", path.display()));
        }
    } else if output.is_json() {
        output.json(&json!({"file": name, "format": format.name(), "picture": picture}));
    } else {
        output.line(picture.trim_end());
    }
    Ok(())
}
