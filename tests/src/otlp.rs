//! A collector of traces inside the test: what it was sent can be looked at.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::span::SpanKind,
};
use tonic::{Request, Response, Status, transport::Server};

/// A span as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which program sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of its parent; empty for none.
    pub parent: String,
    /// The traces that it has links to.
    pub links: Vec<String>,
    /// The names of its attributes.
    pub attributes: Vec<String>,
}

/// What was sent so far.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Sent>>>);

impl Collector {
    /// Collects what is sent to the address that comes with it, until the process ends.
    ///
    /// # Panics
    /// When no port is free.
    pub fn begin() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(Server::builder().serve(address, service));
        (collector, format!("http://{address}"))
    }

    /// All spans that were sent.
    pub fn spans(&self) -> Vec<Sent> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The spans of a trace.
    pub fn of_trace(&self, trace: &str) -> Vec<Sent> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == trace);
        spans
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut sent = Vec::new();
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service = attributes
                .into_iter()
                .find(|attribute| attribute.key == "service.name");
            let service = service.and_then(|attribute| attribute.value);
            let service = format!("{:?}", service.and_then(|value| value.value));
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                sent.push(Sent {
                    service: service.clone(),
                    kind: span.kind(),
                    name: span.name,
                    trace: hex::encode(&span.trace_id),
                    id: hex::encode(&span.span_id),
                    parent: hex::encode(&span.parent_span_id),
                    links: span
                        .links
                        .iter()
                        .map(|link| hex::encode(&link.trace_id))
                        .collect(),
                    attributes: span
                        .attributes
                        .into_iter()
                        .map(|attribute| attribute.key)
                        .collect(),
                });
            }
        }
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(sent);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
