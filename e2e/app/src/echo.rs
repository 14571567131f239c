//! The gRPC Echo service: messages and glue written by hand, so that no protoc is needed.
//!
//! ```proto
//! package meshwright.test;
//! service Echo {
//!   rpc Say(EchoRequest) returns (EchoReply);
//!   rpc Converse(stream EchoRequest) returns (stream EchoReply);
//! }
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::answer::Answer;
use crate::grpc::{Route, clip};
use crate::serve::App;

/// Full name of the service, the first segment of its paths.
pub const SERVICE: &str = "meshwright.test.Echo";
const SAY: &str = "/meshwright.test.Echo/Say";
const CONVERSE: &str = "/meshwright.test.Echo/Converse";

#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoRequest {
    #[prost(string, tag = "1")]
    pub message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct EchoReply {
    #[prost(string, tag = "1")]
    pub message: String,
    #[prost(string, tag = "2")]
    pub service: String,
    #[prost(string, tag = "3")]
    pub version: String,
    #[prost(string, tag = "4")]
    pub pod: String,
    #[prost(string, tag = "5")]
    pub peer: String,
    #[prost(btree_map = "string, string", tag = "6")]
    pub headers: BTreeMap<String, String>,
    /// What this service called in its turn, as JSON.
    #[prost(string, tag = "7")]
    pub calls: String,
}

impl From<EchoReply> for Answer {
    fn from(reply: EchoReply) -> Self {
        Self {
            service: reply.service,
            version: reply.version,
            pod: reply.pod,
            protocol: "gRPC".to_owned(),
            peer: reply.peer,
            headers: reply.headers,
            body: reply.message,
            calls: serde_json::from_str(&reply.calls).unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// The replies of a conversation.
pub type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

/// The server's side.
#[derive(Clone)]
pub struct Echo {
    app: Arc<App>,
}

impl Echo {
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    fn reply<T>(&self, request: &Request<T>) -> EchoReply {
        self.app.count_request();
        let headers = request.metadata().clone().into_headers();
        let answer = Answer::to(&self.app.who, request.remote_addr(), &headers);
        EchoReply {
            message: String::new(),
            service: answer.service,
            version: answer.version,
            pod: answer.pod,
            peer: answer.peer,
            headers: answer.headers,
            calls: String::new(),
        }
    }
}

impl Route for Echo {
    const NAME: &'static str = SERVICE;

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
        match request.uri().path() {
            SAY => grpc.unary(Say(self), request).await,
            CONVERSE => grpc.streaming(Converse(self), request).await,
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

struct Say(Echo);

impl tonic::server::UnaryService<EchoRequest> for Say {
    type Response = EchoReply;
    type Future = Pin<Box<dyn Future<Output = Result<Response<EchoReply>, Status>> + Send>>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let (app, reply) = (self.0.app.clone(), self.0.reply(&request));
        Box::pin(async move {
            let headers = request.metadata().clone().into_headers();
            let calls = app.call_onward(&app.onward, &headers).await;
            if let Some(call) = calls.iter().find(|call| !call.ok) {
                let error = call.error.as_deref().unwrap_or(&call.status);
                return Err(Status::unavailable(format!("{}: {error}", call.url)));
            }
            let calls = serde_json::to_string(&calls).unwrap_or_default();
            Ok(Response::new(EchoReply { message: request.into_inner().message, calls, ..reply }))
        })
    }
}

struct Converse(Echo);

impl tonic::server::StreamingService<EchoRequest> for Converse {
    type Response = EchoReply;
    type ResponseStream = Replies;
    type Future = std::future::Ready<Result<Response<Replies>, Status>>;

    fn call(&mut self, request: Request<Streaming<EchoRequest>>) -> Self::Future {
        let reply = self.0.reply(&request);
        let replies = request.into_inner().map(move |message| {
            message.map(|message| EchoReply { message: message.message, ..reply.clone() })
        });
        std::future::ready(Ok(Response::new(Box::pin(replies) as Replies)))
    }
}

/// One unary call.
pub async fn say(channel: Channel, request: Request<String>) -> Result<EchoReply, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(clip)?;
    let request = request.map(|message| EchoRequest { message });
    let path = PathAndQuery::from_static(SAY);
    let codec = ProstCodec::<EchoRequest, EchoReply>::default();
    grpc.unary(request, path, codec).await.map(Response::into_inner)
}

/// A conversation of `turns` messages over one call. Each message waits for the reply to the one
/// before, so a proxy that buffers a stream to its end would stall here and be found out.
pub async fn converse(
    channel: Channel,
    request: Request<String>,
    turns: usize,
) -> Result<EchoReply, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(clip)?;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let text = request.get_ref().clone();
    let message = |turn: usize| EchoRequest { message: format!("{text} {turn}") };
    let gone = || Status::unavailable("the call ended before the conversation did");
    say.send(message(0)).await.map_err(|_| gone())?;
    let request = request.map(|_| tokio_stream::wrappers::ReceiverStream::new(said));
    let path = PathAndQuery::from_static(CONVERSE);
    let codec = ProstCodec::<EchoRequest, EchoReply>::default();
    let mut replies = grpc.streaming(request, path, codec).await?.into_inner();
    for turn in 1..=turns {
        let reply = replies.message().await?.ok_or_else(gone)?;
        if reply.message != message(turn - 1).message {
            return Err(Status::data_loss(format!("turn {turn} was answered `{}`", reply.message)));
        }
        if turn == turns {
            return Ok(reply);
        }
        say.send(message(turn)).await.map_err(|_| gone())?;
    }
    Err(gone())
}
