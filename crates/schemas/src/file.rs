//! Schemas in files.

use std::path::Path;

use tidegate_extract::{Language, SchemaText};
use tidegate_job::{Format, SchemaFile};

use crate::error::Error;

/// The schema in `file`, with what it imports.
pub(crate) fn read(format: &Format, file: &SchemaFile, folder: &Path) -> Result<SchemaText, Error> {
    let path = folder.join(&file.path);
    let text = text(&path)?;
    if !matches!(format, Format::Protobuf(_)) {
        return Ok(SchemaText::new(Language::Avro, text));
    }
    let include = match &file.include {
        Some(include) => folder.join(include),
        None => path.parent().unwrap_or(folder).to_path_buf(),
    };
    let mut schema = SchemaText::new(Language::Protobuf, text);
    schema.references = imports(&path, &include)?;
    Ok(schema)
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|cause| Error::File { path: path.display().to_string(), cause })
}

/// The files that a `.proto` imports, and what these do, by the names that the imports use.
fn imports(path: &Path, include: &Path) -> Result<Vec<(String, String)>, Error> {
    let broken = |error: protox::Error| Error::Schema {
        path: path.display().to_string(),
        reason: format!("{error} (imports are looked for in {})", include.display()),
    };
    let mut compiler = protox::Compiler::new([include]).map_err(broken)?;
    compiler.include_imports(true).open_file(path).map_err(broken)?;
    let imported = compiler.files().filter(|file| file.is_import());
    imported
        // Those without a path are Google's own, which are built in.
        .filter_map(|file| Some((file.name(), file.path()?)))
        .map(|(name, path)| Ok((name.to_owned(), text(path)?)))
        .collect()
}
