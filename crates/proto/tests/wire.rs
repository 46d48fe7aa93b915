//! The public protos may grow, and nothing in them may go or become something else: clients' stubs are out there, and can't be changed
//! with us. What they say on the wire is listed in `wire.txt`, a line for each message, field, enum, value and method. Comments, the order
//! of things in a file, and files' names are free.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// How the listing is written anew. It takes what was added only.
const WRITE: &str = "RINGFORT_WRITE_WIRE=1 cargo test --workspace --test wire";

fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let scalar = || {
        let scalar = Type::try_from(field.r#type.unwrap_or_default()).expect("a type");
        format!("{scalar:?}").to_lowercase()
    };
    let named = field.type_name.as_ref().map_or_else(scalar, |name| name.trim_start_matches('.').to_owned());
    let label = match (field.label() == Label::Repeated, field.proto3_optional()) {
        (true, _) => "repeated ",
        (_, true) => "optional ",
        _ => "",
    };
    let one_of = field.oneof_index.filter(|_| !field.proto3_optional());
    let one_of = one_of.map(|at| format!(" of {}", message.oneof_decl[at as usize].name()));
    format!("{label}{named}{}", one_of.unwrap_or_default())
}

fn list_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        lines.insert(format!("field {name}.{} = {} {}", field.name(), field.number(), kind(message, field)));
    }
    message.nested_type.iter().for_each(|inner| list_message(&name, inner, lines));
    message.enum_type.iter().for_each(|inner| list_enum(&name, inner, lines));
}

fn list_enum(scope: &str, of: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", of.name());
    lines.insert(format!("enum {name}"));
    for value in &of.value {
        lines.insert(format!("value {name}.{} = {}", value.name(), value.number()));
    }
}

fn listing(files: &FileDescriptorSet) -> BTreeSet<String> {
    let side = |streams: bool, of: &str| {
        format!("{}{}", if streams { "stream " } else { "" }, of.trim_start_matches('.'))
    };
    let mut lines = BTreeSet::new();
    for file in files.file.iter().filter(|file| !file.package().starts_with("google.")) {
        let package = file.package();
        file.message_type.iter().for_each(|message| list_message(package, message, &mut lines));
        file.enum_type.iter().for_each(|of| list_enum(package, of, &mut lines));
        for service in &file.service {
            for method in &service.method {
                let asked = side(method.client_streaming(), method.input_type());
                let answered = side(method.server_streaming(), method.output_type());
                let name = format!("{package}.{}/{}", service.name(), method.name());
                lines.insert(format!("method {name} ({asked}) returns ({answered})"));
            }
        }
    }
    lines
}

#[test]
fn the_public_protos_only_grow() {
    let files = FileDescriptorSet::decode(ringfort_proto::DESCRIPTORS).expect("compiled with this crate");
    let now = listing(&files);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire.txt");
    let before = std::fs::read_to_string(&path).expect("it is beside Cargo.toml");
    let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
    let gone: Vec<_> = before.difference(&now).collect();
    assert!(
        gone.is_empty(),
        "clients rely on what the public protos don't say any more: put it back, and add what is new beside it: {gone:#?}"
    );
    let new: Vec<_> = now.difference(&before).collect();
    if std::env::var_os("RINGFORT_WRITE_WIRE").is_some() {
        let text = now.iter().cloned().collect::<Vec<_>>().join("\n") + "\n";
        std::fs::write(&path, text).expect("it can be written");
    } else {
        assert!(
            new.is_empty(),
            "new in the public protos, and there for good once it is listed: {WRITE}\n{new:#?}"
        );
    }
}
