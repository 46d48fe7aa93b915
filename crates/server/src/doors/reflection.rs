//! Server reflection (`grpc.reflection.v1`): what clients without the protos ask to learn of services and messages.
//!
//! The protocol answers each question on a stream by itself, with an `ErrorResponse` if it can't: a tool that asks for one symbol
//! too many goes on with the next. `tonic-reflection`'s own service ends the stream instead, and keeps its index to itself, so the
//! service is written here over that crate's generated messages. `v1alpha` is the same on the wire, and is served by the same
//! service under its other name ([`Alpha`]).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Uri};
use prost::{DecodeError, Message};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use ringfort_proto::status;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Told;
use tonic_reflection::pb::v1::server_reflection_server::{ServerReflection, ServerReflectionServer};
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FILE_DESCRIPTOR_SET, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use tonic_reflection::pb::v1alpha;
use tower_service::Service;

/// The service's name before it was `v1`.
const ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
/// The one method, under both names.
const METHOD: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const ALPHA_METHOD: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// The service for a port that tells of these services, described by these encoded `FileDescriptorSet`s.
pub(super) fn service(
    services: impl Iterator<Item = &'static str>,
    descriptors: &[&[u8]],
) -> Result<ServerReflectionServer<Reflection>, DecodeError> {
    let mut index = Index::default();
    for set in descriptors.iter().chain(&[FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET]) {
        for file in FileDescriptorSet::decode(*set)?.file {
            index.add(&file);
        }
    }
    // Whichever of its two names it was asked by.
    let own = [ServerReflectionServer::<Reflection>::NAME, ALPHA];
    index.services = services.chain(own).map(|name| ServiceResponse { name: name.into() }).collect();
    Ok(ServerReflectionServer::new(Reflection(Arc::new(index))))
}

/// What can be asked for. Files are encoded.
#[derive(Debug, Default)]
struct Index {
    services: Vec<ServiceResponse>,
    files: HashMap<String, Bytes>,
    /// The file of each symbol, by its full name.
    symbols: HashMap<String, Bytes>,
}

impl Index {
    fn add(&mut self, file: &FileDescriptorProto) {
        let encoded = Bytes::from(file.encode_to_vec());
        if self.files.insert(file.name().to_owned(), encoded.clone()).is_some() {
            return;
        }
        let mut symbol = |name| self.symbols.insert(name, encoded.clone());
        for service in &file.service {
            let of_service = full(file.package(), service.name());
            for method in &service.method {
                symbol(full(&of_service, method.name()));
            }
            symbol(of_service);
        }
        add_types(file.package(), &file.message_type, &file.enum_type, &mut symbol);
    }

    fn answer(&self, asked: Option<&MessageRequest>) -> Told {
        let file = |file: Option<&Bytes>, what: &str, name: &str| match file {
            Some(file) => {
                let file_descriptor_proto = vec![file.to_vec()];
                Told::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
            }
            None => error(Code::NotFound, format!("there is no {what} \"{}\" here", name.escape_debug())),
        };
        match asked {
            Some(MessageRequest::FileByFilename(name)) => file(self.files.get(name), "file", name),
            Some(MessageRequest::FileContainingSymbol(name)) => file(self.symbols.get(name), "symbol", name),
            Some(MessageRequest::FileContainingExtension(extension)) => {
                let name = &extension.containing_type;
                error(Code::NotFound, format!("\"{}\" has no extensions here", name.escape_debug()))
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) if self.symbols.contains_key(name) => {
                let none = ExtensionNumberResponse { base_type_name: name.clone(), ..Default::default() };
                Told::AllExtensionNumbersResponse(none)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => file(None, "type", name),
            Some(MessageRequest::ListServices(_)) => {
                Told::ListServicesResponse(ListServiceResponse { service: self.services.clone() })
            }
            None => error(Code::InvalidArgument, "a question without a request: set one".into()),
        }
    }
}

/// Messages and enums of a scope, with all that is in them. An enum's values stand beside it.
fn add_types(
    scope: &str,
    messages: &[DescriptorProto],
    enums: &[EnumDescriptorProto],
    symbol: &mut impl FnMut(String) -> Option<Bytes>,
) {
    for message in messages {
        let of_message = full(scope, message.name());
        add_types(&of_message, &message.nested_type, &message.enum_type, symbol);
        let fields = message.field.iter().map(prost_types::FieldDescriptorProto::name);
        for name in fields.chain(message.oneof_decl.iter().map(prost_types::OneofDescriptorProto::name)) {
            symbol(full(&of_message, name));
        }
        symbol(of_message);
    }
    for an_enum in enums {
        symbol(full(scope, an_enum.name()));
        for value in &an_enum.value {
            symbol(full(scope, value.name()));
        }
    }
}

fn full(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn error(code: Code, error_message: String) -> Told {
    Told::ErrorResponse(ErrorResponse { error_code: code.into(), error_message })
}

/// The service.
#[derive(Debug)]
pub(super) struct Reflection(Arc<Index>);

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        call: tonic::Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, Status> {
        let index = self.0.clone();
        let answers = call.into_inner().map(move |asked| {
            let asked = asked.map_err(status::from_transport)?;
            let told = index.answer(asked.message_request.as_ref());
            Ok(ServerReflectionResponse {
                valid_host: asked.host.clone(),
                original_request: Some(asked),
                message_response: Some(told),
            })
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

/// A service of `v1`, under the name that it had before.
#[derive(Clone, Debug)]
pub(super) struct Alpha<S>(pub(super) S);

impl<S> NamedService for Alpha<S> {
    const NAME: &'static str = ALPHA;
}

impl<S> Service<Request<Body>> for Alpha<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        if request.uri().path() == ALPHA_METHOD {
            *request.uri_mut() = Uri::from_static(METHOD);
        }
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_found_and_all_else_is_an_answer_too() {
        let mut index = Index::default();
        for file in FileDescriptorSet::decode(ringfort_proto::DESCRIPTORS).unwrap().file {
            index.add(&file);
        }
        let is_found = |asked| !matches!(index.answer(Some(&asked)), Told::ErrorResponse(_));
        for symbol in [
            "ringfort.v1.KV",
            "ringfort.v1.KV.Get",
            "ringfort.v1.GetRequest",
            "ringfort.v1.GetRequest.key",
            "ringfort.v1.Condition.must",
            "ringfort.v1.Consistency",
            "ringfort.v1.CONSISTENCY_STALE",
            "grpc.health.v1.HealthCheckResponse.ServingStatus",
            "grpc.health.v1.HealthCheckResponse.NOT_SERVING",
        ] {
            assert!(is_found(MessageRequest::FileContainingSymbol(symbol.into())), "{symbol}");
        }
        assert!(is_found(MessageRequest::FileByFilename("ringfort/v1/kv.proto".into())));
        assert!(is_found(MessageRequest::AllExtensionNumbersOfType("ringfort.v1.GetRequest".into())));
        for asked in [
            MessageRequest::FileContainingSymbol("ringfort.v1.Nothing".into()),
            MessageRequest::FileContainingSymbol(String::new()),
            MessageRequest::FileByFilename("ringfort/internal/v1/peer.proto".into()),
            MessageRequest::AllExtensionNumbersOfType("no.type".into()),
        ] {
            assert!(!is_found(asked.clone()), "{asked:?}");
        }
    }
}
