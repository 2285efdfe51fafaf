//! From the text of a `.proto` file to the descriptors of its messages.

use prost_reflect::{FileDescriptor, MessageDescriptor};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::schema::SchemaText;

/// What the schema itself is called; its own imports cannot mean it.
const NAME: &str = "schema of the job.proto";

/// The files of a schema.
struct Texts(Vec<(String, String)>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles a schema; the error says what is wrong with it.
pub(super) fn compile(schema: &SchemaText) -> Result<FileDescriptor, String> {
    let mut texts = schema.references.clone();
    texts.push((NAME.to_owned(), schema.text.clone()));
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true);
    compiler.open_file(NAME).map_err(|error| error.to_string())?;
    let file = compiler.descriptor_pool().get_file_by_name(NAME);
    file.ok_or_else(|| "it compiles to nothing".to_owned())
}

/// All messages of a file with their places, those within others too.
pub(super) fn every_message(file: &FileDescriptor, each: &mut impl FnMut(&[usize], &MessageDescriptor)) {
    fn inside(
        messages: impl Iterator<Item = MessageDescriptor>,
        place: &mut Vec<usize>,
        each: &mut dyn FnMut(&[usize], &MessageDescriptor),
    ) {
        for (index, message) in messages.enumerate() {
            place.push(index);
            each(place, &message);
            inside(message.child_messages().collect::<Vec<_>>().into_iter(), place, each);
            place.pop();
        }
    }
    inside(file.messages(), &mut Vec::new(), each);
}

/// The message of that name.
pub(super) fn by_name(file: &FileDescriptor, name: &str) -> Result<MessageDescriptor, String> {
    let found = file.parent_pool().get_message_by_name(name);
    found.ok_or_else(|| format!("there is no message `{name}`; it has {}", names(file)))
}

/// The only message of a file.
pub(super) fn only(file: &FileDescriptor) -> Result<MessageDescriptor, String> {
    let mut messages = file.messages();
    match (messages.next(), messages.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err("it has no message".to_owned()),
        (Some(_), Some(_)) => {
            Err(format!("it has several messages: {}; name one with `message`", names(file)))
        }
    }
}

fn names(file: &FileDescriptor) -> String {
    let names: Vec<_> = file.messages().map(|message| format!("`{}`", message.full_name())).collect();
    names.join(", ")
}
